"""Workers with a model each, which may die at any time. Knows what is asked of a worker, not what one is."""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from lorauter_integrations.errors import MappingError
from lorauter_integrations.matching.scoring import Scorer
from lorauter_integrations.matching.workers import Batch, ScorerFactory, Workers, measure, must_be_open

DEATHS = 3  # of workers with one and the same batch: then the batch is to blame
AHEAD = 2  # batches in flight a worker: it gets the next one before the caller asks for more


class WorkerTraceback(Exception):  # noqa: N818  a cause to be shown, never raised by itself
    """Where an error was raised in a worker, as text."""

    def __str__(self) -> str:
        return f"in a worker\n{self.args[0]}"


@dataclass(frozen=True, slots=True)
class Reply:
    """What a worker sends: scores (none when it has just started), or the error that it met."""

    scores: list[float] = field(default_factory=list)
    error: Exception | None = None
    trace: str = ""

    def result(self) -> list[float]:
        """The scores, or the error raised."""
        if self.error:
            raise self.error from WorkerTraceback(self.trace)
        return self.scores


@dataclass(frozen=True, slots=True)
class Death:
    """A worker is no more."""

    reason: str


class Desk:
    """What is done within a worker: one set of scorers, and replies instead of errors.

    Args:
        threads: of the process for its arithmetic.
    """

    def __init__(self, threads: int) -> None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
        if "torch" in sys.modules:  # of the caller's main script, which spawned processes import first of all
            sys.modules["torch"].set_num_threads(threads)
        self._scorers: Mapping[str, Scorer] = {}

    def start(self, factory: ScorerFactory) -> Reply:
        """Make the scorers."""
        return _attempt(lambda: self._open(factory))

    def measure(self, batch: Batch) -> Reply:
        """Answer a batch."""
        return _attempt(lambda: measure(self._scorers, batch))

    def _open(self, factory: ScorerFactory) -> list[float]:
        self._scorers = factory()
        return []


def _attempt(work: Callable[[], list[float]]) -> Reply:
    try:
        return Reply(work())
    except Exception as error:  # noqa: BLE001  the scorer's or the factory's; it is raised where the answer is taken
        return Reply(error=_portable(error), trace=traceback.format_exc())


def _portable(error: Exception) -> Exception:
    """The error itself if it survives a journey between processes, else one that names it."""
    try:
        return pickle.loads(pickle.dumps(error))  # type: ignore[no-any-return]  # noqa: S301  our own bytes
    except Exception:  # noqa: BLE001  a foreign error's own code, which may fail in any way
        return MappingError(f"{type(error).__name__} in a worker: {error}")


@dataclass(eq=False, slots=True)
class Worker:
    """A worker as its employer sees it.

    Attributes:
        ready: its factory has run.
        batch: in its hands.
        failed_starts: reasons why its predecessors ended before they were ready.
    """

    ready: bool = False
    batch: Batch | None = None
    failed_starts: tuple[str, ...] = ()


W = TypeVar("W", bound=Worker)


class Crew(Workers, Generic[W]):
    """A fixed number of workers, each with a model of its own.

    One that dies is replaced, and the batch in its hands is measured anew; three deaths in a row with one batch, or
    at the start, are an error.
    What a worker is (a process, an actor on another machine) is said by `_start`, `_give`, `_listen` and `_end`.

    Args:
        count: of workers.

    Raises:
        MappingError: fewer than one worker.
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            raise MappingError(f"{count} workers cannot measure anything", hint="ask for at least one")
        self._count = count
        self._workers: list[W] = []
        self._waiting: deque[Batch] = deque()
        self._done: deque[tuple[Batch, Reply]] = deque()
        self._deaths: dict[int, list[str]] = {}  # by the batch's number

    @abstractmethod
    def _start(self) -> W:
        """Begin to start a worker, whose first reply says that its factory has run."""

    @abstractmethod
    def _give(self, worker: W, batch: Batch) -> None:
        """Let it measure a batch; its next reply is the answer."""

    @abstractmethod
    def _listen(self, workers: Sequence[W]) -> Iterator[tuple[W, Reply | Death]]:
        """Wait until at least one has something to say."""

    @abstractmethod
    def _end(self, workers: Sequence[W]) -> None:
        """End workers, whatever they do; dead ones too."""

    @property
    def slots(self) -> int:
        """Two for each worker, so that none waits for the caller."""
        return AHEAD * self._count

    def submit(self, batch: Batch) -> None:
        """Give the batch to a worker, or keep it for the first that is free."""
        must_be_open(bool(self._workers))
        self._waiting.append(batch)
        self._hand_out()

    def take(self) -> tuple[Batch, list[float]]:
        """Wait for any batch."""
        while not self._done:
            if not self._waiting and not any(worker.batch for worker in self._workers):
                raise IndexError("no batch is in flight")
            for worker, news in self._listen(self._workers):
                self._note(worker, news)
            self._hand_out()
        batch, reply = self._done.popleft()
        self._deaths.pop(batch.number, None)
        return batch, reply.result()

    def close(self) -> None:
        """End all workers, whatever they do."""
        workers, self._workers = self._workers, []
        self._waiting.clear()
        self._done.clear()
        self._end(workers)

    def _hire(self) -> None:
        """One by one into the list, so that `close` finds those that have started when a later one fails."""
        for _ in range(self._count):
            self._workers.append(self._start())

    def _hand_out(self) -> None:
        for worker in self._workers:
            if self._waiting and worker.ready and worker.batch is None:
                worker.batch = self._waiting.popleft()
                self._give(worker, worker.batch)

    def _note(self, worker: W, news: Reply | Death) -> None:
        batch, worker.batch = worker.batch, None
        if isinstance(news, Death):
            self._replace(worker, news.reason)
            if batch:
                self._blame(batch, news.reason)
        elif batch:
            self._done.append((batch, news))
        else:
            self._welcome(worker, news)

    def _welcome(self, worker: W, news: Reply) -> None:
        if news.error:
            self.close()
        news.result()
        worker.ready = True

    def _replace(self, worker: W, reason: str) -> None:
        self._workers.remove(worker)
        self._end([worker])
        failed_starts = () if worker.ready else (*worker.failed_starts, reason)
        if len(failed_starts) == DEATHS:
            self.close()
            raise _unable(failed_starts)
        fresh = self._start()
        fresh.failed_starts = failed_starts
        self._workers.append(fresh)

    def _blame(self, batch: Batch, reason: str) -> None:
        """Also the batch for the death of its worker."""
        deaths = self._deaths.setdefault(batch.number, [])
        deaths.append(reason)
        if len(deaths) < DEATHS:
            self._waiting.appendleft(batch)
        else:
            self._done.append((batch, Reply(error=_deadly(batch, deaths))))


def _unable(reasons: Sequence[str]) -> MappingError:
    return MappingError(
        f"a mapping worker ended {len(reasons)} times before it was ready: {'; '.join(reasons)}",
        hint="often too little memory for its model, or a script without `if __name__ == '__main__':`",
    )


def _deadly(batch: Batch, deaths: Sequence[str]) -> MappingError:
    return MappingError(
        f"{len(deaths)} workers died one after the other with the same {len(batch.pairs)} questions of task "
        f"{batch.task.name!r}: {'; '.join(deaths)}",
        hint="often too little memory: try fewer workers or a smaller [mapping] batch; the ledger keeps the rest",
    )
