"""The parts of a JSON schema: found and checked, read, merged into one, and told apart.

Follows no references and sets no bounds. Knows JSON Schema (draft 2020-12, and the tuples of draft 7) and which of
its keywords can be kept; the standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import Any, TypeAlias

from lorauter_integrations.errors import OptionError, listing

Schema: TypeAlias = dict[str, Any]

PARTS = {"prefixItems", "anyOf", "oneOf", "allOf"}  # lists of schemas
NAMED_PARTS = {"properties", "patternProperties"}  # schemas by name

KEYWORDS_OF = {
    "object": {*NAMED_PARTS, "required", "additionalProperties", "propertyNames", "minProperties", "maxProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems"},
    "string": {"minLength", "maxLength", "pattern", "format"},
    "number": {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf"},
}
KEYWORDS = {"type", "enum", "const", "$ref", *PARTS}.union(*KEYWORDS_OF.values())
"""Everything else is refused below, or says nothing about which values are valid (titles, defaults, ...)."""

REFUSED = {
    "uniqueItems": "drop repeated items after parsing; in pydantic, write list instead of set",
    "not": "say what is allowed, with enum or anyOf",
    "if": "write anyOf with one alternative for each case",
    "contains": "say with items what each item must be",
    "dependentRequired": "write anyOf with one alternative for each case",
    "dependentSchemas": "write anyOf with one alternative for each case",
    "dependencies": "write anyOf with one alternative for each case",
    "unevaluatedProperties": "leave it out: objects are closed without it",
    "unevaluatedItems": "use items",
    "$dynamicRef": "use $ref",
    "$recursiveRef": "use $ref",
}
"""Keywords that llguidance 1.9 does not implement, and what to write instead."""

FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}
FREE_FORMATS = {"path", "file-path", "directory-path", "binary", "password"}  # pydantic's: any text will do

NEVER = "$never"  # a keyword of our own: no value is valid
SIZES = {f"{end}{what}" for end in ("min", "max") for what in ("Length", "Items", "Properties")}
KINDS: dict[Any, tuple[str, set[str]]] = {
    (str, list): ("a type", {"type"}),
    list: ("a list", {"required", "enum", *PARTS}),
    Mapping: ("an object", NAMED_PARTS),
    str: ("a text", {"$ref", "pattern", "format"}),
    Real: ("a number", {*SIZES, *KEYWORDS_OF["number"]}),
}
"""What the value of a keyword must be."""

LOOK_AROUND = re.compile(r"(?<!\\)\(\?<?[=!]")


def checked_parts(schema: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """This part and all parts in it, checked, with their paths."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, Mapping):
        raise refusal(path, f"{schema!r} is not a schema", "a schema is an object, true or false")
    _check(schema, path)
    yield path, schema
    kept = relevant(schema)
    for key in ("items", "additionalProperties", "propertyNames"):
        yield from checked_parts(kept.get(key, True), f"{path}.{key}")
    for key in NAMED_PARTS & kept.keys():
        for name, part in kept[key].items():
            yield from checked_parts(part, f"{path}.{key}.{name}")
    for key in PARTS & kept.keys():
        for number, part in enumerate(decodable(kept[key])):
            yield from checked_parts(part, f"{path}.{key}[{number}]")


def _check(schema: Mapping[str, Any], path: str) -> None:
    """Refuse what cannot be kept, and what is no schema."""
    for key, value in schema.items():
        if key in REFUSED and (key, value) != ("uniqueItems", False):
            raise refusal(f"{path}.{key}", "this keyword cannot be enforced", REFUSED[key])
    for kind, (name, keys) in KINDS.items():
        for key in keys & schema.keys():
            if not isinstance(schema[key], kind) or (kind is Real and isinstance(schema[key], bool)):
                raise refusal(f"{path}.{key}", f"{schema[key]!r} is not {name}", "see JSON Schema, draft 2020-12")
    form = relevant(schema).get("format")
    if form is not None and form not in FORMATS:
        hint = f"use pattern, or one of the formats {listing(FORMATS)}"
        raise refusal(f"{path}.format", f"the format {form!r} cannot be enforced", hint)


def relevant(schema: Mapping[str, Any]) -> Schema:
    """The keywords that say which values are valid, in the words of draft 2020-12."""
    kept = {key: value for key, value in schema.items() if key in KEYWORDS}
    if isinstance(kept.get("items"), list):
        kept["prefixItems"] = kept.pop("items")
        if "additionalItems" in schema:
            kept["items"] = schema["additionalItems"]
    if kept.get("format") in FREE_FORMATS or "string" not in written_types(kept):
        kept.pop("format", None)  # any text will do; or one of OpenAPI's for numbers
    return kept


def written_types(flat: Schema) -> Sequence[str]:
    """The stated types, or those that the keywords speak of."""
    stated = flat.get("type")
    if stated is None:
        return [kind for kind, keywords in KEYWORDS_OF.items() if keywords & flat.keys()]
    return [stated] if isinstance(stated, str) else stated


