"""The mapped tasks at one moment, as values that a router is fitted on. Knows vectors; nothing of Chroma."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from lorauter_integrations.adapter_map import AdapterMap, Ranking
from lorauter_integrations.digests import digest
from lorauter_integrations.routing.encoder import Encoder, Vectors, mean_vector
from lorauter_integrations.routing.views import Embedded, embed
from lorauter_integrations.task import Task


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A mapped task near a text: its name, the cosine similarity, its ranking."""

    task: str
    similarity: float
    ranking: Ranking


@dataclass(frozen=True, eq=False)
class KnownTasks:
    """The mapped tasks, by name, with their vectors.

    Attributes:
        rankings: of the tasks, sorted by the task's name.
        vectors: unit mean vectors in the same order. *Shape:* ``(tasks, dimension)``.
        read_examples: gives the vectors of each task's examples, in the same order; asked once, when a space or
            weights are fitted.
        total: tasks in all, those without a ranking included.
        version: changes when the tasks do.
    """

    rankings: Sequence[Ranking]
    vectors: Vectors
    read_examples: Callable[[], Sequence[Embedded]]
    total: int
    version: str

    @cached_property
    def names(self) -> Sequence[str]:
        """The tasks' names, sorted."""
        return [ranking.task for ranking in self.rankings]

    @cached_property
    def examples(self) -> Sequence[Embedded]:
        """The vectors of each task's examples."""
        return self.read_examples()

    def __len__(self) -> int:
        return len(self.rankings)

    def nearest(self, vector: Vectors, k: int) -> list[Neighbour]:
        """The k tasks whose mean vectors are nearest by cosine, nearest first, ties by name. An exact search."""
        if not len(self):
            return []
        similarities = self.vectors @ vector
        return [
            Neighbour(self.names[at], float(similarities[at]), self.rankings[at])
            for at in nearest_places(similarities, k)
        ]

    def without(self, names: Collection[str]) -> KnownTasks:
        """The same without some tasks."""
        kept = [at for at, name in enumerate(self.names) if name not in names]
        return KnownTasks(
            [self.rankings[at] for at in kept],
            self.vectors[kept],
            lambda: [self.examples[at] for at in kept],
            self.total - (len(self) - len(kept)),
            digest([self.version, sorted(names)]),
        )


class TaskSource(Protocol):
    """Whatever tells the mapped tasks of the moment, and places texts among them."""

    @property
    def encoder(self) -> Encoder:
        """Places texts among the tasks."""
        ...

    def known(self) -> KnownTasks:
        """The mapped tasks now; the very same object as long as nothing has changed."""
        ...


class FixedTasks:
    """Mapped tasks that do not change, in memory; for evaluations and experiments.

    Args:
        encoder: places texts among them.
        known: the tasks.
    """

    def __init__(self, encoder: Encoder, known: KnownTasks) -> None:
        self.encoder = encoder
        self._known = known

    @classmethod
    def of(cls, encoder: Encoder, tasks: Sequence[Task], rankings: AdapterMap, *, endings: bool = True) -> FixedTasks:
        """The tasks that have a ranking, embedded now; without `endings` for spaces that do not look at them."""
        mapped = sorted((task for task in tasks if task.name in rankings), key=lambda task: task.name)
        examples = [embed_examples(encoder, task, endings=endings) for task in mapped]
        known = KnownTasks(
            [rankings[task.name] for task in mapped],
            np.stack([mean_vector(one.whole) for one in examples]) if mapped else np.empty((0, 0), np.float32),
            lambda: examples,
            len(tasks),
            digest([encoder.name, *(task.content_hash for task in mapped)]),
        )
        return cls(encoder, known)

    def known(self) -> KnownTasks:
        """The mapped tasks."""
        return self._known


def embed_examples(encoder: Encoder, task: Task, *, endings: bool = True) -> Embedded:
    """The vectors of a task's examples, and of the endings of long ones."""
    return embed(encoder, [example.text for example in task.examples], endings=endings)


def nearest_places(similarities: Any, k: int) -> list[int]:
    """Places of the k largest values, largest first; equal ones (to 6 digits) in their order."""
    rounded = np.round(similarities, 6)
    if k < len(rounded):  # whole groups of equals, of which the sort takes the first
        least = np.partition(rounded, -k)[-k]
        places = np.flatnonzero(rounded >= least)
    else:
        places = np.arange(len(rounded))
    order = np.argsort(-rounded[places], kind="stable")
    return [int(at) for at in places[order][:k]]
