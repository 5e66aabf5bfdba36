"""One schema or tool of any kind that a caller gives: as a JSON schema, and as a tool in OpenAI's form."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass
from typing import Any

from langchain_core.tools import BaseTool, create_schema_from_function
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_core.utils.json_schema import dereference_refs
from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic.v1 import BaseModel as BaseModelV1
from typing_extensions import is_typeddict

from lorauter_integrations.engines.schema_parts import KEYWORDS, valid_types
from lorauter_integrations.errors import OptionError
from lorauter_integrations.generation import ToolSchema
from lorauter_integrations.langchain.typed_dicts import typed_dict_schema

DEFINITIONS = ("$defs", "definitions")
ANNOTATIONS = {"title", "description", "$schema", "$id", "$comment", "default", "examples", *DEFINITIONS}
PYDANTIC = (BaseModel, BaseModelV1)
NO_ARGUMENTS = {"type": "object", "properties": {}}
FUNCTION_FORMS = ({"function"}, {"toolSpec"}, {"name", "parameters"}, {"name", "input_schema"})
"""Keys of a tool with arguments, in the forms of OpenAI (chat), Bedrock, OpenAI (functions, responses), Anthropic."""


def json_schema(schema: Any) -> dict[str, Any]:
    """The JSON schema of what a caller gives as one.

    Args:
        schema: a pydantic class (v2 or v1), a TypedDict, a dataclass, a JSON schema, OpenAI's forms of one (with
            "name" and "schema", or of type "json_schema"), or a tool, of whose arguments it is.

    Raises:
        OptionError: it is none of these, or has parts that JSON cannot have.
    """
    if isinstance(schema, Mapping):
        return _of_dictionary(schema)
    if is_class(schema):
        with _described(schema):
            return _class_schema(schema)
    if not callable(schema) and not isinstance(schema, BaseTool):
        hint = "give a pydantic class, a TypedDict, a dataclass or a JSON schema"
        raise OptionError(f"{schema!r} has no JSON schema", hint=hint)
    return _of_arguments(openai_tool(schema))


def _of_dictionary(schema: Mapping[str, Any]) -> dict[str, Any]:
    if schema.get("type") == "json_schema" and isinstance(schema.get("json_schema"), Mapping):
        schema = schema["json_schema"]
    if "schema" in schema:
        return {**_told(schema.get("name"), schema.get("description")), **json_schema(schema["schema"])}
    if is_tool(schema):
        return _of_arguments(openai_tool(schema))
    if not _is_json_schema(schema):
        hint = (
            'a JSON schema has a "type", such as "object" with "properties"; or give a pydantic class or a TypedDict'
        )
        raise OptionError(f"{dict(schema)!r} is not a JSON schema", hint=hint)
    return dict(schema)


def _of_arguments(tool: ToolSchema) -> dict[str, Any]:
    function = tool["function"]
    told = _told(function["name"], function.get("description"))
    return {**told, **function.get("parameters", NO_ARGUMENTS)}


def _told(title: Any, description: Any) -> dict[str, Any]:
    """What a schema says of itself, as far as it says it."""
    return {key: text for key, text in (("title", title), ("description", description)) if text}


def is_tool(given: Mapping[str, Any]) -> bool:
    """Whether a dictionary is a tool with arguments, and not their schema."""
    return any(form <= given.keys() for form in FUNCTION_FORMS)


def _is_json_schema(given: Mapping[str, Any]) -> bool:
    kind = given.get("type")
    if kind is not None:
        return isinstance(kind, list) or kind in valid_types({})
    return not given or bool(given.keys() & (KEYWORDS | ANNOTATIONS))


def is_class(schema: Any) -> bool:
    """Whether it is a pydantic class (v2 or v1), a TypedDict or a dataclass."""
    return is_typeddict(schema) or (
        inspect.isclass(schema) and (issubclass(schema, PYDANTIC) or is_dataclass(schema))
    )


def _class_schema(kind: Any) -> dict[str, Any]:
    # Not by LangChain: it would write out references, and a class that holds itself has no end.
    schema: dict[str, Any]
    if is_typeddict(kind):
        schema = typed_dict_schema(kind)
    elif issubclass(kind, BaseModel):
        schema = kind.model_json_schema()
    else:
        schema = kind.schema() if issubclass(kind, BaseModelV1) else TypeAdapter(kind).json_schema()
    return schema


@contextmanager
def _described(given: Any) -> Iterator[None]:
    """The errors of LangChain and pydantic as ours."""
    try:
        yield
    except OptionError:
        raise
    except (PydanticUserError, NameError, AttributeError, TypeError, ValueError) as error:
        name = given.name if isinstance(given, BaseTool) else getattr(given, "__name__", given)
        reason = str(error).strip().partition("\n")[0]
        hint = (
            "use types that JSON has: text, numbers, bool, None, lists, dictionaries, Literal, and classes of these"
        )
        raise OptionError(f"{name!r} has no JSON schema: {reason}", hint=hint) from error


def openai_tool(tool: Any, strict: bool | None = None) -> dict[str, Any]:
    """A tool in OpenAI's form: as `convert_to_openai_tool` writes it, but for some kinds that this gets wrong.

    Schemas that contain themselves keep their references, TypedDicts their optional keys; a flat tool of OpenAI's
    Responses is taken.

    Args:
        tool: anything `convert_to_openai_tool` takes, or a dataclass.
        strict: as there.

    Raises:
        OptionError: only a provider's servers can run the tool, or it has no name or no schema.
    """
    with _described(tool):
        given = _readable(tool) if isinstance(tool, Mapping) else _written_out(tool)
        made = convert_to_openai_tool(given, strict=strict)
    if "function" not in made:
        raise _of_a_provider(f"the tool of type {made.get('type')!r}")
    if not isinstance(made["function"], Mapping) or not isinstance(made["function"].get("name"), str):
        raise _nameless(made)
    return made


def _readable(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A tool that is a dictionary, in a form that `convert_to_openai_tool` reads."""
    kind, name = tool.get("type"), tool.get("title") or tool.get("name")
    untyped = {key: part for key, part in tool.items() if key != "type"}
    if is_tool(tool):
        # Without a type the first form would be refused, and with one the others left as they are.
        return {"type": "function", **untyped} if "function" in tool else untyped
    if isinstance(kind, str) and kind not in valid_types({}) | {"function"}:
        raise _of_a_provider(f"the tool of type {kind!r}")
    if name is None:
        raise _nameless(tool) if _is_json_schema(tool) else _of_a_provider(f"the tool {next(iter(tool))!r}")
    if kind == "function" or not KEYWORDS & tool.keys():
        return {**untyped, "name": name, "parameters": NO_ARGUMENTS}
    return _function(name, tool.get("description"), tool)


