"""A caller's JSON schema made fit for decoding: closed, bounded, and refused where it could not be kept.

A small model left to itself adds keys nobody asked for, and strings, lists and numbers that never end. What may
be written is therefore narrower than the schema, and valid for it. Follows references and recursion, and knows what
llguidance makes of a schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from itertools import permutations
from typing import Any, Literal, TypeAlias
from urllib.parse import unquote

from lorauter_integrations.engines.schema_parts import (
    KEYWORDS_OF,
    NEVER,
    Refuse,
    Schema,
    checked_parts,
    decodable,
    excludes,
    merged,
    pointer_path,
    refusal,
    relevant,
    strictly,
    unlisted,
    with_names,
    written_types,
)

MOST_CHARACTERS = 512  # of a string, beyond its minLength
MOST_ITEMS = 32  # of an array, beyond its minItems; of a dictionary, beyond its required names
MOST_INTEGER = 9 * 10**18  # llguidance counts in 64 bits
MOST_NUMBER = 10**15  # a double holds no more digits
DIGITS = 9  # behind the point; and no exponent
DICTIONARY_KEY = "^.{1,64}$"
DEEPEST = 4  # levels of a schema that contains itself

SEPARATORS = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}
"""Spaces as in most JSON that models have read, and nowhere else: free whitespace never ends."""

BOUNDS = {
    "minimum": ("minimum", ROUND_CEILING, 0),
    "exclusiveMinimum": ("minimum", ROUND_FLOOR, 1),
    "maximum": ("maximum", ROUND_FLOOR, 0),
    "exclusiveMaximum": ("maximum", ROUND_CEILING, -1),
}
"""Which end a keyword bounds, and how its value becomes the nearest valid number: rounded, and a step further."""

Made: TypeAlias = Schema | Literal[False]  # False: no value is valid

ANY_VALUE: Schema = {
    "anyOf": [
        {"type": ["null", "boolean", "number", "string"]},
        {"type": "array"},
        {"type": "object", "additionalProperties": True},
    ]
}
ANY = "#/$any"  # put into every schema, so that it is one definition more that contains itself


def prepared(schema: Mapping[str, Any], refuse: Refuse = strictly) -> Schema:
    """The schema as it is decoded; every value that is valid for it is valid for the caller's schema too.

    Two things can make it wider: `uniqueItems` is left out always, and `refuse` may leave out what cannot be kept.

    - An object has the properties that it lists and no others. `additionalProperties` with a schema stays; the
      value `true` stays where nothing is listed (a free dictionary). `{"type": "object"}` alone allows only `{}`.
      The names of a `propertyNames` with `enum` count as listed (a dictionary with a Literal or Enum as its key).
    - `{}` allows any value, four levels deep.
    - Strings have at most 512 characters, arrays and dictionaries 32 items, dictionary keys 64 characters, integers
      19 digits, other numbers 15 digits before the point, 9 behind it and no exponent. Narrower bounds of the
      schema stand, and a `minLength` or `minItems` raises the limit. Not bounded are number and length of further
      names in an object with optional properties and `additionalProperties` with a schema.
    - A schema that contains itself is cut at the fourth level.
    - `allOf`, and whatever stands beside `$ref`, `anyOf` or `oneOf`, is merged into one schema.

    Args:
        schema: not changed.
        refuse: told the path, reason and hint of a keyword that cannot be kept, of parts that cannot be merged, and
            of alternatives of `oneOf` that cannot be told apart; raises, or returns where they may be left out. May
            be told of one more than once.

    Raises:
        OptionError: by `strictly`, all of these; and what is no schema, a reference to nowhere, bounds without a
            number between them, or a recursion that cannot end in four levels.
    """
    preparation = _Preparation(schema, refuse)
    whole = preparation.schema(schema, _Place("$", frozenset({"#"}), 0))
    if whole is False:
        hint = "make a recursive part optional, and allow the properties that are required"
        raise refusal("$", f"no value is valid within {DEEPEST} levels of recursion", hint)
    return {"x-guidance": {**SEPARATORS}, **whole, "$defs": preparation.definitions}


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the schema: for messages, inside which definitions, and how deep in their recursion."""

    path: str
    inside: frozenset[str]
    level: int

    def at(self, step: str) -> _Place:
        return replace(self, path=f"{self.path}.{step}")


