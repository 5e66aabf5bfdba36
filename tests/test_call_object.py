import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorauter_integrations import ToolCall
from lorauter_integrations.call_object import CallObject

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


def read(text):
    call = CallObject()
    return call, call.read(text)


# ------------------------------------------------------------------ JSON


@settings(deadline=None)
@given(st.dictionaries(st.text(), JSON), st.sampled_from([None, 2]), st.booleans(), st.text())
def test_object_ends_at_its_last_brace(value, indent, ascii_only, behind):
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    call, rest = read(text + behind)
    assert (call.text, rest, call.is_complete, call.is_invalid) == (text, behind, True, False)


@settings(deadline=None)
@given(st.dictionaries(st.text(), JSON), st.data())
def test_part_of_an_object_is_neither_complete_nor_invalid(value, data):
    text = json.dumps(value)
    call, rest = read(text[: data.draw(st.integers(0, len(text) - 1))])
    assert (rest, call.is_complete, call.is_invalid) == ("", False, False)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("", "[1]"),
        ("", "'a'"),
        ("{", "'a': 1}"),
        ("{", "1: 1}"),
        ("{", ",}"),
        ('{"a" ', "1}"),
        ('{"a": ', "}"),
        ('{"a": ', "'b'}"),
        ('{"a": [1', "}"),
        ('{"a": [1,', "]"),
        ('{"a": [', ",1]"),
        ('{"a": {"b": 1', "]"),
        ('{"a": 1 ', "2}"),
        ('{"a": 1,', "}"),
        ('{"a": "line', '\nline"}'),
        ('{"a": "\\', 'x"}'),
    ],
    ids=repr,
)
def test_first_character_that_cannot_be_json_is_not_taken(good, bad):
    call, rest = read(good + bad)
    assert (call.text, rest, call.is_invalid, call.is_complete) == (good, bad, True, False)


def test_name_with_half_an_escape_is_not_json():
    call, rest = read('{"name": "\\u00fx"')
    assert (call.name, call.is_invalid, rest) == ("", True, '"')


# ------------------------------------------------------------------ calls


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ('{"name": "w", "arguments": {"a": [1, {}]}}', ToolCall("w", {"a": [1, {}]})),
        ('{"name": "w", "parameters": {}}', ToolCall("w", {})),
        ('{"arguments": {"a": 1}, "name": "w"}', ToolCall("w", {"a": 1})),
        ('{"type": "function", "name": "w", "parameters": {"a": 1}}', ToolCall("w", {"a": 1})),
        ('{ "name" :\n"w" ,\t"arguments" : {"a": 1} , "id": 7 }', ToolCall("w", {"a": 1})),
        ('{"n\\u0061me": "s\\u00fcd", "arguments": {"name": "x"}}', ToolCall("süd", {"name": "x"})),
        ('{"name": "w", "arguments": {"a": 1}, "parameters": {"a": 2}}', ToolCall("w", {"a": 1})),
        ('{"name": "w", "arguments": {"a": 1}, "arguments": {"a": 2}}', ToolCall("w", {"a": 1})),
        ('{"name": "w", "arguments": {"a": 1}, "name": "x"}', ToolCall("w", {"a": 1})),
        ('{"name": "w"}', ToolCall("w", {})),
    ],
    ids=[
        "plain",
        "parameters",
        "turned",
        "type",
        "spaces",
        "escapes",
        "both keys",
        "twice",
        "two names",
        "no arguments",
    ],
)
def test_complete_object_is_a_call(text, call):
    assert read(text)[0].call() == call


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{}", 'it has no "name" that is text'),
        ('{"arguments": {}}', 'it has no "name" that is text'),
        ('{"name": 5, "arguments": {}}', 'it has no "name" that is text'),
        ('{"name": "", "arguments": {}}', 'it has no "name" that is text'),
        ('{"name": "w", "arguments": "Oslo"}', "its arguments are not an object"),
        ('{"name": "w", "parameters": [{}]}', "its arguments are not an object"),
        ('{"name": "w", "arguments": {"a": tru}}', "it is not JSON: Expecting value"),
        ('{"name": "w", "arguments": ' + '{"a": ' * 100_000 + "1" + "}" * 100_001, "it is nested too deeply"),
    ],
    ids=["empty", "no name", "number", "no letters", "text", "list", "half a word", "deep"],
)
def test_complete_object_that_is_no_call_says_why(text, reason):
    call, _ = read(text)
    assert call.is_complete
    with pytest.raises(ValueError, match=reason):
        call.call()


@pytest.mark.parametrize(
    ("before", "last"),
    [
        ('{"name": "w", "arguments": ', "{"),
        ('{"arguments": {}, "name": "w', '"'),
        ('{"name": "w", "parameters":\n', "{"),
    ],
)
def test_call_is_begun_once_its_name_is_known_and_its_arguments_are_an_object(before, last):
    call, _ = read(before)
    assert not call.is_begun
    call.read(last)
    assert call.is_begun


@pytest.mark.parametrize(
    ("before", "last"),
    [
        ('{"city', '"'),
        ('{"name": "Alice", "age', '"'),
        ('{"name": ', "3"),
        ('{"name": "w", "arguments": ', "["),
        ('{"name": "w"', "}"),
        ("{", "}"),
    ],
)
def test_object_may_be_a_call_until_it_has_what_no_call_has(before, last):
    call, _ = read(before)
    assert call.may_be_call
    call.read(last + '"name": "w", "arguments": {}}')
    assert not call.may_be_call


def test_arguments_are_read_as_they_come():
    call, _ = read('{"name": "w", "arguments": ')
    assert call.arguments() == ""
    call.read('{"a": "}')
    assert (call.arguments(), call.arguments(3)) == ('{"a": "}', '": "}')
    call.read('"} , "b": {}}')
    assert call.arguments() == '{"a": "}"}'


@pytest.mark.parametrize(
    ("names", "before", "last"),
    [
        ((), "", "{"),
        (["w", "x"], '{"name": "weather', '"'),
        (["weather"], '{"name": "w', '"'),
        (["weather"], '{"arguments": {"name": "weather"}, "name": "w', '"'),
        (["weather"], '{"type": "function", "name": "\\u0077', '"'),
    ],
)
def test_object_with_another_name_may_be_a_call_until_the_name_is_known(names, before, last):
    call = CallObject(names)
    call.read(before)
    assert call.may_be_call == bool(names)
    call.read(last + ', "parameters": {}}')
    assert not call.may_be_call


@pytest.mark.parametrize(
    "text", ['{"name": "w\\u0065ather", "arguments": {"name": "x"}}', '{"arguments": {}, "name": "weather"}']
)
def test_object_with_one_of_the_names_may_be_a_call(text):
    call = CallObject({"now", "weather"})
    assert call.read(text) == ""
    assert (call.may_be_call, call.name) == (True, "weather")
