import asyncio
import copy
import json
import time

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool

from lorauter_integrations import Grammar, Message
from lorauter_integrations.errors import (
    ContentError,
    OptionError,
    RoutingError,
    UnknownAdapterError,
    UnknownTaskError,
)
from lorauter_integrations.langchain import ChatLoRAuter


@pytest.fixture
def llm(pico_lorauter):
    return ChatLoRAuter(lorauter=pico_lorauter)


def adapters(message):
    return message.response_metadata["lorauter"]["adapters"]


def test_each_step_of_a_chain_takes_its_own_route(llm):
    colour = ChatPromptTemplate.from_template("name a colour like {x}") | llm
    total = ChatPromptTemplate.from_template("add the numbers {x}") | llm
    first, second = colour.invoke({"x": "sky"}), total.invoke({"x": "1 and 2"})
    assert max(adapters(first), key=adapters(first).get) == "plain"
    assert max(adapters(second), key=adapters(second).get) == "wide"
    assert sum(adapters(first).values()) == pytest.approx(1)


def test_the_routes_facts_are_in_the_metadata(llm):
    facts = llm.invoke("name a colour").response_metadata
    assert facts["model_name"] == "pico"
    assert facts["finish_reason"] == "length"
    assert [match["task"] for match in facts["lorauter"]["tasks"]] == ["colours", "sums"]
    assert facts["lorauter"]["abstained"] is False


def test_the_system_message_routes_too(llm):
    answer = llm.invoke([SystemMessage("add the numbers"), HumanMessage("7 8")])
    assert max(adapters(answer), key=adapters(answer).get) == "wide"


def test_invoke_stream_batch_and_async_agree(llm):
    async def everything():
        chunks = [chunk async for chunk in llm.astream("name a colour")]
        return (await llm.ainvoke("name a colour")).content, "".join(c.content for c in chunks)

    whole = llm.invoke("name a colour").content
    assert whole
    assert "".join(chunk.content for chunk in llm.stream("name a colour")) == whole
    assert [m.content for m in llm.batch(["name a colour", "name a colour"])] == [whole, whole]
    assert asyncio.run(everything()) == (whole, whole)


def test_metadata_and_usage_come_once_in_the_last_chunk(llm):
    chunks = [c for c in llm.stream("name a colour") if c.response_metadata or c.usage_metadata]
    assert len(chunks) == 1
    merged = sum_chunks(llm.stream("name a colour"))
    assert merged.response_metadata["model_name"] == "pico"
    assert merged.usage_metadata == llm.invoke("name a colour").usage_metadata
    assert merged.usage_metadata["output_tokens"] == 8


def sum_chunks(chunks):
    whole = next(chunks)
    for chunk in chunks:
        whole += chunk
    return whole


def test_the_most_specific_option_wins(llm):
    def written(model, **kwargs):
        return model.invoke("name a colour", **kwargs).usage_metadata["output_tokens"]

    own = ChatLoRAuter(lorauter=llm.lorauter, max_tokens=5)
    assert [written(llm), written(own), written(own.bind(max_tokens=3)), written(own, max_tokens=2)] == [
        8,
        5,
        3,
        2,
    ]


def test_stop_strings_come_from_the_field_or_the_call(llm):
    whole = llm.invoke("name a colour").content
    stop = [whole[2:4]]
    cut = whole[: whole.index(stop[0])]
    assert llm.invoke("name a colour", stop=stop).content == cut
    assert ChatLoRAuter(lorauter=llm.lorauter, stop=stop).invoke("name a colour").content == cut


def test_a_call_may_choose_adapters_or_a_task(llm):
    by_adapter = llm.bind(adapters={"mlp": 0.5}).invoke("name a colour")
    assert adapters(by_adapter) == {"mlp": 0.5}
    assert by_adapter.response_metadata["lorauter"]["reason"] == "the adapters were chosen by the caller"
    assert adapters(llm.bind(task="sums").invoke("name a colour")) == {"wide": 1.0}
    assert adapters(llm.bind(adapters={}).invoke("name a colour")) == {}
    fixed = ChatLoRAuter(lorauter=llm.lorauter, task="sums")
    assert adapters(fixed.invoke("name a colour")) == {"wide": 1.0}
    assert adapters(fixed.invoke("name a colour", adapters={"mlp": 1.0})) == {"mlp": 1.0}


