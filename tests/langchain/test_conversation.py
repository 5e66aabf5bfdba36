import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    HumanMessageChunk,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
    ToolMessageChunk,
)
from langchain_core.messages.content import create_plaintext_block

from lorauter_integrations import Message
from lorauter_integrations.errors import ContentError
from lorauter_integrations.generation import ToolCall
from lorauter_integrations.langchain.conversation import from_langchain

ADD = ToolCall("add", {"a": 3}, "c1")
ADD_FIELD = {"name": "add", "args": {"a": 3}, "id": "c1", "type": "tool_call"}
IMAGE = {"type": "image", "url": "x"}
TOOL_USE = {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 3}}


def one(message):
    [ours] = from_langchain([message])
    return ours


def text(*blocks):
    return one(HumanMessage(list(blocks))).content


def written(body):
    return f"<tool_call>\n{body}\n</tool_call>"


# ------------------------------------------------------------------ roles


@pytest.mark.parametrize(
    ("message", "role"),
    [
        (SystemMessage("x"), "system"),
        (SystemMessage("x", additional_kwargs={"__openai_role__": "developer"}), "system"),
        (HumanMessage("x"), "user"),
        (HumanMessageChunk("x"), "user"),
        (AIMessage("x"), "assistant"),
        (AIMessageChunk("x"), "assistant"),
        (ToolMessage("x", tool_call_id=""), "tool"),
        (ToolMessageChunk(content="x", tool_call_id=""), "tool"),
        (FunctionMessage("x", name=""), "tool"),
        (ChatMessage("x", role="developer"), "system"),
        (ChatMessage("x", role="User"), "user"),
        (ChatMessage("x", role="assistant"), "assistant"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{type(value).__name__}",
)
def test_every_role_is_one_of_ours(message, role):
    assert one(message) == Message(role, "x")


def test_a_conversation_keeps_its_order():
    conversation = [SystemMessage("s"), HumanMessage("u"), AIMessage("a"), HumanMessage("v")]
    ours = [("system", "s"), ("user", "u"), ("assistant", "a"), ("user", "v")]
    assert from_langchain(conversation) == tuple(Message(role, content) for role, content in ours)


def test_an_unknown_role_is_refused_with_its_place():
    messages = [HumanMessage("x"), ChatMessage("x", role="narrator")]
    with pytest.raises(
        ContentError,
        match=r"message 2 is a ChatMessage with the role 'narrator'\nHint: the roles are 'ai', 'assistant'",
    ):
        from_langchain(messages)


def test_a_message_that_removes_others_is_not_for_a_model():
    with pytest.raises(
        ContentError, match=r"message 1 is a RemoveMessage .*\nHint: apply it to the graph's state first"
    ):
        from_langchain([RemoveMessage(id="1")])


def test_names_of_people_are_left_out():
    assert one(HumanMessage("hello", name="ann")) == Message("user", "hello")
    assert one(AIMessage("hello", name="agent")) == Message("assistant", "hello")


# ------------------------------------------------------------------ content


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ("bare", "bare"),
        ({"type": "text", "text": "v1", "annotations": []}, "v1"),
        ({"type": "text", "text": "cached", "cache_control": {"type": "ephemeral"}}, "cached"),
        ({"type": "text", "text": None}, ""),
        ({"text": "bedrock"}, "bedrock"),
        ({"type": "input_text", "text": "asked"}, "asked"),
        ({"type": "output_text", "text": "told"}, "told"),
        ({"type": "refusal", "refusal": "I will not."}, "I will not."),
        ({"type": "json", "json": {"ü": 1}}, '{"ü": 1}'),
        (create_plaintext_block("body", title="Title", context="About"), "Title\nAbout\nbody"),
        ({"type": "file", "source_type": "text", "mime_type": "text/plain", "url": "v0 body"}, "v0 body"),
        ({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "body"}}, "body"),
        ({"type": "document", "title": "T", "source": {"type": "text", "data": "body"}}, "T\nbody"),
        ({"type": "non_standard", "value": {"type": "text", "text": "inner"}}, "inner"),
        ({"cachePoint": {"type": "default"}}, ""),
        ({"type": "thinking", "thinking": "hm", "signature": "s"}, ""),
        ({"type": "redacted_thinking", "data": "?"}, ""),
        ({"type": "reasoning", "reasoning": "hm"}, ""),
        ({"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]}, ""),
        ({"type": "server_tool_call", "id": "s", "name": "web_search", "args": {}}, ""),
        ({"type": "server_tool_result", "tool_call_id": "s", "status": "success", "output": []}, ""),
        ({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}, ""),
        ({"type": "web_search_tool_result", "tool_use_id": "s", "content": []}, ""),
        ({"type": "web_search_call", "id": "ws_1", "status": "completed"}, ""),
    ],
    ids=lambda value: value.get("type", next(iter(value))) if isinstance(value, dict) else str(value)[:12],
)
def test_a_block_of_text_is_read_in_every_form_and_a_thought_is_skipped(block, expected):
    assert text(block) == expected
    assert text("before", block, "after") == "\n".join(part for part in ("before", expected, "after") if part)


def test_pieces_of_an_answer_join_as_langchain_joins_them():
    message = AIMessage(
        [
            {"type": "reasoning", "reasoning": "hm"},
            {"type": "text", "text": "Grass is green"},
            {"type": "text", "text": " and the sky is blue."},
        ]
    )
    assert one(message).content == message.text == "Grass is green and the sky is blue."


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image_url", "image_url": {"url": "x"}},
        {"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}},
        IMAGE,
        {"type": "image", "source_type": "url", "url": "x"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "x"}},
        {"type": "audio", "base64": "x"},
        {"type": "video", "file_id": "x"},
        {"type": "file", "base64": "x", "mime_type": "application/pdf"},
        {"type": "file", "file": {"file_id": "x"}},
        {"type": "file", "source_type": "url", "url": "x"},
        {"type": "input_file", "file_id": "x"},
        {"type": "text-plain", "file_id": "x", "mime_type": "text/plain"},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "x"}},
        {"type": "image_generation_call", "result": "x"},
        {"type": "hologram"},
        {"image": {"format": "png", "source": {"bytes": b""}}},
        {"type": "non_standard", "value": {"type": "hologram"}},
    ],
    ids=lambda block: block.get("type", "bedrock"),
)
def test_what_is_not_text_is_refused_by_its_type_and_place(block):
    kind = block.get("value", block).get("type", "image")
    message = rf"^message 2 \(user\) has a content block of type '{kind}'\nHint: this model reads text only; send"
    for content in (["look", block], [{"type": "tool_result", "tool_use_id": "c1", "content": [block]}]):
        with pytest.raises(ContentError, match=message):
            from_langchain([SystemMessage("s"), HumanMessage(content)])


