import asyncio

import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField, RunnableLambda

from lorauter_integrations import Route
from lorauter_integrations.errors import RoutingError, UnknownTaskError
from lorauter_integrations.langchain import ChatLoRAuter, RouteRunnable


@pytest.fixture
def llm(pico_lorauter):
    return ChatLoRAuter(lorauter=pico_lorauter)


def adapters(message):
    return message.response_metadata["lorauter"]["adapters"]


class Events(BaseCallbackHandler):
    def __init__(self):
        self.events = []

    def on_custom_event(self, name, data, *, run_id, **_):
        self.events.append((name, data))

    def on_llm_new_token(self, *_, **__):
        self.events.append("token")


class AsyncEvents(AsyncCallbackHandler):
    def __init__(self):
        self.events = []

    async def on_custom_event(self, name, data, *, run_id, **_):
        self.events.append((name, data))


def is_told(events, task="colours"):
    [(name, data)] = [event for event in events if event != "token"]
    assert name == "lorauter_route"
    assert data["tasks"][0]["task"] == task
    return events[0] == (name, data)


def test_each_call_tells_its_route_once_before_its_first_token(llm):
    for call in (llm.invoke, lambda *args: list(llm.stream(*args)), lambda *args: llm.batch([args[0]], args[1])):
        heard = Events()
        call("name a colour", {"callbacks": [heard]})
        assert is_told(heard.events)


def test_calls_of_a_loop_tell_their_routes_too(llm):
    async def stream(config):
        return [chunk async for chunk in llm.astream("name a colour", config)]

    for call in (lambda config: llm.ainvoke("name a colour", config), stream):
        for heard in (Events(), AsyncEvents()):
            asyncio.run(call({"callbacks": [heard]}))
            assert is_told(heard.events)


def test_callbacks_of_the_model_and_of_its_constructor_hear_it(pico_lorauter):
    heard = Events()
    llm = ChatLoRAuter(lorauter=pico_lorauter, callbacks=[heard])
    llm.invoke("name a colour")
    assert is_told(heard.events)
    heard.events.clear()
    list(llm.stream("name a colour"))
    assert is_told(heard.events)


def test_each_step_of_a_chain_tells_its_own(llm):
    heard = Events()
    chain = ChatPromptTemplate.from_template("name a colour like {x}") | llm | RunnableLambda(lambda _: "add 1 and 2")
    (chain | llm).invoke({"x": "sky"}, {"callbacks": [heard]})
    told = [data["tasks"][0]["task"] for _, data in heard.events]
    assert told == ["colours", "sums"]


async def test_it_is_an_event_of_astream_events(llm):
    chain = RunnableLambda(lambda text: text) | llm
    events = [event async for event in chain.astream_events("name a colour", version="v2")]
    [told] = [event for event in events if event["event"] == "on_custom_event"]
    assert told["name"] == "lorauter_route"
    assert told["data"]["tasks"][0]["task"] == "colours"
    kinds = [event["event"] for event in events]
    assert kinds.index("on_custom_event") < kinds.index("on_chat_model_stream")


def test_a_consumer_between_two_pieces_is_not_in_the_calls_context(llm):
    outer, inner = Events(), Events()
    for _ in llm.stream("name a colour", {"callbacks": [outer]}):
        llm.invoke("add the numbers", {"callbacks": [inner]})
        llm.invoke("add the numbers")
    assert is_told(outer.events)
    assert {data["tasks"][0]["task"] for name, data in (e for e in inner.events if e != "token")} == {"sums"}


def test_a_config_may_choose_a_task_or_adapters(llm):
    by_task = llm.with_config(configurable={"task": "sums"})
    assert adapters(by_task.invoke("name a colour")) == {"wide": 1.0}
    assert adapters([*by_task.stream("name a colour")][-1]) == {"wide": 1.0}
    assert adapters(asyncio.run(by_task.ainvoke("name a colour"))) == {"wide": 1.0}
    assert adapters(by_task.batch(["name a colour"])[0]) == {"wide": 1.0}
    by_adapters = llm.with_config(configurable={"adapters": {"mlp": 0.5}})
    assert adapters(by_adapters.invoke("name a colour")) == {"mlp": 0.5}


