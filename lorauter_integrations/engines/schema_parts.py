"""The parts of a JSON schema: found and checked, read, merged into one, and told apart.

Follows no references and sets no bounds. Knows JSON Schema (draft 2020-12, and the tuples of draft 7) and which of
its keywords can be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Real
from typing import Any, TypeAlias

from lorauter_integrations.engines.writable import pattern_fault
from lorauter_integrations.errors import OptionError, listing

Schema: TypeAlias = dict[str, Any]
Refuse: TypeAlias = Callable[[str, str, str], None]
"""Told the path, reason and hint of what cannot be kept; where it returns, this is left out."""

PARTS = {"prefixItems", "anyOf", "oneOf", "allOf"}  # lists of schemas
NAMED_PARTS = {"properties", "patternProperties"}  # schemas by name

KEYWORDS_OF = {
    "object": {*NAMED_PARTS, "required", "additionalProperties", "propertyNames", "minProperties", "maxProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems"},
    "string": {"minLength", "maxLength", "pattern", "format"},
    "number": {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf"},
}
KEYWORDS = {"type", "enum", "const", "$ref", *PARTS}.union(*KEYWORDS_OF.values())
"""Everything else is refused below, or says nothing about which values are valid (titles, defaults, ...).

But for `uniqueItems`, which no grammar can keep: it is left out, since pydantic, which writes it for a set, takes
repeated items and drops them.
"""

REFUSED = {
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
FREE_FORMATS |= {"int32", "int64", "float", "double"}  # OpenAPI's, of numbers: how a program holds them

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


def checked_parts(schema: Any, path: str, refuse: Refuse) -> Iterator[tuple[str, Schema]]:
    """What is kept of this part and of all parts in it, checked, with their paths."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, Mapping):
        raise refusal(path, f"{schema!r} is not a schema", "a schema is an object, true or false")
    _check(schema, path, refuse)
    kept = relevant(schema)
    yield path, kept
    for key in ("items", "additionalProperties", "propertyNames"):
        yield from checked_parts(kept.get(key, True), f"{path}.{key}", refuse)
    for key in NAMED_PARTS & kept.keys():
        for name, part in kept[key].items():
            yield from checked_parts(part, f"{path}.{key}.{name}", refuse)
    for key in PARTS & kept.keys():
        for number, part in enumerate(decodable(kept[key])):
            yield from checked_parts(part, f"{path}.{key}[{number}]", refuse)


def _check(schema: Mapping[str, Any], path: str, refuse: Refuse) -> None:
    """Refuse what cannot be kept, and values that no keyword has."""
    for key, value in schema.items():
        if key in REFUSED:
            refuse(f"{path}.{key}", "this keyword cannot be enforced", REFUSED[key])
        if fault := _fault(key, value):
            refuse(f"{path}.{key}", fault, "see JSON Schema, draft 2020-12")
    kept = _understood(schema)
    form = kept.get("format")
    if form is not None and form not in FORMATS | FREE_FORMATS and "string" in written_types(kept):
        hint = f"use pattern, or one of the formats {listing(FORMATS)}"
        refuse(f"{path}.format", f"the format {form!r} cannot be enforced", hint)
    named = {f"patternProperties.{pattern}": pattern for pattern in kept.get("patternProperties", ())}
    for key, pattern in {**named, "pattern": kept.get("pattern", "")}.items():
        if fault := pattern_fault(pattern):
            refuse(f"{path}.{key}", fault, "write a simpler regular expression; values can be checked after parsing")


def _fault(key: str, value: Any) -> str:
    """Why a keyword cannot have a value; "" when it can."""
    for kind, (name, keys) in KINDS.items():
        if key in keys and (not isinstance(value, kind) or (kind is Real and isinstance(value, bool))):
            return f"{value!r} is not {name}"
    return ""


def _understood(schema: Mapping[str, Any]) -> Schema:
    return {key: value for key, value in schema.items() if key in KEYWORDS and not _fault(key, value)}


def relevant(schema: Mapping[str, Any]) -> Schema:
    """The keywords that say which values are valid and can be kept, in the words of draft 2020-12."""
    kept = _understood(schema)
    if isinstance(kept.get("items"), list):
        kept["prefixItems"] = kept.pop("items")
        if "additionalItems" in schema:
            kept["items"] = schema["additionalItems"]
    if kept.get("format") not in FORMATS or "string" not in written_types(kept):
        kept.pop("format", None)  # any text will do; or one of OpenAPI's for numbers
    if pattern_fault(kept.get("pattern", "")):
        del kept["pattern"]
    if "patternProperties" in kept:
        named = kept["patternProperties"].items()
        kept["patternProperties"] = {pattern: part for pattern, part in named if not pattern_fault(pattern)}
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
    """The alternatives; beside a number, without a pattern that cannot be followed, as pydantic's Decimal has it."""
    parts = [option if isinstance(option, Mapping) else {} for option in options]
    if not any(part.get("type") == "number" for part in parts):
        return options
    faults = [pattern_fault(str(part.get("pattern", ""))) for part in parts]
    return [option for option, fault in zip(options, faults, strict=True) if not fault]


def with_names(flat: Schema, names: Schema, path: str, refuse: Refuse) -> Schema:
    """An object with the properties that its `propertyNames` allow: any, or those of an enum of texts or a const."""
    if names in ({}, {"type": "string"}):
        return flat
    allowed = _values(names) or []
    enumerated = names.keys() - {"type"} in ({"enum"}, {"const"}) and names.get("type", "string") == "string"
    if not enumerated or not all(isinstance(name, str) for name in allowed) or "patternProperties" in flat:
        hint = "list the names in properties, or give their enum alone; in pydantic, key the dict by a Literal"
        refuse(f"{path}.propertyNames", "this keyword cannot be enforced", hint)
        return flat
    listed, rest = flat.get("properties", {}), flat.get("additionalProperties", True)
    return {**flat, "properties": {name: listed.get(name, rest) for name in allowed}, "additionalProperties": False}


def merged(one: Schema, other: Schema, path: str, refuse: Refuse) -> Schema:
    """A schema for the values that are valid for both; where two keywords cannot be merged, of the latter."""
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
            refuse(f"{path}.{key}", "two parts say different things", hint)
    if _speaks_of_the_rest(one, other) or _speaks_of_the_rest(other, one):
        hint = "leave additionalProperties and items out of the parts that are merged by allOf, $ref, anyOf or oneOf"
        refuse(path, "one part limits what another part adds", hint)
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


def strictly(path: str, reason: str, hint: str) -> None:
    """Leaves nothing out.

    Raises:
        OptionError: always.
    """
    raise refusal(path, reason, hint)


def refusal(path: str, reason: str, hint: str) -> OptionError:
    """The error for a schema that is refused."""
    return OptionError(f"the JSON schema cannot be used for decoding: {path}: {reason}", hint=hint)