@pytest.mark.parametrize(
    ("keywords", "error", "match"),
    [
        (
            {"adapters": {"nope": 1.0}},
            UnknownAdapterError,
            r"no adapter 'nope'\nHint: the pool has 'alphas', 'mlp'",
        ),
        ({"task": "nope"}, UnknownTaskError, r"no task 'nope'\nHint: the tasks are 'colours', 'sums'"),
        ({"task": "sums", "adapters": {"mlp": 1.0}}, OptionError, "exclude each other"),
        ({"nonsense": 1}, OptionError, r"unknown call keyword 'nonsense'\nHint: known are 'adapters'"),
        ({"temperature": -1}, OptionError, "temperature must be a number from 0"),
        ({"max_tokens": 0}, OptionError, "max_tokens must be a whole number of at least 1, not 0"),
    ],
    ids=["adapter", "task", "both", "keyword", "temperature", "max_tokens"],
)
def test_a_wrong_keyword_is_one_clear_error(llm, keywords, error, match):
    with pytest.raises(error, match=match):
        llm.invoke("name a colour", **keywords)


def test_an_unknown_adapter_is_a_key_error(llm):
    with pytest.raises(KeyError, match="nope"):
        llm.invoke("name a colour", adapters={"nope": 1.0})


def test_an_empty_query_is_refused_unless_the_caller_chose(llm):
    with pytest.raises(Exception, match="no system or user text to route on"):
        llm.invoke("")
    assert llm.invoke("", task="sums").content


def test_callbacks_get_every_token_once(llm):
    class Tokens(BaseCallbackHandler):
        def __init__(self):
            self.tokens = []

        def on_llm_new_token(self, token, **kwargs):
            self.tokens.append(token)

    handler = Tokens()
    text = "".join(c.content for c in llm.stream("name a colour", config={"callbacks": [handler]}))
    assert "".join(handler.tokens) == text


def slowed(llm, seconds=0.02):
    """Steps of at least this long, and a list that grows by one with each."""
    steps = []

    def wait(*_):
        steps.append(1)
        time.sleep(seconds)

    llm.lorauter.engine.mixtures.model.register_forward_pre_hook(wait)
    return steps


def test_the_event_loop_beats_in_every_step_of_the_model(llm):
    steps = slowed(llm)

    async def run():
        silent, beats = [0], 0

        async def heart():
            nonlocal beats
            while True:
                before = len(steps)
                await asyncio.sleep(0.005)
                beats += 1
                silent.append(len(steps) - before)

        beating = asyncio.ensure_future(heart())
        await asyncio.gather(*(llm.ainvoke(f"name a colour {n}", max_tokens=40) for n in range(8)))
        beating.cancel()
        return max(silent), beats

    silent, beats = asyncio.run(run())
    assert silent <= 2  # of 20 ms each: no beat waited through more than the steps that it began and ended in
    assert beats > len(steps)


def test_a_cancelled_call_that_waits_for_its_place_ends_and_harms_no_other(llm):
    alone = llm.invoke("name a colour", max_tokens=40).content
    steps = slowed(llm)

    async def run():
        first = asyncio.ensure_future(llm.ainvoke("name a colour", max_tokens=40))
        while not steps:
            await asyncio.sleep(0.001)
        second = asyncio.ensure_future(llm.ainvoke("add the numbers", max_tokens=400))
        await asyncio.sleep(0.05)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        return (await first).content

    assert asyncio.run(run()) == alone
    assert len(steps) < 60
    assert not llm.lorauter.engine._scheduler._seats


def test_a_timeout_is_a_timeout_error(llm):
    slowed(llm)
    with pytest.raises(TimeoutError, match=r"not whole after 0.1 s"):
        llm.invoke("name a colour", max_tokens=400, timeout=0.1)


