"""Calls of tools as a grammar in llguidance's dialect of Lark. Knows how a model writes calls, and no tokens.

Text and calls are told apart by the mark before a call, which text never holds. Where a form has no mark, or JSON
may be the answer, text does not begin with a brace.
"""

from __future__ import annotations

import json
import logging
import reprlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from lorauter_integrations.engines.json_schema import prepared
from lorauter_integrations.engines.schema_parts import KEYWORDS, Schema
from lorauter_integrations.engines.writable import grammar_fault
from lorauter_integrations.errors import OptionError
from lorauter_integrations.generation import Grammar, ToolSchema
from lorauter_integrations.tool_calls import HERMES, CallForm

logger = logging.getLogger(__name__)

MOST_CALLS = 8  # of one answer; a small model may never stop calling


def tool_grammar(parts: Mapping[str, Any], form: CallForm) -> str:
    """The answers that a `Grammar.tool_calls` allows.

    A call has a tool's name, and arguments that are valid for this tool. What no grammar can keep of its schema is
    left out, since the tool checks its input itself; an `answer` is refused for it. Text is more than white space,
    unless a call follows it; where the form has no mark, none does.

    Args:
        parts: the source of the grammar, read from its JSON.
        form: how the model writes calls.

    Raises:
        OptionError: two tools of one name, a tool that is not in OpenAI's form, parameters that are no object or
            no schema, or an answer's schema that cannot be kept.
    """
    tools, text, answer = parts["tools"], parts["text"], parts["answer"]
    mark = form.begin.strip()
    rules: dict[str, str] = {}
    if tools:
        begin = f"opening {_quoted(form.begin.partition(mark)[2])}" if text and mark else _quoted(form.begin)
        rules["calls"] = f"{begin} call {_quoted(form.end)} {_further(form) if parts['parallel'] else ''}"
        rules |= _call_rules(tools, form)
    if answer is not None:
        rules["answer"] = _json(prepared(answer))
    if text:
        rules |= _text_rules(mark, brace_first=bool(mark) and answer is None)
    start = " | ".join(way for way in ("calls", "answer", "TEXT") if way in rules)
    return "\n".join(f"{name}: {body}" for name, body in {"start": start, **rules}.items())


def _text_rules(mark: str, *, brace_first: bool) -> dict[str, str]:
    """Text, and text with the mark at its end."""
    any_text = r"/(?s:.*)/"
    rules = {"FREE": any_text if brace_first else r"/(?s:\s*([^\s{].*)?)/", "SOME": r"/(?s:.*\S.*)/"}
    if not mark:
        return {"TEXT": "FREE & SOME", **rules}
    rules |= {"ANY": any_text, "MARK": _quoted(mark), "TEXT": "FREE & SOME & ~(ANY MARK ANY)"}
    return {"opening[lazy]": "FREE MARK", **rules}  # lazy: the first mark ends the text


def _call_rules(tools: Sequence[ToolSchema], form: CallForm) -> dict[str, str]:
    """One call without its marks: a rule for each tool, each with definitions of its own."""
    schemas: dict[str, Schema] = {}
    for tool in tools:
        name, parameters = _read(tool)
        if name in schemas:
            raise OptionError(f"two tools have the name {name!r}", hint="a call could not say which of them it means")
        schemas[name] = _call_schema(name, parameters, form.arguments)
    rules = {f"call_{number}": _json(schema) for number, schema in enumerate(schemas.values())}
    return {"call": " | ".join(rules), **rules}


def _read(tool: ToolSchema) -> tuple[str, Mapping[str, Any]]:
    """A tool's name and the schema of its arguments; one that takes none may leave the schema out."""
    try:
        function = tool["function"]
        name, parameters = function["name"], function.get("parameters") or {}
        kind = parameters.get("type", "object")
    except (KeyError, TypeError, AttributeError):
        hint = 'write {"type": "function", "function": {"name": ..., "parameters": {"type": "object", ...}}}'
        raise OptionError(f"a tool is not in OpenAI's form: {reprlib.repr(tool)}", hint=hint) from None
    if kind != "object":
        raise OptionError(f"tool {name!r}: its arguments are of type {kind!r}", hint="put them into an object")
    return name, parameters if KEYWORDS & parameters.keys() else {"type": "object"}


def _call_schema(name: str, parameters: Mapping[str, Any], key: str) -> Schema:
    left_out: dict[str, str] = {}
    try:
        arguments = prepared(parameters, lambda path, reason, _: left_out.update({path: reason}))
    except OptionError as error:
        raise OptionError(f"tool {name!r}: {error.message}", hint=error.hint) from error
    if left_out:
        logger.debug("tool %r: its grammar does not keep %s", name, left_out)
    return {
        "x-guidance": arguments.pop("x-guidance"),
        "$defs": arguments.pop("$defs"),
        "type": "object",
        "properties": {"name": {"const": name}, key: arguments},
        "required": ["name", key],
        "additionalProperties": False,
    }


def _further(form: CallForm) -> str:
    """The calls after the first one."""
    if form.between is None:
        return ""
    return f"({_quoted(form.between + form.begin)} call {_quoted(form.end)}){{0,{MOST_CALLS - 1}}}"


def _json(schema: Schema) -> str:
    return f"%json {json.dumps(schema)}"


def _quoted(text: str) -> str:
    """A text as Lark writes it; the grammar's strings are JSON's."""
    return json.dumps(text)


def checked(tools: Sequence[ToolSchema]) -> Sequence[ToolSchema]:
    """The tools, if calls of them can be written.

    Args:
        tools: in OpenAI's form.

    Raises:
        OptionError: a tool's schema cannot be used at all, by the tool's name.
    """
    for tool in tools:
        grammar = Grammar.tool_calls([tool])
        if fault := _fault(grammar.source):
            hint = "see which types and keywords JSON Schema, draft 2020-12, has"
            raise OptionError(f"tool {tool['function']['name']!r}: no call of it can be written: {fault}", hint=hint)
    return tools


@lru_cache(maxsize=256)
def _fault(source: str) -> str:
    return grammar_fault(tool_grammar(json.loads(source), HERMES)).partition("\n")[0]
