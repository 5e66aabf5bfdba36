"""What goes into a language model and what comes out, as values. Knows nothing of models or frameworks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, Literal, TypeAlias

from lorauter_integrations.errors import OptionError, listing
from lorauter_integrations.mixture import Mixture

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
BASE_MODEL = Mixture()

MOST_LOGPROBS = 20
REFUSED = {
    "num_beams": "each row of a batch is one answer under its own mixture; temperature=0 takes the likeliest tokens",
    "n": "one call writes one answer; send the conversation n times (they share the batch), each with its own seed",
    "best_of": "one call writes one answer; send the conversation several times, each with its own seed",
    "frequency_penalty": "use repetition_penalty",
    "presence_penalty": "use repetition_penalty",
    "logit_bias": "use a grammar to say what the answer may be",
}
"""Options of other libraries that people try, and what to do instead."""

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
class Grammar:
    """What the whole answer must be; made by `Grammar.json_schema`, `Grammar.tool_calls` or `Grammar.lark`.

    Attributes:
        kind: which of them.
        source: the schema or the tools as JSON, or the grammar's text.
    """

    kind: Literal["json_schema", "tool_calls", "lark"]
    source: str

    @property
    def allows_text(self) -> bool:
        """Whether it is `tool_calls` and the answer may be text."""
        return self.kind == "tool_calls" and bool(_parts(self.source)["text"])

    @property
    def otherwise(self) -> Grammar | None:
        """What binds an answer that the model, were it free, would begin as it may not; None if the same does.

        Where there are calls or an `answer` and no text, a model that would write text means to answer.
        """
        if self.kind != "tool_calls" or self.allows_text:
            return None
        parts = _parts(self.source)
        return Grammar.json_schema(parts["answer"]) if parts["tools"] and parts["answer"] is not None else None

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any]) -> Grammar:
        """JSON that is valid for a schema.

        Raises:
            OptionError: the schema is not a JSON object.
        """
        try:
            return cls("json_schema", json.dumps(dict(schema)))
        except (TypeError, ValueError) as error:
            raise OptionError(f"the JSON schema is not JSON: {error}", hint="give a dictionary") from error

    @classmethod
    def tool_calls(
        cls,
        tools: Sequence[ToolSchema],
        *,
        text: bool = False,
        parallel: bool = True,
        answer: Mapping[str, Any] | None = None,
    ) -> Grammar:
        """Calls of some tools, in the form in which the model writes them, with valid arguments.

        Args:
            tools: the callable ones; none with `text` is an answer without calls.
            text: whether the answer may be text instead, or text before its calls.
            parallel: whether it may hold more than one call.
            answer: a JSON schema; the answer may be JSON that is valid for it, instead of calls. Without `text`, the
                model's first choice decides: to begin a call, or else this.

        Raises:
            OptionError: nothing is allowed, or a schema is not JSON.
        """
        if not tools and not text and answer is None:
            raise OptionError("a call is to be forced and there are no tools", hint="bind tools, or do not force")
        parts = {"tools": list(tools), "text": text, "parallel": parallel, "answer": answer}
        try:
            return cls("tool_calls", json.dumps(parts))
        except (TypeError, ValueError) as error:
            raise OptionError(f"a tool's schema is not JSON: {error}", hint="give dictionaries") from error

    @classmethod
    def lark(cls, text: str) -> Grammar:
        """Text of a Lark grammar, in llguidance's dialect; its first rule is `start`."""
        return cls("lark", text)


