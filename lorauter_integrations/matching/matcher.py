"""Finds the best adapters of each task within a budget. Knows nothing of how a score is computed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lorauter_integrations.adapter_map import AdapterScore, Ranking
from lorauter_integrations.errors import MappingError
from lorauter_integrations.matching.halving import (
    Answers,
    Question,
    Rung,
    Standing,
    cost,
    halving_schedule,
    successive_halving,
)
from lorauter_integrations.matching.ledger import Key, Ledger
from lorauter_integrations.matching.scoring import BASE, Scorer
from lorauter_integrations.pool import Adapter
from lorauter_integrations.task import Example, Task

BATCH = 32
GROUP = 4  # examples of like length that are asked together: little padding, and few adapters a batch

Schedule = Callable[[int, int], list[Rung]]


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
        total: questions of the whole run.
        reused: answers that came from the ledger.
    """

    tasks: int
    total: int
    task: str = ""
    tasks_done: int = 0
    rung: int = 0
    rungs: int = 0
    survivors: int = 0
    answered: int = 0
    reused: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started

    @property
    def seconds_left(self) -> float | None:
        """An estimate from the questions that were really asked; None before the first."""
        asked = self.answered - self.reused
        return self.seconds / asked * (self.total - self.answered) if asked else None


class Matcher:
    """Successive halving of a pool on each task's examples; the base model is always a contestant.

    Args:
        scorer: scores contestants.
        ledger: remembers every score; a run that was stopped goes on from it.
        schedule: rounds for a number of contestants and examples.
        seed: of the order of examples and of ties.
        batch: questions scored at once.
        on_progress: called after every batch.
    """

    def __init__(
        self,
        scorer: Scorer,
        ledger: Ledger | None = None,
        *,
        schedule: Schedule = halving_schedule,
        seed: int = 0,
        batch: int = BATCH,
        on_progress: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self._scorer = scorer
        self._ledger = Ledger() if ledger is None else ledger  # an empty ledger is false
        self._schedule = schedule
        self._seed = seed
        self._batch = batch
        self._on_progress = on_progress

    def match(self, tasks: Sequence[Task], pool: Mapping[str, Adapter]) -> Iterator[Ranking]:
        """The ranking of each task, as soon as it is known.

        Raises:
            MappingError: the pool is empty.
        """
        if not pool:
            raise MappingError("the pool has no usable adapter", hint="see `lorauter pool check`")
        progress = Progress(len(tasks), sum(self.questions(task, len(pool)) for task in tasks))
        for task in tasks:
            progress.task = task.name
            yield self._match_one(task, pool, progress)
            progress.tasks_done += 1
            self._on_progress(progress)

    def questions(self, task: Task, contestants: int) -> int:
        """How many questions a task costs."""
        return cost(self._schedule(contestants, len(task.examples)), contestants)

    def _match_one(self, task: Task, pool: Mapping[str, Adapter], progress: Progress) -> Ranking:
        rungs = self._schedule(len(pool), len(task.examples))
        progress.rungs = len(rungs)
        identity = self._scorer.identity(task)
        game = successive_halving(list(pool), BASE, len(task.examples), rungs, f"{self._seed}/{task.content_hash}")
        question = next(game)
        asked = 0
        while True:
            asked += len(question.contestants) * len(question.examples)
            progress.rung, progress.survivors = question.rung + 1, len(question.contestants) - 1
            answers = self._answer(task, pool, question, identity, progress)
            try:
                question = game.send(answers)
            except StopIteration as end:
                scores = tuple(_adapter_score(standing, pool) for standing in end.value)
                return Ranking(task.name, task.content_hash, self._scorer.base_model, identity, scores, asked)

    def _answer(
        self, task: Task, pool: Mapping[str, Adapter], question: Question, identity: str, progress: Progress
    ) -> Answers:
        """Answers of one question, batch by batch; what the ledger knows is not asked again.

        Batches are cut before known answers are taken out, so that a run that was stopped asks in the same
        batches as one that was not (in low precision a score can depend on the batch it was measured in).
        """
        examples = [task.examples[number] for number in question.examples]
        pairs = _in_asking_order(question.contestants, examples)
        for start in range(0, len(pairs), self._batch):
            batch = pairs[start : start + self._batch]
            keys = {pair: _key(pair, pool, identity) for pair in batch}
            missing = list({keys[pair]: pair for pair in batch if self._ledger.get(keys[pair]) is None}.values())
            if missing:
                self._ledger.record([keys[pair] for pair in missing], self._scorer.score(task, missing))
            progress.answered += len(batch)
            progress.reused += len(batch) - len(missing)
            self._on_progress(progress)
        return {
            name: [self._known(_key((name, example), pool, identity)) for example in examples]
            for name in question.contestants
        }

    def _known(self, key: Key) -> float:
        score = self._ledger.get(key)
        if score is None:
            raise MappingError(f"the scorer gave no score for {key}")
        return score


def _in_asking_order(contestants: Sequence[str], examples: Sequence[Example]) -> list[tuple[str, Example]]:
    """Pairs in groups of examples of like length, one contestant after the other within a group."""
    by_length = sorted(examples, key=lambda example: (len(example.text) + len(example.target), example.content_hash))
    groups = [by_length[start : start + GROUP] for start in range(0, len(by_length), GROUP)]
    return [(name, example) for group in groups for name in contestants for example in group]


def _key(pair: tuple[str, Example], pool: Mapping[str, Adapter], identity: str) -> Key:
    name, example = pair
    return Key(identity, pool[name].content_hash if name != BASE else "", example.content_hash)


def _adapter_score(standing: Standing, pool: Mapping[str, Adapter]) -> AdapterScore:
    name = standing.contestant
    return AdapterScore(name, pool[name].content_hash if name != BASE else "", standing.score, standing.examples)