def _nameless(tool: Mapping[str, Any]) -> OptionError:
    hint = 'give it a "name" ("title" in a JSON schema), and write its arguments as {"type": "object", ...}'
    return OptionError(f"a tool has no name: {dict(tool)!r}", hint=hint)


def _of_a_provider(tool: str) -> OptionError:
    hint = "bind a function, a LangChain tool, a pydantic class or a JSON schema"
    return OptionError(f"{tool} runs on its provider's servers", hint=hint)


def _written_out(tool: Any) -> Any:
    """A tool as it is, or as OpenAI's function where LangChain would write it wrongly."""
    if not is_class(tool):
        name, description, schema = _parts(tool)
        return _function(name, description, without_titles(rooted(schema))) if is_recursive(schema) else tool
    schema = _class_schema(tool)
    if is_recursive(schema):
        schema = rooted(schema)
    elif issubclass(tool, PYDANTIC):
        return tool
    else:  # LangChain would describe these by the docstring of `dict`, and by the signature
        schema = {key: part for key, part in dereference_refs(schema).items() if key not in DEFINITIONS}
    return _function(schema["title"], schema.get("description"), without_titles(schema))


def _parts(tool: Any) -> tuple[str, str, dict[str, Any]]:
    """Name, description and schema of what is no class."""
    if isinstance(tool, BaseTool):
        name, description, kind = tool.name, tool.description, tool.tool_call_schema
    elif callable(tool):
        name, parsing = tool.__name__, {"parse_docstring": True, "error_on_invalid_docstring": False}
        kind = create_schema_from_function(name, tool, filter_args=(), include_injected=False, **parsing)
        description = kind.__doc__ or ""
    else:
        raise TypeError("it is no tool")
    return name, description, kind if isinstance(kind, dict) else _class_schema(kind)


def _function(name: str, description: str | None, schema: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's function of a JSON schema."""
    parameters = {key: part for key, part in schema.items() if key not in ("name", "title", "description")}
    told = {} if description is None else {"description": description}
    return {"name": name, **told, "parameters": parameters}


def without_titles(schema: Any) -> Any:
    """A schema without what pydantic adds and LangChain takes away; a property may be named "title"."""
    if isinstance(schema, Mapping):
        kept = ((key, value) for key, value in schema.items() if key != "title" or not isinstance(value, str))
        return {key: without_titles(value) for key, value in kept}
    return [without_titles(one) for one in schema] if isinstance(schema, list) else schema


def rooted(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema that begins with what it is, where pydantic begins with a reference to it."""
    named = _definitions(schema)
    return {**named.get(schema.get("$ref", ""), {}), **{key: part for key, part in schema.items() if key != "$ref"}}


def is_recursive(schema: Mapping[str, Any]) -> bool:
    """Whether a part of a schema contains itself, or refers to nowhere: it cannot be written out then."""
    root = {key: part for key, part in schema.items() if key not in DEFINITIONS}
    parts = {"#": root, **_definitions(schema)}
    links = {pointer: {_part(reference, parts) for reference in _references(parts[pointer])} for pointer in parts}
    return any(pointer in _reached(pointer, links) for pointer in parts)


def _definitions(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {f"#/{key}/{name}": part for key in DEFINITIONS for name, part in schema.get(key, {}).items()}


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, Mapping):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        part = list(part.values())
    for inner in part if isinstance(part, list) else ():
        yield from _references(inner)


def _part(reference: str, parts: Mapping[str, Any]) -> str:
    """The definition in which a reference ends; everything else is the root."""
    around = (pointer for pointer in parts if f"{reference}/".startswith(f"{pointer}/"))
    return max(around, key=len, default="#")


def _reached(start: str, links: Mapping[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    pending = [start]
    while pending:
        new = links[pending.pop()] - reached
        reached |= new
        pending += new
    return reached
