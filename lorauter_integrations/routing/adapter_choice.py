"""How the tasks that share a text become adapters. Knows rankings and numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from lorauter_integrations.adapter_map import Ranking
from lorauter_integrations.errors import ConfigError
from lorauter_integrations.mixture import Mixture
from lorauter_integrations.routing.weighting import LEAST_SHARE, softmax

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
            weights[ranking.best.adapter] = weights.get(ranking.best.adapter, 0.0) + share
        return _mixture(weights)


@dataclass(frozen=True)
class ExpectedGain:
    """The adapters that promise most over all tasks that share a text.

    An adapter's promise is ``sum_k w_k g_k``: ``w_k`` the share of task k, ``g_k`` what the adapter gained over the
    base model on it, as part of what the task's best gained. A task that no adapter improves promises its share to
    the base model. So a text of a known task is answered by what did best on it, a text between tasks by what did
    well on several of them.

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
        promises: dict[str, float] = {}
        for ranking, share in shared:
            if share:
                for adapter, gain in gains(ranking).items():
                    promises[adapter] = promises.get(adapter, 0.0) + share * gain
        best = sorted(promises, key=lambda adapter: (-promises[adapter], adapter))[: self.most]
        weights = dict(zip(best, softmax([promises[one] for one in best], self.temperature), strict=True))
        return _mixture({adapter: weight for adapter, weight in weights.items() if weight >= LEAST_SHARE})


def gains(ranking: Ranking) -> Mapping[str, float]:
    """What each contestant gained over the base model, as part of what the best did, in [-1, 1].

    A score over few examples is drawn towards the mean of all contestants, as if that had been seen on
    `SEEN_BEFORE` examples more.
    """
    if ranking.best.is_base:
        return {"": 1.0}
    mean = math.fsum(one.score for one in ranking.scores) / len(ranking.scores)
    found = {"": 0.0}
    for one in ranking.scores:
        if not one.is_base:
            likely = (one.examples * one.score + SEEN_BEFORE * mean) / (one.examples + SEEN_BEFORE)
            found[one.adapter] = min(max((likely - ranking.base.score) / ranking.gain, -1.0), 1.0)
    return found


def _mixture(weights: Mapping[str, float]) -> Mixture:
    """Weights by contestant, made to add up to 1, as a mixture."""
    whole = math.fsum(weights.values())
    return Mixture({adapter: weight / whole for adapter, weight in weights.items() if adapter and weight})
