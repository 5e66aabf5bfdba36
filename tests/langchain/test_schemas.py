"""A schema or a tool of any kind means the same; what has none is one clear error."""

import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import pytest
from langchain_core.tools import InjectedToolArg, StructuredTool, Tool, tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel, Field
from pydantic.v1 import BaseModel as BaseModelV1
from typing_extensions import NotRequired, Required, TypedDict

from lorauter_integrations.errors import OptionError
from lorauter_integrations.langchain.schemas import is_recursive, json_schema, openai_tool

INTEGER = {"type": "integer"}


def function(given, strict=None):
    return openai_tool(given, strict)["function"]


class Tree(BaseModel):
    """A tree."""

    v: bool
    kids: list["Tree"] = []


class OldTree(BaseModelV1):
    """A tree."""

    v: bool
    kids: list["OldTree"] = []


OldTree.update_forward_refs()


class TreeDict(TypedDict):
    """A tree."""

    v: bool
    kids: NotRequired["list[TreeDict]"]


@dataclass
class TreeData:
    """A tree."""

    v: bool
    kids: list["TreeData"] | None = None


@tool
def plant(t: Tree, secret: Annotated[int, InjectedToolArg]) -> str:
    """Plants."""
    return f"{t} {secret}"


def grow(t: Tree, secret: Annotated[int, InjectedToolArg], much: int = 1) -> str:
    """Grows.

    Args:
        t: this tree.
        much: this much.
    """
    return f"{t} {secret} {much}"


MCP = StructuredTool(name="mcp", description="Remote.", args_schema=Tree.model_json_schema(), func=lambda **_: "")


@pytest.mark.parametrize(
    ("kind", "definitions"),
    [(Tree, "$defs"), (OldTree, "definitions"), (TreeDict, "$defs"), (TreeData, "$defs")],
)
def test_a_class_that_contains_itself_keeps_its_references_as_a_tool(kind, definitions):
    made = function(kind)
    parameters = made["parameters"]
    assert made["name"] == kind.__name__
    assert parameters["type"] == "object"
    assert (parameters["required"], list(parameters["properties"])) == (["v"], ["v", "kids"])
    assert f"'$ref': '#/{definitions}/{kind.__name__}'" in str(parameters["properties"]["kids"])
    assert list(parameters[definitions]) == [kind.__name__]
    assert "title" not in str(parameters)
    if kind is not TreeData:  # older pydantics do not read the docstring of a dataclass
        assert made["description"] == "A tree."


def test_tools_and_functions_of_such_a_class_keep_them_and_hide_what_is_injected():
    for given, name, description in ((plant, "plant", "Plants."), (grow, "grow", "Grows.")):
        made = function(given)
        assert (made["name"], made["description"]) == (name, description)
        assert made["parameters"]["properties"]["t"]["$ref"] == "#/$defs/Tree"
        assert made["parameters"]["$defs"]["Tree"]["properties"]["kids"]["items"] == {"$ref": "#/$defs/Tree"}
        assert "secret" not in made["parameters"]["properties"]
    assert function(grow)["parameters"]["properties"]["much"] == {
        "default": 1,
        "description": "this much.",
        "type": "integer",
    }
    assert function(plant, True)["strict"] is True
    made = function(MCP)
    assert (made["name"], made["description"], made["parameters"]["required"]) == ("mcp", "Remote.", ["v"])
    assert made["parameters"]["properties"]["kids"]["items"] == {"$ref": "#/$defs/Tree"}


class Leaf(BaseModel):
    """A leaf."""

    size: Annotated[int, Field(gt=0)]


class Branch(BaseModel):
    """A branch."""

    title: str
    leaves: list[Leaf]
    first: Leaf | None = None


@tool
def cut(branch: Branch, secret: Annotated[int, InjectedToolArg]) -> str:
    """Cuts."""
    return f"{branch} {secret}"


def prune(branch: Branch) -> str:
    """Prunes."""
    return str(branch)


@pytest.mark.parametrize("given", [Branch, cut, prune, Tool("plain", str, "Plain.")], ids=str)
@pytest.mark.parametrize("strict", [None, True, False])
def test_all_else_is_written_out_as_langchain_does(given, strict):
    assert openai_tool(given, strict) == convert_to_openai_tool(given, strict=strict)


@pytest.mark.parametrize(
    ("schema", "recursive"),
    [
        ({"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": INTEGER}}, False),
        ({"properties": {"$ref": {"type": "string"}}}, False),
        ({"properties": {"a": {"$ref": "#"}}}, True),
        ({"$defs": {"A": {"anyOf": [{"$ref": "#/$defs/B"}]}, "B": {"items": {"$ref": "#/$defs/A/anyOf"}}}}, True),
        ({"$defs": {"A": {"$ref": "#/$defs/AB"}, "AB": INTEGER}}, False),
        ({"properties": {"a": {"$ref": "#/$defs/Nowhere"}}}, True),
    ],
)
def test_a_recursion_is_found_through_definitions(schema, recursive):
    assert is_recursive(schema) is recursive


