"""LangChain tools, `tool_choice` and `response_format` to the grammar of one answer. Knows no engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from pydantic import BaseModel
from pydantic.v1 import BaseModel as BaseModelV1

from lorauter_integrations.errors import OptionError, listing
from lorauter_integrations.generation import Grammar, ToolSchema

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
        tools: anything `convert_to_openai_tool` takes.
        strict: as there.

    Raises:
        OptionError: a tool that only a provider's servers can run, or two different ones of one name.
    """
    schemas: list[ToolSchema] = [convert_to_openai_tool(tool, strict=strict) for tool in tools]
    for schema in schemas:
        if "function" not in schema:
            raise OptionError(
                f"the tool of type {schema.get('type')!r} runs on its provider's servers",
                hint="bind a function, a LangChain tool, a pydantic class or a JSON schema",
            )
    bare = [_without_titles(schema) for schema in schemas]
    different = [schema for place, schema in enumerate(schemas) if bare[place] not in bare[:place]]
    names = [name_of(schema) for schema in different]
    if twice := {name for name in names if names.count(name) > 1}:
        raise OptionError(f"two of the tools are named {listing(twice)}", hint="give each tool a name of its own")
    return different


def _without_titles(schema: Any) -> Any:
    """A schema without what pydantic adds and LangChain takes away; a property may be named "title"."""
    if isinstance(schema, Mapping):
        kept = ((key, value) for key, value in schema.items() if key != "title" or not isinstance(value, str))
        return {key: _without_titles(value) for key, value in kept}
    return [_without_titles(one) for one in schema] if isinstance(schema, list) else schema


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
        tool_choice = inner.get("name") or tool_choice.get("type")
    if tool_choice is None or isinstance(tool_choice, bool):
        return {None: "auto", True: "any", False: "none"}[tool_choice]
    return str(tool_choice)


def answer_schema(response_format: Any) -> dict[str, Any] | None:
    """The JSON schema of a `response_format`; None leaves the answer free.

    Args:
        response_format: None, OpenAI's dictionary (json_schema, json_object, text), or what `json_schema` takes.

    Raises:
        OptionError: a dictionary of another form.
    """
    if response_format is None or response_format == {"type": "text"}:
        return None
    if not isinstance(response_format, Mapping):
        return json_schema(response_format)
    kind = response_format.get("type")
    if kind == "json_object":
        return ANY_OBJECT
    if kind == "json_schema" and isinstance(response_format.get("json_schema"), Mapping):
        inner = response_format["json_schema"].get("schema")
        if isinstance(inner, Mapping):
            return dict(inner)
    if kind == "object" or "properties" in response_format:
        return json_schema(response_format)
    raise OptionError(
        f"response_format={response_format!r} is not understood",
        hint='write {"type": "json_schema", "json_schema": {"name": ..., "schema": {...}}}, or give the schema',
    )


def json_schema(schema: Any) -> dict[str, Any]:
    """The JSON schema of a pydantic class (v2 or v1), a TypedDict, an OpenAI function or tool, or a JSON schema.

    Raises:
        OptionError: it is none of these.
    """
    # Not by LangChain: it would write out references, and a class that holds itself has no end.
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return schema.model_json_schema()
    if isinstance(schema, type) and issubclass(schema, BaseModelV1):
        return schema.schema()
    if isinstance(schema, Mapping) and "name" not in schema and "function" not in schema:
        return dict(schema)
    try:
        return convert_to_json_schema(schema)
    except (ValueError, TypeError) as error:
        raise OptionError(
            f"{schema!r} has no JSON schema: {error}", hint="give a pydantic class, a TypedDict or a JSON schema"
        ) from error
