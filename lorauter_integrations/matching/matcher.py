"""Finds the best adapters of each task within a budget. Knows nothing of how a score is computed, or where."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count

from lorauter_integrations.adapter_map import Ranking
from lorauter_integrations.errors import MappingError
from lorauter_integrations.matching.game import METRIC, TIES, Game, copies_apart
from lorauter_integrations.matching.halving import Rules, cost
from lorauter_integrations.matching.ledger import Ledger
from lorauter_integrations.matching.scoring import Scorer
from lorauter_integrations.matching.screening import Screen
from lorauter_integrations.matching.workers import Batch, InProcess, Workers
from lorauter_integrations.pool import Adapter
from lorauter_integrations.task import Task

PAPER = Rules()


@dataclass(slots=True)
class Progress:
    """Where a mapping run stands.

    Attributes:
        task: being mapped.
        tasks_done: finished ones.
        tasks: all of this run.
        rung: round of the task, from 1.
        rungs: rounds of the task.
        survivors: adapters still in it.
        answered: questions answered so far, those from the ledger included.
        total: questions of the whole run, as far as can be told: contestants that fall behind save some.
        reused: answers that came from the ledger.
        pool: adapters that are screened; 0 before and after.
        screened: how many of them are done.
        started: when the run was, by `time.monotonic`.
        asking: when its questions were, after the screening; None without one.
    """

    tasks: int
    total: int = 0
    task: str = ""
    tasks_done: int = 0
    rung: int = 0
    rungs: int = 0
    survivors: int = 0
    answered: int = 0
    reused: int = 0
    pool: int = 0
    screened: int = 0
    started: float = field(default_factory=time.monotonic)
    asking: float | None = None

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started

    @property
    def seconds_left(self) -> float | None:
        """An estimate from the questions that were really asked; None before the first."""
        asked = self.answered - self.reused
        seconds = time.monotonic() - (self.started if self.asking is None else self.asking)
        return seconds / asked * (self.total - self.answered) if asked else None


class Matcher:
    """Successive halving of a pool on each task's examples; the base model is always a contestant.

    Args:
        scorer: scores contestants; says what a score depends on.
        ledger: remembers every score; a run that was stopped goes on from it.
        rules: how each contest is held; the paper's when left out.
        screen: leaves a shortlist of a large pool; None lets every adapter take part.
        ties: tells apart whom the scorer cannot; None leaves it to chance.
        workers: where they are measured, by scorers named `game.METRIC` and `game.TIES`; None is this process.
        on_progress: called after every batch.
    """

    def __init__(
        self,
        scorer: Scorer,
        ledger: Ledger | None = None,
        *,
        rules: Rules = PAPER,
        screen: Screen | None = None,
        ties: Scorer | None = None,
        workers: Workers | None = None,
        on_progress: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self._scorers = {METRIC: scorer} | ({TIES: ties} if ties else {})
        self._ledger = Ledger() if ledger is None else ledger  # an empty ledger is false
        self._rules = rules
        self._screen = screen
        self._workers = workers
        self._on_progress = on_progress

    def match(
        self, tasks: Sequence[Task], pool: Mapping[str, Adapter], *, known: Sequence[Task] = ()
    ) -> Iterator[Ranking]:
        """The ranking of each task, as soon as it is known.

        With one worker the tasks are mapped one after the other; with several, the next one begins while the last
        batches of a round are on their way.

        Args:
            tasks: to map.
            pool: the adapters; of several with the same content the first takes part.
            known: all tasks there are, which a screening compares with; those to map when empty.

        Raises:
            MappingError: the pool is empty, or as `Workers.take`.
        """
        if not pool:
            raise MappingError("the pool has no usable adapter", hint="see `lorauter pool check`")
        progress = Progress(len(tasks))
        shortlists = self._shortlists(tasks, copies_apart(pool), known or tasks, progress)
        games = [self._game(task, pool, shortlists[task.name]) for task in tasks]
        with ExitStack() as stack:
            workers = self._workers or stack.enter_context(InProcess(self._scorers))
            yield from self._play(games, workers, progress)

    def questions(self, task: Task, contestants: int) -> int:
        """How many questions a task costs at most, ties apart."""
        return cost(self._rules.schedule(contestants, len(task.examples)), contestants)

    def _shortlists(
        self, tasks: Sequence[Task], pool: Mapping[str, Adapter], known: Sequence[Task], progress: Progress
    ) -> Mapping[str, Sequence[str]]:
        """Task -> the adapters that take part."""
        if self._screen is None or not self._screen.needed(pool):
            return {task.name: list(pool) for task in tasks}
        for progress.screened, progress.pool in self._screen.look(known, pool):
            self._on_progress(progress)
        progress.pool, progress.asking = 0, time.monotonic()
        return {task.name: self._screen.shortlist(task, pool) for task in tasks}

    def _game(self, task: Task, pool: Mapping[str, Adapter], contestants: Sequence[str]) -> Game:
        return Game(
            task,
            pool,
            contestants,
            self._rules,
            base_model=self._scorers[METRIC].base_model,
            identities={name: scorer.identity(task) for name, scorer in self._scorers.items()},
            ledger=self._ledger,
        )

    def _play(self, games: Sequence[Game], workers: Workers, progress: Progress) -> Iterator[Ranking]:
        left, flying, numbers = list(games), dict[int, Game](), count()
        while left:
            for game in [game for game in left if game.ranking]:
                left.remove(game)
                progress.tasks_done += 1
                self._report(progress, games, game)
                yield game.ranking  # type: ignore[misc]
            while len(flying) < workers.slots and (asking := next((g for g in left if g.has_batch), None)):
                score, pairs = asking.next_batch()
                batch = Batch(next(numbers), score, asking.task, tuple(pairs))
                workers.submit(batch)
                flying[batch.number] = asking
            if flying:
                batch, scores = workers.take()
                flying[batch.number].take(batch.pairs, scores)
                self._report(progress, games, flying.pop(batch.number))

    def _report(self, progress: Progress, games: Sequence[Game], game: Game) -> None:
        progress.task, progress.rung, progress.rungs = game.task.name, game.rung, len(game.rungs)
        progress.survivors = game.survivors
        progress.answered = sum(game.answered for game in games)
        progress.reused = sum(game.reused for game in games)
        progress.total = sum(game.bound for game in games)
        self._on_progress(progress)