def test_a_config_of_the_whole_chain_reaches_the_model(llm):
    chain = ChatPromptTemplate.from_template("name a colour like {x}") | llm
    assert adapters(chain.invoke({"x": "sky"}, {"configurable": {"task": "sums"}})) == {"wide": 1.0}


def test_the_call_itself_wins_over_the_config(llm):
    config = {"configurable": {"task": "sums"}}
    assert adapters(llm.invoke("name a colour", config, task="colours")) == {"plain": 1.0}
    assert adapters(llm.bind(model="mlp").invoke("name a colour", config)) == {"mlp": 1.0}


def test_a_task_of_the_config_that_is_not_there_is_refused(llm):
    with pytest.raises(UnknownTaskError, match="no task 'nope'"):
        llm.invoke("name a colour", {"configurable": {"task": "nope"}})


def test_fields_can_be_made_configurable(llm):
    free = llm.configurable_fields(
        max_tokens=ConfigurableField(id="most"), task=ConfigurableField(id="kind"), model=ConfigurableField(id="m")
    )
    answer = free.with_config(configurable={"most": 3, "kind": "sums"}).invoke("name a colour")
    assert (adapters(answer), answer.usage_metadata["output_tokens"]) == ({"wide": 1.0}, 3)
    assert adapters(free.invoke("name a colour", {"configurable": {"m": "mlp"}})) == {"mlp": 1.0}
    either = llm.configurable_alternatives(ConfigurableField(id="which"), other=llm.bind(task="sums"))
    assert adapters(either.invoke("name a colour", {"configurable": {"which": "other"}})) == {"wide": 1.0}


def test_a_runnable_returns_the_route_of_texts_messages_and_prompts(llm):
    runnable = llm.lorauter.as_runnable()
    assert isinstance(runnable, RouteRunnable)
    prompt = ChatPromptTemplate.from_messages([("system", "add the numbers"), ("human", "{x}")])
    routes = [
        runnable.invoke("name a colour"),
        runnable.invoke([("system", "name a colour"), ("user", "sky")]),
        (prompt | runnable).invoke({"x": "7 8"}),
    ]
    assert all(isinstance(route, Route) for route in routes)
    assert [route.matches[0].task for route in routes] == ["colours", "colours", "sums"]
    assert asyncio.run(runnable.ainvoke("name a colour")) == routes[0]
    assert [route.matches[0].task for route in runnable.batch(["name a colour", "add the numbers"])] == [
        "colours",
        "sums",
    ]


def test_the_runnables_route_is_the_models(llm):
    def doubled(x: int) -> int:
        """Doubles."""
        return 2 * x

    route = llm.lorauter.as_runnable([doubled]).invoke("name a colour")
    answer = llm.bind_tools([doubled]).invoke("name a colour")
    assert route.as_dict() == answer.response_metadata["lorauter"]


def test_the_runnable_refuses_an_empty_text(llm):
    with pytest.raises(RoutingError, match="no system or user text to route on"):
        llm.lorauter.as_runnable().invoke("")


def test_what_routes_can_be_chosen_by_field_and_call(llm):
    messages = [("system", "add the numbers"), ("user", "name a colour")]
    assert llm.invoke(messages).response_metadata["lorauter"]["tasks"][0]["similarity"] < 0.99
    last = ChatLoRAuter(lorauter=llm.lorauter, route_on="last_user").invoke(messages)
    by_text = llm.invoke("name a colour")
    assert last.response_metadata["lorauter"]["tasks"] == by_text.response_metadata["lorauter"]["tasks"]

    def first_message(given):
        assert given[0].type == "system"  # LangChain's messages
        return given[0].text

    by_function = llm.invoke(messages, route_on=first_message)
    assert by_function.response_metadata["lorauter"]["tasks"][0]["task"] == "sums"
