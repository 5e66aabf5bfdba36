"""LangChain tools, `tool_choice` and `response_format` to the grammar of one answer. Knows no engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.tools import BaseTool

from lorauter_integrations.answer_form import Form, form_of, name_of, unwrapped
from lorauter_integrations.errors import OptionError, listing
from lorauter_integrations.generation import ToolSchema
from lorauter_integrations.langchain.schemas import is_tool, openai_tool, rooted, without_titles
from lorauter_integrations.langchain.schemas import json_schema as json_schema

UNNAMED = "answer"  # the tool of a JSON schema without a title


def asked_form(
    tools: Sequence[Any], tool_choice: Any, response_format: Any, *, parallel: bool | None, strict: bool | None
) -> Form:
    """The form of an answer, as LangChain's code asks for it.

    Args:
        tools: anything `tool_schemas` takes.
        tool_choice: see `chosen`.
        response_format: see `answer_schema`.
        parallel: False allows one call.
        strict: for `tool_schemas`.

    Raises:
        OptionError: as the three functions named above.
    """
    schemas = tool_schemas(tools, strict=strict)
    return form_of(schemas, tool_choice, answer_schema(response_format), parallel=parallel is not False)


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
    schemas: dict[str, ToolSchema] = {}
    twice = set()
    for schema in (openai_tool(tool, strict) for tool in tools):
        known = schemas.setdefault(name_of(schema), schema)
        if known is not schema and without_titles(known) != without_titles(schema):
            twice.add(name_of(schema))
    if twice:
        raise OptionError(f"two of the tools are named {listing(twice)}", hint="give each tool a name of its own")
    return list(schemas.values())


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


def answer_schema(response_format: Any) -> dict[str, Any] | None:
    """The JSON schema of a `response_format`; None leaves the answer free.

    Args:
        response_format: None, OpenAI's dictionary (text, json_object, json_schema), or anything that `json_schema`
            takes.

    Raises:
        OptionError: as `json_schema`.
    """
    schema = unwrapped(response_format)
    return None if schema is None else json_schema(schema)
