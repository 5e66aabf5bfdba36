"""Successive halving as a pure generator of questions. Knows neither tasks nor models.

The paper's schedule (arXiv 2601.21795, the authors' notebook): 48 contestants become 24, 12, 6 and 3; each round
asks new examples, 2.5, 2.25, 3.375 and 5.0625 times a budget b, and the score is the mean over all examples seen so
far. Here b is what lets the last round see the whole validation set.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

LAST = 3  # contestants left after the last round, as in the paper
GROWTH = 1.5  # of the new examples from round to round
FIRST = 2.5  # the paper's soft start: the first round asks as much as rounds 0 and 1 of the geometric series
STEEP = 2.5  # growth after a screening: whoever is left is good, and telling good ones apart takes examples
FEWEST = 4  # examples of a round after a screening
SURE = 3.0  # standard errors behind the leader at which a contestant is out
ENOUGH = 8  # examples before which nobody is out for being behind

Answers: TypeAlias = Mapping[str, Sequence[float]]
"""Contestant -> its scores on the examples of a question, in their order."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One round: how many new examples it asks, and how many contestants stay after it."""

    examples: int
    keep: int


@dataclass(frozen=True, slots=True)
class Question:
    """Score these contestants on these examples (by number).

    Attributes:
        rung: number of the round.
        contestants: names.
        examples: numbers.
        decides_ties: score by likelihood, not by the metric: it is asked of those whom the metric cannot tell apart.
    """

    rung: int
    contestants: tuple[str, ...]
    examples: tuple[int, ...]
    decides_ties: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """What a contestant has reached.

    Attributes:
        contestant: its name.
        score: mean over the examples it was asked.
        examples: how many.
        error: standard error of that mean; 0 for fewer than two examples.
        path: its mean after each round it took part in.
    """

    contestant: str
    score: float
    examples: int
    error: float = 0.0
    path: tuple[float, ...] = ()


def halving_schedule(contestants: int, examples: int) -> list[Rung]:
    """The paper's schedule for any number of contestants and validation examples.

    Args:
        contestants: not counting the one that always stays.
        examples: size of the validation set; all are used.
    """
    rounds = min(_halvings(contestants), examples)
    shares = [FIRST if place == 0 else GROWTH ** (place + 1) for place in range(rounds)]
    return _rungs(contestants, rounds, _apportion(examples, shares))


