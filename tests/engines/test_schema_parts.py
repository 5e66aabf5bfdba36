"""Keywords are kept, merged or refused; of alternatives only one can be valid."""

import json
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from jsonschema import Draft202012Validator
from pydantic import Field, TypeAdapter

from lorauter_integrations.engines.json_schema import prepared
from lorauter_integrations.errors import OptionError


def allows(schema, value):
    return Draft202012Validator(prepared(schema)).is_valid(value)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("not", {"type": "string"}),
        ("if", False),
        ("contains", {}),
        ("propertyNames", {"minLength": 2}),
        ("dependentRequired", {"a": ["b"]}),
        ("dependentSchemas", {}),
        ("dependencies", {}),
        ("unevaluatedProperties", False),
        ("unevaluatedItems", False),
        ("$dynamicRef", "#a"),
        ("$recursiveRef", "#"),
    ],
)
def test_a_keyword_that_cannot_be_kept_is_refused_by_its_path(keyword, value):
    path = rf"\$\.properties\.tags\.{keyword}: this keyword cannot be enforced\nHint: \w".replace(".$", r".\$")
    with pytest.raises(OptionError, match=path):
        prepared({"type": "object", "properties": {"tags": {"type": "array", keyword: value}}})


def test_a_set_is_a_list_that_may_repeat_its_items():
    schema = TypeAdapter(set[Literal["a", "b"]]).json_schema()
    assert schema["uniqueItems"] is True
    assert allows(schema, ["a", "a"])
    assert TypeAdapter(set[Literal["a", "b"]]).validate_json('["a", "a"]') == {"a"}


def kept(schema):
    """What is written where all may be left out, and what was."""
    left_out = {}
    made = prepared(schema, lambda path, reason, hint: left_out.update({path: (reason, hint)}))
    return Draft202012Validator(made).is_valid, left_out


@pytest.mark.parametrize(
    ("schema", "path", "yes", "no"),
    [
        ({"type": "array", "not": {"maxItems": 1}}, "$.not", [], "x"),
        ({"type": "null", "if": {}, "then": False}, "$.if", None, "x"),
        ({"items": {"type": "null"}, "contains": {"const": "x"}}, "$.contains", [None], ["x"]),
        (
            {"properties": {"a": {"type": "null"}}, "dependentRequired": {"a": ["b"]}},
            "$.dependentRequired",
            {"a": None},
            {"a": 1},
        ),
        ({"properties": {"a": {}}, "dependentSchemas": {"a": False}}, "$.dependentSchemas", {"a": "x"}, {"b": "x"}),
        (
            {"properties": {"a": {}}, "unevaluatedProperties": False},
            "$.unevaluatedProperties",
            {"a": "x"},
            {"b": "x"},
        ),
        ({"items": {"$dynamicRef": "#node"}}, "$.items.$dynamicRef", [["x"]], {}),
        ({"type": "string", "format": "uri-reference"}, "$.format", "x", 1),
        ({"type": "string", "pattern": r"^(?!a)\w$", "maxLength": 2}, "$.pattern", "a", "aaa"),
        ({"pattern": r"^(a)\1$"}, "$.pattern", [True], [[[[["too deep"]]]]]),
        (
            {"patternProperties": {"^(?=a)": {"type": "null"}, "^b": {"type": "null"}}},
            "$.patternProperties.^(?=a)",
            {"b": None},
            {"b": 1},
        ),
        (
            {"additionalProperties": {"type": "null"}, "propertyNames": {"minLength": 2}},
            "$.propertyNames",
            {"a": None},
            {"a": 1},
        ),
        (
            {"additionalProperties": {"type": "null"}, "minProperties": 40},
            "$.minProperties",
            dict.fromkeys(map(str, range(40))),
            {},
        ),
        ({"properties": {"a": {"type": "null"}, "b": {}, "c": {}}, "minProperties": 2}, "$", {"a": None}, {"d": 1}),
        (
            {"properties": {"a": {}, "b": {}, "c": {}}, "required": ["a"], "maxProperties": 1},
            "$",
            {"a": "x", "b": "x"},
            {},
        ),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}, {"type": "null"}]}, "$.oneOf", 1, "x"),
        ({"allOf": [{"pattern": "^a"}, {"pattern": "b$"}]}, "$.pattern", "xb", "ax"),
        (
            {"allOf": [{"properties": {"a": {}}, "additionalProperties": False}, {"properties": {"b": {}}}]},
            "$",
            {"a": "x", "b": "x"},
            {"c": "x"},
        ),
        ({"type": "integer", "exclusiveMinimum": True, "minimum": 3}, "$.exclusiveMinimum", 3, 2),
        ({"type": "object", "properties": [], "required": True}, "$.properties", {}, {"a": 1}),
        ({"type": "null", "$ref": 3}, "$.$ref", None, 1),
    ],
)
def test_what_cannot_be_kept_may_be_left_out_and_the_rest_holds(schema, path, yes, no):
    allowed, left_out = kept({"prefixItems": [schema], "minItems": 1})
    assert path.replace("$", "$.prefixItems[0]", 1) in left_out
    assert allowed([yes])
    assert not allowed([no])
    with pytest.raises(OptionError, match="the JSON schema cannot be used for decoding") as caught:
        prepared({"prefixItems": [schema]})
    assert any(hint == caught.value.hint for _, hint in left_out.values())