def test_classes_that_all_contain_each_other_do_not_multiply():
    names = [f"T{number}" for number in range(14)]
    fields = {name: {"$ref": f"#/$defs/{name}"} for name in names}
    schema = {"type": "object", "properties": fields, "$defs": {name: {"properties": fields} for name in names}}
    given = StructuredTool(name="many", description="Many.", args_schema=schema, func=lambda **_: "")
    assert function(given)["parameters"] == schema


class Plain(typing.TypedDict):
    size: Annotated[int, ..., "how large"]


class Each(TypedDict, total=False):
    n: Required[Annotated[int, ..., "how many"]]
    much: Annotated[float, 0.5, "how much"]
    word: Annotated[str | None, None, "a word"]
    bound: Required[Annotated[int, Field(gt=2, description="more than two")]]
    kind: Literal["a", "b"]
    inner: "list[Inner]"


class Inner(TypedDict):
    size: Annotated[int, ..., "how large"]


def test_a_typed_dict_keeps_optional_keys_and_langchains_descriptions():
    made = function(Each)
    assert made.keys() == {"name", "parameters"}  # no docstring, no description
    assert sorted(made["parameters"]["required"]) == ["bound", "n"]
    properties = made["parameters"]["properties"]
    assert properties["n"] == {"description": "how many", "type": "integer"}
    assert properties["much"] == {"default": 0.5, "description": "how much", "type": "number"}
    assert properties["word"] == {"anyOf": [{"type": "string"}, {"type": "null"}], "description": "a word"}
    assert properties["bound"] == {"description": "more than two", "exclusiveMinimum": 2, "type": "integer"}
    assert properties["inner"]["items"]["properties"] == {"size": {"description": "how large", "type": "integer"}}
    assert json_schema(Each)["required"] == made["parameters"]["required"]


class PlainTree(typing.TypedDict):
    """A tree of the standard library."""

    v: Annotated[bool, ..., "its value"]
    left: "PlainTree | None"
    leaf: NotRequired[Plain]
    pairs: Annotated[dict[str, tuple[Plain, ...]], {}]


class Short(PlainTree, total=False):
    name: Literal["x"]


def test_a_typed_dict_of_the_standard_library_is_one_too_in_every_part():
    schema = json_schema(Short)
    whole = schema["$defs"]["PlainTree"]["properties"]
    assert schema["required"] == ["v", "left"]
    assert whole["v"] | {"title": ""} == {"title": "", "description": "its value", "type": "boolean"}
    assert whole["left"]["anyOf"] == [{"$ref": "#/$defs/PlainTree"}, {"type": "null"}]
    assert schema["properties"]["leaf"] == {"$ref": "#/$defs/Plain"}
    assert schema["properties"]["pairs"]["additionalProperties"]["items"] == {"$ref": "#/$defs/Plain"}
    assert schema["$defs"]["Plain"]["properties"]["size"]["description"] == "how large"
    assert function(PlainTree)["description"] == "A tree of the standard library."


class Holds(TypedDict):
    call: Callable[[int], int]


class Wrong(TypedDict):
    n: Annotated[int, ..., 3]


class Unknown(TypedDict):
    n: "Nowhere"  # noqa: F821


class HoldsOne(BaseModel):
    call: Callable[[int], int]


@pytest.mark.parametrize("make", [json_schema, openai_tool])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Holds, "^'Holds' has no JSON schema: .*CallableSchema"),
        (HoldsOne, "^'HoldsOne' has no JSON schema: .*CallableSchema"),
        (Wrong, "^'Wrong' has no JSON schema: the key 'n' is described by 3, which is no text"),
        (Unknown, "^'Unknown' has no JSON schema: .*Unknown.*is not fully defined"),
        (partial(grow, much=2), "has no JSON schema: .*no attribute '__name__'"),
        (3, "^3 has no JSON schema"),
    ],
)
def test_what_json_cannot_have_is_one_clear_error(make, kind, message):
    with pytest.raises(OptionError, match=rf"{message}(.|\n)*\nHint: (use types|give a pydantic)"):
        make(kind)


def test_a_tool_without_a_schema_is_refused_by_its_name():
    def send(call: Callable[[int], int]) -> str:
        """Sends."""
        return str(call)

    with pytest.raises(OptionError, match=r"'send' has no JSON schema: .*CallableSchema"):
        openai_tool(tool(send))


class Old(BaseModelV1):
    n: int


class Typed(TypedDict):
    """A typed dictionary."""

    n: Annotated[int, ..., "a number"]


