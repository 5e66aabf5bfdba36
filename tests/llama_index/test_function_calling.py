import asyncio
import copy
import json
import pickle
from functools import partial

import pytest
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ReActAgent, ToolCallResult
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole, ToolCallBlock
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.tools import FunctionTool
from scripted import call, llm_of

from lorauter_integrations.errors import InvalidAnswerError, OptionError
from lorauter_integrations.llama_index import LoRAuterLLM


def paint(colour: bool, dots: int) -> str:
    """Paints."""
    return f"painted {colour} {dots}"


def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


PAINT, ADD = FunctionTool.from_defaults(paint), FunctionTool.from_defaults(add)


@pytest.fixture
def llm(pico_lorauter):
    return LoRAuterLLM(pico_lorauter, max_tokens=200)


@pytest.fixture
def scripted(pico_lorauter):
    return partial(llm_of, pico_lorauter)


def test_it_is_a_function_calling_model_of_its_own_name(llm):
    assert llm.metadata.is_function_calling_model
    assert (llm.metadata.model_name, llm.metadata.context_window, llm.metadata.num_output) == ("pico", 1024, 200)


async def test_a_required_call_is_the_same_in_all_four_ways(llm):
    ask = {"tools": [PAINT], "user_msg": "name a colour", "tool_required": True}
    streams = [list(llm.stream_chat_with_tools(**ask)), [r async for r in await llm.astream_chat_with_tools(**ask)]]
    responses = [llm.chat_with_tools(**ask), await llm.achat_with_tools(**ask), *(stream[-1] for stream in streams)]
    found = [llm.get_tool_calls_from_response(response) for response in responses]
    assert {(one.tool_name, json.dumps(one.tool_kwargs)) for [one] in found} == {
        ("paint", json.dumps(found[0][0].tool_kwargs))
    }
    assert {name: type(value) for name, value in found[0][0].tool_kwargs.items()} == {"colour": bool, "dots": int}
    assert all(response.message.content is None for response in responses)  # nothing but the call
    for stream in streams:
        assert "".join(response.delta for response in stream) == ""
        ids = {call.tool_id for response in stream for call in llm.get_tool_calls_from_response(response, False)}
        assert len(ids) == 1


def test_a_tools_name_forces_one_call_of_it(scripted):
    llm, engine = scripted(call("paint", colour=True, dots=1))
    llm.chat_with_tools([PAINT, ADD], "name a colour", tool_choice="paint", allow_parallel_tool_calls=True)
    parts = json.loads(engine.requests[0].grammar.source)
    assert [tool["function"]["name"] for tool in parts["tools"]] == ["paint"]
    assert (parts["text"], parts["parallel"]) == (False, False)
    assert len(engine.requests[0].tools) == 2


def test_tool_required_is_a_named_parameter():
    import inspect

    assert "tool_required" in inspect.signature(LoRAuterLLM._prepare_chat_with_tools).parameters


def test_a_call_that_is_being_written_can_be_read_at_every_piece(scripted):
    llm, _ = scripted("Sure. " + call("paint", colour=True, dots=12))
    seen = []
    for response in llm.stream_chat_with_tools([PAINT], "name a colour"):
        seen.append([one.tool_kwargs for one in llm.get_tool_calls_from_response(response, False)])
    assert seen[0] == []
    assert {} in [one for calls in seen for one in calls]
    assert seen[-1] == [{"colour": True, "dots": 12}]
    assert response.message.content == "Sure."


def test_no_call_where_one_is_wanted_is_an_error(scripted):
    llm, _ = scripted("Just text.")
    response = llm.chat_with_tools([PAINT], "name a colour")
    assert llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []
    with pytest.raises(InvalidAnswerError, match=r"the answer calls no tool, but holds 'Just text\.'"):
        llm.get_tool_calls_from_response(response)


def test_a_forced_call_that_was_cut_is_an_error_and_not_half_a_call(llm):
    ask = {"tools": [PAINT], "user_msg": "name a colour", "tool_required": True, "max_tokens": 40}
    with pytest.raises(InvalidAnswerError, match=r"the call was cut at 40 tokens, .*\nHint: raise max_tokens"):
        llm.chat_with_tools(**ask)
    with pytest.raises(InvalidAnswerError, match="the call was cut at 40 tokens"):
        list(llm.stream_chat_with_tools(**ask))


def test_a_broken_call_is_kept_with_its_reason(scripted):
    llm, _ = scripted("<tool_call>\npaint it\n</tool_call>")
    response = llm.chat_with_tools([PAINT], "name a colour")
    [broken] = response.message.additional_kwargs["broken_tool_calls"]
    assert broken["text"] == "paint it"
    with pytest.raises(InvalidAnswerError, match=r"a call that cannot be read: .*paint it"):
        llm.get_tool_calls_from_response(response)


def test_predict_and_call_runs_the_tool(scripted):
    llm, engine = scripted(call("add", a=3, b=4))
    assert llm.predict_and_call([ADD, PAINT], "add the numbers 3 and 4").response == "7"
    assert [tool["function"]["name"] for tool in engine.requests[0].tools] == ["add", "paint"]