def test_nothing_is_left_out_of_a_schema_that_can_be_kept():
    assert kept({"type": "string", "format": "date", "pattern": "^2", "uniqueItems": True})[1] == {}
    assert kept({"type": "object", "properties": {"a": {}, "b": {}}, "minProperties": 1, "maxProperties": 9})[1] == {}


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"$ref": "#/$defs/A"}, "is not a place"),
        ({"properties": {"a": 3}}, "3 is not a schema"),
        ({"type": "number", "minimum": 1e16}, "no number with"),
        (
            {"$ref": "#/$defs/A", "$defs": {"A": {"properties": {"a": {"$ref": "#/$defs/A"}}, "required": ["a"]}}},
            "no value",
        ),
    ],
)
def test_what_has_no_meaning_cannot_be_left_out(schema, message):
    with pytest.raises(OptionError, match=message):
        kept(schema)


@pytest.mark.parametrize("key", ["additionalProperties", "items"])
def test_every_part_is_looked_at(key):
    with pytest.raises(OptionError, match=rf": \$\.{key}\.not: "):
        prepared({key: {"not": {}}})
    assert allows({key: {"$ref": "#/$defs/A"}, "$defs": {"A": {}}}, ["x"] if key == "items" else {"a": "x"})


def test_the_path_of_a_refusal_goes_through_definitions_and_lists():
    schema = {"$ref": "#/$defs/A", "$defs": {"A": {"anyOf": [True, {"patternProperties": {"^x": {"not": True}}}]}}}
    with pytest.raises(OptionError, match=r": \$\.\$defs\.A\.anyOf\[1\]\.patternProperties\.\^x\.not: "):
        prepared(schema)


