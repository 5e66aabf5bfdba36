"""LangChain tools, `tool_choice` and `response_format` to the grammar of one answer. Knows no engines."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from langchain_core.tools import BaseTool

from lorauter_integrations.engines.tool_grammar import tool_grammar
from lorauter_integrations.engines.writable import grammar_fault
from lorauter_integrations.errors import OptionError, listing
from lorauter_integrations.generation import Grammar, ToolSchema
from lorauter_integrations.langchain.schemas import is_tool, openai_tool, rooted, without_titles
from lorauter_integrations.langchain.schemas import json_schema as json_schema
from lorauter_integrations.tool_calls import HERMES

UNNAMED = "answer"  # the tool of a JSON schema without a title
ANY_OBJECT = {"type": "object", "additionalProperties": True}
FORCED = frozenset({"any", "required"})
WORDS = FORCED | {"auto", "none"}


@dataclass(frozen=True, slots=True)
class Form:
    """What one answer must be, as a caller asked for it.

    Attributes:
        tools: shown to the model.
        grammar: of the whole answer; None leaves it free.
        has_calls: whether the answer may hold calls.
    """

    tools: Sequence[ToolSchema]
    grammar: Grammar | None
    has_calls: bool


def form_of(
    tools: Sequence[Any],
    tool_choice: Any,
    response_format: Any,
    *,
    parallel: bool | None,
    strict: bool | None,
) -> Form:
    """The form of an answer.

    Args:
        tools: anything `tool_schemas` takes.
        tool_choice: see `chosen`.
        response_format: see `answer_schema`.
        parallel: False allows one call; with a tool forced by its name there is never more than one.
        strict: for `tool_schemas`.

    Raises:
        OptionError: as the three functions named above.
    """
    schemas, answer = tool_schemas(tools, strict=strict), answer_schema(response_format)
    choice = chosen(tool_choice, schemas)
    if choice == "none" or not schemas:
        # The tools stay in sight, so that the step is routed as the one before; as with OpenAI's models.
        free = Grammar.tool_calls((), text=True) if schemas else None
        return Form(schemas, free if answer is None else Grammar.json_schema(answer), has_calls=False)
    if choice == "auto":
        calls = Grammar.tool_calls(schemas, text=answer is None, parallel=parallel is not False, answer=answer)
        return Form(schemas, calls, has_calls=True)
    callable_ones = schemas if choice in FORCED else [tool for tool in schemas if name_of(tool) == choice]
    many = parallel is not False and choice in FORCED
    return Form(schemas, Grammar.tool_calls(callable_ones, parallel=many), has_calls=True)


def tool_schemas(
    tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool], *, strict: bool | None = None
) -> list[ToolSchema]:
    """Tools in OpenAI's form; the same one twice is one tool.

    Args:
        tools: anything `openai_tool` takes.
        strict: as there.

    Raises:
        OptionError: as `openai_tool`; or two different ones have one name.
    """
    schemas: list[ToolSchema] = [openai_tool(tool, strict) for tool in tools]
    bare = [without_titles(schema) for schema in schemas]
    different = [schema for place, schema in enumerate(schemas) if bare[place] not in bare[:place]]
    names = [name_of(schema) for schema in different]
    if twice := {name for name in names if names.count(name) > 1}:
        raise OptionError(f"two of the tools are named {listing(twice)}", hint="give each tool a name of its own")
    return different


def schema_tool(schema: Any, strict: bool | None = None) -> ToolSchema:
    """A schema as the one tool whose arguments are of it; "answer" is its name where it has none.

    Args:
        schema: anything `json_schema` takes.
        strict: for `tool_schemas`.

    Raises:
        OptionError: as `json_schema`.
    """
    if isinstance(schema, Mapping) and not is_tool(schema):
        schema = {"title": UNNAMED, **rooted(json_schema(schema))}
    return openai_tool(schema, strict)


def checked(tools: Sequence[ToolSchema]) -> Sequence[ToolSchema]:
    """The tools, if calls of them can be written.

    Args:
        tools: as `tool_schemas` gives them.

    Raises:
        OptionError: a tool's schema cannot be used at all, by the tool's name.
    """
    for tool in tools:
        grammar = Grammar.tool_calls([tool])
        if fault := _fault(grammar.source):
            hint = "see which types and keywords JSON Schema, draft 2020-12, has"
            raise OptionError(f"tool {name_of(tool)!r}: no call of it can be written: {fault}", hint=hint)
    return tools


@lru_cache(maxsize=256)
def _fault(source: str) -> str:
    return grammar_fault(tool_grammar(json.loads(source), HERMES)).partition("\n")[0]


def name_of(tool: ToolSchema) -> str:
    """A tool's name."""
    return str(tool["function"]["name"])


def chosen(tool_choice: Any, tools: Sequence[ToolSchema]) -> str:
    """A `tool_choice` as "auto", "none", "any", "required" or a tool's name.

    Args:
        tool_choice: one of these, None (auto), a bool (any, none), or a dictionary of OpenAI's or Anthropic's form.
        tools: what can be chosen.

    Raises:
        OptionError: it is none of these, or names a tool that is not bound.
    """
    choice = _plain(tool_choice)
    names = [name_of(tool) for tool in tools]
    if choice in names or choice in ("auto", "none") or (choice in FORCED and names):
        return choice
    if choice in FORCED:
        raise OptionError(f"tool_choice={tool_choice!r} forces a call and no tools are bound", hint="bind tools")
    raise OptionError(
        f"tool_choice={tool_choice!r} is not one of the bound tools",
        hint=f"the tools are {listing(names)}; or choose 'auto', 'any' or 'none'",
    )


def _plain(tool_choice: Any) -> str:
    if isinstance(tool_choice, Mapping):
        inner = tool_choice.get("function", tool_choice)
        named = inner.get("name") or tool_choice.get("type") if isinstance(inner, Mapping) else None
        return named if isinstance(named, str) else repr(tool_choice)
    if tool_choice is None or isinstance(tool_choice, bool):
        return {None: "auto", True: "any", False: "none"}[tool_choice]
    return str(tool_choice)


def answer_schema(response_format: Any) -> dict[str, Any] | None:
    """The JSON schema of a `response_format`; None leaves the answer free.

    Args:
        response_format: None, OpenAI's dictionary (text, json_object, json_schema), or anything that `json_schema`
            takes.

    Raises:
        OptionError: as `json_schema`.
    """
    if response_format is None or response_format == {"type": "text"}:
        return None
    if isinstance(response_format, Mapping) and response_format.get("type") == "json_object":
        return json_schema(response_format.get("schema", ANY_OBJECT))
    return json_schema(response_format)
