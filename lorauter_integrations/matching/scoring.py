"""How well a contestant does on examples of a task. Knows engines; nothing of halving or ledgers."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from lorauter_integrations.engines import Engine
from lorauter_integrations.errors import MappingError
from lorauter_integrations.generation import GenerationOptions, GenerationRequest
from lorauter_integrations.metrics import STILL_POSSIBLE
from lorauter_integrations.mixture import Mixture
from lorauter_integrations.task import Example, Task

BASE = ""
"""The base model's name among contestants."""


class Scorer(Protocol):
    """Anything that scores contestants on a task's examples."""

    def identity(self, task: Task) -> str:
        """A hash of all that decides a score, the contestant and the example apart."""
        ...

    def score(self, task: Task, pairs: Sequence[tuple[str, Example]]) -> list[float]:
        """The score of each (adapter name or BASE, example), higher is better."""
        ...


class MetricScorer:
    """The task's metric on the text that the model writes (greedy).

    Args:
        engine: writes the answers.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def identity(self, task: Task) -> str:
        """Base model, prompt form, metric and length of answers."""
        return _digest(["metric", self._engine.identity, str(task.metric), self._max_tokens(task)])

    def score(self, task: Task, pairs: Sequence[tuple[str, Example]]) -> list[float]:
        """The metric of each contestant's answer to each example, in [0, 1]."""
        options = GenerationOptions(max_tokens=self._max_tokens(task))
        requests = [
            replace(_request(name, example, options), keep_on=_keep_on(task, example)) for name, example in pairs
        ]
        answers = self._engine.complete(requests)
        return [
            _measured(task, answer.text, example.target) for answer, (_, example) in zip(answers, pairs, strict=True)
        ]

    def _max_tokens(self, task: Task) -> int:
        """Room for the longest target and a quarter more: what rambles on need not be read to its end."""
        longest = max(len(self._engine.token_ids(example.target)) for example in task.examples)
        return math.ceil(1.25 * longest) + 4


class LikelihoodScorer:
    """How likely the model finds the right answer: the geometric mean of its tokens' probabilities.

    For tasks whose metric is zero for nearly everyone, and cheaper than writing: one forward pass.

    Args:
        engine: reads the answers.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def identity(self, task: Task) -> str:
        """Base model and prompt form."""
        return _digest(["log_likelihood", self._engine.identity])

    def score(self, task: Task, pairs: Sequence[tuple[str, Example]]) -> list[float]:
        """``exp(mean log p)`` of each target, in (0, 1]."""
        options = GenerationOptions(max_tokens=1)
        requests = [_request(name, example, options) for name, example in pairs]
        means = self._engine.log_likelihood(requests, [example.target for _, example in pairs])
        return [math.exp(mean) for mean in means]


def _keep_on(task: Task, example: Example) -> Callable[[str], bool] | None:
    """An answer that can no longer score need not be written to its end: its score of 0 is certain."""
    rule = STILL_POSSIBLE.get(str(task.metric))
    return (lambda text: rule(text, example.target)) if rule else None


def _measured(task: Task, answer: str, target: str) -> float:
    """The task's metric, which may be a user's function, as a finite number."""
    score = float(task.score(answer, target))
    if not math.isfinite(score):
        raise MappingError(
            f"the metric {task.metric} of task {task.name!r} gave {score}",
            hint=f"it must give a finite number for every answer, also for {answer[:80]!r}",
        )
    return score


def _request(adapter: str, example: Example, options: GenerationOptions) -> GenerationRequest:
    mixture = Mixture({adapter: 1.0} if adapter else {})
    return GenerationRequest(example.messages, mixture, options)


def _digest(facts: list[object]) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
