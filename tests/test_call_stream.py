from itertools import pairwise

import pytest

from lorauter_integrations import ToolCall
from lorauter_integrations.call_stream import CallPiece, CallStream, parse_tool_calls
from lorauter_integrations.tool_calls import HERMES, CallForm, ParsedAnswer, call_text

OSLO = ToolCall("weather", {"city": "Oslo"})
BARE = '{"name": "weather", "arguments": {"city": "Oslo"}}'
CALL = f"<tool_call>{BARE}</tool_call>"
LLAMA = CallForm("", "", None, "parameters")
LIST = CallForm("", "", "; ", "parameters")
OPEN = CallForm("call: ", "", "; ")
FORMS = [HERMES, LLAMA, LIST, OPEN]
SHUT = "the answer ends before the call does"


def streamed(text, form=HERMES, cuts=(), names=None, cut=False):
    """Items of the stream when the answer comes in pieces that begin at some places, and the parsed answer."""
    stream = CallStream(form, names)
    places = [0, *sorted(cuts), len(text)]
    items = [item for a, b in pairwise(places) for item in stream.push(text[a:b])]
    rest, parsed = stream.finish(cut)
    return items + rest, parsed


def text_of(items):
    return "".join(item for item in items if isinstance(item, str))


def calls_of(items):
    """Name and text of the arguments of each call that was streamed; its first piece alone has the name."""
    calls = {}
    for item in items:
        if isinstance(item, CallPiece) and item.index in calls:
            assert item.name == ""
            calls[item.index][1] += item.arguments
        elif isinstance(item, CallPiece):
            assert item.name
            calls[item.index] = [item.name, item.arguments]
    return calls


def every(text):
    return range(1, len(text))


# ------------------------------------------------------------------ whole answers


@pytest.mark.parametrize(
    ("answer", "text", "calls"),
    [
        ("Just words.", "Just words.", ()),
        ("  indented\n", "  indented\n", ()),
        (" \n", " \n", ()),
        (CALL, "", (OSLO,)),
        (f"Let me see.\n{CALL}\n{CALL}\n", "Let me see.", (OSLO, OSLO)),
        (f"Before {CALL} after", "Before  after", (OSLO,)),
        (f"  Before\n{CALL}after \n{CALL}", "  Before\nafter", (OSLO, OSLO)),
        (f"<tool_call> \n {BARE}\n\n</tool_call>", "", (OSLO,)),
        (f"<tool_call>{BARE}", "", (OSLO,)),
        (f"<tool_call>{BARE}\n</tool", "", (OSLO,)),
        (f"<tool_call>{BARE}{CALL}", "", (OSLO, OSLO)),
        (f"<tool_call>{BARE}\nSo.", "So.", (OSLO,)),
        (f"<tool_call>{BARE}}}\n</tool_call>{CALL} </tool_call>", "}\n </tool_call>", (OSLO, OSLO)),
        ('<tool_call>{"name": "now"}</tool_call>', "", (ToolCall("now", {}),)),
        ("[1, 2]", "[1, 2]", ()),
        ("[" * 5000, "[" * 5000, ()),
        ('{"a":' * 5000, '{"a":' * 5000, ()),
    ],
    ids=[
        "words",
        "whitespace around words",
        "whitespace",
        "one",
        "two",
        "words around",
        "words between",
        "whitespace in marks",
        "no end mark",
        "half an end mark",
        "no mark between",
        "words for an end mark",
        "brace too many",
        "no arguments",
        "list",
        "brackets",
        "braces",
    ],
)
def test_answer_is_taken_apart(answer, text, calls):
    parsed = parse_tool_calls(answer)
    assert (parsed.text, parsed.calls, parsed.broken) == (text, calls, ())


@pytest.mark.parametrize("mark", ["<tool_call>", "</tool_call>", "</tool_call>\n<tool_call>{"])
def test_marks_in_arguments_are_arguments(mark):
    call = ToolCall("write", {"text": f'"{mark}', mark: [mark]})
    parsed = parse_tool_calls(f"{call_text(call)} after")
    assert (parsed.text, parsed.calls) == ("after", (call,))


@pytest.mark.parametrize("form", FORMS, ids=["hermes", "llama", "list", "open"])
def test_call_as_written_is_read_back(form):
    call = ToolCall("book", {"zimmer": "süd", "nights": [1, 2]})
    assert parse_tool_calls(call_text(call, form), form).calls == (call,)