def test_a_history_with_calls_and_results_is_read(scripted):
    llm, engine = scripted("It is 7.")
    block = ToolCallBlock(tool_call_id="c1", tool_name="add", tool_kwargs={"a": 3, "b": 4})
    history = [
        ChatMessage("add the numbers 3 and 4"),
        ChatMessage(role=MessageRole.ASSISTANT, blocks=[block]),
        ChatMessage(role=MessageRole.TOOL, content="7", additional_kwargs={"tool_call_id": "c1"}),
    ]
    assert llm.chat_with_tools([ADD], chat_history=history).message.content == "It is 7."
    roles = [message.role for message in engine.requests[0].messages]
    assert roles == ["user", "assistant", "tool"]
    assert engine.requests[0].messages[1].tool_calls[0].arguments == {"a": 3, "b": 4}


async def test_a_function_agent_calls_and_answers(scripted):
    llm, engine = scripted(call("add", a=3, b=4), "The sum is 7.")
    agent = FunctionAgent(tools=[ADD], llm=llm, system_prompt="add the numbers")
    handler = agent.run("3 and 4")
    results = [event async for event in handler.stream_events() if isinstance(event, ToolCallResult)]
    assert str(await handler) == "The sum is 7."
    assert [result.tool_output.content for result in results] == ["7"]
    assert [len(request.messages) for request in engine.requests] == [2, 4]


async def test_an_agent_workflow_takes_the_function_agent(scripted):
    llm, _ = scripted(call("add", a=3, b=4), "The sum is 7.")
    workflow = AgentWorkflow.from_tools_or_functions([add], llm=llm, system_prompt="add the numbers")
    assert isinstance(next(iter(workflow.agents.values())), FunctionAgent)
    assert str(await workflow.run("3 and 4")) == "The sum is 7."


async def test_a_react_agent_ends(scripted):
    think = 'Thought: I need a tool.\nAction: add\nAction Input: {"a": 3, "b": 4}'
    llm, _ = scripted(think, "Thought: I can answer.\nAnswer: 7")
    assert str(await ReActAgent(tools=[ADD], llm=llm).run("add the numbers 3 and 4")) == "7"


class Events(BaseEventHandler):
    seen: list = []

    def handle(self, event, **_):
        self.seen.append(event)


@pytest.fixture
def events():
    handler, root = Events(seen=[]), get_dispatcher()
    root.add_event_handler(handler)
    yield handler.seen
    root.event_handlers.remove(handler)


def test_each_call_has_one_start_one_end_and_one_route_and_all_are_json(llm, events):
    llm.chat([ChatMessage("name a colour")], max_tokens=4)
    names = [event.class_name() for event in events]
    assert names == ["LLMChatStartEvent", "LoRAuterRouteEvent", "LLMChatEndEvent"]
    assert events[1].route["tasks"][0]["task"] == "colours"
    assert all(json.loads(event.model_dump_json()) for event in events)
    events.clear()
    list(llm.stream_complete("name a colour", max_tokens=4))
    kinds = {event.class_name() for event in events}
    assert kinds == {
        "LLMCompletionStartEvent",
        "LoRAuterRouteEvent",
        "LLMCompletionInProgressEvent",
        "LLMCompletionEndEvent",
    }


def test_four_gathered_calls_share_their_passes(llm):
    steps = []
    llm.lorauter.engine.mixtures.model.register_forward_hook(lambda *_: steps.append(1))

    async def gather():
        asks = (llm.achat([ChatMessage(f"name a colour {n}")], max_tokens=60) for n in range(4))
        return await asyncio.gather(*asks)

    assert len(asyncio.run(gather())) == 4
    assert len(steps) < 2 * 60


def test_copies_and_pickles_share_the_engine(llm):
    for twin in (copy.deepcopy(llm), pickle.loads(pickle.dumps(llm))):  # noqa: S301
        assert twin.lorauter is llm.lorauter
        assert twin.complete("name a colour", max_tokens=5).text == llm.complete("name a colour", max_tokens=5).text


def test_a_model_may_be_an_adapters_name(llm):
    response = llm.complete("name a colour", model="mlp", max_tokens=2)
    assert response.raw["lorauter"]["adapters"] == {"mlp": 1.0}
    assert response.raw["model"] == "mlp"


def test_a_function_of_llama_index_messages_may_choose_the_text(llm):
    def first(messages):
        assert isinstance(messages[0], ChatMessage)
        return messages[0].content

    talk = [ChatMessage("add the numbers"), ChatMessage(role="assistant", content="7"), ChatMessage("name a colour")]
    response = llm.chat(talk, route_on=first, max_tokens=2)
    assert response.raw["lorauter"]["tasks"][0]["task"] == "sums"


def test_stop_strings_with_a_forced_call_are_refused(llm):
    with pytest.raises(OptionError, match="a grammar and the stop strings"):
        llm.chat_with_tools([PAINT], "name a colour", tool_required=True, stop=["x"])


def test_a_response_of_another_model_can_be_read(llm):
    block = ToolCallBlock(tool_call_id="x", tool_name="add", tool_kwargs='{"a": 1, "b"')
    response = ChatResponse(message=ChatMessage(role="assistant", blocks=[block]))
    assert llm.get_tool_calls_from_response(response)[0].tool_kwargs in ({"a": 1}, {})
