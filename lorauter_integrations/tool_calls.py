"""Tools in plain text: how they are shown to a model and in which form it calls them. Knows no framework.

The form is Hermes' (https://github.com/NousResearch/Hermes-Function-Calling), used for models whose own
chat template has no place for tools, and as the text by which a call with tools is routed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from lorauter_integrations.generation import ToolCall, ToolSchema

_INTRODUCTION = (
    "You may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
)
_CALL_FORM = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
    "<tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)


@dataclass(frozen=True, slots=True)
class CallForm:
    """How a model writes its calls: JSON objects with a name and arguments, each between two marks.

    Attributes:
        begin: before each call.
        end: after each call.
        between: between two calls of one answer; None when the model writes one call an answer.
        arguments: the key of the arguments; some models write "parameters".
    """

    begin: str = "<tool_call>\n"
    end: str = "\n</tool_call>"
    between: str | None = "\n"
    arguments: str = "arguments"


HERMES = CallForm()


@dataclass(frozen=True, slots=True)
class BrokenCall:
    """A call that the model began and that cannot be read.

    Attributes:
        text: what stands between the marks.
        reason: why it is no call.
        index: its place among all calls of the answer, whole and broken, from 0.
        name: the tool's name; "" when it cannot be known.
    """

    text: str
    reason: str
    index: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """An answer taken apart: the text outside calls, the calls, and what looks like a call but is none."""

    text: str
    calls: tuple[ToolCall, ...] = ()
    broken: tuple[BrokenCall, ...] = ()

    @property
    def places(self) -> tuple[int, ...]:
        """The place of each of `calls` among all calls of the answer, whole and broken, from 0."""
        taken = {call.index for call in self.broken}
        return tuple(place for place in range(len(self.calls) + len(self.broken)) if place not in taken)


def tools_block(tools: Sequence[ToolSchema]) -> str:
    """The part of the system message that shows the tools, one JSON schema a line."""
    return _INTRODUCTION + "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools) + _CALL_FORM


def system_with_tools(system: str, tools: Sequence[ToolSchema]) -> str:
    """A system message followed by the tools, if there are any."""
    return "\n\n".join(part for part in (system.strip(), tools_block(tools) if tools else "") if part)


def call_text(call: ToolCall, form: CallForm = HERMES) -> str:
    """One call as the model writes it."""
    body = json.dumps({"name": call.name, form.arguments: dict(call.arguments)}, ensure_ascii=False)
    return f"{form.begin}{body}{form.end}"


def new_call_id() -> str:
    """An id for a call, of which the model writes none."""
    return f"call_{uuid4().hex[:24]}"


def read_calls(asked: Iterable[tuple[str | None, Any, str]]) -> tuple[tuple[ToolCall, ...], list[str]]:
    """The calls of a history, and the texts of those that are none.

    Args:
        asked: of each the name, the arguments (an object, or its JSON) and the id.
    """
    calls, broken = [], []
    for name, given, call_id in asked:
        arguments = _parsed(given or "{}")
        if name and isinstance(arguments, dict):
            calls.append(ToolCall(name, arguments, call_id))
        else:
            broken.append(broken_text(name, given))
    return tuple(calls), broken


def _parsed(given: Any) -> Any:
    """A value from JSON; text that is none stays text."""
    try:
        return json.loads(given) if isinstance(given, str) else given
    except (ValueError, RecursionError):  # a model can write nothing but brackets
        return given


def broken_text(name: str | None, arguments: Any) -> str:
    """A call that could not be parsed, as the model wrote it; without a name, the arguments are all of it."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    if name:
        text = f'{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": {text}}}'
    return f"{HERMES.begin}{text}{HERMES.end}"


def result_text(content: str) -> str:
    """One tool's result as the model reads it, in a user turn."""
    return f"<tool_response>\n{content}\n</tool_response>"


def begun(tag: str, text: str) -> int:
    """Length of the longest end of the text that is a beginning of the tag, but not all of it."""
    return next((n for n in range(min(len(tag) - 1, len(text)), 0, -1) if text.endswith(tag[:n])), 0)
