"""Where batches of questions are measured. Knows scorers; neither halving nor the ledger.

Workers answer and write nothing: who takes an answer records it. So a ledger has one writer, and a worker that dies
takes nothing along but the batch in its hands.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from lorauter_integrations.errors import MappingError
from lorauter_integrations.matching.scoring import Scorer
from lorauter_integrations.task import Example, Task


@dataclass(frozen=True, slots=True)
class Batch:
    """Questions that are answered together: one forward batch of one task.

    Attributes:
        number: unique within a run.
        score: which scorer, such as "metric" or "log_likelihood".
        task: the task of all questions.
        pairs: (adapter name or BASE, example).
    """

    number: int
    score: str
    task: Task
    pairs: tuple[tuple[str, Example], ...]


ScorerFactory: TypeAlias = Callable[[], Mapping[str, Scorer]]
"""Makes a worker's scorers, by name; called once in each. A function of a module, or a `functools.partial` of one."""


class Workers(ABC):
    """Where batches are measured, for one thread; a context manager that closes itself.

    Nothing is written here: record each answer as it is taken.
    """

    @property
    @abstractmethod
    def slots(self) -> int:
        """How many batches it likes to have in flight, at least 1."""

    @abstractmethod
    def submit(self, batch: Batch) -> None:
        """Have a batch measured; does not wait.

        Raises:
            MappingError: closed.
        """

    @abstractmethod
    def take(self) -> tuple[Batch, list[float]]:
        """Wait for a batch that has been measured, in any order.

        Raises:
            IndexError: none is in flight.
            MappingError: three workers died with the same batch, or at the start.
            Exception: of the scorer, after which the other batches go on, or of the factory, after which all is
                closed; its cause is the worker's traceback.
        """

    @abstractmethod
    def close(self) -> None:
        """End all workers, whatever they do; a second call does nothing."""

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class InProcess(Workers):
    """One batch after the other, measured in `take` with scorers of this process.

    Args:
        scorers: by name.
    """

    def __init__(self, scorers: Mapping[str, Scorer]) -> None:
        self._scorers = scorers
        self._waiting: deque[Batch] = deque()
        self._open = True

    @property
    def slots(self) -> int:
        """One."""
        return 1

    def submit(self, batch: Batch) -> None:
        """Keep the batch for `take`."""
        must_be_open(self._open)
        self._waiting.append(batch)

    def take(self) -> tuple[Batch, list[float]]:
        """Measure the oldest batch."""
        if not self._waiting:
            raise IndexError("no batch is in flight")
        batch = self._waiting.popleft()
        return batch, measure(self._scorers, batch)

    def close(self) -> None:
        """Forget what is waiting; the scorers are the caller's."""
        self._open = False
        self._waiting.clear()


def measure(scorers: Mapping[str, Scorer], batch: Batch) -> list[float]:
    """The scores of a batch's pairs."""
    return scorers[batch.score].score(batch.task, batch.pairs)


def must_be_open(is_open: bool) -> None:
    """Raises `MappingError` when it is not."""
    if not is_open:
        raise MappingError("the workers are closed")