@pytest.mark.parametrize(
    ("body", "reason", "name"),
    [
        ("", "it is not JSON: Expecting value: line 1", ""),
        ("oops", "it is not JSON: Expecting value: line 1", ""),
        ("[]", "it is not a JSON object", ""),
        ("[" * 100_000, "it is nested too deeply", ""),
        ('{"name": "weather", "arg', "it is not JSON: Unterminated string", "weather"),
        ('{"name": "weather", "arguments": {"city": "Oslo"}', "it is not JSON: Expecting ',' delimiter", "weather"),
        ('{"name": "weather", "arguments": {"city": Oslo}}', "it is not JSON: Expecting value", "weather"),
        ('{"name": "weather", "arguments": "Oslo"}', "its arguments are not an object", "weather"),
        ('{"arguments": {}}', 'it has no "name" that is text', ""),
    ],
    ids=["empty", "words", "list", "brackets", "cut", "no brace", "no quotes", "arguments text", "no name"],
)
def test_call_that_cannot_be_read_is_kept_with_its_reason(body, reason, name):
    parsed = parse_tool_calls(f"Hm. {CALL}<tool_call> {body} </tool_call>{CALL}")
    assert (parsed.text, parsed.calls, parsed.places) == ("Hm.", (OSLO, OSLO), (0, 2))
    [broken] = parsed.broken
    assert (broken.text, broken.index, broken.name) == (body, 1, name)
    assert broken.reason.startswith(reason)


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ("", ""),
        ("\n", ""),
        ('{"na', ""),
        ('{"name": "weather", "arguments": {"city": "Os', "weather"),
        ('{"name": "weather", "arguments": {"city": "Oslo"}', "weather"),
        ('{"a":' * 5000, ""),
    ],
)
def test_call_that_the_answer_does_not_end_is_broken(body, name):
    [broken] = parse_tool_calls(f"Hm. <tool_call>{body}").broken
    assert (broken.text, broken.reason, broken.index, broken.name) == (body.strip(), SHUT, 0, name)


# ------------------------------------------------------------------ calls without marks


@pytest.mark.parametrize(
    ("answer", "form", "text", "calls"),
    [
        (f" {BARE}\n", HERMES, "", 1),
        (f"{BARE} So.", HERMES, f"{BARE} So.", 0),
        (f"{BARE}{CALL}", HERMES, BARE, 1),
        (f" {BARE}\n", LLAMA, "", 1),
        (f"{BARE} So.", LLAMA, "So.", 1),
        (f"{BARE}; {BARE}", LLAMA, f"; {BARE}", 1),
        (f"So: {BARE}", LLAMA, f"So: {BARE}", 0),
        (f"{BARE}; {BARE}\n{BARE};", LIST, "", 3),
        (f"{BARE}; so.", LIST, "; so.", 1),
        (f'{BARE}; {{"city": "Oslo"}}; {BARE}', LIST, f'; {{"city": "Oslo"}}; {BARE}', 1),
    ],
    ids=[
        "whole",
        "marks wanted, words after",
        "marks wanted, call after",
        "no marks",
        "words after",
        "one an answer",
        "words before",
        "three",
        "words after a separator",
        "json after a separator",
    ],
)
def test_call_without_marks_stands_at_the_beginning(answer, form, text, calls):
    parsed = parse_tool_calls(answer, form)
    assert (parsed.text, parsed.calls, parsed.broken) == (text, (OSLO,) * calls, ())


@pytest.mark.parametrize("form", [HERMES, LLAMA], ids=["hermes", "llama"])
@pytest.mark.parametrize("cuts", [[], [12]], ids=["whole", "cut"])
def test_json_with_another_key_before_name_and_arguments_is_text(form, cuts):
    answer = f'{{"city": 1, {BARE[1:]}'
    items, parsed = streamed(answer, form, cuts)
    assert (text_of(items), calls_of(items), parsed.text) == (answer, {}, answer)


@pytest.mark.parametrize("form", [HERMES, LLAMA, LIST], ids=["hermes", "llama", "list"])
@pytest.mark.parametrize(
    ("before", "last"),
    [
        ('{"city', '"'),
        ('{"name": "Alice", "age', '"'),
        ('{"name": "Alice"', "}"),
        ('{"name": "Alice", "arguments": ', "["),
        ('{"name": 3', ""),
        ("{", "'"),
        (" [", ""),
    ],
)
def test_json_that_is_no_call_is_text_as_soon_as_that_is_certain(before, last, form):
    stream = CallStream(form)
    early = stream.push(before)
    now = stream.push(last)
    assert text_of(early + now) == before + last
    assert last == "" or early == []


@pytest.mark.parametrize("form", [HERMES, LLAMA], ids=["hermes", "llama"])
def test_json_that_may_be_a_call_is_text_at_the_end(form):
    stream = CallStream(form)
    assert stream.push(' {"name": "Alice", ') == []
    items, parsed = stream.finish()
    assert (text_of(items), parsed.text) == (' {"name": "Alice", ',) * 2


def test_call_without_marks_that_turns_bad_is_broken():
    answer = '{"name": "weather", "parameters": {"city": \'Oslo\'}}'
    items, parsed = streamed(answer, LLAMA)
    assert calls_of(items) == {0: ["weather", '{"city": ']}
    [broken] = parsed.broken
    assert (parsed.text, broken.text, broken.index, broken.name) == ("", answer, 0, "weather")
    assert broken.reason == "it is not JSON: Expecting value: line 1 column 44 (char 43)"


