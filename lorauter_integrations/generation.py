"""What goes into a language model and what comes out, as values. Knows nothing of models or frameworks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeAlias

from lorauter_integrations.errors import OptionError, listing
from lorauter_integrations.mixture import Mixture

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
BASE_MODEL = Mixture()

FinishReason: TypeAlias = Literal["stop", "length", "failed"]
ToolSchema: TypeAlias = Mapping[str, Any]  # OpenAI form: {"type": "function", "function": {...}}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call that the model asks for: a tool's name and its arguments."""

    name: str
    arguments: Mapping[str, Any]
    id: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. A `tool` message carries a tool's result and the id of its call."""

    role: Role
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """How to choose the next tokens.

    Attributes:
        max_tokens: upper bound of new tokens, at least 1.
        temperature: 0 chooses the likeliest token each time (greedy).
        top_p: keep the likeliest tokens whose probabilities reach this sum, in (0, 1]; 1 keeps all.
        top_k: keep this many likeliest tokens; 0 keeps all.
        seed: same seed, same text; None draws a fresh one.
        stop: the answer ends before the first of these strings.

    Raises:
        OptionError: a value is out of range.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: Sequence[str] = ()

    def __post_init__(self) -> None:
        _whole("max_tokens", self.max_tokens, at_least=1)
        _whole("top_k", self.top_k, at_least=0)
        if self.seed is not None:
            _whole("seed", self.seed, at_least=0)
            if self.seed >= 2**63:
                raise OptionError(f"seed must be below 2**63, not {self.seed}")
        _in_range("temperature", self.temperature, 0.0, math.inf)
        _in_range("top_p", self.top_p, 0.0, 1.0)
        if self.top_p == 0:
            raise OptionError("top_p must be above 0", hint="use temperature=0 for greedy decoding")
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        object.__setattr__(self, "stop", tuple(self.stop))
        if not all(isinstance(text, str) and text for text in self.stop):
            raise OptionError(f"stop must hold non-empty strings, not {self.stop!r}")

    def override(self, values: Mapping[str, Any]) -> GenerationOptions:
        """These options with some replaced; a value of None keeps what is here.

        Raises:
            OptionError: an option that does not exist.
        """
        known = {field.name for field in fields(self)}
        if unknown := set(values) - known:
            raise OptionError(
                f"unknown generation option {listing(unknown)}", hint=f"the options are {listing(known)}"
            )
        return replace(self, **{name: value for name, value in values.items() if value is not None})


def _whole(name: str, value: object, *, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise OptionError(f"{name} must be a whole number of at least {at_least}, not {value!r}")


def _in_range(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise OptionError(f"{name} must be a number from {low:g} to {high:g}, not {value!r}")
    if not math.isfinite(value):
        raise OptionError(f"{name} must be finite, not {value!r}")


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One conversation to be continued, under one mixture of adapters.

    Attributes:
        messages: the conversation.
        mixture: the adapters with their weights.
        options: how to choose tokens.
        tools: shown to the model.
        keep_on: asked after every token with the text so far; False ends the answer there.
    """

    messages: Sequence[Message]
    mixture: Mixture = BASE_MODEL
    options: GenerationOptions = GenerationOptions()
    tools: Sequence[ToolSchema] = ()
    keep_on: Callable[[str], bool] | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens counted by the model's own tokenizer, the chat template included."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer.

    `finish_reason` is "length" when max_tokens cut it, "failed" when the model's numbers overflowed (the text
    ends there), else "stop".
    """

    text: str
    finish_reason: FinishReason
    usage: Usage


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer being written; the last one carries the whole completion."""

    text: str
    completion: Completion | None = None
