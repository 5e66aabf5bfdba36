from base64 import b64encode
from io import BytesIO
from types import SimpleNamespace

import pytest
from llama_index.core.base.llms.types import (
    AudioBlock,
    CacheControl,
    CachePoint,
    ChatMessage,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)
from llama_index.core.tools import FunctionTool

from lorauter_integrations.errors import ContentError
from lorauter_integrations.generation import Message, ToolCall
from lorauter_integrations.llama_index.messages import from_llama_index

ADD = ToolCall("add", {"a": 3}, "c1")
ADD_BLOCK = ToolCallBlock(tool_call_id="c1", tool_name="add", tool_kwargs={"a": 3})
ADD_DICT = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 3}'}}
IMAGE = ImageBlock(url="http://x/y.png")
PAGE = b"first line\nzweite Zeile \xc3\xbc"


def one(message):
    [ours] = from_llama_index([message])
    return ours


def text(*blocks):
    return one(ChatMessage(role="user", blocks=list(blocks))).content


def assistant(*blocks, **facts):
    return ChatMessage(role="assistant", blocks=list(blocks), additional_kwargs=facts)


def cited(content):
    return CitationBlock(cited_content=content, source="s", title="t", additional_location_info={})


def written(body):
    return f"<tool_call>\n{body}\n</tool_call>"


# ------------------------------------------------------------------ roles


ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "chatbot": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
}


@pytest.mark.parametrize("role", MessageRole)
def test_every_role_is_one_of_ours(role):
    assert one(ChatMessage("x", role=role)) == Message(ROLES[role.value], "x")


def test_a_role_that_was_assigned_as_text_is_read():
    message = ChatMessage("x")
    message.role = "developer"
    assert one(message) == Message("system", "x")


def test_a_conversation_keeps_its_order():
    said = [("system", "s"), ("user", "u"), ("assistant", "a"), ("user", "v")]
    conversation = [ChatMessage(content, role=role) for role, content in said]
    assert from_llama_index(conversation) == tuple(Message(role, content) for role, content in said)


# ------------------------------------------------------------------ content


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (TextBlock(text="plain"), "plain"),
        (TextBlock(text=""), ""),
        (ThinkingBlock(content="hm"), ""),
        (CachePoint(cache_control=CacheControl(type="ephemeral")), ""),
        (CitableBlock(title="Title", source="s", content="body"), "Title\nbody"),
        (CitableBlock(title="", source="s", content=[TextBlock(text="a"), TextBlock(text="b")]), "a\nb"),
        (CitableBlock(title="T", source="s", content=[DocumentBlock(data=PAGE)]), f"T\n{PAGE.decode()}"),
        (cited("what was said"), "what was said"),
        (DocumentBlock(data=PAGE), PAGE.decode()),
        (DocumentBlock(data=b64encode(PAGE)), PAGE.decode()),
        (DocumentBlock(data=BytesIO(PAGE)), PAGE.decode()),
        (DocumentBlock(data=PAGE, title="page.txt"), f"page.txt\n{PAGE.decode()}"),
        (DocumentBlock(data=PAGE, document_mimetype="text/markdown"), PAGE.decode()),
        (DocumentBlock(data=b'{"a": 1}', document_mimetype="application/json"), '{"a": 1}'),
    ],
    ids=lambda value: getattr(value, "block_type", None),
)
def test_a_block_of_text_is_read_and_a_thought_is_skipped(block, expected):
    assert text(block) == expected
    around = text(TextBlock(text="before"), block, TextBlock(text="after"))
    assert around == "\n".join(part for part in ("before", expected, "after") if part)


def test_texts_join_as_llama_index_joins_them():
    message = ChatMessage(role="user", blocks=[TextBlock(text="a"), TextBlock(text="b")])
    assert one(message).content == message.content == "a\nb"


@pytest.mark.parametrize(
    ("block", "kind"),
    [
        (IMAGE, "image"),
        (AudioBlock(url="http://x/y.mp3"), "audio"),
        (VideoBlock(url="http://x/y.mp4"), "video"),
        (DocumentBlock(data=b"%PDF-1.4 "), "document"),
        (DocumentBlock(data=b"\xff\xfe\x00"), "document"),
        (DocumentBlock(data=b"plain", document_mimetype="application/msword"), "document"),
        (DocumentBlock(data=b""), "document"),
        (DocumentBlock(url="http://x/y.txt"), "document"),
        (DocumentBlock(path=__file__), "document"),
        (CitableBlock(title="t", source="s", content=[IMAGE]), "image"),
        (cited(IMAGE), "image"),
    ],
    ids=[
        *("image", "audio", "video", "PDF", "bytes", "Word", "empty", "url", "path"),
        *("image to cite", "image cited"),
    ],
)
def test_what_is_not_text_is_refused_by_its_type_and_place(block, kind):
    messages = [ChatMessage("s", role="system"), ChatMessage(role="user", blocks=[TextBlock(text="look"), block])]
    match = rf"^message 2 \(user\) has a content block of type '{kind}'\nHint: this model reads text only; send"
    with pytest.raises(ContentError, match=match):
        from_llama_index(messages)


@pytest.mark.parametrize("role", MessageRole)
def test_the_role_of_the_place_is_the_messages(role):
    with pytest.raises(ContentError, match=rf"message 1 \({ROLES[role.value]}\) has a content block of type 'image'"):
        from_llama_index([ChatMessage(role=role, blocks=[IMAGE])])


def test_a_message_without_content_stays_a_turn():
    messages = [ChatMessage(role="user", blocks=[]), ChatMessage("", role="assistant")]
    assert from_llama_index(messages) == (Message("user"), Message("assistant"))