@dataclass
class Data:
    n: int
    inner: Typed | None = None


N = {"type": "object", "properties": {"n": INTEGER}, "required": ["n"]}
TITLED = {"title": "N", "description": "A number.", **N}
FUNCTION = {"name": "N", "description": "A number.", "parameters": N}
ANTHROPIC = {"name": "N", "description": "A number.", "input_schema": N}
BEDROCK = {"toolSpec": {"name": "N", "description": "A number.", "inputSchema": {"json": N}}}
SCHEMA_FORM = {"name": "N", "description": "A number.", "schema": N, "strict": True}
TOOL_FORMS = [FUNCTION, {"type": "function", "function": FUNCTION}, {"type": "function", **FUNCTION}, ANTHROPIC]
TOOL_FORMS += [{**ANTHROPIC, "type": "custom"}, BEDROCK, TITLED]


@pytest.mark.parametrize("schema", [Old, Typed, Data, N, {"properties": {"n": INTEGER}}])
def test_schemas_of_every_kind_have_a_json_schema(schema):
    assert json_schema(schema)["properties"]["n"]["type"] == "integer"


@pytest.mark.parametrize(
    "form",
    [
        *TOOL_FORMS,
        SCHEMA_FORM,
        {"type": "json_schema", "json_schema": SCHEMA_FORM},
        SCHEMA_FORM | {"type": "json_schema"},
    ],
)
def test_every_form_of_a_dictionary_means_its_schema(form):
    assert json_schema(form) == TITLED


@pytest.mark.parametrize("form", TOOL_FORMS)
def test_every_form_of_a_tool_is_one_tool(form):
    assert function(form) == FUNCTION
    assert openai_tool(openai_tool(form)) == openai_tool(form)
    assert list(openai_tool(form)) == ["type", "function"]  # the model reads it in this order


def test_a_dataclass_is_a_tool_without_its_signature_as_description():
    made = function(Data)
    assert made["name"] == "Data"
    assert "Data(" not in str(made)
    assert made["parameters"]["required"] == ["n"]
    assert made["parameters"]["properties"]["inner"]["anyOf"][0]["required"] == ["n"]


def test_a_tool_may_take_no_arguments_or_say_more_than_properties():
    for form in ({"name": "now"}, {"title": "now"}, {"type": "function", "name": "now"}):
        assert function(form, True)["parameters"]["properties"] == {}
    union = {"anyOf": [N, {"$ref": "#/$defs/A"}], "$defs": {"A": N}}
    assert function({"title": "union", **union}) == {"name": "union", "parameters": union}
    assert function({"name": "n", **N}) == {"name": "n", "parameters": N}


def test_a_schema_in_a_named_form_may_be_a_class():
    assert json_schema({"name": "mine", "schema": Typed})["properties"]["n"]["description"] == "a number"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"type": "web_search_20250305", "name": "web_search"}, "of type 'web_search_20250305'"),
        ({"type": "web_search_preview"}, "of type 'web_search_preview'"),
        ({"type": "computer_use_preview", "display_width": 3}, "of type 'computer_use_preview'"),
        ({"type": "custom", "name": "free"}, "of type 'custom'"),
        (Tool("free", str, "Free.", metadata={"type": "custom_tool"}), "of type 'custom'"),
        ({"googleSearch": {}}, "'googleSearch'"),
        ({"code_execution": {}}, "'code_execution'"),
    ],
)
def test_a_tool_of_a_providers_servers_is_refused_by_its_type_or_key(given, name):
    with pytest.raises(OptionError, match=f"^the tool {name} runs on its provider's servers\nHint: bind"):
        openai_tool(given)


@pytest.mark.parametrize(
    "given",
    [N, {}, {"type": "function", "function": {"parameters": N}}, {"function": "n"}, {"name": 3}],
)
def test_a_tool_without_a_name_is_refused(given):
    with pytest.raises(OptionError, match=r"^a tool has no name: \{.*\nHint: give it"):
        openai_tool(given)


@pytest.mark.parametrize("given", [{"name": "string", "age": "int"}, {"googleSearch": {}}, {"type": "word"}])
def test_a_dictionary_that_is_no_schema_is_refused(given):
    with pytest.raises(OptionError, match=r"^\{.*\} is not a JSON schema\nHint: a JSON schema has"):
        json_schema(given)


def test_any_value_is_a_schema():
    assert json_schema({}) == {}
    assert json_schema({"title": "Anything"}) == {"title": "Anything"}


def test_a_class_that_contains_itself_keeps_its_reference_as_a_schema():
    assert json_schema(Tree) == Tree.model_json_schema()
    assert json_schema(plant)["$defs"]["Tree"]["properties"]["kids"]["items"] == {"$ref": "#/$defs/Tree"}
