"""Successive halving as a pure generator of questions. Knows neither tasks nor models.

The schedule is the paper's (arXiv 2601.21795, the authors' notebook): 48 contestants become 24, 12, 6 and 3;
each round asks new examples, 2.5, 2.25, 3.375 and 5.0625 times a budget b, and the score is the mean over all
examples seen so far. Here b is what lets the last round see the whole validation set.
"""

from __future__ import annotations

import math
import random
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

LAST = 3  # contestants left after the last round, as in the paper
GROWTH = 1.5  # of the new examples from round to round
FIRST = 2.5  # the paper's soft start: the first round asks as much as rounds 0 and 1 of the geometric series

Answers: TypeAlias = Mapping[str, Sequence[float]]
"""Contestant -> its scores on the examples of a question, in their order."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One round: how many new examples it asks, and how many contestants stay after it."""

    examples: int
    keep: int


@dataclass(frozen=True, slots=True)
class Question:
    """Score these contestants on these examples (by number)."""

    rung: int
    contestants: tuple[str, ...]
    examples: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """What a contestant has reached: its mean score over the examples it was asked."""

    contestant: str
    score: float
    examples: int


def halving_schedule(contestants: int, examples: int) -> list[Rung]:
    """The paper's schedule for any number of contestants and validation examples.

    Args:
        contestants: not counting the one that always stays.
        examples: size of the validation set; all are used.
    """
    rounds = min(max(1, math.ceil(math.log2(max(contestants, LAST + 1) / LAST))), examples)
    factor = (max(contestants, LAST) / LAST) ** (1 / rounds)
    shares = [FIRST if place == 0 else GROWTH ** (place + 1) for place in range(rounds)]
    return [
        Rung(count, max(LAST, math.ceil(round(contestants / factor ** (place + 1), 6))))
        for place, count in enumerate(_apportion(examples, shares))
    ]


def uniform_schedule(contestants: int, examples: int) -> list[Rung]:
    """Everything asked of everyone: what halving is compared with."""
    return [Rung(examples, contestants)]


def cost(rungs: Sequence[Rung], contestants: int) -> int:
    """Questions (contestant-example pairs) of a schedule; the one that always stays is counted too."""
    total, left = 0, contestants
    for rung in rungs:
        total += (left + 1) * rung.examples
        left = min(left, rung.keep)
    return total


def successive_halving(
    contestants: Sequence[str], always: str, examples: int, rungs: Sequence[Rung], seed: str
) -> Generator[Question, Answers, list[Standing]]:
    """Ask round after round, drop the lower part, and return all standings, best first.

    Equal scores are ordered by chance (from the seed), never by name.

    Args:
        contestants: names, without `always`.
        always: takes part in every round and is never dropped: the base model.
        examples: size of the validation set.
        rungs: the schedule.
        seed: of the order of examples and of ties.
    """
    chance = random.Random(seed)
    order = list(range(examples))
    chance.shuffle(order)
    lots = {name: chance.random() for name in sorted(contestants)} | {always: -1.0}  # a tie goes to the base
    seen: dict[str, list[float]] = {name: [] for name in lots}
    left, start = sorted(contestants), 0
    for number, rung in enumerate(rungs):
        asked = tuple(order[start : start + rung.examples])
        start += rung.examples
        answers = yield Question(number, (always, *left), asked)
        for name in (always, *left):
            seen[name] += answers[name]
        left = sorted(left, key=lambda name: (-_mean(seen[name]), lots[name]))[: rung.keep]
    standings = [Standing(name, _mean(scores), len(scores)) for name, scores in seen.items()]
    return sorted(standings, key=lambda s: (-s.examples, -s.score, lots[s.contestant]))


def _apportion(total: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers in these proportions that add up to the total, each at least 1 (largest remainders)."""
    exact = [total * share / sum(shares) for share in shares]
    counts = [max(1, int(value)) for value in exact]
    while sum(counts) != total:
        step = 1 if sum(counts) < total else -1
        open_places = [place for place, count in enumerate(counts) if count + step >= 1]
        place = max(open_places, key=lambda place: step * (exact[place] - counts[place]))
        counts[place] += step
    return counts


def _mean(scores: Sequence[float]) -> float:
    return math.fsum(scores) / len(scores) if scores else 0.0
