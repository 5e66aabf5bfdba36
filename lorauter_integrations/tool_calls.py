"""Tools in plain text: how they are shown to a model and how its calls are read back. Knows no framework.

The form is Hermes' (https://github.com/NousResearch/Hermes-Function-Calling), used for models whose own
chat template has no place for tools, and as the text by which a call with tools is routed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
_CALL = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|\Z)", re.DOTALL)
OPEN = "<tool_call>"


@dataclass(frozen=True, slots=True)
class BrokenCall:
    """A call that the model began and that cannot be read: its text and why."""

    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """An answer taken apart: the text outside calls, the calls, and what looks like a call but is none."""

    text: str
    calls: tuple[ToolCall, ...] = ()
    broken: tuple[BrokenCall, ...] = ()


def tools_block(tools: Sequence[ToolSchema]) -> str:
    """The part of the system message that shows the tools, one JSON schema a line."""
    return _INTRODUCTION + "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools) + _CALL_FORM


def system_with_tools(system: str, tools: Sequence[ToolSchema]) -> str:
    """A system message followed by the tools, if there are any."""
    return "\n\n".join(part for part in (system.strip(), tools_block(tools) if tools else "") if part)


def call_text(call: ToolCall) -> str:
    """One call as the model writes it."""
    body = json.dumps({"name": call.name, "arguments": dict(call.arguments)}, ensure_ascii=False)
    return f"<tool_call>\n{body}\n</tool_call>"


def result_text(content: str) -> str:
    """One tool's result as the model reads it, in a user turn."""
    return f"<tool_response>\n{content}\n</tool_response>"


def parse_tool_calls(text: str) -> ParsedAnswer:
    """Take the calls out of an answer: tagged ones, or an answer that is nothing but one JSON call.

    Nothing is lost: what cannot be read as a call comes back as a `BrokenCall`.
    """
    bodies = _CALL.findall(text)
    if not bodies and _is_bare_call(text):
        return ParsedAnswer("", (_read_call(text),))
    calls, broken = [], []
    for body in bodies:
        try:
            calls.append(_read_call(body))
        except (ValueError, KeyError, TypeError) as error:
            broken.append(BrokenCall(body, f"{type(error).__name__}: {error}"))
    return ParsedAnswer(_CALL.sub("", text).strip() if bodies else text, tuple(calls), tuple(broken))


class CallFilter:
    """Hides calls from a stream: text before the first call goes through, the rest waits for the end."""

    def __init__(self) -> None:
        self._text = ""
        self._shown = 0

    def push(self, piece: str) -> str:
        """Add a piece; returns the text that is certainly not part of a call."""
        self._text += piece
        if self._text.lstrip()[:1] in ("{", ""):  # perhaps a bare JSON call
            return ""
        place = self._text.find(OPEN)
        end = place if place >= 0 else len(self._text) - begun(OPEN, self._text)
        shown = self._text[self._shown : end]
        self._shown = max(self._shown, end)
        return shown

    def finish(self) -> tuple[str, ParsedAnswer]:
        """The text not shown yet, and the whole answer taken apart."""
        parsed = parse_tool_calls(self._text)
        if not parsed.calls and not parsed.broken:
            return self._text[self._shown :], parsed
        # Not `parsed.text`, which is stripped: `_shown` counts from the start of the whole text.
        whole = _CALL.sub("", self._text).rstrip() if parsed.text else ""
        return whole[self._shown :], parsed


def begun(tag: str, text: str) -> int:
    """Length of the longest end of the text that is a beginning of the tag, but not all of it."""
    return next((n for n in range(min(len(tag) - 1, len(text)), 0, -1) if text.endswith(tag[:n])), 0)


def _read_call(body: str) -> ToolCall:
    try:
        value: Any = json.loads(body)
    except RecursionError as error:  # a model can write nothing but brackets
        raise ValueError("nested too deeply") from error
    name, arguments = value["name"], value.get("arguments", {})
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise TypeError("a call needs a name (text) and arguments (an object)")
    return ToolCall(name, arguments)


def _is_bare_call(text: str) -> bool:
    try:
        _read_call(text)
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    return True
