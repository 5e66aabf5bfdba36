import pytest
from test_call_stream import BARE, CALL, FORMS, HERMES, LIST, LLAMA, OPEN, OSLO, calls_of, every, streamed, text_of

from lorauter_integrations.call_stream import CallPiece, CallStream, parse_tool_calls
from lorauter_integrations.tool_calls import BrokenCall, CallForm, call_text

HALF = "the answer ends within the mark that begins a call"


# ------------------------------------------------------------------ names


@pytest.mark.parametrize("names", [None, ["weather"], {"now", "weather"}, {"weather": 1}.keys()], ids=repr)
@pytest.mark.parametrize("form", FORMS, ids=["hermes", "llama", "list", "open"])
def test_call_without_marks_is_one_when_its_name_is_among_the_names(form, names):
    items, parsed = streamed(BARE, form, every(BARE), names)
    assert (parsed.text, parsed.calls, calls_of(items)) == ("", (OSLO,), {0: ["weather", '{"city": "Oslo"}']})


@pytest.mark.parametrize("names", [(), ["now"], {"weather_tomorrow", "we"}], ids=repr)
@pytest.mark.parametrize("form", FORMS, ids=["hermes", "llama", "list", "open"])
@pytest.mark.parametrize("in_pieces", [True, False], ids=["in pieces", "whole"])
def test_call_without_marks_is_text_when_its_name_is_not_among_the_names(form, names, in_pieces):
    answer = f" {BARE}\n"
    items, parsed = streamed(answer, form, every(answer) if in_pieces else (), names)
    assert (text_of(items), calls_of(items)) == (answer, {})
    assert (parsed.text, parsed.calls, parsed.broken) == (answer, (), ())


@pytest.mark.parametrize("form", [HERMES, LLAMA, LIST], ids=["hermes", "llama", "list"])
@pytest.mark.parametrize(
    ("names", "before", "last"), [((), "\n ", "{"), (["now"], '{"name": "no', '"'), (["now"], '{"name": "now, ', '"')]
)
def test_object_with_another_name_is_released_once_that_is_known(form, names, before, last):
    stream = CallStream(form, names)
    assert stream.push(before) == []
    assert stream.push(last) == [before + last]
    assert stream.push(', "parameters": {}}') == [', "parameters": {}}']


def test_object_with_one_of_the_names_is_streamed_where_calls_have_no_mark():
    stream = CallStream(LLAMA, ["weather"])
    assert stream.push('{"name": "weather", "parameters": {') == [CallPiece(0, "weather", ""), CallPiece(0, "", "{")]


def test_call_of_a_list_with_another_name_is_text():
    parsed = parse_tool_calls(f'{BARE}; {{"name": "now", "arguments": {{}}}}; {BARE}', LIST, ["weather"])
    assert (parsed.text, parsed.calls) == (f'; {{"name": "now", "arguments": {{}}}}; {BARE}', (OSLO,))


@pytest.mark.parametrize("form", [HERMES, OPEN], ids=["hermes", "open"])
@pytest.mark.parametrize("names", [(), ["now"]], ids=repr)
def test_call_with_a_mark_may_have_any_name(form, names):
    assert parse_tool_calls(call_text(OSLO, form), form, names).calls == (OSLO,)


# ------------------------------------------------------------------ answers cut at max_tokens


@pytest.mark.parametrize(
    ("answer", "form", "text", "mark", "index"),
    [
        ("\n<tool_c", HERMES, "", "<tool_c", 0),
        ("Hm.\n<", HERMES, "Hm.", "<", 0),
        (f"Hm. {CALL}\n<tool_call", HERMES, "Hm.", "<tool_call", 1),
        (f"{CALL}<tool_call>oops</tool_call> and <tool", HERMES, "and", "<tool", 2),
        (f"<tool_call>{BARE}\n<tool", HERMES, "", "<tool", 1),
        (f"{BARE}<tool", HERMES, BARE, "<tool", 0),
        (f"call: {BARE}; cal", OPEN, "", "cal", 1),
        (f"call: {BARE};; cal", OPEN, ";;", "cal", 1),
        (f"<c>{BARE}}} <<", CallForm("<c>", "<</c>"), "} <", "<", 1),
    ],
    ids=["alone", "words", "call", "broken call", "no end mark", "json", "separator", "many", "end mark"],
)
def test_half_a_begin_mark_at_the_end_of_a_cut_answer_is_a_broken_call(answer, form, text, mark, index):
    items, parsed = streamed(answer, form, every(answer), cut=True)
    assert parsed.broken[-1] == BrokenCall(mark, HALF, index)
    assert (text_of(items), parsed.text) == (text, text)


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ("Hm.\n<tool_c", LLAMA),
        ("Hm. <tool_c ", HERMES),
        ("Hm. <tool>", HERMES),
        ("Hm. </tool", HERMES),
    ],
    ids=["no mark", "whitespace behind", "another mark", "end mark"],
)
def test_all_else_at_the_end_of_a_cut_answer_is_text(answer, form):
    parsed = parse_tool_calls(answer, form, cut=True)
    assert (parsed.text, parsed.broken) == (answer, ())


def test_half_a_begin_mark_is_text_unless_the_answer_is_cut():
    parsed = parse_tool_calls(f"{CALL} Hm.\n<tool_c")
    assert (parsed.text, parsed.broken) == ("Hm.\n<tool_c", ())
