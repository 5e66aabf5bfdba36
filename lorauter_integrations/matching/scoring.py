"""How well a contestant does on examples of a task. Knows engines; nothing of halving or ledgers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from lorauter_integrations.digests import digest
from lorauter_integrations.engines import Engine
from lorauter_integrations.errors import ContextLengthError, MappingError
from lorauter_integrations.generation import GenerationOptions, GenerationRequest
from lorauter_integrations.metrics import STILL_POSSIBLE, metric_source
from lorauter_integrations.mixture import Mixture
from lorauter_integrations.task import Example, Task

BASE = ""
"""The base model's name among contestants."""


class Scorer(Protocol):
    """Anything that scores contestants on a task's examples."""

    @property
    def base_model(self) -> str:
        """The identity of the base model and its prompt form."""
        ...

    def identity(self, task: Task) -> str:
        """A hash of all that decides a score, the contestant and the example apart."""
        ...

    def score(self, task: Task, pairs: Sequence[tuple[str, Example]]) -> list[float]:
        """The score of each (adapter name or BASE, example): finite, higher is better."""
        ...


class MetricScorer:
    """The task's metric on the text that the model writes (greedy).

    Args:
        engine: writes the answers.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def base_model(self) -> str:
        """The engine's identity."""
        return self._engine.identity

    def identity(self, task: Task) -> str:
        """Base model, prompt form and metric (a function of one's own by its source)."""
        return digest(["metric", self._engine.identity, str(task.metric), metric_source(str(task.metric))])

    def score(self, task: Task, pairs: Sequence[tuple[str, Example]]) -> list[float]:
        """The metric of each contestant's answer to each example, in [0, 1]; 0 where the model overflows.

        Raises:
            MappingError: the metric fails, or an example is too long for the model.
        """
        requests = [
            GenerationRequest(
                example.messages,
                _mixture(name),
                GenerationOptions(max_tokens=self._max_tokens(example)),
                keep_on=_keep_on(task, example),
            )
            for name, example in pairs
        ]
        with length_errors(task):
            answers = self._engine.complete(requests)
        return [
            0.0 if answer.finish_reason == "failed" else measured(task, answer.text, example.target)
            for answer, (_, example) in zip(answers, pairs, strict=True)
        ]

    def _max_tokens(self, example: Example) -> int:
        """Room for the target and a quarter more: what rambles on need not be read to its end."""
        return room(len(self._engine.token_ids(example.target)))


class LikelihoodScorer:
    """How likely the model finds the right answer: the geometric mean of its tokens' probabilities.

    For tasks whose metric is zero for nearly everyone, and cheaper than writing: one forward pass.

    Args:
        engine: reads the answers.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def base_model(self) -> str:
        """The engine's identity."""
        return self._engine.identity

    def identity(self, task: Task) -> str:
        """Base model and prompt form."""
        return digest(["log_likelihood", self._engine.identity])

    def score(self, task: Task, pairs: Sequence[tuple[str, Example]]) -> list[float]:
        """``exp(mean log p)`` of each target, in [0, 1]; 0 where the model overflows.

        Raises:
            MappingError: an example is too long for the model.
        """
        requests = [GenerationRequest(example.messages, _mixture(name)) for name, example in pairs]
        with length_errors(task):
            means = self._engine.log_likelihood(requests, [example.target for _, example in pairs])
        return [math.exp(mean) if math.isfinite(mean) else 0.0 for mean in means]


def _mixture(adapter: str) -> Mixture:
    return Mixture({adapter: 1.0} if adapter else {})


@contextmanager
def length_errors(task: Task) -> Iterator[None]:
    """Wrap what the engine reads of a task.

    Raises:
        MappingError: one of its examples is too long.
    """
    try:
        yield
    except ContextLengthError as error:
        raise MappingError(
            f"an example of task {task.name!r} is too long: {error.message}", hint="shorten or remove it"
        ) from error


def _keep_on(task: Task, example: Example) -> Callable[[str], bool] | None:
    """An answer that can no longer score need not be written to its end: its score of 0 is certain."""
    rule = STILL_POSSIBLE.get(str(task.metric))
    return (lambda text: rule(text, example.target)) if rule else None


def room(tokens: int) -> int:
    """Most tokens of an answer, by those of the longest right one: a quarter more, and a few."""
    return math.ceil(1.25 * tokens) + 4


def measured(task: Task, answer: str, target: str) -> float:
    """The task's metric, which may be a user's function, as a finite number.

    Raises:
        MappingError: it fails, or gives none.
    """
    try:
        score = float(task.score(answer, target))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise MappingError(
            f"the metric {task.metric} of task {task.name!r} failed: {type(error).__name__}: {error}",
            hint=f"it must give a number for every answer, also for {answer[:80]!r}",
        ) from error
    if not math.isfinite(score):
        raise MappingError(
            f"the metric {task.metric} of task {task.name!r} gave {score}",
            hint=f"it must give a finite number for every answer, also for {answer[:80]!r}",
        )
    return score
