import json

import pytest

from lorauter_integrations import ToolCall
from lorauter_integrations.tool_calls import (
    CallFilter,
    call_text,
    parse_tool_calls,
    result_text,
    system_with_tools,
    tools_block,
)

WEATHER = {"type": "function", "function": {"name": "weather", "description": "Wetter in Köln"}}
OSLO = ToolCall("weather", {"city": "Oslo"})
CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>'


# ------------------------------------------------------------------ writing


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


def test_call_as_written_is_read_back():
    call = ToolCall("book", {"zimmer": "süd", "nights": [1, 2]})
    assert parse_tool_calls(call_text(call)).calls == (call,)
    assert "süd" in call_text(call)


def test_result_is_wrapped():
    assert result_text("12 °C") == "<tool_response>\n12 °C\n</tool_response>"


# ------------------------------------------------------------------ reading


@pytest.mark.parametrize(
    ("text", "rest", "calls"),
    [
        ("Just words.", "Just words.", ()),
        (CALL, "", (OSLO,)),
        (f"Let me see.\n{CALL}\n{CALL}", "Let me see.", (OSLO, OSLO)),
        (f"Before {CALL} after", "Before  after", (OSLO,)),
        (CALL.removesuffix("</tool_call>"), "", (OSLO,)),
        ('{"name": "weather", "arguments": {"city": "Oslo"}}', "", (OSLO,)),
        ('<tool_call>{"name": "now"}</tool_call>', "", (ToolCall("now", {}),)),
        ('{"city": "Oslo"}', '{"city": "Oslo"}', ()),
        ("[1, 2]", "[1, 2]", ()),
    ],
    ids=[
        "words",
        "one",
        "two",
        "words around",
        "cut off after",
        "bare",
        "no arguments",
        "json that is no call",
        "list",
    ],
)
def test_answer_is_taken_apart(text, rest, calls):
    parsed = parse_tool_calls(text)
    assert (parsed.text, parsed.calls, parsed.broken) == (rest, calls, ())


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('{"name": "weather", "arg', "JSONDecodeError"),
        ('{"arguments": {}}', "KeyError: 'name'"),
        ('{"name": 5}', "TypeError: a call needs a name"),
        ('{"name": "weather", "arguments": "Oslo"}', "TypeError: a call needs a name"),
        ("[]", "TypeError"),
        ('{"a":' * 5000, "ValueError: nested too deeply"),
    ],
    ids=["cut", "no name", "name number", "arguments text", "list", "too deep"],
)
def test_call_that_cannot_be_read_is_kept_with_its_reason(body, reason):
    parsed = parse_tool_calls(f"Hm. <tool_call>{body}</tool_call>{CALL}")
    assert (parsed.text, parsed.calls) == ("Hm.", (OSLO,))
    assert [broken.text for broken in parsed.broken] == [body]
    assert parsed.broken[0].reason.startswith(reason)


def test_brackets_without_end_are_words():
    assert parse_tool_calls("[" * 5000).text == "[" * 5000


# ------------------------------------------------------------------ streams


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Just words, a < b and <tool.", "Just words, a < b and <tool."),
        (f"Before {CALL} after", "Before  after"),
        (f"  Before {CALL} after", "  Before  after"),
        (CALL, ""),
        ('{"name": "weather", "arguments": {"city": "Oslo"}}', ""),
        ('{"city": "Oslo"}', '{"city": "Oslo"}'),
        ("Hm. <tool_call>{oops", "Hm. "),
    ],
    ids=["words", "around", "indented", "call", "bare call", "json", "broken"],
)
def test_stream_shows_all_but_the_calls(text, shown, size):
    stream = CallFilter()
    pieces = [stream.push(text[at : at + size]) for at in range(0, len(text), size)]
    tail, parsed = stream.finish()
    assert "".join([*pieces, tail]) == shown
    assert parsed == parse_tool_calls(text)


def test_stream_gives_words_at_once_and_holds_back_what_may_be_a_tag():
    stream = CallFilter()
    assert stream.push("Hello <to") == "Hello "
    assert stream.push("ol>") == "<tool>"
