import asyncio
import json
import time

import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler

from lorauter_integrations import Grammar
from lorauter_integrations.errors import ContentError, OptionError, UnknownAdapterError, UnknownTaskError
from lorauter_integrations.llama_index import LoRAuterLLM
from lorauter_integrations.llama_index.messages import from_llama_index

TEXT = "name a colour"
MESSAGES = [ChatMessage(role=MessageRole.USER, content=TEXT)]


@pytest.fixture
def llm(pico_lorauter):
    return LoRAuterLLM(pico_lorauter)


def test_all_eight_methods_write_the_same_text(llm):
    async def asynchronous():
        chat, complete = await llm.achat(MESSAGES), await llm.acomplete(TEXT)
        chats = [piece async for piece in await llm.astream_chat(MESSAGES)]
        completes = [piece async for piece in await llm.astream_complete(TEXT)]
        return [
            chat.message.content,
            complete.text,
            "".join(piece.delta for piece in chats),
            "".join(piece.delta for piece in completes),
        ]

    texts = [
        llm.chat(MESSAGES).message.content,
        llm.complete(TEXT).text,
        "".join(piece.delta for piece in llm.stream_chat(MESSAGES)),
        "".join(piece.delta for piece in llm.stream_complete(TEXT)),
        *asyncio.run(asynchronous()),
    ]
    assert len(texts) == 8
    assert len(set(texts)) == 1
    assert texts[0]


def test_a_streams_message_grows_by_its_deltas(llm):
    pieces = list(llm.stream_chat(MESSAGES))
    assert pieces[-1].message.content == "".join(piece.delta for piece in pieces)
    assert [piece.raw is None for piece in pieces[:-1]] == [True] * (len(pieces) - 1)


def test_raw_holds_route_and_usage_and_is_json(llm):
    raw = llm.chat(MESSAGES).raw
    assert json.loads(json.dumps(raw)) == raw
    assert raw["model"] == "pico"
    assert raw["usage"]["total_tokens"] == raw["usage"]["prompt_tokens"] + raw["usage"]["completion_tokens"]
    assert raw["usage"]["completion_tokens"] == 8
    assert [match["task"] for match in raw["lorauter"]["tasks"]] == ["colours", "sums"]
    assert max(raw["lorauter"]["adapters"], key=raw["lorauter"]["adapters"].get) == "plain"
    assert llm.complete(TEXT).raw == raw


def test_metadata_tells_the_truth_about_the_model(llm):
    facts = llm.metadata
    assert (facts.context_window, facts.num_output, facts.model_name) == (1024, 8, "pico")
    assert facts.is_chat_model
    assert LoRAuterLLM(llm.lorauter, max_tokens=3).metadata.num_output == 3


def test_call_keywords_win_over_fields(llm):
    own = LoRAuterLLM(llm.lorauter, max_tokens=5)
    counts = [
        own.complete(TEXT).raw,
        own.complete(TEXT, max_tokens=2).raw,
        own.chat(MESSAGES, max_tokens=3).raw,
    ]
    assert [raw["usage"]["completion_tokens"] for raw in counts] == [5, 2, 3]


def test_a_call_may_choose_adapters_or_a_task(llm):
    assert llm.chat(MESSAGES, adapters={"mlp": 0.5}).raw["lorauter"]["adapters"] == {"mlp": 0.5}
    assert llm.complete(TEXT, task="sums").raw["lorauter"]["adapters"] == {"wide": 1.0}
    assert LoRAuterLLM(llm.lorauter, adapters={}).complete(TEXT).raw["lorauter"]["adapters"] == {}


@pytest.mark.parametrize(
    ("keywords", "error", "match"),
    [
        ({"adapters": {"nope": 1.0}}, UnknownAdapterError, r"no adapter 'nope'\nHint: the pool has 'alphas'"),
        ({"task": "nope"}, UnknownTaskError, r"no task 'nope'\nHint: the tasks are 'colours', 'sums'"),
        ({"max_new_tokens": 1}, OptionError, "unknown call keyword 'max_new_tokens'"),
    ],
    ids=["adapter", "task", "keyword"],
)
def test_a_wrong_keyword_is_one_clear_error(llm, keywords, error, match):
    for method, said in ((llm.chat, MESSAGES), (llm.stream_chat, MESSAGES), (llm.complete, TEXT)):
        with pytest.raises(error, match=match):
            method(said, **keywords)