@pytest.mark.parametrize(
    ("message", "role"),
    [
        (SystemMessage([IMAGE]), "system"),
        (AIMessage([IMAGE]), "assistant"),
        (ToolMessage([IMAGE], tool_call_id="c1"), "tool"),
    ],
    ids=["system", "assistant", "tool"],
)
def test_the_role_of_the_place_is_the_messages(message, role):
    with pytest.raises(ContentError, match=rf"message 1 \({role}\) has a content block of type 'image'"):
        from_langchain([message])


def test_a_message_without_content_stays_a_turn():
    assert from_langchain([HumanMessage([]), AIMessage(""), HumanMessage([{"cachePoint": {}}])]) == (
        Message("user"),
        Message("assistant"),
        Message("user"),
    )


# ------------------------------------------------------------------ calls


@pytest.mark.parametrize(
    "message",
    [
        AIMessage("Sure.", tool_calls=[ADD_FIELD]),
        AIMessage([{"type": "text", "text": "Sure."}, TOOL_USE], tool_calls=[ADD_FIELD]),
        AIMessage(["Sure.", TOOL_USE]),
        AIMessage(["Sure.", TOOL_USE | {"input": '{"a": 3}'}]),
        AIMessage(["Sure.", ADD_FIELD]),
        AIMessage(content_blocks=[{"type": "text", "text": "Sure."}, ADD_FIELD]),
        AIMessage(["Sure.", {"type": "non_standard", "value": TOOL_USE}]),
        AIMessage(["Sure.", {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a": 3}'}]),
        AIMessage(
            "Sure.",
            additional_kwargs={
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 3}'}}]
            },
        ),
        AIMessageChunk("Sure.")
        + AIMessageChunk("", tool_call_chunks=[{"name": "add", "args": '{"a"', "id": "c1", "index": 0}])
        + AIMessageChunk("", tool_call_chunks=[{"name": None, "args": ": 3}", "id": None, "index": 0}]),
        ChatMessage(["Sure.", TOOL_USE], role="assistant"),
    ],
    ids=[
        *("field", "field and Anthropic", "Anthropic", "Anthropic text", "v1", "v1 blocks", "non-standard"),
        *("Responses", "Completions", "chunks", "ChatMessage"),
    ],
)
def test_a_call_is_read_from_the_field_or_from_the_content(message):
    assert one(message) == Message("assistant", "Sure.", (ADD,))


def test_the_field_wins_over_the_content():
    changed = AIMessage([TOOL_USE], tool_calls=[ADD_FIELD | {"args": {"a": 4}}])
    assert one(changed).tool_calls == (ToolCall("add", {"a": 4}, "c1"),)


def test_calls_that_were_assigned_later_need_no_type():
    message = AIMessage("")
    message.tool_calls = [{"name": "add", "args": {"a": 3}, "id": None}]
    assert one(message).tool_calls == (ToolCall("add", {"a": 3}, ""),)


def test_a_call_without_arguments_has_none():
    call = {"type": "function_call", "call_id": "c1", "name": "now", "arguments": ""}
    assert one(AIMessage([call])).tool_calls == (ToolCall("now", {}, "c1"),)


def test_the_older_function_form_is_a_call_and_its_result():
    asked = AIMessage("", additional_kwargs={"function_call": {"name": "add", "arguments": '{"a": 3}'}})
    assert from_langchain([asked, FunctionMessage("7", name="add")]) == (
        Message("assistant", "", (ToolCall("add", {"a": 3}),)),
        Message("tool", "7", name="add"),
    )


def test_a_refusal_beside_the_content_is_text():
    assert one(AIMessage("", additional_kwargs={"refusal": "I will not."})).content == "I will not."


NAMED = written('{"name": "add", "arguments": {"a": 3}')


def broken(args='{"a": 3', name="add"):
    return {"type": "invalid_tool_call", "name": name, "args": args, "id": "c1", "error": "e"}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (AIMessage("Sure.", invalid_tool_calls=[broken()]), NAMED),
        (AIMessage(["Sure.", broken()]), NAMED),
        (AIMessage(["Sure.", TOOL_USE | {"input": '{"a": 3'}]), NAMED),
        (AIMessage(["Sure.", {"type": "function_call", "name": "add", "arguments": '{"a": 3'}]), NAMED),
        (AIMessage("Sure.", invalid_tool_calls=[broken('{"name": "ad', None)]), written('{"name": "ad')),
        (AIMessage(["Sure.", TOOL_USE | {"name": "", "input": {"ü": 3}}]), written('{"ü": 3}')),
        (AIMessage(["Sure.", TOOL_USE | {"name": "", "input": "[" * 9000}]), written("[" * 9000)),
    ],
    ids=["field", "v1", "Anthropic", "Responses", "nameless field", "nameless block", "brackets"],
)
def test_a_broken_call_is_shown_as_the_model_wrote_it(message, expected):
    assert one(message) == Message("assistant", f"Sure.\n{expected}")