class _Preparation:
    """One schema being prepared. References stay references, to one definition for each level of recursion."""

    def __init__(self, root: Mapping[str, Any], refuse: Refuse) -> None:
        self._root = {**root, "$any": ANY_VALUE}
        self._refuse = refuse
        self._links = {ANY: {ANY}}  # from definitions to those that they name
        self._names: dict[tuple[str, int], str] = {}
        self.definitions: dict[str, Schema] = {}
        self._survey()
        self._makers = {
            "object": self._object,
            "array": self._array,
            "string": _string,
            "number": _number,
            "integer": _integer,
        }

    def _survey(self) -> None:
        """Check every part that can be reached, and note which definition names which."""
        pending = ["#"]
        while pending:
            pointer = pending.pop()
            self._links[pointer] = set()
            for path, part in checked_parts(self._find(pointer, "$"), pointer_path(pointer), self._refuse):
                if "$ref" in part:
                    self._find(part["$ref"], f"{path}.$ref")
                    self._links[pointer].add(part["$ref"])
            pending += self._links[pointer] - self._links.keys() - set(pending)

    def _find(self, pointer: str, path: str) -> Any:
        target: Any = self._root
        steps = pointer.split("/")
        try:
            if steps[0] != "#":
                raise KeyError(pointer)
            for step in steps[1:]:
                name = unquote(step).replace("~1", "/").replace("~0", "~")
                target = target[int(name) if isinstance(target, list) else name]
        except (KeyError, IndexError, ValueError, TypeError):
            hint = 'put the definition into "$defs" and refer to it as "#/$defs/NAME"'
            raise refusal(path, f"{pointer!r} is not a place in this schema", hint) from None
        return target

    def _level(self, pointer: str, place: _Place) -> int:
        """How deep a definition is, entered from here: one deeper if it leads back to where we are."""
        reached: set[str] = set()
        pending = [pointer]
        while pending:
            for link in self._links[pending.pop()] - reached:
                reached.add(link)
                pending.append(link)
        return place.level + 1 if place.inside & reached else 0

    def schema(self, schema: Any, place: _Place) -> Made:
        """Prepare one part."""
        flat, place = self._flat(schema, place)
        if NEVER in flat:
            return False
        if not flat:
            return self._reference(ANY, place)
        if "$ref" in flat:
            return self._reference(flat["$ref"], place)
        if "anyOf" in flat or "oneOf" in flat:
            return self._union(flat, place)
        return flat if "enum" in flat or "const" in flat else self._typed(flat, place)

    def _reference(self, pointer: str, place: _Place) -> Made:
        level = self._level(pointer, place)
        if level >= DEEPEST:
            return False
        # Within a recursion the level rises, and out of it no way leads back: nothing is made while it is made.
        key = (pointer, level)
        if key not in self._names:
            name = self._names[key] = str(len(self._names))
            inside = _Place(pointer_path(pointer), frozenset({pointer}), level)
            made = self.schema(self._find(pointer, place.path), inside)
            if made is not False:
                self.definitions[name] = made
        name = self._names[key]
        return {"$ref": f"#/$defs/{name}"} if name in self.definitions else False

    def _flat(self, schema: Any, place: _Place) -> tuple[Schema, _Place]:
        """The part without `allOf` and `propertyNames`, and with `$ref` only where it stands alone."""
        if isinstance(schema, bool):
            return ({} if schema else {NEVER: True}), place
        flat = relevant(schema)
        if "propertyNames" in flat:
            names, _ = self._inlined(flat.pop("propertyNames"), place.at("propertyNames"))
            flat = with_names(flat, names, place.path, self._refuse)
        parts = flat.pop("allOf", [])
        if "$ref" in flat and (parts or len(flat) > 1):
            parts = [{"$ref": flat.pop("$ref")}, *parts]
        if len(parts) == 1 and not flat:
            return self._flat(parts[0], place)
        for part in parts:
            other, place = self._inlined(part, place)
            flat = merged(flat, other, place.path, self._refuse)
        return flat, place

    def _inlined(self, schema: Any, place: _Place) -> tuple[Schema, _Place]:
        """The part without any `$ref` of its own; what it refers to is put in its place."""
        flat, place = self._flat(schema, place)
        if "$ref" not in flat:
            return flat, place
        pointer = flat["$ref"]
        level = max(place.level, self._level(pointer, place))
        if level >= DEEPEST:
            return {NEVER: True}, place
        inside = replace(place, inside=place.inside | {pointer}, level=level)
        return self._inlined(self._find(pointer, place.path), inside)

    def _union(self, flat: Schema, place: _Place) -> Made:
        keyword = "anyOf" if "anyOf" in flat else "oneOf"
        beside = {key: value for key, value in flat.items() if key != keyword}
        options = [{"allOf": [beside, option]} if beside else option for option in decodable(flat[keyword])]
        if keyword == "oneOf":
            inlined = [self._inlined(option, place)[0] for option in options]
            if not all(excludes(one, other) for one, other in permutations(inlined, 2)):
                hint = "write anyOf, or give the alternatives a required property with a const each"
                self._refuse(f"{place.path}.oneOf", "alternatives that may both be valid", hint)
        made = [self.schema(option, place.at(f"{keyword}[{n}]")) for n, option in enumerate(options)]
        possible = [option for option in made if option is not False]
        if len(possible) == 1:
            return possible[0]
        return {"anyOf": possible} if possible else False

    def _typed(self, flat: Schema, place: _Place) -> Made:
        types: list[str] = []
        limits: Schema = {}
        for kind in written_types(flat):
            make = self._makers.get(kind)
            made = make(flat, place) if make else {}
            if made is not False:
                types.append(kind)
                limits |= made
        return {"type": types if len(types) > 1 else types[0], **limits} if types else False

    def _object(self, flat: Schema, place: _Place) -> Made:
        listed = dict(flat.get("properties", {}))
        patterns = flat.get("patternProperties", {})
        required = list(dict.fromkeys(flat.get("required", ())))
        for name in required:
            listed.setdefault(name, flat.get("additionalProperties", True))
        made = {name: self.schema(part, place.at(f"properties.{name}")) for name, part in listed.items()}
        if any(made[name] is False for name in required):
            return False
        named = {key: self.schema(part, place.at(f"patternProperties.{key}")) for key, part in patterns.items()}
        others = self.schema(unlisted(flat), place.at("additionalProperties"))
        if not listed and not named and others is not False:
            named, others = {DICTIONARY_KEY: others}, False  # the same, with keys that end
        closed = not named and others is False
        counts = self._counts(flat, len(listed), len(required), closed=closed, path=place.path)
        shape = {"properties": made, "required": required, "additionalProperties": others}
        return {**shape, **({"patternProperties": named} if named else {}), **counts}

    def _counts(self, flat: Schema, listed: int, required: int, *, closed: bool, path: str) -> Schema:
        """Bounds of the number of properties, left out where they say nothing: llguidance knows few of them."""
        least, most = flat.get("minProperties", 0), flat.get("maxProperties")
        if not closed and least > required + 1:
            # Free names may repeat in the text, and then count once.
            self._refuse(f"{path}.minProperties", f"{least} different names", "list the names in properties")
        least, most = least if least > required else None, None if closed and (most or 0) >= listed else most
        known = {None, required + 1} if closed else {None}
        if listed != required and not {least, most} <= known:
            hint = "list the alternatives with anyOf, or require all properties"
            self._refuse(path, "a least or greatest number of properties of which not all are required", hint)
            least = most = None
        if not closed and most is None and listed == required:
            most = max(required, least or 0) + MOST_ITEMS
        counts = {"minProperties": least, "maxProperties": most}
        return {key: value for key, value in counts.items() if value is not None}

    def _array(self, flat: Schema, place: _Place) -> Made:
        least, given = flat.get("minItems", 0), flat.get("prefixItems", [])
        first: list[Schema] = []
        for number, part in enumerate(given):
            made = self.schema(part, place.at(f"prefixItems[{number}]"))
            if made is False:
                break
            first.append(made)
        rest: Made = False
        if len(first) == len(given):
            # A tuple says how long it is, or is as long as its list of items.
            rest = self.schema(flat.get("items", len(first) < least or not first), place.at("items"))
        most = flat.get("maxItems", max(least, len(first)) + MOST_ITEMS)
        if rest is False:
            most = min(most, len(first))
        if least > most:
            return False
        prefix = {"prefixItems": first} if first else {}
        return {**prefix, "items": rest, "minItems": least, "maxItems": most}


