"""Texts to routes by task similarity. Knows the task index; knows nothing of engines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from lorauter_integrations.errors import ConfigError, RoutingError
from lorauter_integrations.mixture import Mixture
from lorauter_integrations.routing.route import Route, TaskMatch
from lorauter_integrations.routing.task_index import TaskIndex


class Router(Protocol):
    """Anything that sends a text to a mixture; every baseline is one."""

    def route(self, text: str) -> Route:
        """The route of one text.

        Raises:
            RoutingError: the text is empty, or there is nothing to route to.
        """
        ...


class TaskRouter:
    """LORAUTER's routing (Dhasade et al., arXiv 2601.21795): the K nearest tasks share the weight.

    The weights are ``softmax(cosine / temperature)`` over the K tasks. Each task stands for its best
    adapter; tasks with the same adapter add up; the share of a task that no adapter improves stays with
    the base model.

    Args:
        index: the tasks, with their rankings.
        k: how many tasks share a text, at least 1. The paper's value is 3.
        temperature: of the softmax, above 0. The paper's value is 0.2.

    Raises:
        ConfigError: `k` or `temperature` out of range.
    """

    def __init__(self, index: TaskIndex, *, k: int = 3, temperature: float = 0.2) -> None:
        if k < 1 or temperature <= 0:
            raise ConfigError(f"k must be at least 1 and temperature above 0, not k={k}, temperature={temperature}")
        self._index = index
        self._k = k
        self._temperature = temperature

    @property
    def identity(self) -> str:
        """Changes with what it makes of the same tasks."""
        return f"task router, k={self._k}, temperature={self._temperature}"

    def route(self, text: str) -> Route:
        """The route of one text.

        Raises:
            RoutingError: the text is empty, or no task has been mapped.
        """
        if not text.strip():
            raise RoutingError(
                "an empty text cannot be routed", hint="send a message, or choose adapters=... or task=..."
            )
        near = self._index.nearest(text, self._k)
        if not near:
            raise RoutingError(self._why_nothing(), hint="run `lorauter tasks add FOLDER`, then `lorauter map`")
        weights = softmax([match.similarity for match in near], self._temperature)
        matches = [
            TaskMatch(match.task, match.similarity, weight, match.ranking.best.adapter)
            for match, weight in zip(near, weights, strict=True)
        ]
        return Route(mix(matches), matches, f"nearest {len(matches)} of the mapped tasks")

    def _why_nothing(self) -> str:
        names = self._index.names()
        return f"none of the {len(names)} tasks has been mapped" if names else "the task index is empty"


def route_to_task(index: TaskIndex, task: str) -> Route:
    """The route to one task by name, with its best adapter at weight 1.

    Raises:
        UnknownTaskError: no such task.
        RoutingError: the task has not been mapped.
    """
    ranking = index.ranking(task)
    if ranking is None:
        raise RoutingError(f"task {task!r} has not been mapped", hint="run `lorauter map`")
    best = ranking.best.adapter
    why = f"task {task!r} was chosen by the caller" + ("" if best else "; no adapter improves on the base model")
    return Route(Mixture({best: 1.0} if best else {}), (), why)


def softmax(similarities: Sequence[float], temperature: float) -> list[float]:
    """``exp(s_k / t) / sum_j exp(s_j / t)``, the paper's weights of the retrieved tasks."""
    scaled = np.asarray(similarities, dtype=np.float64) / temperature
    shares = np.exp(scaled - scaled.max())
    return [float(share) for share in shares / shares.sum()]


def mix(matches: Sequence[TaskMatch]) -> Mixture:
    """The mixture of some matches: weights of the same adapter add up, the base model's share is left out."""
    weights: dict[str, float] = {}
    for match in matches:
        if match.adapter:
            weights[match.adapter] = weights.get(match.adapter, 0.0) + match.weight
    return Mixture(weights)
