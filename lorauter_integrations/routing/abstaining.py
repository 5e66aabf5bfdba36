"""When a text is near to no task, by contrast with texts that are no task's. Knows numbers and those texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from lorauter_integrations.errors import ConfigError
from lorauter_integrations.routing.encoder import Encoder, Vectors
from lorauter_integrations.routing.task_space import LeftOut, TaskSpace

NEAREST = 3  # background texts whose mean similarity is the contrast
LEAST_EXAMPLES = 20  # that a quantile is taken of


@cache
def background() -> tuple[str, ...]:
    """300 texts of many kinds and languages, such as people send to a language model."""
    text = files(__package__).joinpath("background.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


@dataclass(frozen=True)
class Threshold:
    """The least contrast of a text that is routed.

    Attributes:
        contrast: similarity of the nearest task, less that of the background.
        others: the background, placed in the space. *Shape:* ``(texts, dimension)``.
        rate: how many of the tasks' own examples lie below.
    """

    contrast: float
    others: Vectors
    rate: float

    def contrasts(self, placed: Vectors, similarities: Vectors) -> Vectors:
        """The contrasts of texts. *Shapes:* ``(n, dimension)``, ``(n, tasks)``, to ``(n,)``."""
        return np.asarray(contrast(similarities, placed @ self.others.T))

    def why(self, placed: Vectors, similarities: Any) -> str:
        """Why a text is near to no task; empty when it is near to one.

        Args:
            placed: the text in the space. *Shape:* ``(dimension,)``.
            similarities: to the tasks.
        """
        found = float(self.contrasts(placed[None], np.asarray(similarities)[None])[0])
        if found >= self.contrast:
            return ""
        return (
            f"near to no task: its similarity to the nearest less that to texts of no task is {found:.2f}, "
            f"and below {self.contrast:.2f} for {self.rate:.1%} of the tasks' own examples"
        )


@dataclass(frozen=True)
class Abstaining:
    """Leaves to the base model what is no nearer to a task than to texts that are no task's.

    A text's contrast is its similarity to the nearest task, less the mean of those to the three nearest of some
    background texts. The threshold is a quantile of the contrasts of the tasks' own examples, each left out of its
    task. Showing outliers to what must know them is outlier exposure (Hendrycks et al. 2019, arXiv 1812.04606).

    Attributes:
        rate: how many of the tasks' own examples may be taken for texts of no task, in (0, 0.5].

    Raises:
        ConfigError: `rate` out of range.
    """

    rate: float = 0.01

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 0.5:
            raise ConfigError(f"the rate of abstaining must be above 0 and at most 0.5, not {self.rate}")

    def others(self, encoder: Encoder) -> Vectors:
        """The background's vectors."""
        return encoder.encode(background())

    def fit(self, space: TaskSpace, left_out: Callable[[], LeftOut | None], others: Vectors) -> Threshold | None:
        """The threshold for a set of tasks; None when there are too few examples to tell.

        Args:
            space: the tasks' own.
            left_out: how near their examples come to them, and to the others.
            others: the background's vectors, as the encoder gave them.
        """
        found = left_out()
        if found is None or len(found.own) < LEAST_EXAMPLES:
            return None
        least = float(np.quantile(contrast(found.similarities, found.beside), self.rate))
        return Threshold(least, space.place(others), self.rate)


def contrast(similarities: Any, beside: Any) -> Any:
    """The largest similarity to a task, less the mean of the three largest to the background; along the last axis."""
    nearest = np.partition(beside, -NEAREST, axis=-1)[..., -NEAREST:]
    return similarities.max(axis=-1) - nearest.mean(axis=-1)
