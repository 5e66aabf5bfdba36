import json

from hypothesis import given, settings
from hypothesis import strategies as st
from test_call_stream import BARE, CALL, FORMS, LIST, LLAMA, OPEN, calls_of, every, streamed, text_of

from lorauter_integrations import ToolCall
from lorauter_integrations.call_stream import parse_tool_calls
from lorauter_integrations.tool_calls import HERMES

TEXTS = st.sampled_from(["", " ", "\n", "words", "a < b", "<tool>", "so:\n", "Köln"])
STRINGS = st.text(max_size=5) | st.sampled_from(["</tool_call>", "<tool_call>", "call:", "; ", '\\"}', "{", "]"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | STRINGS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(STRINGS, inner, max_size=3),
    max_leaves=6,
)
CALLS = st.builds(ToolCall, st.text(min_size=1, max_size=5), st.dictionaries(STRINGS, JSON, max_size=3))


@st.composite
def written(draw, call, form):
    """A call as a model may write it."""
    key = draw(st.sampled_from(["arguments", "parameters"]))
    parts = draw(st.permutations([("name", call.name), (key, dict(call.arguments))]))
    if draw(st.booleans()):
        parts.append(("id", 7))
    body = json.dumps(dict(parts), indent=draw(st.sampled_from([None, 1])), ensure_ascii=draw(st.booleans()))
    return form.begin.strip() + draw(st.sampled_from(["", "\n"])) + body + form.end


def cuts_of(text):
    return st.lists(st.integers(0, len(text)), max_size=12) | st.just(list(every(text)))


@settings(deadline=None)
@given(st.sampled_from([HERMES, OPEN]), st.lists(st.tuples(TEXTS, CALLS), max_size=3), TEXTS, st.data())
def test_every_call_and_all_text_comes_back_however_the_answer_is_cut(form, parts, last, data):
    answer = "".join(text + data.draw(written(call, form)) for text, call in parts) + last
    items, parsed = streamed(answer, form, data.draw(cuts_of(answer)))
    assert parsed.calls == tuple(call for _, call in parts)
    assert parsed.broken == ()
    assert "".join(parsed.text.split()) == "".join("".join([*(text for text, _ in parts), last]).split())
    assert text_of(items) == parsed.text
    sent = [(name, json.loads(arguments)) for name, arguments in calls_of(items).values()]
    assert sent == [(call.name, call.arguments) for _, call in parts]


@settings(deadline=None)
@given(st.lists(CALLS, min_size=1, max_size=3), TEXTS, st.data())
def test_calls_without_marks_come_back_however_the_answer_is_cut(calls, last, data):
    answer = "; ".join(data.draw(written(call, LIST)) for call in calls) + "\n" + last
    items, parsed = streamed(answer, LIST, data.draw(cuts_of(answer)))
    assert (parsed.calls, parsed.broken, parsed.text, text_of(items)) == (tuple(calls), (), *[last.strip()] * 2)
    sent = [(name, json.loads(arguments)) for name, arguments in calls_of(items).values()]
    assert sent == [(call.name, call.arguments) for call in calls]


FRAGMENTS = [
    *("<tool_call>", "</tool_call>", "call:", "<tool", "ca", "\n", " ", "; ", "zebra", "tru", "7", "[]"),
    *('{"name": "w", "arguments": {', '{"name": "w"', '"parameters": {', "{", "}", "}}", '"', "\\", ", ", ": "),
    *("[", "]", '"a": "', BARE, CALL),
]


ANSWERS = st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join)
NAMES = st.sampled_from([None, (), ("w",), ("weather", "time")])


@settings(deadline=None)
@given(st.sampled_from(FORMS), ANSWERS, NAMES, st.booleans(), st.data())
def test_any_answer_is_taken_apart_alike_however_it_comes(form, answer, names, cut, data):
    whole, parsed = streamed(answer, form, names=names, cut=cut)
    items, again = streamed(answer, form, data.draw(cuts_of(answer)), names, cut)
    assert (again, text_of(items), calls_of(items)) == (parsed, text_of(whole), calls_of(whole))
    sent = calls_of(items)
    assert list(sent) == sorted(sent)
    for place, call in zip(parsed.places, parsed.calls, strict=True):
        assert (sent[place][0], json.loads(sent[place][1])) == (call.name, call.arguments)
    for broken in parsed.broken:
        assert sent.pop(broken.index, [broken.name])[0] == broken.name


@settings(deadline=None)
@given(st.sampled_from(FORMS), ANSWERS, NAMES, st.booleans())
def test_text_is_streamed_to_the_letter_and_ends_in_a_word_where_there_are_calls(form, answer, names, cut):
    items, parsed = streamed(answer, form, every(answer), names, cut)
    has_calls = parsed.calls or parsed.broken
    assert text_of(items) == parsed.text == (parsed.text.rstrip() if has_calls else answer)


@settings(deadline=None)
@given(st.sampled_from([LLAMA, LIST]), ANSWERS, NAMES.filter(lambda names: names is not None))
def test_call_without_a_begin_mark_has_one_of_the_names(form, answer, names):
    items, parsed = streamed(answer, form, names=names)
    assert {name for name, _ in calls_of(items).values()} <= set(names)
    assert {call.name for call in (*parsed.calls, *parsed.broken)} <= set(names)


@settings(deadline=None)
@given(st.sampled_from(FORMS), ANSWERS, NAMES)
def test_cut_changes_nothing_but_half_a_begin_mark_at_the_end(form, answer, names):
    ended, cut = parse_tool_calls(answer, form, names), parse_tool_calls(answer, form, names, cut=True)
    if cut != ended:
        assert (cut.calls, cut.broken[:-1]) == (ended.calls, ended.broken)
        last = cut.broken[-1]
        assert form.begin.startswith(last.text)
        assert last.index == len(cut.calls) + len(cut.broken) - 1
        assert ended.text.removesuffix(last.text).strip().startswith(cut.text.strip())


# Without commas no call has a key beside name and arguments; such keys are dropped.
@settings(deadline=None)
@given(
    st.sampled_from(FORMS),
    st.lists(st.sampled_from([text for text in FRAGMENTS if text != ", "]), max_size=14).map("".join),
    NAMES,
    st.booleans(),
)
def test_no_word_is_lost(form, answer, names, cut):
    parsed = parse_tool_calls(answer, form, names, cut)
    kept = [parsed.text, *(broken.text for broken in parsed.broken), *(str(call) for call in parsed.calls)]
    assert sum(part.count("zebra") for part in kept) == answer.count("zebra")