def valid_types(schema: Mapping[str, Any]) -> set[str]:
    """The types of which a value may be; a number may be an integer."""
    stated = schema.get("type", ["null", "boolean", "number", "string", "array", "object"])
    types = {stated} if isinstance(stated, str) else set(stated)
    return types | {"integer"} if "number" in types else types


def _values(schema: Mapping[str, Any]) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _is_anything(schema: Any) -> bool:
    return schema is True or (schema is not False and not relevant(schema))


def unlisted(flat: Schema) -> Any:
    """The schema of the names that an object does not list, as it is written."""
    rest = flat.get("additionalProperties", False)
    return False if _is_anything(rest) and any(flat.get(key) for key in NAMED_PARTS) else rest


def decodable(options: Sequence[Any]) -> Sequence[Any]:
    """The alternatives without a pattern that looks around: pydantic's Decimal is a number or such a string."""
    possible = [
        option
        for option in options
        if not (isinstance(option, Mapping) and LOOK_AROUND.search(str(option.get("pattern", ""))))
    ]
    return possible or options


def with_names(flat: Schema, names: Schema, path: str) -> Schema:
    """An object with the properties that its `propertyNames` allow, which must be an enum of texts or a const."""
    allowed = _values(names) or []
    enumerated = names.keys() - {"type"} in ({"enum"}, {"const"}) and names.get("type", "string") == "string"
    if not enumerated or not all(isinstance(name, str) for name in allowed) or "patternProperties" in flat:
        hint = "list the names in properties, or give their enum alone; in pydantic, key the dict by a Literal"
        raise refusal(f"{path}.propertyNames", "this keyword cannot be enforced", hint)
    listed, rest = flat.get("properties", {}), flat.get("additionalProperties", True)
    return {**flat, "properties": {name: listed.get(name, rest) for name in allowed}, "additionalProperties": False}


def merged(one: Schema, other: Schema, path: str) -> Schema:
    """A schema for the values that are valid for both."""
    whole = {**one, **other}
    for key in one.keys() & other.keys():
        first, second = one[key], other[key]
        if first == second:
            continue
        if key == "properties":
            both = {name: {"allOf": [first[name], second[name]]} for name in first.keys() & second.keys()}
            whole[key] = {**first, **second, **both}
        elif key == "required":
            whole[key] = [*first, *second]
        elif key == "type":
            types = valid_types(one) & valid_types(other)
            whole[key] = sorted(types - {"integer"} if "number" in types else types)
        else:
            hint = "merge the parts by hand: one of allOf, or what stands beside $ref, anyOf or oneOf"
            raise refusal(f"{path}.{key}", "two parts say different things", hint)
    if _speaks_of_the_rest(one, other) or _speaks_of_the_rest(other, one):
        hint = "leave additionalProperties and items out of the parts that are merged by allOf, $ref, anyOf or oneOf"
        raise refusal(path, "one part limits what another part adds", hint)
    return whole


def _speaks_of_the_rest(one: Schema, other: Schema) -> bool:
    """Whether "all others" in one part means something that the other part lists."""
    closed = not _is_anything(one.get("additionalProperties", True))
    added = {*other.get("properties", ()), *other.get("patternProperties", ())}
    adds = added - {*one.get("properties", ()), *one.get("patternProperties", ())}
    return bool((closed and adds) or ("items" in one and "prefixItems" in other.keys() - one.keys()))


def excludes(one: Any, other: Any) -> bool:
    """Whether surely nothing that is written for one part is valid for the other."""
    if isinstance(one, bool) or isinstance(other, bool):
        return False in (one, other)
    if NEVER in one or NEVER in other:
        return True
    values, others = _values(one), _values(other)
    if values is not None and others is not None:
        return not any(value == another for value in values for another in others)
    common = valid_types(one) & valid_types(other)
    return not common or (common == {"object"} and _names_differ(one, other))


def _names_differ(one: Schema, other: Schema) -> bool:
    """The same for two objects."""
    if {"$ref", "propertyNames", *PARTS} & one.keys():
        return False  # what is written for it has more to it
    here, there = one.get("properties", {}), other.get("properties", {})
    must, must_there = set(one.get("required", ())), set(other.get("required", ()))
    # What is written has no names but its own, though the caller's other part may well allow more.
    whole = "patternProperties" not in one and unlisted(one) is False
    if whole and must_there - here.keys() - must:
        return True
    if other.get("additionalProperties") is False and "patternProperties" not in other and must - there.keys():
        return True
    return any(excludes(here[name], there[name]) for name in (must | must_there) & here.keys() & there.keys())


def pointer_path(pointer: str) -> str:
    """Where a reference leads, as messages write it."""
    return "$" + pointer.lstrip("#").replace("/", ".")


def refusal(path: str, reason: str, hint: str) -> OptionError:
    """The error for a schema that is refused."""
    return OptionError(f"the JSON schema cannot be used for decoding: {path}: {reason}", hint=hint)