def test_call_without_a_begin_mark_may_follow_a_broken_one():
    parsed = parse_tool_calls(f'{{"name": "w", "arguments": {{oops</c>\n{BARE}</c>', CallForm("", "</c>", "\n"))
    assert (parsed.text, parsed.calls, parsed.places) == ("", (OSLO,), (1,))
    assert [broken.text for broken in parsed.broken] == ['{"name": "w", "arguments": {oops']


# ------------------------------------------------------------------ separators


@pytest.mark.parametrize(
    ("answer", "form", "text", "calls"),
    [
        (f"call: {BARE}; call: {BARE};", OPEN, "", 2),
        (f"call: {BARE}; so.", OPEN, "; so.", 1),
        (f"call: {BARE};; call: {BARE} ;;", OPEN, ";;  ;;", 2),
        (f"; call: {BARE}", OPEN, ";", 1),
        (f"<c>{BARE}</c> <sep><c>{BARE}</c>", CallForm("<c>", "</c>", "<sep>"), "", 2),
        (f"<c>{BARE}</c> see", CallForm("<c>", "</c>", "<sep>"), "see", 1),
        (f"{BARE};; {BARE}", LIST, ";;", 2),
    ],
    ids=["two", "words", "many", "none before", "a word", "letters of it", "many without marks"],
)
def test_one_separator_behind_a_call_is_no_text(answer, form, text, calls):
    items, parsed = streamed(answer, form, every(answer))
    assert (parsed.text, parsed.calls, parsed.broken) == (text, (OSLO,) * calls, ())
    assert text_of(items) == text


# ------------------------------------------------------------------ streams


def test_words_come_at_once_but_for_what_may_be_a_mark():
    stream = CallStream()
    assert stream.push("Hello <to") == ["Hello"]
    assert stream.push("ol>") == [" <tool>"]
    assert stream.push(" <tool_call") == []
    assert stream.finish()[0] == [" <tool_call"]


def test_whitespace_waits_for_the_next_word():
    stream = CallStream()
    assert stream.push("\n So: ") == ["\n So:"]
    assert stream.push("\n") == []
    assert stream.push("\tyes\n") == [" \n\tyes"]
    assert stream.push(" ") == []
    assert stream.finish() == (["\n "], ParsedAnswer("\n So: \n\tyes\n "))


def test_whitespace_before_a_call_waits_for_words_behind_it():
    stream = CallStream()
    assert text_of(stream.push(f"Hm.\n{CALL}\n")) == "Hm."
    assert stream.push("So") == ["\n\nSo"]


def test_arguments_come_as_they_are_written():
    stream = CallStream()
    assert stream.push('Hm. <tool_call>\n{"name": "weather", "arguments": ') == ["Hm."]
    assert stream.push('{"ci') == [CallPiece(0, "weather", ""), CallPiece(0, "", '{"ci')]
    assert stream.push('ty": "O}') == [CallPiece(0, "", 'ty": "O}')]
    assert stream.push('"}') == [CallPiece(0, "", '"}')]
    assert stream.push("}\n</tool_call>\n") == []
    assert stream.push(" and") == [" \n and"]
    assert stream.finish() == (
        [],
        parse_tool_calls('Hm. <tool_call>{"name": "weather", "arguments": {"city": "O}"}}</tool_call>\n and'),
    )


def test_call_without_marks_is_streamed_where_calls_have_none():
    stream = CallStream(LLAMA)
    assert stream.push('\n{"name": "weather", "parameters": {"city"') == [
        CallPiece(0, "weather", ""),
        CallPiece(0, "", '{"city"'),
    ]


def test_call_without_marks_waits_for_the_end_where_calls_have_some():
    stream = CallStream()
    assert stream.push(BARE) == []
    assert stream.finish()[0] == [CallPiece(0, "weather", ""), CallPiece(0, "", '{"city": "Oslo"}')]


def test_arguments_before_the_name_wait_for_it():
    stream = CallStream()
    assert stream.push('<tool_call>{"arguments": {"city": "Oslo"}, "name": "wea') == []
    assert stream.push('ther"') == [CallPiece(0, "weather", ""), CallPiece(0, "", '{"city": "Oslo"}')]


def test_call_without_arguments_gets_an_empty_object_at_its_end():
    stream = CallStream()
    assert stream.push('<tool_call>{"name": "now"') == []
    assert stream.push("}") == [CallPiece(0, "now", ""), CallPiece(0, "", "{}")]


def test_no_whitespace_comes_around_calls():
    text = f"\n {CALL}\n\n{CALL}\n"
    assert not text_of(streamed(text, cuts=every(text))[0])
