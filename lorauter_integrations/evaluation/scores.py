"""Answers' scores to a method's score, with intervals. Knows numbers only.

The score is that of the paper (arXiv 2601.21795): each domain's mean over its tasks is divided by the oracle's, and
the mean of the quotients is taken. A domain whose oracle is not told apart from nothing is no measure and is left
out: a quotient by one right answer of thirty says nothing. Intervals are percentiles of a paired bootstrap: the test
examples of each task are drawn again, the same ones for all methods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from lorauter_integrations.evaluation.results import Difference, Interval, MethodScore

Scores = Mapping[str, Sequence[float]]
"""Task -> the scores of its test examples, in their order."""

DRAWS = 2000
LEAST_ERRORS = 2.0  # standard errors above 0, of an oracle that others are measured by
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

    @cached_property
    def left_out(self) -> frozenset[str]:
        """The domains in which the oracle's mean is less than two standard errors above 0."""
        return frozenset(
            domain
            for domain, tasks in self._families(self.oracle).items()
            if not _is_measure([self.oracle[task] for task in tasks])
        )

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
        for domain, tasks in self._families(scores).items():
            if domain in self.left_out:
                continue
            own = np.mean([self._means(task, scores[task]) for task in tasks], axis=0)
            best = np.mean([self._means(task, self.oracle[task]) for task in tasks], axis=0)
            # In a draw the oracle may still have nothing right.
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


def _is_measure(oracle: Sequence[Sequence[float]]) -> bool:
    """Whether a domain's mean is above 0 by more than chance, by its tasks' scores."""
    mean = np.mean([np.mean(values) for values in oracle])
    error = np.sqrt(np.sum([np.var(values) / len(values) for values in oracle])) / len(oracle)
    return bool(mean > LEAST_ERRORS * error)


def _interval(values: npt.NDArray[np.float64]) -> Interval:
    low, high = np.percentile(values[1:], [50 - LEVEL / 2, 50 + LEVEL / 2])
    return Interval(float(values[0]), float(low), float(high))
