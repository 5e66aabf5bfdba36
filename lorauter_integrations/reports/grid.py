"""What every heat map is made of: its columns in order, and a colour for each score. Knows values only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lorauter_integrations.adapter_map import Ranking

# Viridis at even steps, low to high on a light page: even for the eye, and told apart by colour-blind eyes.
COLOURS = ("#fde725", "#addc30", "#5ec962", "#28ae80", "#21918c", "#2c728e", "#3b528b", "#472d7b", "#440154")

MOST = 60  # adapters that a page's width still shows with their names


@dataclass(frozen=True, slots=True)
class Scale:
    """The scores that the two ends of the colours stand for."""

    lowest: float
    highest: float

    @classmethod
    def of(cls, rankings: Iterable[Ranking]) -> Scale:
        """From 0 to 1 when all scores lie there, else from the lowest to the highest."""
        seen = [score.score for ranking in rankings for score in ranking.scores]
        lowest, highest = min(seen), max(seen)
        return cls(0.0, 1.0) if lowest >= 0 and highest <= 1 else cls(lowest, highest)

    def place(self, value: float) -> float:
        """Where a score stands between the ends, from 0 to 1."""
        span = self.highest - self.lowest
        return (value - self.lowest) / span if span else 0.5


def colour(place: float) -> str:
    """The colour of a place between the ends, as #rrggbb."""
    step, share = divmod(place * (len(COLOURS) - 1), 1)
    low, high = (COLOURS[min(int(step) + more, len(COLOURS) - 1)] for more in (0, 1))
    mixed = ((1 - share) * int(low[at : at + 2], 16) + share * int(high[at : at + 2], 16) for at in (1, 3, 5))
    return "#" + "".join(f"{round(part):02x}" for part in mixed)


def adapters_by_task(rankings: Sequence[Ranking]) -> list[list[str]]:
    """The adapters that were asked: one list a ranking, of those that came nowhere further up than in this one."""
    groups: list[list[str]] = [[] for _ in rankings]
    for adapter, (_, row) in _best_places(rankings).items():
        groups[row].append(adapter)
    return groups


def best_by_task(rankings: Sequence[Ranking], most: int = MOST) -> list[list[str]]:
    """The same for at most so many: the best of every task, then the second best of every task, and so on.

    The winners are among them, even if these alone are more than `most`.
    """
    shown = set(list(_best_places(rankings))[: max(most, len(rankings))])
    return [[adapter for adapter in group if adapter in shown] for group in adapters_by_task(rankings)]


def _best_places(rankings: Sequence[Ranking]) -> dict[str, tuple[int, int]]:
    """Each adapter's best place in a ranking and which ranking that is, in that order."""
    best: dict[str, tuple[int, int]] = {}
    for row, ranking in enumerate(rankings):
        for place, score in enumerate(score for score in ranking.scores if not score.is_base):
            best[score.adapter] = min(best.get(score.adapter, (place, row)), (place, row))
    return dict(sorted(best.items(), key=lambda found: found[1]))
