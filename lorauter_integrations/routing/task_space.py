"""The spaces in which texts are compared with tasks. Knows vectors; nothing of texts, Chroma or adapters.

Notation: x an example's vector, m_t the mean of task t's examples, S the scatter of the examples about their task's
mean, P the precision (inverse covariance) that whitens. The similarity of x and task t is the cosine in the space:
``x' P m_t / sqrt(x' P x * m_t' P m_t)``, with x and m_t taken from a common centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from lorauter_integrations.errors import ConfigError
from lorauter_integrations.routing.encoder import Vectors
from lorauter_integrations.routing.known_tasks import KnownTasks
from lorauter_integrations.routing.views import Embedded

Matrix: TypeAlias = npt.NDArray[np.float64]
Places: TypeAlias = npt.NDArray[np.int64]
Cosines = TypeVar("Cosines", bound=npt.NDArray[Any])

SHRINKAGES = (0.005, 0.02, 0.05, 0.1, 0.3, 1.0)  # 1 is the plain cosine about the centre
MOST_LEFT_OUT = 3000  # examples that are left out one by one; of more, that many from all over them
LEAST_ENDINGS = 5  # of a task's examples, for a vector of their endings


@dataclass(frozen=True, slots=True)
class LeftOut:
    """How near examples come to the tasks when each is left out of its own.

    Attributes:
        similarities: *Shape:* ``(examples, tasks)``.
        own: the place of each example's task. *Shape:* ``(examples,)``.
        beside: how near they come to other vectors. *Shape:* ``(examples, others)``.
    """

    similarities: Matrix
    own: npt.NDArray[np.int64]
    beside: Matrix

    def log_likelihood(self, temperature: float) -> float:
        """Mean over the examples of the log of their own task's ``softmax(similarity / temperature)``."""
        scaled = self.similarities / temperature
        most = scaled.max(axis=1)
        rest = np.log(np.exp(scaled - most[:, None]).sum(axis=1))
        return float((scaled[np.arange(len(self.own)), self.own] - most - rest).mean())

    def best_temperature(self) -> float:
        """The temperature of the highest likelihood, within 15 percent."""
        candidates = np.geomspace(0.005, 2.0, 13)
        for _ in range(2):
            at = int(np.argmax([self.log_likelihood(float(each)) for each in candidates]))
            best = float(candidates[at])
            candidates = np.geomspace(candidates[max(at - 1, 0)], candidates[min(at + 1, len(candidates) - 1)], 9)
        return best


class TaskSpace:
    """A space with the tasks in it.

    A task has a vector of its examples, and one of the endings of those that are long. A longer text is compared with
    both, its whole with the one and its ending with the other, and the mean of the two cosines counts.

    Args:
        within: the tasks' examples about their means.
        shrinkage: how much of the whitening is taken back, in (0, 1]; at 1 nothing is whitened.

    Attributes:
        endings: whether texts' endings are looked at.
    """

    endings = True

    def __init__(self, within: Within, shrinkage: float) -> None:
        self.shrinkage = shrinkage
        self._within = within
        self._centre = within.centre.astype(np.float32)
        self._root = _root(within.precision(shrinkage)).astype(np.float32) if shrinkage < 1 else None
        placed = self.place(within.means.astype(np.float32))
        self._tasks, self._ends = placed[: within.tasks], placed[within.tasks :]

    def place(self, vectors: Vectors) -> Vectors:
        """Encoders' vectors as unit vectors of this space. *Shape:* ``(n, dimension)``, and the same."""
        moved = vectors - self._centre
        if self._root is not None:
            moved = moved @ self._root
        lengths = np.linalg.norm(moved, axis=-1, keepdims=True)
        return np.asarray(moved / np.maximum(lengths, 1e-12), dtype=np.float32)

    def similarities(self, texts: Embedded) -> Vectors:
        """How near texts come to the tasks, in [-1, 1]. *Shape:* ``(texts, tasks)``."""
        return self.compare(texts)[1]

    def compare(self, texts: Embedded) -> tuple[Vectors, Vectors]:
        """The texts' wholes, placed, and how near the texts come to the tasks."""
        placed = self.place(texts.whole)
        whole: Vectors = np.asarray(placed @ self._tasks.T)
        if not len(texts.long):
            return placed, whole
        endings = self.place(texts.endings) @ self._ends.T
        return placed, joined(whole, endings, texts.long, self._within.with_endings)

    def leave_one_out(self, beside: Vectors | None = None) -> LeftOut | None:
        """The tasks' own examples as if they were new texts; None when none can be left out.

        Args:
            beside: other vectors that their wholes are compared with. *Shape:* ``(others, dimension)``.
        """
        return self._within.leave_one_out(self.shrinkage, beside) if self._within.can_leave_out else None


