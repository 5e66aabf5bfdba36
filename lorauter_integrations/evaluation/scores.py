"""Answers' scores to a method's score, with intervals. Knows numbers only.

The score is that of the paper (arXiv 2601.21795): each domain's mean over its tasks is divided by the oracle's, and
the mean of the quotients is taken. Intervals are percentiles of a paired bootstrap: the test examples of each task
are drawn again, the same ones for all methods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lorauter_integrations.evaluation.results import Difference, Interval, MethodScore

Scores = Mapping[str, Sequence[float]]
"""Task -> the scores of its test examples, in their order."""

DRAWS = 2000
LEVEL = 95.0  # percent


@dataclass(frozen=True)
class Scale:
    """What scores are divided by.

    Attributes:
        domains: task -> its domain.
        oracle: the oracle's scores.
        seed: of the draws.
    """

    domains: Mapping[str, str]
    oracle: Scores
    seed: int = 0

    def score(self, method: str, regime: str, scores: Scores) -> MethodScore:
        """A method's score in a regime."""
        tasks = {task: float(np.mean(values)) for task, values in scores.items()}
        return MethodScore(
            method,
            regime,
            _interval(self._normalised(scores)),
            float(np.mean(list(tasks.values()))),
            {domain: float(np.mean([tasks[task] for task in of])) for domain, of in self._families(scores).items()},
            tasks,
        )

    def difference(self, regime: str, method: str, scores: Scores, against: str, others: Scores) -> Difference:
        """How much higher a method's score is than another's."""
        return Difference(regime, method, against, _interval(self._normalised(scores) - self._normalised(others)))

    def _normalised(self, scores: Scores) -> npt.NDArray[np.float64]:
        """The score of the examples as they are, and of each draw. *Shape:* ``(1 + DRAWS,)``."""
        total, counted = np.zeros(1 + DRAWS), np.zeros(1 + DRAWS)
        for tasks in self._families(scores).values():
            own = np.mean([self._means(task, scores[task]) for task in tasks], axis=0)
            best = np.mean([self._means(task, self.oracle[task]) for task in tasks], axis=0)
            # A domain in which the oracle has nothing right cannot be a measure.
            total += np.where(best > 0, own / np.where(best > 0, best, 1.0), 0.0)
            counted += best > 0
        return np.asarray(total / np.maximum(counted, 1))

    def _means(self, task: str, values: Sequence[float]) -> Any:
        given = np.asarray(values, dtype=np.float64)
        rng = np.random.default_rng([self.seed, *task.encode()])
        draws = rng.integers(0, len(given), size=(DRAWS, len(given)))
        return np.concatenate([[given.mean()], given[draws].mean(axis=1)])

    def _families(self, scores: Scores) -> dict[str, list[str]]:
        families: dict[str, list[str]] = {}
        for task in sorted(scores):
            families.setdefault(self.domains[task], []).append(task)
        return families


def _interval(values: npt.NDArray[np.float64]) -> Interval:
    low, high = np.percentile(values[1:], [50 - LEVEL / 2, 50 + LEVEL / 2])
    return Interval(float(values[0]), float(low), float(high))