def screened_schedule(contestants: int, examples: int) -> list[Rung]:
    """Ours, for contestants that a screening left: few examples at first, and most for the last three."""
    rounds = max(1, min(_halvings(contestants) + 1, examples // FEWEST))
    counts = _apportion(examples, [STEEP**place for place in range(rounds)], least=min(FEWEST, examples))
    return _rungs(contestants, max(1, rounds - 1), counts)


def uniform_schedule(contestants: int, examples: int) -> list[Rung]:
    """Everything asked of everyone: what halving is compared with."""
    return [Rung(examples, contestants)]


Schedule: TypeAlias = Callable[[int, int], list[Rung]]


@dataclass(frozen=True, slots=True)
class Rules:
    """How a task's contest is held.

    Attributes:
        schedule: rounds for a number of contestants and examples.
        sure: standard errors behind another at which a contestant is out, whatever the schedule would keep.
        seed: of the order of examples and of ties.
        batch: questions asked at once.
        name: of all this, for people; kept with the rankings.
    """

    schedule: Schedule = halving_schedule
    sure: float = math.inf
    seed: int = 0
    batch: int = 32
    name: str = ""


def cost(rungs: Sequence[Rung], contestants: int) -> int:
    """Questions (contestant-example pairs) of a schedule at most; the one that always stays is counted too."""
    total, left = 0, contestants
    for rung in rungs:
        total += (left + 1) * rung.examples
        left = min(left, rung.keep)
    return total


def successive_halving(
    contestants: Sequence[str],
    always: str,
    examples: int,
    rungs: Sequence[Rung],
    seed: str,
    *,
    promise: Mapping[str, float] = MappingProxyType({}),
    sure: float = math.inf,
    ties: bool = False,
) -> Generator[Question, Answers, list[Standing]]:
    """Ask round after round, drop the lower part, and return all standings, best first.

    Equal scores are ordered by promise, then by chance (from the seed), never by name; with `ties`, those that end
    equal and best are asked once more, how likely they find the right answers. `always` wins its ties.

    One more contestant takes a place from another; hardly ever it makes others be asked what they would not have been
    asked without it (half a percent of all questions): that is what makes adding an adapter cheap.

    Args:
        contestants: names, without `always`.
        always: takes part in every round and is never dropped: the base model.
        examples: size of the validation set.
        rungs: the schedule.
        seed: of the order of examples and of ties.
        promise: what is thought of contestants beforehand; more is better.
        sure: how many standard errors behind another a contestant is out, whatever the schedule would keep.
        ties: ask who is better of those that the scores cannot tell apart.
    """
    order = list(range(examples))
    random.Random(seed).shuffle(order)
    lots = {name: (-promise.get(name, 0.0), random.Random(f"{seed}/{name}").random()) for name in contestants}
    lots[always] = (-math.inf, 0.0)
    seen: dict[str, list[float]] = {name: [] for name in lots}
    paths: dict[str, list[float]] = {name: [] for name in lots}
    left, finalists, start = sorted(contestants), [], 0
    for number, rung in enumerate(rungs):
        asked = tuple(order[start : start + rung.examples])
        start += rung.examples
        answers = yield Question(number, (always, *left), asked)
        for name in (always, *left):
            seen[name] += answers[name]
            paths[name].append(_mean(seen[name]))
        finalists = sorted(left, key=lambda name: (-_mean(seen[name]), lots[name]))
        left = _in_reach(finalists[: rung.keep], seen, sure)
    likely: dict[str, float] = {}
    tied = _tied(finalists, always, seen) if ties else []
    if len(tied) > 1:
        answers = yield Question(len(rungs), tuple(tied), tuple(order[:start]), decides_ties=True)
        likely = {name: _mean(answers[name]) for name in tied}
    standings = [Standing(n, _mean(s), len(s), _error(s), tuple(paths[n])) for n, s in seen.items()]
    rank = {name: (-likely.get(name, 0.0), *lot) for name, lot in lots.items()}
    return sorted(standings, key=lambda s: (-s.examples, -s.score, rank[s.contestant]))


def _in_reach(left: Sequence[str], seen: Mapping[str, Sequence[float]], sure: float) -> list[str]:
    """Those not surely behind any other."""
    if math.isinf(sure) or not left or len(seen[left[0]]) < ENOUGH:
        return list(left)
    return [name for name in left if not any(_behind(seen[name], seen[other], sure) for other in left)]


def _behind(scores: Sequence[float], others: Sequence[float], sure: float) -> bool:
    """Whether some scores are surely lower than others on the same examples.

    One difference as large as all of them lie apart is added to what was seen: a few that agree say less than they
    seem to.
    """
    gaps = [theirs - ours for ours, theirs in zip(scores, others, strict=True)]
    mean = _mean(gaps)
    span = max(*scores, *others) - min(*scores, *others)
    spread = math.fsum((gap - mean) ** 2 for gap in gaps) + span**2
    return mean > sure * math.sqrt(spread) / len(gaps)


def _tied(finalists: Sequence[str], always: str, seen: Mapping[str, Sequence[float]]) -> list[str]:
    """Those of the last round whose score is the best; none when `always` is as good."""
    if not finalists:
        return []
    best = _mean(seen[finalists[0]])
    return [] if best <= _mean(seen[always]) else [name for name in finalists if _mean(seen[name]) == best]


def _halvings(contestants: int) -> int:
    return max(1, math.ceil(math.log2(max(contestants, LAST + 1) / LAST)))


def _rungs(contestants: int, drops: int, counts: Sequence[int]) -> list[Rung]:
    factor = (max(contestants, LAST) / LAST) ** (1 / drops)
    return [
        Rung(count, max(LAST, math.ceil(round(contestants / factor ** (place + 1), 6))))
        for place, count in enumerate(counts)
    ]


def _apportion(total: int, shares: Sequence[float], *, least: int = 1) -> list[int]:
    """Whole numbers in these proportions that add up to the total, each at least `least` (largest remainders)."""
    exact = [total * share / sum(shares) for share in shares]
    counts = [max(least, int(value)) for value in exact]
    while sum(counts) != total:
        step = 1 if sum(counts) < total else -1
        open_places = [place for place, count in enumerate(counts) if count + step >= least]
        place = max(open_places, key=lambda place: step * (exact[place] - counts[place]))
        counts[place] += step
    return counts


def _mean(scores: Sequence[float]) -> float:
    return math.fsum(scores) / len(scores) if scores else 0.0


def _error(scores: Sequence[float]) -> float:
    """Standard error of the mean."""
    if len(scores) < 2:
        return 0.0
    mean = _mean(scores)
    return math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / (len(scores) - 1) / len(scores))
