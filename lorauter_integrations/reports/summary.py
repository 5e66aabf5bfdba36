"""What a ranking says, in words and numbers: the same in the table, the page and the picture. Knows values only."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lorauter_integrations.adapter_map import AdapterScore, Ranking

TITLE = "Which adapters are best for each task"
BASE = "(base model)"
CONFIDENCE = 1.96  # standard errors to each side of a mean that hold 95 % of a normal distribution


def label(adapter: str) -> str:
    """How an adapter is called before people; '' is the base model.

    A folder's name may hold control characters and broken Unicode, which neither a terminal nor a file takes well.
    """
    return printable(adapter) or BASE


def printable(text: str) -> str:
    """The text with a replacement for each character that cannot be shown."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def shortened(text: str, length: int) -> str:
    """At most `length` characters; what is too much is left out of the middle, as names differ at their ends."""
    if len(text) <= length:
        return text
    tail = (length - 1) // 2
    return f"{text[: length - 1 - tail]}…{text[len(text) - tail :]}"


def number(value: float, sign: str = "") -> str:
    """Three decimals, short also where a metric of one's own is in the millions; sign "+" shows a plus, too."""
    return f"{value:{sign}.3f}" if abs(value) < 10_000 else f"{value:{sign}.3e}"


def measured(score: AdapterScore) -> str:
    """A score and half the width of its 95 % interval; without the latter for a single example."""
    return f"{number(score.score)} ±{number(CONFIDENCE * score.error)}" if score.examples > 1 else number(score.score)


def path(score: AdapterScore) -> str:
    """Its mean after each round, and over how many examples in all."""
    means = " → ".join(map(number, score.path or (score.score,)))
    return f"{means} over {score.examples} {'example' if score.examples == 1 else 'examples'}"


def rounds(score: AdapterScore) -> int:
    """In how many rounds it was asked; 1 where a map of an earlier version does not say."""
    return max(1, len(score.path))


def all_rounds(ranking: Ranking) -> int:
    """Rounds that the task took."""
    return max(map(rounds, ranking.scores))


def level(ranking: Ranking) -> list[AdapterScore]:
    """The contestants that the examples do not tell from the winner, the base model too.

    They were asked as many examples as the winner, and their score is lower by no more than the standard error of
    the difference, ``sqrt(a² + b²)``. That takes the two errors for independent. All contestants answer the same
    examples, so the true error is mostly smaller: rather one too many is called level than one too few.
    """
    return [score for score in ranking.scores[1:] if _is_level(score, ranking.best)]


def _is_level(score: AdapterScore, best: AdapterScore) -> bool:
    # One mistake against none is a difference of just one standard error: rounding must not decide.
    most = (1 + 1e-9) * math.hypot(best.error, score.error)
    return score.examples == best.examples and best.score - score.score <= most


def next_best(ranking: Ranking) -> str:
    """How many are level with the winner; if none is, who comes next."""
    if others := level(ranking):
        return f"level with {len(others)} {'other' if len(others) == 1 else 'others'}"
    return label(ranking.scores[1].adapter) if len(ranking.scores) > 1 else ""


def everything(rankings: Sequence[Ranking]) -> int:
    """Questions if every adapter of the pool, and the base model, had been asked every example."""
    return sum((pool(ranking) + 1) * ranking.base.examples for ranking in rankings)


def pool(ranking: Ranking) -> int:
    """Adapters in the pool; at least those that were asked, where a map of an earlier version does not say."""
    return max(ranking.pool, len(ranking.scores) - 1)


def span(values: Sequence[int]) -> str:
    """One number if all are the same, else the lowest and the highest."""
    lowest, highest = min(values), max(values)
    return f"{lowest:,}" if lowest == highest else f"{lowest:,} to {highest:,}"
