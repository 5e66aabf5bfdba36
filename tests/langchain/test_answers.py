import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langchain_core.utils.json import parse_partial_json
from langchain_tests.utils.stream_lifecycle import assert_valid_event_stream

from lorauter_integrations import Mixture, Route
from lorauter_integrations.generation import Completion, Delta, Usage
from lorauter_integrations.langchain import ChatLoRAuter
from lorauter_integrations.langchain.answers import AnswerWriter, spoilt
from lorauter_integrations.tool_calls import HERMES

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 3, "b": 4}}\n</tool_call>'


def writer():
    return AnswerWriter(Route(Mixture()), "pico", HERMES, ["add"])


def whole(text, reason="stop"):
    return writer().message(Completion(text, reason, Usage(1, 7)))


def streamed(text, reason="stop"):
    """Written character by character, and merged."""
    written = writer()
    deltas = [*(Delta(character) for character in text), Delta("", Completion(text, reason, Usage(1, 7)))]
    chunks = [chunk for delta in deltas for chunk in written.chunks(delta)]
    assert [chunk.chunk_position for chunk in chunks] == [None] * (len(chunks) - 1) + ["last"]
    merged = chunks[0]
    for chunk in chunks[1:]:
        merged += chunk
    return merged


BOTH = pytest.mark.parametrize("written", [whole, streamed])


@BOTH
def test_calls_are_parsed_and_hidden_from_the_text(written):
    message = written(f"Sure. {CALL}")
    assert message.text == "Sure."
    [call] = message.tool_calls
    assert (call["name"], call["args"]) == ("add", {"a": 3, "b": 4})
    assert call["id"].startswith("call_")
    assert message.response_metadata["finish_reason"] == "tool_calls"
    assert message.usage_metadata == {"input_tokens": 1, "output_tokens": 7, "total_tokens": 8}


@BOTH
def test_parallel_calls_have_ids_of_their_own(written):
    calls = written(f"{CALL}\n{CALL}").tool_calls
    assert [call["args"] for call in calls] == [{"a": 3, "b": 4}] * 2
    assert calls[0]["id"] != calls[1]["id"]


@BOTH
def test_an_answer_that_is_one_json_call_is_a_call(written):
    message = written('{"name": "add", "arguments": {"a": 3, "b": 4}}')
    assert (message.content, message.tool_calls[0]["args"]) == ("", {"a": 3, "b": 4})


@BOTH
@pytest.mark.parametrize("text", ['{"name": "Rome", "arguments": {"a": 3}}', '{"name": "Alice", "age": 3}'])
def test_json_that_names_no_tool_is_the_answer(written, text):
    message = written(text)
    assert (message.content, message.tool_calls, message.invalid_tool_calls) == (text, [], [])


def test_an_answer_of_a_schema_is_no_call_however_it_looks(monkeypatch, pico_lorauter):
    text = '{"name": "paint", "arguments": {"colour": true}}'
    done = Delta("", Completion(text, "stop", Usage(1, 7)))
    monkeypatch.setattr(pico_lorauter, "stream", lambda *_, **__: (Route(Mixture()), iter([Delta(text), done])))
    schema = {"type": "object", "properties": {"name": {"type": "string"}, "arguments": {"type": "object"}}}
    llm = ChatLoRAuter(lorauter=pico_lorauter)
    message = llm.bind_tools([paint], response_format=schema).invoke("name a colour")
    assert (message.content, message.tool_calls) == (text, [])
    assert llm.bind_tools([paint]).invoke("name a colour").tool_calls[0]["name"] == "paint"


@BOTH
def test_a_call_cut_within_its_first_mark_is_invalid(written):
    message = written(f"Sure. {CALL}\n<tool_c", "length")
    assert (message.text, len(message.tool_calls), len(message.invalid_tool_calls)) == ("Sure.", 1, 1)


@BOTH
def test_plain_text_has_no_calls(written):
    message = written("Three and four make seven.")
    assert (message.content, message.tool_calls) == ("Three and four make seven.", [])
    assert message.response_metadata["finish_reason"] == "stop"


CUT = [
    CALL[: CALL.index(end) + len(end)] for end in ("3", '"b"', '{"a', '"arguments": {', "add", '{"na', "4}", "[")[:7]
]


@BOTH
@pytest.mark.parametrize("text", CUT)
def test_a_call_that_was_cut_is_invalid_and_not_repaired(written, text):
    message = written(text, "length")
    assert message.tool_calls == []
    assert message.content == ""
    assert len(message.invalid_tool_calls) == 1
    assert message.response_metadata["finish_reason"] == "length"


