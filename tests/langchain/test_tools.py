import json
from typing import Annotated

import pytest
from langchain_core.tools import tool
from pydantic import BaseModel
from pydantic.v1 import BaseModel as BaseModelV1
from typing_extensions import TypedDict

from lorauter_integrations.errors import OptionError
from lorauter_integrations.langchain.tools import answer_schema, chosen, form_of, json_schema, tool_schemas


@tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


class Weather(BaseModel):
    """Tells the weather."""

    city: str


ANTHROPIC = {"name": "search", "description": "Finds.", "input_schema": {"type": "object", "properties": {}}}
TOOLS = tool_schemas([add, Weather, ANTHROPIC])


def form(choice=None, response_format=None, tools=TOOLS, *, parallel=None):
    return form_of(tools, choice, response_format, parallel=parallel, strict=None)


def parts(form):
    return json.loads(form.grammar.source)


def names(tools):
    return [one["function"]["name"] for one in tools]


def test_tools_of_every_kind_come_in_openais_form():
    assert names(TOOLS) == ["add", "Weather", "search"]
    assert TOOLS[0]["function"]["parameters"]["required"] == ["a", "b"]
    assert names(tool_schemas([lambda_tool])) == ["lambda_tool"]
    assert tool_schemas(TOOLS) == TOOLS


def lambda_tool(x: int) -> int:
    """A plain function."""
    return x


def test_two_tools_of_one_name_are_refused_and_one_tool_twice_is_one():
    with pytest.raises(OptionError, match="two of the tools are named 'add'"):
        tool_schemas([add, {**ANTHROPIC, "name": "add"}])
    assert tool_schemas([add, add]) == tool_schemas([add])
    assert tool_schemas([Weather, Weather.model_json_schema()]) == tool_schemas([Weather])  # the second has titles


def test_a_tool_of_a_providers_servers_is_refused_by_its_type():
    with pytest.raises(OptionError, match="'web_search_preview' runs on its provider's servers"):
        tool_schemas([{"type": "web_search_preview"}])


@pytest.mark.parametrize(
    ("given", "choice"),
    [
        (None, "auto"),
        ("auto", "auto"),
        ({"type": "auto"}, "auto"),
        (True, "any"),
        ("any", "any"),
        ("required", "required"),
        ({"type": "any"}, "any"),
        (False, "none"),
        ({"type": "none"}, "none"),
        ("add", "add"),
        ({"type": "function", "function": {"name": "add"}}, "add"),
        ({"type": "tool", "name": "Weather"}, "Weather"),
        ({"name": "search"}, "search"),
    ],
)
def test_every_form_of_tool_choice_is_understood(given, choice):
    assert chosen(given, TOOLS) == choice


def test_a_tool_may_be_named_like_a_word_of_tool_choice():
    assert chosen("any", tool_schemas([{**ANTHROPIC, "name": "any"}])) == "any"


@pytest.mark.parametrize("choice", ["subtract", {"type": "tool", "name": "subtract"}])
def test_a_choice_that_no_tool_has_is_refused_with_the_tools(choice):
    with pytest.raises(OptionError, match=r"is not one of the bound tools\nHint: the tools are 'Weather', 'add'"):
        chosen(choice, TOOLS)


def test_a_call_cannot_be_forced_without_tools():
    with pytest.raises(OptionError, match="'any' forces a call and no tools are bound"):
        chosen("any", [])


def test_auto_allows_text_or_calls():
    given = form()
    assert (given.has_calls, names(given.tools)) == (True, ["add", "Weather", "search"])
    assert parts(given) == {"tools": TOOLS, "text": True, "parallel": True, "answer": None}
    assert parts(form(parallel=False))["parallel"] is False


def test_a_forced_call_allows_no_text():
    assert parts(form("any")) == {"tools": TOOLS, "text": False, "parallel": True, "answer": None}
    assert parts(form("required", parallel=False))["parallel"] is False


def test_a_named_tool_is_called_once_while_all_are_shown():
    given = form("add")
    assert (names(parts(given)["tools"]), parts(given)["parallel"]) == (["add"], False)
    assert len(given.tools) == 3


def test_none_shows_the_tools_and_allows_no_calls():
    given = form("none")
    assert (given.tools, given.has_calls) == (TOOLS, False)
    assert parts(given) == {"tools": [], "text": True, "parallel": True, "answer": None}


def test_without_tools_nothing_is_bound():
    given = form(tools=())
    assert (given.tools, given.grammar, given.has_calls) == ([], None, False)


SCHEMA = {"type": "object", "properties": {"total": {"type": "integer"}}, "required": ["total"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "total", "schema": SCHEMA}}


def test_a_response_format_alone_binds_the_answer():
    given = form(response_format=FORMAT, tools=())
    assert (given.grammar.kind, json.loads(given.grammar.source)) == ("json_schema", SCHEMA)
    assert form("none", FORMAT).grammar == given.grammar


def test_tools_and_a_response_format_allow_calls_or_the_answer():
    assert parts(form(response_format=FORMAT)) == {
        "tools": TOOLS,
        "text": False,
        "parallel": True,
        "answer": SCHEMA,
    }
    assert parts(form("any", FORMAT))["answer"] is None


@pytest.mark.parametrize("free", [None, {"type": "text"}])
def test_a_response_format_of_text_binds_nothing(free):
    assert answer_schema(free) is None


def test_a_response_format_may_be_any_object_or_a_schema():
    assert answer_schema({"type": "json_object"}) == {"type": "object", "additionalProperties": True}
    assert answer_schema(FORMAT) == answer_schema(SCHEMA) == SCHEMA
    assert answer_schema(Weather)["required"] == ["city"]


def test_a_response_format_of_another_form_is_refused():
    with pytest.raises(OptionError, match=r"response_format=\{'type': 'xml'\} is not understood"):
        answer_schema({"type": "xml"})


class Old(BaseModelV1):
    n: int


class Typed(TypedDict):
    """A typed dictionary."""

    n: Annotated[int, ..., "a number"]


class Folder(BaseModel):
    """Holds itself."""

    inside: list["Folder"]


def test_schemas_of_every_kind_have_a_json_schema():
    for schema in (Old, Typed, {"title": "N", "type": "object", "properties": {"n": {"type": "integer"}}}):
        assert json_schema(schema)["properties"]["n"]["type"] == "integer"
    function = {"name": "n", "description": "", "parameters": {"type": "object", "properties": {"n": {}}}}
    assert "n" in json_schema(function)["properties"]
    assert "n" in json_schema({"type": "function", "function": function})["properties"]


def test_a_class_that_holds_itself_keeps_its_reference():
    assert json_schema(Folder)["$defs"]["Folder"]["properties"]["inside"]["items"] == {"$ref": "#/$defs/Folder"}


def test_what_has_no_schema_is_refused():
    with pytest.raises(OptionError, match="has no JSON schema"):
        json_schema(3)
