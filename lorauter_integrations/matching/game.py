"""One task's successive halving, batch by batch: what is still to ask, and in the end the ranking."""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Mapping, Sequence

from lorauter_integrations.adapter_map import AdapterScore, Ranking
from lorauter_integrations.errors import MappingError
from lorauter_integrations.matching.halving import Answers, Rules, Standing, cost, successive_halving
from lorauter_integrations.matching.ledger import Key, Ledger
from lorauter_integrations.matching.scoring import BASE
from lorauter_integrations.pool import Adapter
from lorauter_integrations.task import Example, Task

GROUP = 4  # examples of like length that are asked together: little padding, and few adapters a batch
METRIC, TIES = "score", "ties"
"""The names of a run's scorers: the one that decides, and the one that tells apart whom it cannot."""

Pair = tuple[str, Example]


class Game:
    """A task's questions and answers. What the ledger knows is not asked.

    Args:
        task: being mapped.
        pool: where the contestants are described.
        contestants: the adapters that take part, the most promising first where not all do.
        rules: how the contest is held.
        base_model: of the ranking.
        identities: METRIC and, to decide ties, TIES -> the scorer's identity for this task.
        ledger: answers known before, and where new ones go.
    """

    def __init__(
        self,
        task: Task,
        pool: Mapping[str, Adapter],
        contestants: Sequence[str],
        rules: Rules,
        *,
        base_model: str,
        identities: Mapping[str, str],
        ledger: Ledger,
    ) -> None:
        self.task = task
        self.rungs = rules.schedule(len(contestants), len(task.examples))
        self.ranking: Ranking | None = None
        self.answered = self.reused = 0
        self._pool = pool
        self._screened = len(copies_apart(pool)) - len(contestants)
        self._base_model = base_model
        self._identities = identities
        self._ledger = ledger
        self._batch = rules.batch
        self._rules = rules.name
        self._waiting: deque[list[Pair]] = deque()
        self._open = 0  # questions without an answer yet, of this round
        self._play = successive_halving(
            contestants,
            BASE,
            len(task.examples),
            self.rungs,
            f"{rules.seed}/{task.content_hash}",
            promise=self._promise(contestants, rules.seed),
            sure=rules.sure,
            ties=TIES in identities,
        )
        self._question = next(self._play)
        self._ask()

    def _promise(self, contestants: Sequence[str], seed: int) -> dict[str, float]:
        """The place on the shortlist; without one, a lot that goes with the content: names decide nothing."""
        if self._screened:
            return {name: -float(place) for place, name in enumerate(contestants)}
        return {name: random.Random(f"{seed}/{self._hash(name)}").random() for name in contestants}

    @property
    def rung(self) -> int:
        """The round that is played, from 1."""
        return min(self._question.rung + 1, len(self.rungs))

    @property
    def survivors(self) -> int:
        """Adapters still in it."""
        return sum(name != BASE for name in self._question.contestants)

    @property
    def bound(self) -> int:
        """Questions of the whole game at most, ties apart; what has been asked once it is over."""
        if self.ranking:
            return self.answered
        later = cost(self.rungs[self.rung :], min(self.survivors, self.rungs[self.rung - 1].keep))
        return self.answered + self._open + later

    @property
    def has_batch(self) -> bool:
        """Whether something can be asked now; else answers are awaited, or it is over."""
        return bool(self._waiting)

    def next_batch(self) -> tuple[str, list[Pair]]:
        """The name of the scorer, and what to ask it. Follows `has_batch`."""
        return self._scorer, self._waiting.popleft()

    def take(self, pairs: Sequence[Pair], scores: Sequence[float]) -> None:
        """Record the answers to a batch, and go on when they were the last of a round.

        Raises:
            MappingError: there is not one finite score for each pair.
        """
        if len(scores) != len(pairs):
            raise MappingError(f"the scorer gave {len(scores)} scores for {len(pairs)} questions")
        self._ledger.record([self._key(pair) for pair in pairs], scores)
        self.answered += len(pairs)
        self._open -= len(pairs)
        if not self._open:
            self._go_on()

    @property
    def _scorer(self) -> str:
        return TIES if self._question.decides_ties else METRIC

    def _ask(self) -> None:
        """Lay out the batches of the question, and go on while the ledger knows everything.

        Batches are cut before known answers are taken out, so that a run that was stopped asks in the same batches
        as one that was not (in low precision a score can depend on the batch it was measured in).
        """
        pairs = _in_asking_order(self._question.contestants, self._examples())
        asked: set[Key] = set()
        for start in range(0, len(pairs), self._batch):
            missing = []
            for pair in pairs[start : start + self._batch]:
                key = self._key(pair)
                if key not in asked and self._ledger.get(key) is None:
                    asked.add(key)
                    missing.append(pair)
            if missing:
                self._waiting.append(missing)
        known = len(pairs) - len(asked)
        self.answered += known
        self.reused += known
        self._open = len(asked)
        if not asked:
            self._go_on()

    def _go_on(self) -> None:
        try:
            self._question = self._play.send(self._answers())
        except StopIteration as end:
            self.ranking = self._ranking(end.value)
        else:
            self._ask()

    def _answers(self) -> Answers:
        return {
            name: [self._known((name, example)) for example in self._examples()]
            for name in self._question.contestants
        }

    def _examples(self) -> list[Example]:
        return [self.task.examples[number] for number in self._question.examples]

    def _known(self, pair: Pair) -> float:
        score = self._ledger.get(self._key(pair))
        if score is None:
            raise MappingError(f"the scorer gave no score for {pair}")
        return score

    def _key(self, pair: Pair) -> Key:
        name, example = pair
        return Key(self._identities[self._scorer], self._hash(name), example.content_hash)

    def _hash(self, name: str) -> str:
        return self._pool[name].content_hash if name != BASE else ""

    def _ranking(self, standings: Sequence[Standing]) -> Ranking:
        scores = tuple(
            AdapterScore(s.contestant, self._hash(s.contestant), s.score, s.examples, s.error, s.path)
            for s in standings
        )
        return Ranking(
            self.task.name,
            self.task.content_hash,
            self._base_model,
            self._identities[METRIC],
            scores,
            self.answered,
            pool=len(self._pool),
            screened=self._screened,
            pool_hash=pool_hash(self._pool),
            rules=self._rules,
        )


def copies_apart(pool: Mapping[str, Adapter]) -> dict[str, Adapter]:
    """The pool without copies: of adapters with the same content the first name stays."""
    first: dict[str, str] = {}
    for name in sorted(pool):
        first.setdefault(pool[name].content_hash, name)
    return {name: pool[name] for name in first.values()}


def pool_hash(pool: Mapping[str, Adapter]) -> str:
    """Changes when an adapter comes, goes or changes; not with names."""
    contents = sorted({adapter.content_hash for adapter in pool.values()})
    return hashlib.sha256(" ".join(contents).encode()).hexdigest()[:16]


def _in_asking_order(contestants: Sequence[str], examples: Sequence[Example]) -> list[Pair]:
    """Pairs in groups of examples of like length, one contestant after the other within a group."""
    by_length = sorted(examples, key=lambda example: (len(example.text) + len(example.target), example.content_hash))
    groups = [by_length[start : start + GROUP] for start in range(0, len(by_length), GROUP)]
    return [(name, example) for group in groups for name in contestants for example in group]
