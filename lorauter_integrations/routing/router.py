"""Texts to routes by task similarity. Knows the tasks; knows nothing of engines."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Protocol

from lorauter_integrations.errors import RoutingError
from lorauter_integrations.mixture import Mixture
from lorauter_integrations.routing.abstaining import Abstaining, Threshold
from lorauter_integrations.routing.adapter_choice import AdapterChoice, BestOfTask, ExpectedGain
from lorauter_integrations.routing.encoder import Vectors
from lorauter_integrations.routing.known_tasks import KnownTasks, TaskSource
from lorauter_integrations.routing.route import Route, TaskMatch
from lorauter_integrations.routing.task_index import TaskIndex
from lorauter_integrations.routing.task_space import LeftOut, Mean, Space, TaskSpace, Whitened
from lorauter_integrations.routing.views import embed
from lorauter_integrations.routing.weighting import PAPER_K, PAPER_TEMPERATURE, Sharing, Softmax, Weighting


class Router(Protocol):
    """Anything that sends a text to a mixture; every baseline is one."""

    def route(self, text: str) -> Route:
        """The route of one text.

        Raises:
            RoutingError: the text is empty, or there is nothing to route to.
        """
        ...


SHOWN = 3  # nearest tasks that a route names though they have no share

SHARES: Mapping[str, Softmax] = {"paper": Softmax(PAPER_K, PAPER_TEMPERATURE, least=0.0), "default": Softmax(8, 0.1)}
"""The presets' weights."""


@dataclass(frozen=True)
class Rules:
    """How a text is routed; each part is a small object of its own.

    Attributes:
        space: where texts and tasks are compared.
        weighting: how the nearest tasks share the weight.
        choice: how those tasks become adapters.
        abstaining: when a text is near to no task, and the base model answers; never when None.
    """

    space: Space = field(default_factory=Whitened)
    weighting: Weighting = SHARES["default"]
    choice: AdapterChoice = field(default_factory=ExpectedGain)
    abstaining: Abstaining | None = None


PAPER = Rules(Mean(), SHARES["paper"], BestOfTask())
"""LORAUTER as published (Dhasade et al., arXiv 2601.21795)."""

DEFAULT = Rules()
"""What does best in docs/evaluation.md."""


@dataclass(frozen=True, slots=True)
class _Fitted:
    """The rules, fitted to the tasks of one moment."""

    known: KnownTasks
    space: TaskSpace
    share: Sharing
    threshold: Threshold | None


@dataclass(frozen=True, eq=False)
class Look:
    """How near some texts come to all tasks.

    Attributes:
        tasks: their names.
        similarities: *Shape:* ``(texts, tasks)``.
        placed: the texts in the router's space. *Shape:* ``(texts, dimension)``.
        contrasts: of the texts with the background, see `Abstaining`; None when the router never abstains.
        threshold: the least contrast of a text that is routed; None when it never abstains.
    """

    tasks: Sequence[str]
    similarities: Vectors
    placed: Vectors
    contrasts: Vectors | None
    threshold: float | None


class TaskRouter:
    """LORAUTER's routing: the K nearest tasks share a text (Dhasade et al., arXiv 2601.21795).

    How they become adapters is the rules' choice; the share of a task that no adapter improves stays with the base
    model. What the rules leave open, such as the shrinkage, is fitted to the tasks' own examples, each left out of
    its task in turn; anew when the tasks change. Safe to use from many threads.

    Args:
        tasks: the tasks, with their rankings.
        rules: how to route.
    """

    def __init__(self, tasks: TaskSource, rules: Rules = DEFAULT) -> None:
        self._tasks = tasks
        self._rules = rules
        self._lock = threading.Lock()
        self._last: _Fitted | None = None

    @property
    def identity(self) -> str:
        """Changes with what it makes of the same tasks."""
        return repr(self._rules)

    def route(self, text: str) -> Route:
        """The route of one text.

        Raises:
            RoutingError: the text is empty, or no task has been mapped.
        """
        return self.route_all([text])[0]

    def route_all(self, texts: Sequence[str]) -> list[Route]:
        """The routes of many texts, which are encoded together. Raises as `route`."""
        if not all(text.strip() for text in texts):
            raise RoutingError(
                "an empty text cannot be routed", hint="send a message, or choose adapters=... or task=..."
            )
        if not texts:
            return []
        fitted, placed, similarities = self._compared(texts)
        return [self._route(fitted, *each) for each in zip(placed, similarities, strict=True)]

    def look(self, texts: Sequence[str]) -> Look:
        """How near texts come to all tasks, for evaluations and pictures. Raises as `route`."""
        fitted, placed, similarities = self._compared(texts)
        contrasts = fitted.threshold.contrasts(placed, similarities) if fitted.threshold else None
        least = fitted.threshold.contrast if fitted.threshold else None
        return Look(fitted.known.names, similarities, placed, contrasts, least)

    def _compared(self, texts: Sequence[str]) -> tuple[_Fitted, Vectors, Vectors]:
        """The rules, the texts in their space, and how near they come to the tasks."""
        fitted = self._fitted()
        return fitted, *fitted.space.compare(embed(self._tasks.encoder, texts, endings=fitted.space.endings))

    def _route(self, fitted: _Fitted, placed: Vectors, similarities: Vectors) -> Route:
        shares = [share for at, share in enumerate(fitted.share(similarities)) if share[1] or at < SHOWN]
        rankings = [fitted.known.rankings[place] for place, _ in shares]
        matches = [
            TaskMatch(ranking.task, float(similarities[place]), weight, ranking.best.adapter)
            for (place, weight), ranking in zip(shares, rankings, strict=True)
        ]
        if fitted.threshold and (why := fitted.threshold.why(placed, similarities)):
            return Route(Mixture(), [replace(match, weight=0.0) for match in matches], why, abstained=True)
        mixture = self._rules.choice.mixture(list(zip(rankings, [weight for _, weight in shares], strict=True)))
        return Route(mixture, matches, f"nearest {sum(match.weight > 0 for match in matches)} of the mapped tasks")

    def _fitted(self) -> _Fitted:
        known = self._tasks.known()
        if not len(known):
            why = f"none of the {known.total} tasks has been mapped" if known.total else "the task index is empty"
            raise RoutingError(why, hint="run `lorauter tasks add FOLDER`, then `lorauter map`")
        with self._lock:
            if self._last is None or self._last.known is not known:
                self._last = self._fit(known)
            return self._last

    def _fit(self, known: KnownTasks) -> _Fitted:
        rules, encoder = self._rules, self._tasks.encoder
        space, threshold = rules.space.fit(known), None
        others = rules.abstaining.others(encoder) if rules.abstaining else None

        @cache
        def left_out() -> LeftOut | None:
            return space.leave_one_out(others)

        if rules.abstaining and others is not None:
            threshold = rules.abstaining.fit(space, left_out, others)
        return _Fitted(known, space, rules.weighting.fit(left_out), threshold)


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
