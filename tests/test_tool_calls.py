import json

import pytest

from lorauter_integrations import ToolCall
from lorauter_integrations.tool_calls import (
    BrokenCall,
    CallForm,
    ParsedAnswer,
    begun,
    call_text,
    result_text,
    system_with_tools,
    tools_block,
)

WEATHER = {"type": "function", "function": {"name": "weather", "description": "Wetter in Köln"}}
KOELN = ToolCall("weather", {"city": "Köln"})


def test_tools_are_shown_one_json_a_line():
    lines = tools_block([WEATHER, WEATHER]).splitlines()
    start = lines.index("<tools>")
    assert [json.loads(line) for line in lines[start + 1 : start + 3]] == [WEATHER, WEATHER]
    assert lines[start + 3] == "</tools>"
    assert "Köln" in lines[start + 1]


@pytest.mark.parametrize(
    ("system", "tools", "text"),
    [
        (" Be brief. ", [WEATHER], "Be brief.\n\n" + tools_block([WEATHER])),
        ("", [WEATHER], tools_block([WEATHER])),
        ("Be brief.", [], "Be brief."),
    ],
    ids=["both", "tools only", "no tools"],
)
def test_system_message_is_followed_by_the_tools(system, tools, text):
    assert system_with_tools(system, tools) == text


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (CallForm(), '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>'),
        (CallForm("[CALL]", "", None, "parameters"), '[CALL]{"name": "weather", "parameters": {"city": "Köln"}}'),
    ],
    ids=["hermes", "another"],
)
def test_call_is_written_in_its_form(form, text):
    assert call_text(KOELN, form) == text


def test_call_is_written_in_hermes_form_unless_told():
    assert call_text(KOELN) == call_text(KOELN, CallForm())


def test_result_is_wrapped():
    assert result_text("12 °C") == "<tool_response>\n12 °C\n</tool_response>"


@pytest.mark.parametrize(
    ("text", "length"),
    [("a <", 1), ("a <call", 5), ("a <call>", 0), ("<c <ca", 3), ("", 0), ("call", 0), ("<<", 1)],
)
def test_end_of_a_text_that_begins_a_mark_is_measured(text, length):
    assert begun("<call>", text) == length


@pytest.mark.parametrize(
    ("calls", "broken", "places"), [(2, [], (0, 1)), (2, [1], (0, 2)), (1, [0, 2], (1,)), (0, [0], ())]
)
def test_whole_calls_take_the_places_that_broken_ones_leave(calls, broken, places):
    answer = ParsedAnswer("", (KOELN,) * calls, tuple(BrokenCall("{", "cut", index) for index in broken))
    assert answer.places == places
