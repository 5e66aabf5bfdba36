"""What is decoded is never more than the caller's schema allows, and ends."""

import copy
import time
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from jsonschema import Draft202012Validator, ValidationError, validators
from pydantic import BaseModel, Field

from lorauter_integrations.engines.json_schema import prepared
from lorauter_integrations.errors import OptionError


def in_steps(validator, step, value, schema):
    if validator.is_type(value, "number") and Decimal(repr(value)) % Decimal(repr(step)):
        yield ValidationError(f"{value} is not a multiple of {step}")


# The library's own check divides binary fractions: 1 would be no multiple of 1e-9.
Validator = validators.extend(Draft202012Validator, {"multipleOf": in_steps})


def allows(schema, value):
    return Validator(prepared(schema)).is_valid(value)


def nested(depth, step=lambda inner: [inner], innermost=1):
    for _ in range(depth):
        innermost = step(innermost)
    return innermost


def bounds(**keywords):
    made = prepared({"type": "number", **keywords})
    return made["minimum"], made["maximum"]


def test_a_schema_is_written_closed_bounded_and_with_its_separators():
    schema = {
        "title": "Person",
        "type": "object",
        "properties": {"name": {"type": "string", "default": "x"}, "age": {"type": "integer", "minimum": 0}},
        "required": ["name"],
    }
    assert prepared(schema) == {
        "x-guidance": {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False},
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 512},
            "age": {"type": "integer", "minimum": 0, "maximum": 9 * 10**18},
        },
        "required": ["name"],
        "additionalProperties": False,
        "$defs": {},
    }


def test_the_callers_schema_is_not_changed():
    schema = {**tree(NODE), "allOf": [{"properties": {"more": {"items": [{}, True]}}}], "title": "T"}
    before = copy.deepcopy(schema)
    prepared(schema)["x-guidance"]["item_separator"] = "changed"
    assert schema == before
    assert prepared(schema)["x-guidance"]["item_separator"] == ", "


@pytest.mark.parametrize(
    ("schema", "yes", "no"),
    [
        pytest.param({"type": "object"}, {}, {"a": 1}, id="bare"),
        pytest.param({"type": "object", "properties": {"a": {}}}, {"a": 1}, {"b": 1}, id="listed"),
        pytest.param({"properties": {"a": {}}}, {"a": 1}, "text", id="without a type"),
        pytest.param({"anyOf": [{"properties": {"a": {}}}, {"type": "null"}]}, {"a": 1}, {"b": 1}, id="in a union"),
        pytest.param(
            {"properties": {"a": {}}, "additionalProperties": True}, {"a": 1}, {"b": 1}, id="open beside a list"
        ),
        pytest.param(
            {"properties": {"a": {}}, "additionalProperties": {"type": "null"}},
            {"a": 1, "b": None},
            {"b": 1},
            id="typed beside a list",
        ),
        pytest.param(
            {"type": "object", "additionalProperties": {"type": "integer"}}, {"a": 1}, {"a": "x"}, id="dict[str, int]"
        ),
        pytest.param({"properties": {}, "additionalProperties": {}}, {"a": 1}, "text", id="open beside nothing"),
        pytest.param({"type": "object", "additionalProperties": True}, {"a": ["x"]}, {"a" * 65: 1}, id="dict"),
        pytest.param({"properties": {}, "required": ["a"]}, {"a": [1]}, {}, id="required but not listed"),
        pytest.param(
            {"patternProperties": {"^a": {"type": "null"}}}, {"ab": None}, {"b": None}, id="patternProperties"
        ),
    ],
)
def test_an_object_has_what_it_lists_and_nothing_else(schema, yes, no):
    assert allows(schema, yes)
    assert not allows(schema, no)


@pytest.mark.parametrize("schema", [{}, {"title": "Anything"}, {"items": {}}, {"type": "array"}])
def test_any_value_is_four_levels_deep(schema):
    extra = 0 if schema in ({}, {"title": "Anything"}) else 1
    assert allows(schema, nested(3 + extra, innermost="x"))
    assert not allows(schema, nested(4 + extra, innermost="x"))


def test_whatever_has_no_end_gets_one():
    assert allows({"type": "string"}, "x" * 512)
    assert not allows({"type": "string"}, "x" * 513)
    assert not allows({"type": "string", "pattern": "^x+$"}, "x" * 513)
    assert allows({"type": "string", "minLength": 600}, "x" * 1112)
    assert allows({"type": "string", "maxLength": 9000}, "x" * 9000)
    assert not allows({"type": "array", "items": {"type": "null"}}, [None] * 33)
    assert allows({"type": "array", "items": {"type": "null"}, "minItems": 40}, [None] * 72)
    assert not allows(
        {"type": "object", "additionalProperties": {"type": "null"}}, dict.fromkeys(map(str, range(33)))
    )