def test_names_and_values_that_look_like_keywords_are_none():
    names = ["not", "if", "properties", "$ref", "uniqueItems", "type", "items"]
    values = {"not": {}, "$ref": "#/nowhere", "uniqueItems": True}
    schema = {
        "type": "object",
        "properties": {**{name: {"type": "null"} for name in names}, "value": {"const": values}},
        "required": [*names, "value"],
        "default": values,
        "examples": [values],
        "uniqueItems": False,
        "$defs": {"unused": {"not": {}}},
    }
    assert allows(schema, {**dict.fromkeys(names), "value": values})
    assert not allows(schema, dict.fromkeys(names))


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"properties": []}, r"\$\.properties: \[\] is not an object"),
        ({"properties": {"a": "string"}}, r"\$\.properties\.a: 'string' is not a schema"),
        ({"items": 3}, r"\$\.items: 3 is not a schema"),
        ({"anyOf": {}}, r"\$\.anyOf: {} is not a list"),
        ({"required": True}, r"\$\.required: True is not a list"),
        ({"type": 3}, r"\$\.type: 3 is not a type"),
        ({"minLength": "2"}, r"\$\.minLength: '2' is not a number"),
        ({"minimum": 3, "exclusiveMinimum": True}, r"\$\.exclusiveMinimum: True is not a number"),
        ({"$ref": 1}, r"\$\.\$ref: 1 is not a text"),
    ],
)
def test_what_is_no_schema_is_refused(schema, message):
    with pytest.raises(OptionError, match=message):
        prepared(schema)


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string", "format": "date"}, {"type": "string", "format": "date", "maxLength": 512}),
        ({"type": "string", "format": "path"}, {"type": "string", "maxLength": 512}),
        ({"type": "boolean", "format": "int32"}, {"type": "boolean"}),
        ({"type": ["string", "null"], "format": "int64"}, {"type": ["string", "null"], "maxLength": 512}),
        ({"type": "integer", "format": "uint8"}, {"type": "integer", "minimum": -9 * 10**18, "maximum": 9 * 10**18}),
        ({"format": "float", "enum": [0.5]}, {"enum": [0.5]}),
        ({"type": "string", "minimum": 3}, {"type": "string", "maxLength": 512}),
        ({"type": ["string", "null"]}, {"type": ["string", "null"], "maxLength": 512}),
        ({"maxLength": 3}, {"type": "string", "maxLength": 3}),
        ({"anyOf": [{"type": "null"}]}, {"type": "null"}),
        ({"enum": [1, "a"], "title": "E"}, {"enum": [1, "a"]}),
    ],
)
def test_only_what_says_which_values_are_valid_stays(schema, expected):
    made = prepared(schema)
    assert {key: made[key] for key in made.keys() - {"x-guidance", "$defs"}} == expected


def test_a_format_that_nobody_can_check_is_refused():
    with pytest.raises(
        OptionError, match=r"\$\.items\.format: the format 'uuid4' .*\nHint: use pattern, or .*'uuid'"
    ):
        prepared({"items": {"type": "string", "format": "uuid4"}})


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


class Level(Enum):
    LOW = 1


@pytest.mark.parametrize(
    ("kind", "yes", "no"),
    [
        (dict[Literal["a", "b"], int], [{}, {"b": 1}, {"a": 1, "b": 2}], [{"c": 1}, {"a": "x"}]),
        (dict[Literal["a"], Any], [{}, {"a": ["x"]}], [{"b": 1}]),
        (dict[Size, Size], [{}, {"s": "l"}], [{"m": "l"}, {"s": "m"}]),
        (dict[Annotated[str, Field(description="a name")], None], [{}, {"a": None}], [{"a": 1}]),
        (list[dict[Size, dict[Literal["x"], None]]], [[], [{"s": {"x": None}}]], [[{"x": {}}], [{"s": {"s": None}}]]),
    ],
    ids=["Literal", "one name", "Enum", "any name", "nested"],
)
def test_the_names_of_a_dictionary_with_listed_keys_are_optional_properties(kind, yes, no):
    schema = TypeAdapter(kind).json_schema()
    for value in yes:
        TypeAdapter(kind).validate_json(json.dumps(value))
        assert allows(schema, value)
    for value in no:
        assert not allows(schema, value)


def test_listed_keys_hold_together_with_what_stands_beside_them():
    names = {"propertyNames": {"enum": ["a", "b"]}}
    assert allows(names, {"a": [], "b": "x"}) and not allows(names, {"c": "x"}) and not allows(names, "a")
    listed = {**names, "properties": {"a": {"type": "null"}, "c": {}}, "required": ["b"]}
    assert allows(listed, {"a": None, "b": "x"})
    for wrong in ({"a": None}, {"a": "x", "b": "x"}, {"b": "x", "c": "x"}):
        assert not allows(listed, wrong)
    either = {**names, "anyOf": [{"required": ["a"]}, {"required": ["b"]}], "additionalProperties": {"type": "null"}}
    assert allows(either, {"b": None}) and not allows(either, {}) and not allows(either, {"b": "x"})
    with pytest.raises(OptionError, match=r"\$: no value is valid"):
        prepared({**names, "required": ["c"]})
    with pytest.raises(OptionError, match=r"\$: one part limits what another part adds"):
        prepared({**names, "allOf": [{"properties": {"c": {}}}]})