def joined(whole: Cosines, endings: Any, long: Places, tasks: Places) -> Cosines:
    """The mean of both cosines, where there are two.

    Args:
        whole: of the texts and all tasks. *Shape:* ``(texts, tasks)``.
        endings: of the long texts and the tasks with endings. *Shape:* ``(long texts, tasks with endings)``.
        long: places of the long texts.
        tasks: places of the tasks with endings.
    """
    both: Cosines = whole.copy()
    cells = np.ix_(long, tasks)
    both[cells] = (whole[cells] + endings) / 2
    return both


class Space(Protocol):
    """A way to make a space of tasks. Its repr tells all its parameters."""

    def fit(self, known: KnownTasks) -> TaskSpace:
        """The space of these tasks."""
        ...


@dataclass(frozen=True)
class Mean:
    """The paper's space (arXiv 2601.21795): mean vectors, compared by cosine."""

    def fit(self, known: KnownTasks) -> TaskSpace:
        """The space of these tasks; their examples are read when one is to be left out."""
        return MeanSpace(known)


@dataclass(frozen=True)
class Whitened:
    """The space in which the examples of a task lie about its mean alike in all directions.

    The pooled covariance of the examples within their tasks, shrunk towards a multiple of the identity (Ledoit and
    Wolf 2004, https://doi.org/10.1016/S0047-259X(03)00096-4), is divided out. What varies within tasks, such as the
    topic, so counts less than what tells them apart.

    Attributes:
        shrinkage: in (0, 1]; that of the highest leave-one-out likelihood when None.

    Raises:
        ConfigError: `shrinkage` out of range.
    """

    shrinkage: float | None = None

    def __post_init__(self) -> None:
        if self.shrinkage is not None and not 0 < self.shrinkage <= 1:
            raise ConfigError(f"shrinkage must be above 0 and at most 1, not {self.shrinkage}")

    def fit(self, known: KnownTasks) -> TaskSpace:
        """The space of these tasks."""
        within, shrinkage = Within(known.examples), self.shrinkage
        if shrinkage is None:
            shrinkage = max(SHRINKAGES, key=within.likelihood) if within.can_leave_out else 1.0
        return TaskSpace(within, shrinkage)


class Within:
    """The examples about the means of their tasks, and the endings about those of their task's endings.

    Args:
        examples: the vectors of each task's.
        is_centred: whether all is seen from the mean of the means, or from the origin.

    Attributes:
        tasks: how many there are.
        with_endings: places of the tasks that have a mean of endings.
        means: of the tasks, then of those endings. *Shape:* ``(groups, dimension)``.
        centre: where all is seen from.
    """

    def __init__(self, examples: Sequence[Embedded], *, is_centred: bool = True) -> None:
        self.tasks = len(examples)
        with_endings = [at for at, one in enumerate(examples) if len(one.endings) >= LEAST_ENDINGS]
        self.with_endings: Places = np.array(with_endings, dtype=np.int64)
        groups = [one.whole for one in examples] + [examples[at].endings for at in with_endings]
        self._counts = np.array([len(group) for group in groups])
        self.means: Matrix = np.stack([group.mean(axis=0, dtype=np.float64) for group in groups])
        self.centre: Matrix = self.means.mean(axis=0) * is_centred
        together, group_of = np.concatenate(groups), np.repeat(np.arange(len(groups)), self._counts)
        about = together.astype(np.float64) - self.means[group_of]
        self._freedom = max(len(together) - len(groups), 1)
        self._covariance: Matrix = about.T @ about / self._freedom
        self._level = float(np.trace(self._covariance)) / len(self._covariance)
        self._sample = Sample.of(examples, self.with_endings)

    @property
    def can_leave_out(self) -> bool:
        """Whether there are examples that can be left out, and something to tell apart."""
        return bool(len(self._sample.own)) and self.tasks > 1 and self._level > 0

    def precision(self, shrinkage: float) -> Matrix:
        """The inverse of the shrunk covariance, whose mean variance is 1."""
        size = len(self._covariance)
        if self._level == 0:  # one example a task: nothing varies within
            return np.eye(size)
        shrunk = (1 - shrinkage) * self._covariance / self._level + shrinkage * np.eye(size)
        return np.asarray(np.linalg.inv(shrunk), dtype=np.float64)

    def likelihood(self, shrinkage: float) -> float:
        """The leave-one-out log-likelihood at the best temperature."""
        left_out = self.leave_one_out(shrinkage)
        return left_out.log_likelihood(left_out.best_temperature())

    def leave_one_out(self, shrinkage: float, beside: Vectors | None = None) -> LeftOut:
        """Each example against means and covariance without it, exactly but for the centre and the level.

        Its whole and its ending are left out one at a time.
        """
        sample, precision = self._sample, self.precision(shrinkage)
        points = self.means if beside is None else np.concatenate([self.means, beside])
        whole = self._without(sample.whole, sample.own, points, precision, shrinkage)
        beside_them = whole[:, len(self.means) :]
        tasks = whole[:, : self.tasks]
        if len(sample.long):
            ends = self._without(sample.endings, sample.own_endings, points, precision, shrinkage)
            tasks = joined(tasks, ends[:, self.tasks : len(self.means)], sample.long, self.with_endings)
        return LeftOut(tasks, sample.own, beside_them)

    def _without(self, x: Matrix, own: Places, points: Matrix, precision: Matrix, shrinkage: float) -> Matrix:
        """Cosines of vectors and points, each vector left out of its own group; -1 is one that is in none.

        To leave x out of a group of n moves its mean from m to ``m - u / (n - 1)`` with ``u = x - m``, and takes
        ``n / (n - 1) u u'`` from the scatter. By Sherman and Morrison (1950) the precision becomes
        ``P + k (P u)(P u)'`` with ``k = a / (1 - a u' P u)``. Nothing is inverted again.
        """
        x, points = x - self.centre, points - self.centre
        is_in, rows = own >= 0, np.arange(len(x))
        u = np.where(is_in[:, None], x - points[own], 0.0)
        n = np.where(is_in, self._counts[own], 2).astype(np.float64)
        xp, up = x @ precision, u @ precision
        along, across = xp @ points.T, up @ points.T  # x' P m and u' P m
        uu, xu, xx = (up * u).sum(1), (xp * u).sum(1), (xp * x).sum(1)
        a = (1 - shrinkage) / (self._freedom * self._level) * n / (n - 1)
        k = a / np.maximum(1 - a * uu, 1e-9)
        products = along + (k * xu)[:, None] * across
        squares = ((points @ precision) * points).sum(1)[None] + k[:, None] * across**2
        grown = 1 + k * uu
        products[rows, own] -= xu * grown / (n - 1)
        squares[rows, own] += uu * grown / (n - 1) ** 2 - 2 * across[rows, own] * grown / (n - 1)
        return np.asarray(products / np.sqrt(np.maximum((xx + k * xu**2)[:, None] * squares, 1e-24)))


