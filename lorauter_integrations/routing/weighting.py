"""How the tasks near a text share its weight. Knows numbers only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from lorauter_integrations.errors import ConfigError
from lorauter_integrations.routing.known_tasks import nearest_places
from lorauter_integrations.routing.task_space import LeftOut

PAPER_K, PAPER_TEMPERATURE = 3, 0.2
LEAST_SHARE = 0.01

Shares: TypeAlias = list[tuple[int, float]]
"""Places of tasks and their weights, nearest first; the weights add up to 1, and some may be 0."""


class Sharing(Protocol):
    """A fitted way to share: from similarities, *shape* ``(tasks,)``, to places and weights."""

    def __call__(self, similarities: Any) -> Shares:
        """The shares."""
        ...


class Weighting(Protocol):
    """A way to share a text's weight. Its repr tells all its parameters."""

    def fit(self, left_out: Callable[[], LeftOut | None]) -> Sharing:
        """Ready for a set of tasks.

        Args:
            left_out: how near their examples come to them; None when no example can be left out.
        """
        ...


@dataclass(frozen=True)
class Softmax:
    """The K nearest share by ``softmax(similarity / temperature)`` (arXiv 2601.21795, section on routing).

    Attributes:
        k: tasks that share, at least 1.
        temperature: above 0; fitted to the tasks' own examples when None.
        least: smaller shares go to the others; an adapter that hardly counts costs as much as any.

    Raises:
        ConfigError: out of range.
    """

    k: int = PAPER_K
    temperature: float | None = None
    least: float = LEAST_SHARE

    def __post_init__(self) -> None:
        _check(self.k, self.temperature)

    def fit(self, left_out: Callable[[], LeftOut | None]) -> Sharing:
        """Ready for a set of tasks."""
        temperature = _fitted(self.temperature, left_out)

        def share(similarities: Any) -> Shares:
            places = nearest_places(similarities, self.k)
            return list(zip(places, cut_softmax(similarities[places], temperature, self.least), strict=True))

        return share


@dataclass(frozen=True)
class Uniform:
    """The K nearest share alike.

    Raises:
        ConfigError: `k` is below 1.
    """

    k: int = PAPER_K

    def __post_init__(self) -> None:
        _check(self.k, None)

    def fit(self, left_out: Callable[[], LeftOut | None]) -> Sharing:
        """Ready for a set of tasks; nothing is fitted."""

        def share(similarities: Any) -> Shares:
            places = nearest_places(similarities, self.k)
            return [(place, 1 / len(places)) for place in places]

        return share


@dataclass(frozen=True)
class Nucleus:
    """As many of the nearest share as hold a mass of the softmax over all tasks: one when it is sure, more when not.

    The nucleus of Holtzman et al. 2020 (arXiv 1904.09751), of tasks instead of tokens.

    Attributes:
        mass: in (0, 1].
        most: tasks that share at most, at least 1.
        temperature: above 0; fitted to the tasks' own examples when None.

    Raises:
        ConfigError: out of range.
    """

    mass: float = 0.9
    most: int = 8
    temperature: float | None = None

    def __post_init__(self) -> None:
        _check(self.most, self.temperature)
        if not 0 < self.mass <= 1:
            raise ConfigError(f"mass must be above 0 and at most 1, not {self.mass}")

    def fit(self, left_out: Callable[[], LeftOut | None]) -> Sharing:
        """Ready for a set of tasks."""
        temperature = _fitted(self.temperature, left_out)

        def share(similarities: Any) -> Shares:
            probabilities = np.asarray(softmax(similarities, temperature))
            places = nearest_places(similarities, self.most)
            held = np.cumsum(probabilities[places])
            places = places[: int(np.searchsorted(held, self.mass - 1e-9)) + 1]
            return list(zip(places, softmax(similarities[places], temperature), strict=True))

        return share


def softmax(similarities: Sequence[float] | Any, temperature: float) -> list[float]:
    """``exp(s_k / t) / sum_j exp(s_j / t)``, the paper's weights of the retrieved tasks."""
    scaled = np.asarray(similarities, dtype=np.float64) / temperature
    shares = np.exp(scaled - scaled.max())
    return [float(share) for share in shares / shares.sum()]


def cut_softmax(values: Sequence[float] | Any, temperature: float, least: float = LEAST_SHARE) -> list[float]:
    """`softmax`, in which weights below `least` are 0 and go to the others; the heaviest stay, however many share."""
    weights = softmax(values, temperature)
    least = min(least, max(weights))
    kept = sum(weight for weight in weights if weight >= least)
    return [weight / kept if weight >= least else 0.0 for weight in weights]


def _fitted(temperature: float | None, left_out: Callable[[], LeftOut | None]) -> float:
    if temperature is not None:
        return temperature
    found = left_out()  # none of tasks with one example each, or of one task
    return found.best_temperature() if found else PAPER_TEMPERATURE


def _check(k: int, temperature: float | None) -> None:
    if k < 1 or (temperature is not None and temperature <= 0):
        raise ConfigError(f"k must be at least 1 and temperature above 0, not k={k}, temperature={temperature}")
