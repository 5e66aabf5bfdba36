"""TypedDicts as JSON schemas: pydantic's, with LangChain's way of describing a key."""

from __future__ import annotations

from types import EllipsisType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import TypedDictSchema
from typing_extensions import NotRequired, ReadOnly, Required, TypedDict, get_type_hints, is_typeddict

QUALIFIERS = (NotRequired, ReadOnly, Required)
DEFAULTS = (str, int, float, bool, list, dict, type(None), EllipsisType)  # what is no metadata of pydantic's


def typed_dict_schema(kind: Any) -> dict[str, Any]:
    """The JSON schema of a TypedDict, with its references.

    `Annotated[int, ..., "how many"]` describes a key, and `Annotated[int, 3, "how many"]` gives it a default, as in
    `convert_to_openai_tool`; so does pydantic's `Field`.

    Raises:
        ValueError, TypeError, NameError, PydanticUserError: a key's type has no JSON schema.
    """
    try:
        described = TypeAdapter(kind)
    except PydanticUserError as error:
        if error.code != "typed-dict-version":
            raise
        described = TypeAdapter(_for_pydantic(kind, {}))
    return described.json_schema(schema_generator=_Generator)


class _Generator(GenerateJsonSchema):
    def typed_dict_schema(self, schema: TypedDictSchema) -> JsonSchemaValue:
        made = super().typed_dict_schema(schema)
        for name, hint in get_type_hints(schema["cls"], include_extras=True).items():
            if (beside := _beside(hint)) and isinstance(beside[0], DEFAULTS):
                made["properties"][name] |= _told(name, *beside[:2])
                if beside[0] is not ...:
                    made["required"] = [other for other in made.get("required", ()) if other != name]
        return made


def _beside(hint: Any) -> tuple[Any, ...]:
    """What stands beside a key's type."""
    return _beside(get_args(hint)[0]) if get_origin(hint) in QUALIFIERS else getattr(hint, "__metadata__", ())


def _told(name: str, default: Any, description: Any = None) -> dict[str, Any]:
    """LangChain's way as a JSON schema has it."""
    if not isinstance(description, str | None):
        raise ValueError(f"the key {name!r} is described by {description!r}, which is no text")
    told = {"default": default, "description": description}
    return {key: value for key, value in told.items() if value not in (None, ...)}


def _for_pydantic(kind: Any, made: dict[Any, Any]) -> Any:
    """The same type with TypedDicts of `typing_extensions`: before Python 3.12 pydantic takes none of `typing`.

    Args:
        kind: a type.
        made: the TypedDicts that were replaced already; a type may contain itself.
    """
    if is_typeddict(kind):
        if kind not in made:
            made[kind] = TypedDict(kind.__name__, {})  # type: ignore[operator]  # mypy wants it written out
            hints = get_type_hints(kind, include_extras=True)
            made[kind].__annotations__ = {name: _for_pydantic(hint, made) for name, hint in hints.items()}
            made[kind].__required_keys__ = kind.__required_keys__
            made[kind].__doc__, made[kind].__module__ = kind.__doc__, kind.__module__
        return made[kind]
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (None, Literal) or not inner:
        return kind
    parts = tuple(_for_pydantic(part, made) for part in inner)
    return (Union if origin is UnionType else origin)[parts if len(parts) > 1 else parts[0]]