def test_a_value_of_an_enum_may_be_long():
    text = "x" * 600
    assert allows({"type": "string", "enum": [text]}, text)
    assert allows({"const": text}, text)


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({}, (-(10**15), 10**15)),
        ({"exclusiveMinimum": 0, "exclusiveMaximum": 1}, (1e-9, 0.999999999)),
        ({"minimum": 0.25, "maximum": 4.1e-1}, (0.25, 0.41)),
        ({"minimum": 1 / 3, "maximum": 2 / 3}, (0.333333334, 0.666666666)),
        ({"minimum": -1e300, "maximum": float("inf")}, (-(10**15), 10**15)),
        ({"exclusiveMinimum": 1e8}, (100000000.000001, 10**15)),
        ({"minimum": 3, "exclusiveMinimum": 1}, (3, 10**15)),
    ],
)
def test_numbers_end_after_nine_digits_and_exclusive_bounds_become_plain_ones(keywords, expected):
    assert bounds(**keywords) == expected
    assert prepared({"type": "number", **keywords})["multipleOf"] == 1e-9


def test_whole_numbers_keep_nineteen_digits_and_their_own_steps():
    assert prepared({"type": "integer", "exclusiveMinimum": 2.5, "exclusiveMaximum": 9, "multipleOf": 2}) == {
        "x-guidance": prepared({})["x-guidance"],
        "type": "integer",
        "minimum": 3,
        "maximum": 8,
        "multipleOf": 2,
        "$defs": {},
    }
    assert allows({"type": "integer"}, 1234567890123456789)
    assert prepared({"type": "number", "multipleOf": 0.25})["multipleOf"] == 0.25


@pytest.mark.parametrize("keywords", [{"exclusiveMinimum": 0, "maximum": 1e-12}, {"minimum": 1e16}])
def test_numbers_that_cannot_be_written_are_refused(keywords):
    with pytest.raises(OptionError, match=r"\$\.items: no number with 9 digits behind the point is within"):
        prepared({"items": {"type": "number", **keywords}})


def tree(child):
    node = {"type": "object", "properties": {"name": {"type": "string"}, "child": child}, "required": ["name"]}
    return {"$ref": "#/$defs/Node", "$defs": {"Node": node}}


NODE = {"$ref": "#/$defs/Node"}


@pytest.mark.parametrize(
    ("schema", "levels"),
    [
        pytest.param(tree(NODE), 4, id="$ref"),
        pytest.param({"properties": {"name": {}, "child": {"$ref": "#"}}, "required": ["name"]}, 4, id="root"),
        pytest.param(tree({"allOf": [NODE], "description": "as pydantic 1 wrote it"}), 4, id="allOf"),
        pytest.param(tree({**NODE, "minProperties": 1}), 4, id="beside the reference"),
        pytest.param({**tree(NODE), "minProperties": 1}, 4, id="beside the first reference"),
        pytest.param(tree({"oneOf": [{"type": "null"}, NODE]}), 4, id="oneOf"),
        pytest.param(tree({"type": ["object", "null"], "anyOf": [{"type": "null"}, NODE]}), 4, id="beside a union"),
        pytest.param(
            {
                "allOf": [{"$ref": "#/$defs/Named"}, {"properties": {"child": {"$ref": "#"}}}],
                "$defs": {"Named": {"type": "object", "properties": {"name": {}}, "required": ["name"]}},
            },
            4,
            id="a base class",
        ),
        pytest.param(
            {
                "$ref": "#/$defs/A",
                "$defs": {
                    "A": {"properties": {"name": {}, "child": {"$ref": "#/$defs/B"}}, "required": ["name"]},
                    "B": {"allOf": [{"$ref": "#/$defs/A"}, {"minProperties": 1}]},
                },
            },
            2,
            id="two definitions a level",
        ),
    ],
)
def test_a_recursion_is_cut_at_the_fourth_level(schema, levels):
    def depth(levels):
        return nested(levels - 1, lambda inner: {"name": "x", "child": inner}, {"name": "x"})

    assert allows(schema, depth(levels))
    assert not allows(schema, depth(levels + 1))


@pytest.mark.parametrize("wrap", [lambda part: part, lambda part: {"allOf": [part]}], ids=["$ref", "allOf"])
def test_types_that_all_contain_each_other_do_not_multiply(wrap):
    names = [f"T{number}" for number in range(12)]
    fields = {name: wrap({"$ref": f"#/$defs/{name}"}) for name in names}
    schema = {"properties": fields, "$defs": {name: {"type": "object", "properties": fields} for name in names}}
    start = time.perf_counter()
    assert len(prepared(schema)["$defs"]) == 4 * 12
    assert time.perf_counter() - start < 5


def test_one_recursive_type_leaves_another_its_four_levels():
    schema = {
        "$ref": "#/$defs/Outer",
        "$defs": {
            "Outer": {"properties": {"next": {"$ref": "#/$defs/Outer"}, "list": {"$ref": "#/$defs/Inner"}}},
            "Inner": {"type": "array", "items": {"$ref": "#/$defs/Inner"}},
        },
    }
    assert allows(schema, nested(3, lambda inner: {"next": inner}, {"list": [[[[]]]]}))