def test_a_broken_call_stays_beside_a_good_one():
    in_field = AIMessage("", tool_calls=[ADD_FIELD], invalid_tool_calls=[broken()])
    in_blocks = AIMessage(content_blocks=[ADD_FIELD, broken()])
    assert one(in_field) == one(in_blocks) == Message("assistant", NAMED, (ADD,))


@pytest.mark.parametrize("block", [TOOL_USE, broken()], ids=["Anthropic", "v1"])
def test_a_broken_call_in_the_field_is_not_read_again_from_the_content(block):
    assert one(AIMessage([block], invalid_tool_calls=[broken()])) == Message("assistant", NAMED)


# ------------------------------------------------------------------ results


def test_a_result_keeps_its_call_and_leaves_its_artifact():
    message = ToolMessage([{"type": "text", "text": "3"}, "4"], tool_call_id="c1", name="add", artifact={"x": 1})
    assert one(message) == Message("tool", "3\n4", tool_call_id="c1", name="add")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("no such city", "Error: no such city"),
        ("Error: no such city", "Error: no such city"),
        (" ERROR invoking tool", " ERROR invoking tool"),
        ([{"type": "text", "text": "no such city"}], "Error: no such city"),
        ("", "Error: "),
    ],
)
def test_a_failed_result_says_so(content, expected):
    assert one(ToolMessage(content, tool_call_id="c1", status="error")).content == expected
    block = {"type": "tool_result", "tool_use_id": "c1", "content": content, "is_error": True}
    assert one(HumanMessage([block])) == Message("tool", expected, tool_call_id="c1")


