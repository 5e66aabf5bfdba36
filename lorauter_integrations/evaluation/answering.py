"""The answers of methods, each prompt under each mixture once. Knows engines; nothing of scores or tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lorauter_integrations.digests import digest
from lorauter_integrations.engines.local import LocalEngine
from lorauter_integrations.evaluation.predictions import Predictions
from lorauter_integrations.evaluation.tested_task import TestedTask
from lorauter_integrations.evaluation.token_level import TokenLevel
from lorauter_integrations.generation import Completion, GenerationOptions, GenerationRequest
from lorauter_integrations.matching.scoring import room
from lorauter_integrations.mixing.token_routing import Arrow, SpectR
from lorauter_integrations.mixture import Mixture
from lorauter_integrations.task import Example

AT_ONCE = 128  # answers that are written before they are kept
MOST_TOKENS = 128
RULES = {"arrow": Arrow(), "spectr": SpectR()}

Write = Callable[[Sequence[GenerationRequest]], Sequence[Completion]]


@dataclass(frozen=True, slots=True)
class Question:
    """A test example under a mixture.

    Attributes:
        example: the test example.
        mixture: to answer under.
        max_tokens: of the answer.
    """

    example: Example
    mixture: Mixture
    max_tokens: int

    @property
    def request(self) -> GenerationRequest:
        """As an engine takes it; greedy."""
        return GenerationRequest(
            self.example.messages, self.mixture, GenerationOptions(max_tokens=self.max_tokens, temperature=0.0)
        )

    def key(self, model: str, way: str) -> str:
        """What the answer depends on, and no more: methods that agree share their answers."""
        turns = [[turn.role, turn.content] for turn in self.example.messages]
        weights = sorted((name, round(weight, 6)) for name, weight in self.mixture.items())
        return digest([model, way, turns, weights, self.max_tokens])


class Answerer:
    """Writes answers that are not known yet.

    Args:
        engine: writes them.
        predictions: those that are known.
    """

    def __init__(self, engine: LocalEngine, predictions: Predictions) -> None:
        self._engine = engine
        self._predictions = predictions
        self._token_level: dict[str, TokenLevel] = {}

    def answers(self, questions: Sequence[Question]) -> list[str]:
        """The answers, in the order of the questions."""
        return self._known(questions, "mixed", self._engine.complete)

    def token_level(self, questions: Sequence[Question], rule: str, among: Sequence[str]) -> list[str]:
        """The answers of a method that chooses for each token among some adapters."""
        if rule not in self._token_level:
            self._token_level[rule] = TokenLevel(self._engine, sorted(self._engine.adapters), RULES[rule])
        level = self._token_level[rule]
        way = f"{RULES[rule]!r} {digest(sorted(among))}"
        return self._known(questions, way, lambda requests: level.complete(requests, among))

    def _known(self, questions: Sequence[Question], way: str, write: Write) -> list[str]:
        keys = [question.key(self._engine.identity, way) for question in questions]
        new = {key: one for key, one in zip(keys, questions, strict=True) if key not in self._predictions}
        left = list(new)
        for start in range(0, len(left), AT_ONCE):
            part = left[start : start + AT_ONCE]
            answers = write([new[key].request for key in part])
            self._predictions.keep({key: answer.text for key, answer in zip(part, answers, strict=True)})
        return [self._predictions[key] for key in keys]


def most_tokens(engine: LocalEngine, task: TestedTask) -> int:
    """Room for a task's answers: a quarter more than its longest validation target, at most 128 tokens."""
    longest = max(len(engine.token_ids(example.target)) for example in task.task.examples)
    return min(room(longest), MOST_TOKENS)