def test_an_invalid_call_keeps_its_name_its_text_and_the_reason():
    [cut] = whole('<tool_call>\n{"name": "add", "arguments": {"a": 3', "length").invalid_tool_calls
    assert (cut["name"], cut["args"]) == ("add", '{"a": 3')
    assert cut["error"].startswith("the answer was cut at 7 tokens (max_tokens, or the end of the context): ")
    [odd] = whole("<tool_call>\nadd three\n</tool_call>").invalid_tool_calls
    assert (odd["name"], odd["args"]) == (None, "add three")


@BOTH
def test_a_broken_call_beside_a_whole_one_harms_it_not(written):
    message = written(f'{CALL}\n<tool_call>\n{{"name": "add", "arguments": {{"a": 5')
    assert [call["args"] for call in message.tool_calls] == [{"a": 3, "b": 4}]
    assert len(message.invalid_tool_calls) == 1


def test_arguments_are_streamed_as_they_are_written():
    written = writer()
    chunks = [chunk for character in CALL for chunk in written.chunks(Delta(character))]
    pieces = [piece for chunk in chunks for piece in chunk.tool_call_chunks]
    assert [piece["name"] for piece in pieces if piece["name"]] == ["add"]
    assert len({piece["id"] for piece in pieces if piece["id"]}) == 1
    assert {piece["index"] for piece in pieces} == {0}
    assert len(pieces) > 10
    assert json.loads("".join(piece["args"] for piece in pieces)) == {"a": 3, "b": 4}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=3), values, max_size=3), st.integers(0, 60), st.booleans())
def test_any_beginning_of_arguments_can_be_made_unreadable(arguments, cut, ascii_only):
    begun = json.dumps(arguments, ensure_ascii=ascii_only)[:cut]
    try:
        found = parse_partial_json(begun + spoilt(begun))
    except ValueError:
        found = None
    assert not isinstance(found, dict)
    assert begun + spoilt(begun) != ""


@tool
def paint(colour: bool, dots: int) -> str:
    """Paints."""
    return f"{colour} {dots}"


@pytest.fixture
def painter(pico_lorauter) -> BaseChatModel:
    return ChatLoRAuter(lorauter=pico_lorauter, max_tokens=200).bind_tools([paint], tool_choice="paint")


def test_a_forced_call_is_the_same_whole_streamed_and_as_events(painter):
    [call] = painter.invoke("name a colour").tool_calls
    assert call["name"] == "paint"
    assert {name: type(value) for name, value in call["args"].items()} == {"colour": bool, "dots": int}
    merged = None
    for chunk in painter.stream("name a colour"):
        merged = chunk if merged is None else merged + chunk
    assert merged.tool_calls == [{**call, "id": merged.tool_calls[0]["id"]}]
    assert merged.content == ""


@pytest.mark.filterwarnings("ignore:.*v3.*beta")
def test_a_forced_call_gives_valid_events(painter):
    stream = painter.stream_events("name a colour", version="v3")
    events = list(stream)
    assert_valid_event_stream(events)
    assert isinstance(stream.output, AIMessage)
    assert stream.output.tool_calls[0]["args"] == painter.invoke("name a colour").tool_calls[0]["args"]


def test_content_blocks_of_version_1_hold_text_and_calls(pico_lorauter):
    llm = ChatLoRAuter(lorauter=pico_lorauter, max_tokens=200, output_version="v1")
    text = llm.invoke("name a colour", max_tokens=5)
    assert [block["type"] for block in text.content] == ["text"]
    call = llm.bind_tools([paint], tool_choice="any").invoke("name a colour")
    assert [block["type"] for block in call.content] == ["tool_call"]
    merged = None
    for chunk in llm.bind_tools([paint], tool_choice="paint").stream("name a colour"):
        merged = chunk if merged is None else merged + chunk
    assert [block["type"] for block in merged.content] == ["tool_call"]
    assert merged.content[0]["args"] == merged.tool_calls[0]["args"]


def test_text_before_a_call_stays_beside_it_in_version_1(monkeypatch, pico_lorauter):
    text = f"Sure, at once. {CALL}"

    def stream(*_, **__):
        pieces = [Delta(character) for character in text]
        return Route(Mixture()), iter([*pieces, Delta("", Completion(text, "stop", Usage(1, 7)))])

    monkeypatch.setattr(pico_lorauter, "stream", stream)
    llm = ChatLoRAuter(lorauter=pico_lorauter, output_version="v1").bind_tools([paint])
    merged = None
    for chunk in llm.stream("name a colour"):
        merged = chunk if merged is None else merged + chunk
    assert [block["type"] for block in merged.content] == ["text", "tool_call"]
    assert merged.content[0]["text"] == "Sure, at once."
    assert merged.tool_calls[0]["args"] == {"a": 3, "b": 4}
