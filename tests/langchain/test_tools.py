import json
import logging

import pytest
from langchain_core.tools import tool
from pydantic import BaseModel

from lorauter_integrations.answer_form import chosen
from lorauter_integrations.engines.tool_grammar import checked
from lorauter_integrations.errors import OptionError
from lorauter_integrations.langchain.tools import answer_schema, asked_form, json_schema, schema_tool, tool_schemas


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
    return asked_form(tools, choice, response_format, parallel=parallel, strict=None)


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


def test_a_schema_of_any_kind_is_a_tool_and_one_without_a_title_is_the_answer():
    assert schema_tool(Weather) == schema_tool(json_schema(Weather) | {"title": "Weather"}, None) | TOOLS[1]
    assert schema_tool(SCHEMA)["function"] == {"name": "answer", "parameters": SCHEMA}
    for named in (FORMAT, FORMAT["json_schema"], {**FORMAT["json_schema"], "type": "json_schema", "strict": True}):
        assert schema_tool(named)["function"] == {"name": "total", "parameters": SCHEMA}
    assert schema_tool(ANTHROPIC) == schema_tool(TOOLS[2]) == TOOLS[2]
    assert schema_tool(add, True)["function"]["strict"] is True
    with pytest.raises(OptionError, match="3 has no JSON schema"):
        schema_tool(3)


def test_tools_whose_calls_can_be_written_are_checked_in_silence_the_second_time(caplog):
    odd = {"type": "object", "properties": {"to": {"type": "string", "format": "phone", "not": {"const": "911"}}}}
    tools = [*TOOLS, *tool_schemas([{"name": "dial", "parameters": odd}])]
    with caplog.at_level(logging.DEBUG, logger="lorauter_integrations"):
        assert checked(tools) == checked(tools) == tools
    [told] = caplog.records
    assert told.message.startswith("tool 'dial': its grammar does not keep {'$.properties.to.not': ")


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"$ref": "#/$defs/Nowhere"}, r"^tool 'odd': .*'#/\$defs/Nowhere' is not a place in this schema\nHint: put"),
        ({"type": "any"}, r"^tool 'odd': no call of it can be written: .*Invalid type: any\nHint: see"),
        ({"default": {1}}, "^a tool's schema is not JSON: "),
    ],
)
def test_a_tool_whose_calls_cannot_be_written_is_refused_by_its_name(part, message):
    odd = {"name": "odd", "parameters": {"type": "object", "properties": {"a": part}}}
    with pytest.raises(OptionError, match=message):
        checked(tool_schemas([add, odd]))
    with pytest.raises(OptionError, match="tool 'odd': its arguments are of type 'array'"):
        checked([schema_tool({"title": "odd", "type": "array"})])


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


@pytest.mark.parametrize(
    "choice",
    [
        "subtract",
        {"type": "tool", "name": "subtract"},
        {"function": "add"},
        {"type": "function", "function": {}},
        {"name": 3},
        {},
        3,
    ],
)
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
    assert (given.grammar.kind, json.loads(given.grammar.source)) == ("json_schema", {"title": "total", **SCHEMA})
    assert form("none", FORMAT).grammar == given.grammar


def test_tools_and_a_response_format_allow_calls_or_the_answer():
    assert parts(form(response_format=FORMAT)) == {
        "tools": TOOLS,
        "text": False,
        "parallel": True,
        "answer": {"title": "total", **SCHEMA},
    }
    assert parts(form("any", FORMAT))["answer"] is None


@pytest.mark.parametrize("free", [None, {"type": "text"}])
def test_a_response_format_of_text_binds_nothing(free):
    assert answer_schema(free) is None


def test_a_response_format_may_be_any_object_or_a_schema():
    assert answer_schema({"type": "json_object"}) == {"type": "object", "additionalProperties": True}
    assert answer_schema({"type": "json_object", "schema": SCHEMA}) == answer_schema(SCHEMA) == SCHEMA
    assert answer_schema(FORMAT) == {"title": "total", **SCHEMA}
    assert answer_schema(Weather)["required"] == ["city"]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"type": "integer"}},
        {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        {"enum": ["a", "b"]},
        {"const": 1},
        {"$ref": "#/$defs/A", "$defs": {"A": {"type": "string"}}},
        {"type": ["string", "null"]},
        {"required": ["a"]},
    ],
)
def test_a_response_format_may_be_a_schema_of_no_object(schema):
    assert answer_schema(schema) == schema


def test_a_response_format_of_another_form_is_refused():
    for other in ({"type": "xml"}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": "x"}, {"a": 1}):
        with pytest.raises(OptionError, match=r"^\{.*\} is not a JSON schema\nHint: a JSON schema has"):
            answer_schema(other)
    with pytest.raises(OptionError, match=r"^'json' has no JSON schema"):
        answer_schema("json")