@pytest.mark.parametrize(
    "definition",
    [
        {"properties": {"next": {"$ref": "#/$defs/A"}}, "required": ["next"]},
        {"type": "array", "items": {"$ref": "#/$defs/A"}, "minItems": 1},
        {"type": "array", "prefixItems": [{"type": "null"}, {"$ref": "#/$defs/A"}], "minItems": 2},
        {"anyOf": [{"$ref": "#/$defs/A"}, {"items": {"$ref": "#/$defs/A"}, "minItems": 2}]},
        {"$ref": "#/$defs/A"},
        {"allOf": [{"$ref": "#/$defs/A"}, {"minProperties": 1}]},
    ],
    ids=["property", "items", "tuple", "union", "itself", "allOf itself"],
)
def test_a_recursion_that_cannot_end_is_refused(definition):
    with pytest.raises(OptionError, match=r"\$: no value is valid within 4 levels of recursion\nHint: make a recurs"):
        prepared({"$ref": "#/$defs/A", "$defs": {"A": definition}})


def test_alternatives_and_optional_parts_that_cannot_end_are_left_out():
    endless = {"type": "object", "properties": {"next": {"$ref": "#/$defs/A"}}, "required": ["next"]}
    schema = {
        "properties": {"a": {"$ref": "#/$defs/A"}, "b": {"anyOf": [{"$ref": "#/$defs/A"}, {"type": "null"}]}},
        "$defs": {"A": endless},
    }
    assert prepared(schema)["properties"] == {"a": False, "b": {"type": "null"}}


def test_references_find_every_place_of_the_schema():
    schema = {
        "definitions": {"a/b c": {"const": 1}, "list": {"anyOf": [{"const": 2}]}},
        "prefixItems": [{"$ref": "#/definitions/a~1b%20c"}, {"$ref": "#/definitions/list/anyOf/0"}],
        "minItems": 2,
    }
    assert allows(schema, [1, 2])
    assert not allows(schema, [2, 1])


@pytest.mark.parametrize("pointer", ["#/$defs/B", "#B", "https://example.org/schema.json", "#/$defs/A/anyOf/7"])
def test_a_reference_to_nowhere_is_refused(pointer):
    schema = {"properties": {"a": {"$ref": pointer}}, "$defs": {"A": {"anyOf": [True]}}}
    with pytest.raises(
        OptionError,
        match=rf"\$\.properties\.a\.\$ref: '{pointer}' is not a place in this schema".replace("$d", r"\$d"),
    ):
        prepared(schema)


def test_a_tuple_is_as_long_as_its_list():
    pair = {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]}
    assert allows(pair, [1, "a"]) and allows(pair, [1])
    assert not allows(pair, [1, "a", 2])
    assert allows({**pair, "items": {"type": "null"}}, [1, "a", None])
    assert allows({**pair, "minItems": 3}, [1, "a", {}])
    assert not allows({**pair, "maxItems": 1}, [1, "a"])
    assert allows({"prefixItems": [{}, False, {}]}, [1]) and not allows({"prefixItems": [{}, False, {}]}, [1, 2])
    assert allows({"items": [{"type": "integer"}], "additionalItems": {"type": "null"}}, [1, None])
    assert not allows({"items": [{"type": "integer"}]}, [1, None])


def test_free_names_cannot_be_counted():
    numbers = {"type": "object", "additionalProperties": {"type": "integer"}}
    with pytest.raises(OptionError, match=r"\$\.items\.minProperties: 2 different names"):
        prepared({"items": {**numbers, "minProperties": 2}})
    assert not allows({**numbers, "minProperties": 1}, {})
    assert not allows({**numbers, "maxProperties": 1}, {"a": 1, "b": 2})
    listed = {"properties": {"a": {}, "b": {}}, "required": ["a"], "minProperties": 1, "maxProperties": 2}
    assert not {"minProperties", "maxProperties"} & prepared(listed).keys()  # they say nothing here


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]
    friend: "Cat | Dog | None" = Field(None, description="Another animal.")


class Order(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    pets: list[Cat | Dog] = Field(default_factory=list, max_length=2)
    colour: Colour = Field(Colour.RED, description="Which one.")
    size: tuple[int, str] | None = None
    price: Decimal
    share: float = Field(gt=0, lt=1)
    extra: dict[str, Any] = Field(default_factory=dict)


def test_a_pydantic_model_is_prepared_with_all_its_parts():
    schema = Order.model_json_schema()
    least = {"pet": {"kind": "dog", "friend": {"kind": "cat"}}, "price": 9.5, "share": 0.5}
    whole = {**least, "pets": [{"kind": "cat"}], "colour": "blue", "size": [1, "m"], "extra": {"a": [True]}}
    for value in (least, whole):
        Order.model_validate(value)
        assert allows(schema, value)
    for wrong in ({"share": 0}, {"share": 1}, {"size": [1]}, {"colour": "green"}, {"pet": {"kind": "cow"}}, {"x": 1}):
        assert not allows(schema, {**least, **wrong})