def test_an_answer_bound_to_a_grammar_is_of_it(llm):
    schema = Grammar.json_schema({"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]})
    answer = llm.bind(grammar=schema).invoke("name a colour", max_tokens=60)
    assert json.loads(answer.content) in ({"ok": True}, {"ok": False})
    assert answer.response_metadata["finish_reason"] == "stop"
    with pytest.raises(OptionError, match="a grammar and the stop strings"):
        llm.bind(grammar=schema, stop=["}"]).invoke("name a colour")


def test_logprobs_come_once_in_openais_form(llm):
    answer = llm.invoke("name a colour", logprobs=2)
    tokens = answer.response_metadata["logprobs"]["content"]
    assert len(tokens) == answer.usage_metadata["output_tokens"]
    assert all(one["logprob"] <= 0 and len(one["top_logprobs"]) == 2 for one in tokens)
    merged = None
    for chunk in llm.stream("name a colour", logprobs=2):
        merged = chunk if merged is None else merged + chunk
    streamed = merged.response_metadata["logprobs"]["content"]
    assert [one["token"] for one in streamed] == [one["token"] for one in tokens]
    assert [one["logprob"] for one in streamed] == pytest.approx([one["logprob"] for one in tokens], abs=1e-4)
    assert "logprobs" not in llm.invoke("name a colour").response_metadata


def test_a_penalty_changes_the_answer_from_field_and_call(llm):
    plain = llm.invoke("name a colour", max_tokens=40).content
    other = llm.invoke("name a colour", max_tokens=40, repetition_penalty=1.5).content
    assert other != plain
    assert (
        llm.model_copy(update={"repetition_penalty": 1.5, "max_tokens": 40}).invoke("name a colour").content == other
    )


@pytest.mark.parametrize("option", ["num_beams", "n", "frequency_penalty"])
def test_options_of_other_libraries_are_refused_by_name(llm, option):
    with pytest.raises(OptionError, match=rf"(?s)the option {option} is not supported\nHint: "):
        llm.invoke("name a colour", **{option: 2})


def is_idle(llm, steps):
    """Whether the model has nothing to write any more, but for a step that was begun."""
    taken = len(steps)
    time.sleep(0.1)
    return len(steps) <= taken + 1 and not llm.lorauter.engine._scheduler._seats


async def written(llm, way):
    """The answer, by one of the ways of an event loop."""
    ask = {"max_tokens": 900}
    if way == "ainvoke":
        await llm.ainvoke("name a colour", **ask)
    elif way == "astream":
        _ = [chunk async for chunk in llm.astream("name a colour", **ask)]
    elif way == "events":
        _ = [event async for event in llm.astream_events("name a colour", version="v2", **ask)]
    elif way == "abatch":
        await llm.abatch(["name a colour"] * 3, **ask)
    else:
        _ = [answer async for answer in llm.abatch_as_completed(["name a colour"] * 3, **ask)]


@pytest.mark.parametrize("way", ["ainvoke", "astream", "events", "abatch", "abatch_as_completed"])
def test_a_cancelled_task_stops_the_model_within_a_step(llm, way):
    steps = slowed(llm, 0.005)

    async def run():
        task = asyncio.ensure_future(written(llm, way))
        while len(steps) < 5:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return is_idle(llm, steps)

    assert asyncio.run(run())
    assert len(steps) < 100


@pytest.mark.parametrize("way", ["astream", "abatch_as_completed"])
def test_a_loops_answer_that_is_left_stops_the_model(llm, way):
    steps = slowed(llm, 0.005)

    async def run():
        if way == "astream":
            answers = llm.astream("name a colour", max_tokens=900)
        else:  # the second prompt leaves little room for an answer
            answers = llm.abatch_as_completed(["name a colour", "name a colour " * 70], max_tokens=900)
        await anext(answers)
        await answers.aclose()
        await asyncio.sleep(0.05)
        return is_idle(llm, steps)

    assert asyncio.run(run())
    assert len(steps) < 100


async def test_a_large_batch_of_a_loop_does_not_overrun_the_queue(llm):
    answers = await llm.abatch(["name a colour"] * 320, max_tokens=1)
    assert len({answer.content for answer in answers}) == 1
    numbers = [number async for number, _ in llm.abatch_as_completed(["name a colour"] * 320, max_tokens=1)]
    assert sorted(numbers) == list(range(320))
    assert [item async for item in llm.abatch_as_completed([])] == []


async def test_a_batch_of_a_loop_may_return_exceptions_in_their_place(llm):
    found = dict([item async for item in llm.abatch_as_completed(["name a colour", ""], return_exceptions=True)])
    assert found[0].content
    assert isinstance(found[1], RoutingError)
    with pytest.raises(RoutingError, match="no system or user text"):
        _ = [item async for item in llm.abatch_as_completed(["name a colour", ""])]


def test_copies_share_the_engine(llm):
    twin = copy.deepcopy(llm)
    assert twin.lorauter is llm.lorauter
    assert llm.model_copy(update={"max_tokens": 2}).invoke("name a colour").usage_metadata["output_tokens"] == 2


@tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


def test_bound_tools_reach_the_prompt_and_the_routing_text(llm):
    bound = llm.bind_tools([add])
    plain, tooled = llm.invoke("name a colour"), bound.invoke("name a colour")
    assert tooled.usage_metadata["input_tokens"] > plain.usage_metadata["input_tokens"] + 300
    routed = llm.lorauter.route([Message("user", "name a colour")], bound.kwargs["tools"])
    assert routed.matches[0].similarity < llm.lorauter.route("name a colour").matches[0].similarity
    # They stay in sight when they must not be called, so a step without calls is routed as the one before.
    silent = llm.bind_tools([add], tool_choice="none").invoke("name a colour")
    assert silent.usage_metadata["input_tokens"] == tooled.usage_metadata["input_tokens"]
    assert silent.response_metadata["lorauter"] == tooled.response_metadata["lorauter"]
    assert silent.tool_calls == []


def test_stop_strings_end_text_beside_tools(llm):
    bound = llm.bind_tools([add])
    whole = bound.invoke("name a colour", max_tokens=30).content
    assert len(whole) > 8
    assert bound.invoke("name a colour", max_tokens=30, stop=[whole[4:7]]).content == whole[: whole.index(whole[4:7])]
    with pytest.raises(OptionError, match="a grammar and the stop strings"):
        llm.bind_tools([add], tool_choice="any").invoke("name a colour", stop=["x"])


def test_an_image_is_refused_by_its_block_type(llm):
    with pytest.raises(ContentError, match=r"message 1 \(user\) has a content block of type 'image_url'"):
        llm.invoke([HumanMessage([{"type": "image_url", "image_url": {"url": "x"}}])])


def test_an_unknown_field_is_refused():
    with pytest.raises(OptionError, match="unknown field 'temprature'"):
        ChatLoRAuter.from_config("nowhere.toml", temprature=1)


def counted(llm):
    """A list that grows by one with each forward pass."""
    steps = []
    llm.lorauter.engine.mixtures.model.register_forward_hook(lambda *_: steps.append(1))
    return steps


def test_batch_and_gather_share_their_forward_passes(llm):
    steps = slowed(llm, 0.01)  # a pico model would be done with one prompt before the next is routed
    prompts = [f"name a colour {n}" if n % 2 else f"add the numbers {n}" for n in range(8)]
    alone = [llm.invoke(prompt, max_tokens=50).content for prompt in prompts]
    serial, steps[:] = len(steps), []
    assert [m.content for m in llm.batch(prompts, max_tokens=50)] == alone
    batched, steps[:] = len(steps), []
    chain = RunnableLambda(lambda prompt: prompt) | llm.bind(max_tokens=50)
    assert [m.content for m in chain.batch(prompts)] == alone
    chained, steps[:] = len(steps), []

    async def gather():
        return await asyncio.gather(*(llm.ainvoke(prompt, max_tokens=50) for prompt in prompts))

    assert [m.content for m in asyncio.run(gather())] == alone
    gathered, steps[:] = len(steps), []
    assert dict(llm.batch_as_completed(prompts, max_tokens=50)).keys() == set(range(8))
    completed = len(steps)
    assert serial == 8 * 50
    # The longest answer, and as many more as passed until the last prompt had its place.
    assert max(batched, chained, gathered, completed) < 2 * 50


def test_a_batch_is_as_wide_as_the_caller_allows(llm):
    steps = counted(llm)
    llm.batch(["name a colour"] * 4, {"max_concurrency": 1}, max_tokens=20)
    assert len(steps) == 4 * 20
    assert llm.batch([]) == []


def test_a_batch_may_return_exceptions_in_their_place(llm):
    found = llm.batch(["name a colour", ""], return_exceptions=True)
    assert found[0].content
    assert isinstance(found[1], RoutingError)