@dataclass(frozen=True, eq=False)
class Sample:
    """The examples that are left out one by one.

    Attributes:
        whole: their vectors. *Shape:* ``(examples, dimension)``.
        own: the place of each one's task.
        endings: the vectors of the long ones' endings.
        long: the places of the long ones among the examples.
        own_endings: the place of each ending's group among all groups; -1 where its task has none.
    """

    whole: Matrix
    own: Places
    endings: Matrix
    long: Places
    own_endings: Places

    @classmethod
    def of(cls, examples: Sequence[Embedded], with_endings: Places) -> Sample:
        """From all over the examples of tasks that have more than one."""
        group = dict(zip(with_endings.tolist(), range(len(examples), len(examples) + len(with_endings)), strict=True))
        places = [(at, row) for at, one in enumerate(examples) if len(one) > 1 for row in range(len(one))]
        kept = [places[at] for at in np.linspace(0, len(places) - 1, min(len(places), MOST_LEFT_OUT)).astype(int)]
        ending_of = [dict(zip(one.long.tolist(), one.endings, strict=True)) for one in examples]
        long = [number for number, (at, row) in enumerate(kept) if row in ending_of[at]]
        dimension = examples[0].whole.shape[1]
        return cls(
            np.array([examples[at].whole[row] for at, row in kept], dtype=np.float64).reshape(-1, dimension),
            np.array([at for at, _ in kept], dtype=np.int64),
            np.array([ending_of[kept[n][0]][kept[n][1]] for n in long], dtype=np.float64).reshape(-1, dimension),
            np.array(long, dtype=np.int64),
            np.array([group.get(kept[n][0], -1) for n in long], dtype=np.int64),
        )


class MeanSpace(TaskSpace):
    """See `Mean`. Routing in it reads no examples."""

    endings = False

    def __init__(self, known: KnownTasks) -> None:
        self.shrinkage = 1.0
        self._centre = np.zeros(known.vectors.shape[1], dtype=np.float32)
        self._root = None
        self._tasks = known.vectors
        self._known = known

    def leave_one_out(self, beside: Vectors | None = None) -> LeftOut | None:
        """The tasks' own examples as if they were new texts; None when none can be left out."""
        wholes = [replace(one, endings=one.endings[:0], long=one.long[:0]) for one in self._known.examples]
        within = Within(wholes, is_centred=False)
        return within.leave_one_out(1.0, beside) if within.can_leave_out else None


def _root(precision: Matrix) -> Matrix:
    values, directions = np.linalg.eigh(precision)
    return np.asarray((directions * np.sqrt(np.maximum(values, 0.0))) @ directions.T)