def _string(flat: Schema, _: _Place) -> Schema:
    limits = {key: flat[key] for key in KEYWORDS_OF["string"] if key in flat}
    return {"maxLength": limits.get("minLength", 0) + MOST_CHARACTERS, **limits}


def _integer(flat: Schema, place: _Place) -> Schema:
    steps = {"multipleOf": flat["multipleOf"]} if "multipleOf" in flat else {}
    return {**_range(flat, MOST_INTEGER, 0, place.path), **steps}


def _number(flat: Schema, place: _Place) -> Schema:
    # A step ends a row of digits behind the point, and llguidance writes no exponent then.
    return {**_range(flat, MOST_NUMBER, DIGITS, place.path), "multipleOf": flat.get("multipleOf", 10**-DIGITS)}


def _range(flat: Schema, most: int, digits: int, path: str) -> Schema:
    """Least and greatest number with so many digits behind the point.

    Bounds of our own: llguidance 1.9 takes 0 for above 0 where the upper bound is below 1, and is wrong in the
    last of more than 15 digits.
    """
    ends = {"minimum": Decimal(-most), "maximum": Decimal(most)}
    for keyword in BOUNDS.keys() & flat.keys():
        end, rounding, beyond = BOUNDS[keyword]
        exact = max(min(Decimal(repr(flat[keyword])), Decimal(10 * most)), Decimal(-10 * most))
        step = Decimal(1).scaleb(-max(0, min(digits, 14 - exact.adjusted())))
        inner = exact.quantize(step, rounding) + beyond * step
        ends[end] = max(ends[end], inner) if end == "minimum" else min(ends[end], inner)
    if ends["minimum"] > ends["maximum"]:
        between = f"no number with {digits} digits behind the point is within the bounds"
        raise refusal(path, between, "use wider bounds, or another unit")
    return {end: int(bound) if bound == int(bound) else float(bound) for end, bound in ends.items()}