@pytest.mark.parametrize(
    "schema",
    [
        TypeAdapter(dict[Level, int]).json_schema(),
        {"propertyNames": {"enum": ["a", 1]}},
        {"propertyNames": {"enum": ["a", "bc"], "minLength": 2}},
        {"propertyNames": {"enum": ["a"], "const": "b"}},
        {"propertyNames": {"enum": ["a"], "type": "integer"}},
        {"propertyNames": {"enum": ["a"]}, "patternProperties": {"^a": {"type": "null"}}},
        {"propertyNames": {"type": "string", "minLength": 1}},
        {"propertyNames": {"$ref": "#/$defs/A"}, "$defs": {"A": {"$ref": "#/$defs/A"}}},
        {"propertyNames": False},
    ],
)
def test_keys_that_are_not_listed_as_texts_are_refused(schema):
    with pytest.raises(OptionError, match=r"\$\.items\.propertyNames: this keyword cannot be enforced\nHint: list"):
        prepared({"items": schema, "$defs": schema.get("$defs", {})})


def test_parts_are_merged_into_one_closed_object():
    base = {
        "type": "object",
        "properties": {"id": {"type": "integer"}, "tag": {"minLength": 2}},
        "required": ["id"],
    }
    schema = {
        "allOf": [
            {"$ref": "#/$defs/Base"},
            {"properties": {"name": {"type": "null"}, "tag": {"maxLength": 2}}, "required": ["name", "id"]},
        ],
        "$defs": {"Base": base},
    }
    assert allows(schema, {"id": 1, "name": None, "tag": "ab"})
    for wrong in ({"x": 1}, {"tag": "a"}, {"tag": "abc"}):
        assert not allows(schema, {"id": 1, "name": None, **wrong})
    assert not allows(schema, {"id": 1}) and not allows(schema, {"name": None})


def test_a_reference_and_the_parts_beside_it_hold_together():
    schema = {"$ref": "#/$defs/A", "allOf": [{"required": ["a"]}], "$defs": {"A": {"properties": {"a": {}, "b": {}}}}}
    assert allows(schema, {"a": "x", "b": "x"})
    assert not allows(schema, {"b": "x"})


def test_what_stands_beside_a_union_holds_for_every_alternative():
    schema = {
        "type": "object",
        "properties": {"a": {"type": "null"}, "b": {"type": "null"}},
        "anyOf": [{"required": ["a"]}, {"required": ["b"], "properties": {"c": {"type": "null"}}}],
    }
    assert allows(schema, {"a": None, "b": None})
    assert allows(schema, {"b": None, "c": None})
    assert not allows(schema, {})
    assert not allows(schema, {"a": None, "c": None})
    assert not allows({"type": ["string", "null"], "anyOf": [{"type": ["null", "integer"]}, {"const": 1}]}, 1)


def test_a_whole_number_is_what_a_number_and_an_integer_have_in_common():
    assert prepared({"type": "number", "allOf": [{"type": ["integer", "null"]}]})["type"] == "integer"
    assert prepared({"type": "number", "allOf": [{"type": ["number", "null"]}]})["type"] == "number"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([{"pattern": "^a"}, {"pattern": "b$"}], r"\$\.pattern: two parts say different things"),
        (
            [{"properties": {"a": {}}, "additionalProperties": False}, {"properties": {"b": {}}}],
            r"\$: one part limits what another part adds",
        ),
        ([{"items": {"type": "null"}}, {"prefixItems": [{}]}], r"\$: one part limits what another part adds"),
    ],
)
def test_parts_that_cannot_be_merged_are_refused(parts, message):
    for order in (parts, parts[::-1]):
        with pytest.raises(OptionError, match=message):
            prepared({"allOf": order})


def test_parts_that_exclude_each_other_have_no_value():
    with pytest.raises(OptionError, match=r"\$: no value is valid"):
        prepared({"allOf": [{"type": "string"}, {"type": "null"}]})
    with pytest.raises(OptionError, match=r"\$: no value is valid"):
        prepared({"type": "object", "allOf": [False]})