# ------------------------------------------------------------------ calls


@pytest.mark.parametrize(
    "message",
    [
        assistant(TextBlock(text="Sure."), ADD_BLOCK),
        assistant(TextBlock(text="Sure."), ADD_BLOCK.model_copy(update={"tool_kwargs": '{"a": 3}'})),
        assistant(ThinkingBlock(content="hm"), ADD_BLOCK, TextBlock(text="Sure.")),
        assistant(TextBlock(text="Sure."), ADD_BLOCK, tool_calls=[ADD_DICT]),
        assistant(TextBlock(text="Sure."), tool_calls=[ADD_DICT]),
        assistant(
            TextBlock(text="Sure."), tool_calls=[{"id": "c1", "function": {"name": "add", "arguments": {"a": 3}}}]
        ),
        assistant(
            TextBlock(text="Sure."),
            tool_calls=[SimpleNamespace(id="c1", function=SimpleNamespace(name="add", arguments='{"a": 3}'))],
        ),
    ],
    ids=["block", "block of text", "thought", "both", "OpenAI", "Ollama", "OpenAI's objects"],
)
def test_a_call_is_read_from_the_blocks_or_beside_them(message):
    assert one(message) == Message("assistant", "Sure.", (ADD,))


def test_an_assistant_may_only_call():
    message = assistant(ADD_BLOCK)
    assert message.content is None
    assert one(message) == one(assistant(tool_calls=[ADD_DICT])) == Message("assistant", "", (ADD,))


def test_the_blocks_win_over_what_is_beside_them():
    other = {"id": "c9", "function": {"name": "sub", "arguments": "{}"}}
    assert one(assistant(ADD_BLOCK, tool_calls=[other])).tool_calls == (ADD,)


def test_calls_keep_their_order():
    second = ToolCallBlock(tool_call_id="c2", tool_name="now")
    assert one(assistant(ADD_BLOCK, second)).tool_calls == (ADD, ToolCall("now", {}, "c2"))


@pytest.mark.parametrize("arguments", ["", "{}", {}, None])
def test_a_call_without_arguments_has_none(arguments):
    call = {"id": "c1", "function": {"name": "now", "arguments": arguments}}
    assert one(assistant(tool_calls=[call])).tool_calls == (ToolCall("now", {}, "c1"),)


def test_a_call_without_an_id_is_a_call():
    assert one(assistant(ToolCallBlock(tool_name="now"))).tool_calls == (ToolCall("now", {}),)


def test_no_calls_beside_the_blocks_are_none():
    assert one(assistant(TextBlock(text="x"), tool_calls=None)) == Message("assistant", "x")


NAMED = written('{"name": "add", "arguments": {"a": 3}')


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("add", '{"a": 3', NAMED),
        ("add", "[3]", written('{"name": "add", "arguments": [3]}')),
        ("plus ü", '"3"', written('{"name": "plus ü", "arguments": "3"}')),
        ("", '{"name": "ad', written('{"name": "ad')),
        ("", {"ü": 3}, written('{"ü": 3}')),
        ("", "[" * 9000, written("[" * 9000)),
    ],
    ids=["cut", "list", "text", "nameless", "nameless object", "brackets"],
)
def test_a_broken_call_is_shown_as_the_model_wrote_it(name, arguments, expected):
    block = ToolCallBlock(tool_name=name, tool_kwargs=arguments)
    beside = {"function": {"name": name, "arguments": arguments}}
    said = TextBlock(text="Sure.")
    assert one(assistant(said, block)) == Message("assistant", f"Sure.\n{expected}")
    assert one(assistant(said, tool_calls=[beside])) == Message("assistant", f"Sure.\n{expected}")


def test_a_broken_call_stays_beside_a_good_one():
    broken = ToolCallBlock(tool_name="add", tool_kwargs='{"a": 3')
    assert one(assistant(broken, ADD_BLOCK)) == Message("assistant", NAMED, (ADD,))


# ------------------------------------------------------------------ results


@pytest.mark.parametrize("role", ["tool", "function"])
def test_a_result_keeps_its_call_and_its_name(role):
    message = ChatMessage(
        role=role,
        blocks=[TextBlock(text="3"), TextBlock(text="4")],
        additional_kwargs={"tool_call_id": "c1", "name": "add", "session_id": "x"},
    )
    assert one(message) == Message("tool", "3\n4", tool_call_id="c1", name="add")


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"tool_call_id": "c1"}, Message("tool", "7", tool_call_id="c1")),
        ({"name": "add"}, Message("tool", "7", name="add")),
        ({"tool_call_id": None, "name": None}, Message("tool", "7")),
        ({}, Message("tool", "7")),
    ],
)
def test_a_result_may_tell_less(facts, expected):
    assert one(ChatMessage("7", role="tool", additional_kwargs=facts)) == expected


# ------------------------------------------------------------------ whole


def test_a_turn_of_a_function_agent():
    def add(a: int) -> int:
        """Add."""
        return a + 4

    output = FunctionTool.from_defaults(add).call(a=3)
    messages = [
        ChatMessage("You add.", role="system"),
        ChatMessage("3 and 4?", role="user"),
        assistant(ThinkingBlock(content="hm"), ADD_BLOCK),
        ChatMessage(role="tool", blocks=output.blocks, additional_kwargs={"tool_call_id": "c1"}),
    ]
    assert from_llama_index(messages) == (
        Message("system", "You add."),
        Message("user", "3 and 4?"),
        Message("assistant", "", (ADD,)),
        Message("tool", "7", tool_call_id="c1"),
    )