def test_results_inside_a_message_are_turns_of_their_own_in_order():
    message = HumanMessage(
        [
            "Here:",
            {"type": "tool_result", "tool_use_id": "c1", "content": {"type": "text", "text": "3"}},
            {
                "type": "tool_result",
                "tool_use_id": "c2",
                "content": [{"type": "text", "text": "4"}],
                "is_error": False,
            },
            {"type": "text", "text": "Now add"},
            {"type": "text", "text": "them."},
            {"type": "tool_result", "tool_use_id": "c3"},
            {"cachePoint": {"type": "default"}},
        ]
    )
    assert from_langchain([message]) == (
        Message("user", "Here:"),
        Message("tool", "3", tool_call_id="c1"),
        Message("tool", "4", tool_call_id="c2"),
        Message("user", "Now add\nthem."),
        Message("tool", "", tool_call_id="c3"),
    )


def test_a_tool_message_of_result_blocks_is_their_results():
    message = ToolMessage([{"type": "tool_result", "tool_use_id": "c2", "content": "3"}], tool_call_id="c1")
    assert one(message) == Message("tool", "3", tool_call_id="c2")


# ------------------------------------------------------------------ whole


def test_anthropics_conversation_of_the_standard_tests():
    messages = [
        SystemMessage([{"type": "text", "text": "You are good.", "cache_control": {"type": "ephemeral"}}]),
        HumanMessage([{"type": "text", "text": "what is it", "cache_control": {"type": "ephemeral"}}]),
        AIMessage([{"type": "thinking", "thinking": "x"}, {"type": "text", "text": "Hmm"}, TOOL_USE]),
        HumanMessage(
            [
                {
                    "type": "tool_result",
                    "tool_use_id": "c1",
                    "content": [{"type": "text", "text": "green is a great pick"}],
                    "is_error": False,
                },
                {"type": "text", "text": "what's my sister's favorite color"},
            ]
        ),
    ]
    assert from_langchain(messages) == (
        Message("system", "You are good."),
        Message("user", "what is it"),
        Message("assistant", "Hmm", (ADD,)),
        Message("tool", "green is a great pick", tool_call_id="c1"),
        Message("user", "what's my sister's favorite color"),
    )