CAT = {"type": "object", "properties": {"kind": {"const": "cat"}, "lives": {"type": "integer"}}, "required": ["kind"]}
DOG = {"type": "object", "properties": {"kind": {"enum": ["dog", "wolf"]}}, "required": ["kind"]}


def record(*names):
    return {"type": "object", "properties": {name: {"type": "null"} for name in names}, "required": list(names)}


@pytest.mark.parametrize(
    "options",
    [
        [{"type": "string"}, {"type": "integer"}, {"type": ["null", "array"]}],
        [{"const": 1}, {"enum": [2, 3]}],
        [CAT, DOG],
        [{"$ref": "#/$defs/Cat"}, {"allOf": [{"$ref": "#/$defs/Dog"}]}, {"type": "null"}],
        [record("a"), {"properties": {"a": False}, "type": "object"}],
        [{"type": "number"}],
        [False, {"type": "string"}],
        [record("a"), record("b"), record("c", "d")],
        [record("a"), {**record("b"), "required": [], "additionalProperties": False}],
        [{**record("a"), "properties": {"a": record("x")}}, {**record("a"), "properties": {"a": record("y")}}],
    ],
)
def test_alternatives_of_which_one_can_be_valid_may_be_written(options):
    schema = {"oneOf": options, "$defs": {"Cat": CAT, "Dog": DOG}}
    assert len(prepared(schema).get("anyOf", [1])) == len(options) - options.count(False)


@pytest.mark.parametrize(
    "options",
    [
        [{"type": "number"}, {"type": "integer"}],
        [{"const": 1}, {"enum": [1.0, 2]}],
        [{"type": "string", "maxLength": 2}, {"type": "string", "minLength": 3}],
        [{"properties": {"a": {}}}, {"type": "string"}],
        [{**CAT, "required": []}, {**DOG, "required": []}],
        # Closed, the two would look different; the caller's second one allows {"a": null} as well.
        [record("a"), {**record("b"), "required": []}],
        [record("a"), record("a", "b")],
        [{**record("a", "b"), "required": ["a"]}, record("b")],
        [{**record("a"), "required": ["a", "b"]}, record("b")],
        [{**record("a"), "additionalProperties": {"type": "null"}}, record("b")],
        [{**record("a"), "patternProperties": {"b": {}}}, record("b")],
        [{**record("a"), "properties": {}, "additionalProperties": True, "required": []}, record("b")],
        [record("a"), {**record("b"), "patternProperties": {"a": {}}, "additionalProperties": False, "required": []}],
        [{**record("a"), "anyOf": [record("b"), record("c")]}, record("b")],
        [{**CAT, "type": ["object", "null"]}, {**DOG, "type": ["object", "null"]}],
        [True, {"type": "string"}],
        # {"x": {"a": 1, "b": null}} may be written for the first one, and is valid for the second.
        [
            {
                **record("x"),
                "properties": {"x": {"type": "object", "propertyNames": {"enum": ["a", "b"]}, "required": ["a"]}},
            },
            {**record("x"), "properties": {"x": record("b")}},
        ],
    ],
)
def test_alternatives_that_may_both_be_valid_are_refused(options):
    with pytest.raises(
        OptionError, match=r"\$\.items\.oneOf: alternatives that may both be valid\nHint: write anyOf"
    ):
        prepared({"items": {"oneOf": options}})


def test_a_pattern_that_looks_around_is_left_out_beside_a_number():
    decimal = {"anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"}]}
    assert prepared(decimal)["type"] == "number"
    either = {"anyOf": [{"type": "null"}, {"type": "string", "pattern": r"^(?!\.)a$", "maxLength": 2}]}
    with pytest.raises(OptionError, match=r"\$\.anyOf\[1\]\.pattern: look-around"):
        prepared(either)  # without it there would be nothing but null
    assert kept(either)[0]("a") and kept(either)[0](None)
    assert not allows({"anyOf": [{"type": "null"}, {"pattern": r"^\(?=x$"}]}, "y")
    assert allows({"anyOf": [{"type": "null"}, {"pattern": r"^\(?=x$"}]}, "(=x")
