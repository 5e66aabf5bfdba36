"""How the tasks that share a text become adapters. Knows rankings and numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from lorauter_integrations.adapter_map import AdapterScore, Ranking
from lorauter_integrations.errors import ConfigError
from lorauter_integrations.mixture import Mixture
from lorauter_integrations.routing.weighting import cut_softmax

SEEN_BEFORE = 4  # examples of the mean adapter, that every adapter counts as having been asked beside its own

Shared: TypeAlias = Sequence[tuple[Ranking, float]]
"""Tasks and their shares of a text, which add up to 1."""


class AdapterChoice(Protocol):
    """A way to choose adapters. Its repr tells all its parameters."""

    def mixture(self, shared: Shared) -> Mixture:
        """The adapters of a text; the base model's share is left out."""
        ...


@dataclass(frozen=True)
class BestOfTask:
    """Each task stands for its best adapter, and tasks that share one add up (arXiv 2601.21795).

    The share of a task that no adapter improves stays with the base model.
    """

    def mixture(self, shared: Shared) -> Mixture:
        """The adapters of a text."""
        weights: dict[str, float] = {}
        for ranking, share in shared:
            if share and (adapter := ranking.best.adapter):
                weights[adapter] = weights.get(adapter, 0.0) + share
        return Mixture(weights)


@dataclass(frozen=True)
class ExpectedGain:
    """The adapters that promise most over all tasks that share a text.

    An adapter's promise is ``sum_k w_k g_k``: ``w_k`` the share of task k, ``g_k`` what the adapter gained over the
    base model on it, as part of what the task's best gained (see `gains`). So a text of a known task is answered by
    what did best on it, a text between tasks by what did well on several of them. The share of tasks that no adapter
    improves stays with the base model.

    Attributes:
        most: adapters that share, at least 1.
        temperature: they share by ``softmax(promise / temperature)``; above 0.

    Raises:
        ConfigError: out of range.
    """

    most: int = 5
    temperature: float = 0.1

    def __post_init__(self) -> None:
        if self.most < 1 or self.temperature <= 0:
            raise ConfigError(
                f"most must be at least 1 and temperature above 0, not most={self.most}, "
                f"temperature={self.temperature}"
            )

    def mixture(self, shared: Shared) -> Mixture:
        """The adapters of a text."""
        improved = [(ranking, share) for ranking, share in shared if share and ranking.gain > 0]
        if not improved:
            return Mixture()
        whole = math.fsum(share for _, share in improved)
        promises: dict[str, float] = {}
        for ranking, share in improved:
            for adapter, gain in gains(ranking).items():
                promises[adapter] = promises.get(adapter, 0.0) + share / whole * gain
        # The sort is stable: equal promises stand as the nearest task's ranking has them.
        best = sorted(promises, key=lambda adapter: -promises[adapter])[: self.most]
        best = [adapter for adapter in best if promises[adapter] > 0] or best[:1]
        weights = cut_softmax([promises[adapter] for adapter in best], self.temperature)
        return Mixture({adapter: whole * weight for adapter, weight in zip(best, weights, strict=True) if weight})


def gains(ranking: Ranking) -> Mapping[str, float]:
    """What each adapter gained over the base model, as part of what the best did: 1 for that, in [-1, 1].

    Scores are drawn towards the mean of all contestants, as if it had been seen on `SEEN_BEFORE` examples more: an
    adapter that was asked few examples has shown little.

    Args:
        ranking: of a task that an adapter improves.
    """
    mean = math.fsum(one.score for one in ranking.scores) / len(ranking.scores)

    def likely(one: AdapterScore) -> float:
        return (one.examples * one.score + SEEN_BEFORE * mean) / (one.examples + SEEN_BEFORE)

    base = likely(ranking.base)
    most = likely(ranking.best) - base
    if most <= 0:  # the best has been asked far less than the base model
        return {ranking.best.adapter: 1.0}
    adapters = [one for one in ranking.scores if not one.is_base]
    return {one.adapter: min(max((likely(one) - base) / most, -1.0), 1.0) for one in adapters}
