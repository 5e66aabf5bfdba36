import asyncio

import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField, RunnableLambda

from lorauter_integrations import Route
from lorauter_integrations.errors import ContentError, OptionError, RoutingError, UnknownTaskError
from lorauter_integrations.langchain import ChatLoRAuter, RouteRunnable


@pytest.fixture
def llm(pico_lorauter):
    return ChatLoRAuter(lorauter=pico_lorauter)


def adapters(message):
    return message.response_metadata["lorauter"]["adapters"]


class Events(BaseCallbackHandler):
    def __init__(self):
        self.events = []

    def on_custom_event(self, name, data, *, run_id, tags, metadata, **_):
        self.events.append((name, data))
        self.about = (run_id, tags, metadata.get("who"))

    def on_chat_model_start(self, *_, run_id, **__):
        self.run_id = run_id

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


def test_the_event_is_of_the_calls_own_run_with_its_tags_and_metadata(llm):
    own = llm.model_copy(update={"tags": ["model"]})
    config = {"tags": ["call"], "metadata": {"who": "me"}}

    async def loops(config):
        await own.ainvoke("name a colour", config)
        yield
        _ = [chunk async for chunk in own.astream("name a colour", config)]
        yield

    def ways(config):
        own.invoke("name a colour", config)
        yield
        list(own.stream("name a colour", config))
        yield
        own.model_copy(update={"streaming": True}).invoke("name a colour", config)
        yield

    def is_own(heard):
        run_id, tags, who = heard.about
        return (run_id, sorted(tags), who) == (heard.run_id, ["call", "model"], "me")

    heard = Events()
    assert [is_own(heard) for _ in ways({**config, "callbacks": [heard]})] == [True] * 3

    async def run():
        return [is_own(heard) async for _ in loops({**config, "callbacks": [heard]})]

    assert asyncio.run(run()) == [True] * 2


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


def test_the_runnable_chooses_as_the_model_does(llm):
    runnable = llm.lorauter.as_runnable()
    for choose in (
        lambda one: one.bind(task="sums"),
        lambda one: one.with_config(configurable={"task": "sums"}),
        lambda one: one.bind(model="mlp"),
        lambda one: one.bind(adapters={"mlp": 0.5}),
    ):
        route = choose(runnable).invoke("name a colour")
        assert route.as_dict() == choose(llm).invoke("name a colour").response_metadata["lorauter"]
    with pytest.raises(OptionError, match="unknown call keyword 'nonsense'"):
        runnable.invoke("name a colour", nonsense=1)


def test_the_runnable_refuses_a_graphs_state_and_says_what_to_give(llm):
    with pytest.raises(ContentError, match=r'a dict is no text, .*\nHint: of a state, give state\["messages"\]'):
        llm.lorauter.as_runnable().invoke({"messages": [("user", "name a colour")]})


def test_a_function_is_asked_only_when_something_is_routed(llm):
    def never(_):
        raise AssertionError("asked")

    assert adapters(llm.invoke("name a colour", route_on=never, task="sums")) == {"wide": 1.0}
    assert adapters(llm.invoke("name a colour", route_on=never, model="mlp")) == {"mlp": 1.0}


def test_a_follow_up_stays_with_a_function_too(llm):
    seen = []

    def last(messages):
        seen.append([message.text for message in messages])
        return messages[-1].text

    talk = [("user", "name a colour like shade 1"), ("ai", "red"), ("user", "make that shorter")]
    moved = llm.invoke(talk, route_on=last).response_metadata["lorauter"]
    stayed = llm.invoke(talk, route_on=last, sticky=True).response_metadata["lorauter"]
    assert stayed["reason"].startswith("a follow-up of the turn before: ")
    assert seen == [["name a colour like shade 1", "red", "make that shorter"], ["name a colour like shade 1"]]
    assert moved["tasks"][0]["similarity"] < stayed["tasks"][0]["similarity"]