@lru_cache(maxsize=64)
def _parts(source: str) -> Mapping[str, Any]:
    """What a `tool_calls` grammar is made of; asked several times for each call of an agent."""
    parts: dict[str, Any] = json.loads(source)
    return parts


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """How to choose the next tokens.

    In this order: what the grammar allows, repetition_penalty, temperature, top_k, top_p, min_p.

    Attributes:
        max_tokens: upper bound of new tokens, at least 1.
        temperature: 0 chooses the likeliest token each time (greedy).
        top_p: keep the likeliest tokens whose probabilities reach this sum, in (0, 1]; 1 keeps all.
        top_k: keep this many likeliest tokens; 0 keeps all.
        min_p: drop tokens below this share of the likeliest one's probability, in [0, 1]; 0 keeps all.
        repetition_penalty: above 1 makes tokens of prompt and answer less likely, above 0; 1 changes nothing
            (Keskar et al. 2019, https://arxiv.org/abs/1909.05858, section 4.1).
        seed: same seed, same text; None draws a fresh one.
        stop: the answer ends before the first of these strings.
        logprobs: None, or how many likeliest tokens to report beside each chosen one, 0 to 20.
        timeout: seconds from the call to the end of the answer; None waits as long as it takes.

    Raises:
        OptionError: a value is out of range.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: Sequence[str] = ()
    logprobs: int | None = None
    timeout: float | None = None

    def __post_init__(self) -> None:
        _whole("max_tokens", self.max_tokens, at_least=1)
        _whole("top_k", self.top_k, at_least=0)
        for name, most in (("seed", 2**63 - 1), ("logprobs", MOST_LOGPROBS)):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name), at_least=0, at_most=most)
        _in_range("temperature", self.temperature, 0.0, math.inf)
        _in_range("top_p", self.top_p, 0.0, 1.0, above="use temperature=0 for greedy decoding")
        _in_range("min_p", self.min_p, 0.0, 1.0)
        _in_range("repetition_penalty", self.repetition_penalty, 0.0, math.inf, above="1 changes nothing")
        if self.timeout is not None:
            _in_range("timeout", self.timeout, 0.0, math.inf, above="leave it out to wait as long as it takes")
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
        refuse_unsupported(sorted(set(values) - known))
        if unknown := set(values) - known:
            raise OptionError(
                f"unknown generation option {listing(unknown)}", hint=f"the options are {listing(known)}"
            )
        return replace(self, **{name: value for name, value in values.items() if value is not None})


def refuse_unsupported(names: Iterable[str]) -> None:
    """Refuse options of other libraries by name, with what to do instead.

    Raises:
        OptionError: there is one.
    """
    for name in names:
        if name in REFUSED:
            raise OptionError(f"the option {name} is not supported", hint=REFUSED[name])


def _whole(name: str, value: object, *, at_least: int, at_most: float = math.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise OptionError(f"{name} must be a whole number of at least {at_least}, not {value!r}")
    if value > at_most:
        raise OptionError(f"{name} must be at most {at_most}, not {value}")


def _in_range(name: str, value: object, low: float, high: float, *, above: str = "") -> None:
    """Refuse what is not in the range; with a hint `above`, also its lower end."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise OptionError(f"{name} must be a number from {low:g} to {high:g}, not {value!r}")
    if not math.isfinite(value):
        raise OptionError(f"{name} must be finite, not {value!r}")
    if above and value == low:
        raise OptionError(f"{name} must be above {low:g}", hint=above)


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One conversation to be continued, under one mixture of adapters.

    Attributes:
        messages: the conversation.
        mixture: the adapters with their weights.
        options: how to choose tokens.
        tools: shown to the model.
        grammar: what the answer must be.
        keep_on: asked after every token with the text so far; False ends the answer there.

    Raises:
        OptionError: stop strings together with a grammar that does not allow text.
    """

    messages: Sequence[Message]
    mixture: Mixture = BASE_MODEL
    options: GenerationOptions = GenerationOptions()
    tools: Sequence[ToolSchema] = ()
    grammar: Grammar | None = None
    keep_on: Callable[[str], bool] | None = None

    def __post_init__(self) -> None:
        if self.grammar and self.options.stop and not self.grammar.allows_text:
            raise OptionError(
                f"a grammar and the stop strings {list(self.options.stop)!r} exclude each other: "
                "an answer cut at one would not be of the grammar",
                hint="leave the stop strings out of this call",
            )


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
class TokenLogprob:
    """A token that was chosen, and what else was likely.

    The model's own distribution under the mixture: before grammar, penalty, temperature and cuts.

    Attributes:
        token: its text; a piece of a character of several tokens reads as U+FFFD.
        logprob: natural logarithm of its probability.
        top: the likeliest tokens with their log-probabilities, best first.
    """

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer.

    `finish_reason` is "length" when max_tokens cut it, "failed" when the model's numbers overflowed (the text
    ends there), else "stop". `logprobs` has an entry for each new token when the options ask for them.
    """

    text: str
    finish_reason: FinishReason
    usage: Usage
    logprobs: tuple[TokenLogprob, ...] = ()

    def logprob_facts(self) -> dict[str, Any]:
        """The log-probabilities for an answer's metadata, in OpenAI's form; empty when there are none."""
        tokens = [
            {
                "token": one.token,
                "logprob": one.logprob,
                "top_logprobs": [{"token": token, "logprob": value} for token, value in one.top],
            }
            for one in self.logprobs
        ]
        return {"logprobs": {"content": tokens}} if tokens else {}


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer being written; the last one carries the whole completion."""

    text: str
    completion: Completion | None = None