def test_a_system_prompt_goes_before_a_completion(llm):
    spoken = LoRAuterLLM(llm.lorauter, system_prompt="add the numbers")
    raw = spoken.complete("7 8").raw
    assert raw["lorauter"]["tasks"][0]["task"] == "sums"
    assert raw["usage"]["prompt_tokens"] > llm.complete("7 8").raw["usage"]["prompt_tokens"]


def test_each_call_is_one_event_with_the_tokenizers_counts(pico_lorauter):
    handler = TokenCountingHandler(tokenizer=pico_lorauter.engine.token_ids)
    llm = LoRAuterLLM(pico_lorauter, callback_manager=CallbackManager([handler]))
    raws = [llm.chat(MESSAGES).raw, llm.complete(TEXT).raw]
    assert [event.prompt_token_count for event in handler.llm_token_counts] == [
        raw["usage"]["prompt_tokens"] for raw in raws
    ]


def test_messages_of_every_role_are_understood():
    ours = from_llama_index(
        [
            ChatMessage(role="developer", content="s"),
            ChatMessage(role="user", blocks=[TextBlock(text="a"), TextBlock(text="b")]),
            ChatMessage(
                role="assistant",
                blocks=[
                    ThinkingBlock(content="hm"),
                    ToolCallBlock(tool_call_id="c1", tool_name="add", tool_kwargs='{"a": 1}'),
                ],
            ),
            ChatMessage(role="tool", content="2", additional_kwargs={"tool_call_id": "c1"}),
        ]
    )
    assert [m.role for m in ours] == ["system", "user", "assistant", "tool"]
    assert ours[1].content == "a\nb"
    assert (ours[2].content, ours[2].tool_calls[0].arguments) == ("", {"a": 1})
    assert ours[3].tool_call_id == "c1"


def test_an_image_is_refused_by_its_block(llm):
    with pytest.raises(ContentError, match=r"message 1 \(user\) has a content block of type 'image'"):
        llm.chat([ChatMessage(role="user", blocks=[ImageBlock(url="http://x")])])


def test_copies_share_the_engine(llm):
    assert llm.model_copy(deep=True).lorauter is llm.lorauter


def test_gathered_calls_share_their_forward_passes(llm):
    steps = []
    hook = llm.lorauter.engine.mixtures.model.register_forward_hook(lambda *_: steps.append(1))

    async def gather():
        return await asyncio.gather(*(llm.achat(MESSAGES, max_tokens=25) for _ in range(4)))

    texts = {answer.message.content for answer in asyncio.run(gather())}
    hook.remove()
    assert texts == {llm.chat(MESSAGES, max_tokens=25).message.content}
    assert len(steps) < 80  # one after the other: 100


def test_grammars_logprobs_and_timeouts_reach_the_engine(llm):
    schema = Grammar.json_schema({"enum": ["yes", "no"]})
    assert json.loads(llm.complete(TEXT, grammar=schema).text) in ("yes", "no")
    raw = llm.chat(MESSAGES, logprobs=1).raw
    assert len(raw["logprobs"]["content"]) == raw["usage"]["completion_tokens"]
    assert json.loads(json.dumps(raw)) == raw
    llm.lorauter.engine.mixtures.model.register_forward_pre_hook(lambda *_: time.sleep(0.02))
    with pytest.raises(TimeoutError, match=r"not whole after 0.1 s"):
        llm.complete(TEXT, max_tokens=400, timeout=0.1)


def test_four_gathered_calls_share_their_steps(llm):
    steps = []

    def wait(*_):
        steps.append(1)
        time.sleep(0.01)

    llm.lorauter.engine.mixtures.model.register_forward_pre_hook(wait)

    async def run():
        return await asyncio.gather(*(llm.acomplete(f"{TEXT} {n}", max_tokens=30) for n in range(4)))

    answers = asyncio.run(run())
    written = sum(answer.raw["usage"]["completion_tokens"] for answer in answers)
    assert len(steps) < written / 2


def test_options_of_other_libraries_are_refused_by_name(llm):
    with pytest.raises(OptionError, match=r"(?s)the option num_beams is not supported\nHint: "):
        llm.complete(TEXT, num_beams=2)
