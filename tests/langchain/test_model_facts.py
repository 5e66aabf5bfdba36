"""What LangChain asks about the model: names, profile, counts, identity, errors; and how often it asks again."""

import copy
import json
import pickle
import threading
from functools import partial

import pytest
from conftest import set_winner
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.exceptions import (
    ContextOverflowError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelRateLimitError,
    ModelTimeoutError,
)
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage, trim_messages
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.tools import tool
from pydantic import ValidationError

from lorauter_integrations import GenerationOptions, Grammar
from lorauter_integrations.engines.base import Limits
from lorauter_integrations.errors import (
    ContextLengthError,
    EngineError,
    OptionError,
    QueueFullError,
    UnknownAdapterError,
)
from lorauter_integrations.langchain import ChatLoRAuter


@pytest.fixture
def llm(pico_lorauter):
    return ChatLoRAuter(lorauter=pico_lorauter)


@tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


def adapters(message):
    return message.response_metadata["lorauter"]["adapters"]


# ---------------------------------------------------------------------- parameters of hosted models


def test_parameters_of_hosted_models_are_taken(pico_lorauter):
    llm = ChatLoRAuter(
        lorauter=pico_lorauter,
        model="pico",
        temperature=0,
        max_tokens=5,
        timeout=60,
        stop=[],
        max_retries=2,
        streaming=False,
        seed=1,
        api_key="test",
    )
    answer = llm.invoke("name a colour")
    assert answer.usage_metadata["output_tokens"] == 5
    assert answer.response_metadata["model_name"] == "pico"
    assert "test" not in repr(llm)


def test_an_adapters_name_is_a_models_name(llm):
    by_call = llm.invoke("name a colour", model="mlp")
    assert (adapters(by_call), by_call.response_metadata["model_name"]) == ({"mlp": 1.0}, "mlp")
    field = ChatLoRAuter(lorauter=llm.lorauter, model="mlp")
    assert adapters(field.invoke("name a colour")) == {"mlp": 1.0}
    assert adapters(field.invoke("name a colour", task="sums")) == {"wide": 1.0}
    assert adapters(field.invoke("name a colour", adapters={"plain": 0.5})) == {"plain": 0.5}
    assert adapters(field.invoke("name a colour", model="pico")) == {"plain": 1.0}  # routed


def test_a_model_that_is_neither_base_nor_adapter_is_refused(llm):
    with pytest.raises(
        ModelNotFoundError, match=r"no model 'gpt-4o': the base model is 'pico'.*\nHint: the pool has"
    ):
        llm.invoke("name a colour", model="gpt-4o")
    with pytest.raises(OptionError, match="model='mlp' names an adapter, and adapters or task are given"):
        llm.invoke("name a colour", model="mlp", task="sums")


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"temperature": -1}, "temperature must be a number from 0"),
        ({"adapters": {"plain": 1.0}, "task": "sums"}, "adapters and task exclude each other"),
        ({"route_on": "first_user"}, "first_user"),
    ],
    ids=["temperature", "both", "route_on"],
)
def test_a_wrong_field_is_refused_at_once(pico_lorauter, fields, match):
    with pytest.raises((OptionError, ValidationError), match=match):
        ChatLoRAuter(lorauter=pico_lorauter, **fields)


@pytest.mark.parametrize(
    ("keywords", "match"),
    [
        ({"grammar": "x"}, r"grammar='x' is none\nHint: make one by Grammar"),
        ({"task": 3}, "task must be a task's name, not 3"),
        ({"adapters": ["plain"]}, r"adapters must be names with weights, not \['plain'\]"),
        ({"sticky": "yes"}, "sticky must be true or false"),
    ],
    ids=["grammar", "task", "adapters", "sticky"],
)
def test_a_keyword_of_the_wrong_kind_is_refused(llm, keywords, match):
    with pytest.raises(OptionError, match=match):
        llm.invoke("name a colour", **keywords)


def test_streaming_makes_invoke_tell_each_token(pico_lorauter):
    class Tokens(BaseCallbackHandler):
        def __init__(self):
            self.tokens = []

        def on_llm_new_token(self, token, **_):
            self.tokens.append(token)

    told = Tokens()
    llm = ChatLoRAuter(lorauter=pico_lorauter, streaming=True)
    answer = llm.invoke("name a colour", {"callbacks": [told]})
    assert "".join(told.tokens) == answer.content
    assert len(told.tokens) > 3
    assert answer.usage_metadata["output_tokens"] == 8


# ---------------------------------------------------------------------- profile and counts


def test_the_profile_says_what_the_model_can_do(llm):
    assert llm.profile["max_input_tokens"] == 1024
    assert (llm.profile["tool_calling"], llm.profile["structured_output"]) == (True, True)
    assert llm.profile["image_inputs"] is False


def test_tokens_are_counted_by_the_models_own_template(llm):
    messages = [SystemMessage("be brief"), HumanMessage("name a colour")]
    assert llm.get_num_tokens("name") == 4  # a token a byte
    counted = llm.get_num_tokens_from_messages(messages)
    assert counted == llm.invoke(messages).usage_metadata["input_tokens"]
    with_tools = llm.get_num_tokens_from_messages(messages, tools=[add])
    assert with_tools == llm.bind_tools([add]).invoke(messages).usage_metadata["input_tokens"]
    assert with_tools > counted + 300
    assert llm.get_num_tokens_from_messages([]) == 0
    assert llm.model_copy(update={"custom_get_token_ids": lambda text: [1]}).get_num_tokens("name") == 1


def test_trimming_keeps_what_fits(llm):
    turns = [HumanMessage("name a colour"), AIMessage("red"), HumanMessage("another")]
    most = llm.get_num_tokens_from_messages(turns[2:])
    assert trim_messages(turns, max_tokens=most, token_counter=llm, strategy="last") == turns[2:]
    assert trim_messages(turns, max_tokens=most - 1, token_counter=llm, strategy="last") == []
    whole = llm.get_num_tokens_from_messages(turns)
    assert trim_messages(turns, max_tokens=whole, token_counter=llm, strategy="last") == turns


def test_a_conversation_without_text_has_no_tokens(llm):
    assert llm.get_num_tokens_from_messages([SystemMessage("")]) == 0
    turns = [SystemMessage(""), HumanMessage("name a colour"), AIMessage("red"), HumanMessage("another")]
    kept = trim_messages(turns, max_tokens=60, token_counter=llm, strategy="last", include_system=True)
    assert kept[0] == turns[0]


def test_a_tail_that_begins_with_a_tools_result_can_be_counted(llm):
    assert llm.get_num_tokens_from_messages([ToolMessage("7", tool_call_id="gone"), AIMessage("It is 7.")]) > 0


# ---------------------------------------------------------------------- errors of both trees


def test_errors_are_of_both_trees(llm):
    with pytest.raises(
        ContextOverflowError, match=r"the prompt has \d+ tokens; the model's context holds 1024"
    ) as raised:
        llm.invoke("name a colour " * 100)
    assert isinstance(raised.value, ContextLengthError)
    with pytest.raises(ModelTimeoutError, match=r"not whole after 0\.001 s"):
        llm.invoke("name a colour", max_tokens=900, timeout=0.001)
    with pytest.raises(ModelInvalidRequestError, match="unknown call keyword 'nonsense'"):
        llm.invoke("name a colour", nonsense=1)
    with pytest.raises(UnknownAdapterError, match="no adapter 'nope'"):
        llm.invoke("name a colour", adapters={"nope": 1.0})


async def test_errors_of_loops_and_streams_are_the_same(llm):
    with pytest.raises(ContextOverflowError, match="the prompt has"):
        await llm.ainvoke("name a colour " * 100)
    with pytest.raises(ContextOverflowError, match="the prompt has"):
        list(llm.stream("name a colour " * 100))
    with pytest.raises(ContextOverflowError, match="the prompt has"):
        _ = [chunk async for chunk in llm.astream("name a colour " * 100)]


def test_a_failing_model_ends_the_stream_and_is_told(llm):
    class Errors(BaseCallbackHandler):
        told = None

        def on_llm_error(self, error, **_):
            self.told = error

    def fail(*_):
        raise RuntimeError("out of order")

    handle = llm.lorauter.engine.mixtures.model.register_forward_pre_hook(fail)
    told = Errors()
    with pytest.raises(EngineError, match=r"the step failed .*: RuntimeError: out of order") as raised:
        list(llm.stream("name a colour", {"callbacks": [told]}))
    assert told.told is raised.value
    handle.remove()
    assert llm.invoke("name a colour").content


# ---------------------------------------------------------------------- copies, caches, limits


def test_copies_and_pickles_share_the_engine(llm):
    configured = ChatLoRAuter(lorauter=llm.lorauter, max_tokens=3, task="sums")
    for twin in (copy.deepcopy(configured), pickle.loads(pickle.dumps(configured))):  # noqa: S301
        assert twin.lorauter is llm.lorauter
        assert (twin.max_tokens, twin.task) == (3, "sums")
        assert twin.invoke("name a colour").content == configured.invoke("name a colour").content


def test_a_cache_answers_the_same_call_only(llm, index):
    forward = []
    llm.lorauter.engine.mixtures.model.register_forward_hook(lambda *_: forward.append(1))
    cached = ChatLoRAuter(lorauter=llm.lorauter, cache=InMemoryCache())

    def asked(model, **keywords):
        forward.clear()
        answer = model.invoke("name a colour", **keywords)
        return answer.content, bool(forward)

    first, ran = asked(cached)
    assert ran
    assert asked(cached) == (first, False)
    assert asked(cached, max_tokens=3)[1]
    assert asked(cached.model_copy(update={"max_tokens": 4}))[1]
    assert asked(cached, task="sums")[1]
    assert asked(cached, tools=[add])[1]
    set_winner(index, "colours", "mlp", llm.lorauter.engine.adapters["mlp"].content_hash)
    assert asked(cached)[1]  # routed otherwise now


def test_what_decides_an_answer_identifies_the_model(pico_lorauter):
    def identity(**fields):
        return ChatLoRAuter(lorauter=pico_lorauter, **fields)._get_llm_string()

    def by_text(messages):
        return messages[-1].text

    different = [
        {},
        {"temperature": 1.0},
        {"task": "sums"},
        {"model": "mlp"},
        {"sticky": True},
        {"route_on": by_text},
    ]
    different += [{"adapters": {"mlp": 0.5}}, {"seed": 3}]
    assert len({identity(**fields) for fields in different}) == len(different)
    assert identity(route_on=by_text) == identity(route_on=by_text)
    assert "0x" not in identity(route_on=by_text)


def test_functions_that_route_otherwise_share_no_cache(pico_lorauter):
    llm = ChatLoRAuter(lorauter=pico_lorauter, cache=InMemoryCache())
    texts = ["name a colour", "add the numbers"]

    def nearest(answer):
        return answer.response_metadata["lorauter"]["tasks"][0]["task"]

    fields = [llm.model_copy(update={"route_on": lambda _, text=text: text}) for text in texts]
    assert [nearest(one.invoke("hello")) for one in fields] == ["colours", "sums"]
    closures = [partial(lambda text, _: text, text) for text in texts]
    found = [nearest(llm.invoke("hello", route_on=function)) for _ in range(3) for function in closures]
    assert found == ["colours", "sums"] * 3
    made = [nearest(llm.invoke("hello", route_on=lambda _, text=text: text)) for _ in range(3) for text in texts]
    assert made == ["colours", "sums"] * 3


def test_what_is_traced_is_json(llm):
    grammar = Grammar.json_schema({"type": "boolean"})
    params = llm._get_invocation_params(route_on=lambda messages: "x", grammar=grammar, tools=[])
    assert json.loads(json.dumps(params))["grammar"]["kind"] == "json_schema"
    assert "<function" not in json.dumps(params)


def test_a_rate_limiter_is_asked_once_a_call(pico_lorauter):
    class Counting(InMemoryRateLimiter):
        asked = 0

        def acquire(self, *, blocking=True):
            self.asked += 1
            return True

    limiter = Counting()
    llm = ChatLoRAuter(lorauter=pico_lorauter, rate_limiter=limiter)
    llm.invoke("name a colour")
    list(llm.stream("name a colour"))
    llm.batch(["name a colour"] * 3)
    assert limiter.asked == 5


def test_tracers_are_told_model_and_options(llm):
    params = llm._get_ls_params()
    assert params["ls_provider"] == "lorauter"
    assert (params["ls_model_name"], params["ls_model_type"]) == ("pico", "chat")
    assert (params["ls_temperature"], params["ls_max_tokens"]) == (0.0, 8)
    bound = llm._get_ls_params(stop=["x"], model="mlp", temperature=0.5)
    assert (bound["ls_model_name"], bound["ls_temperature"], bound["ls_stop"]) == ("mlp", 0.5, ["x"])
    assert llm.metadata["lc_versions"]["lorauter"]


@pytest.fixture
def narrow(pico_lorauter, pico_pool):
    """A model with a place for one request, and none to wait in but one."""
    from conftest import pico_model, pico_tokenizer

    from lorauter_integrations import LocalEngine, LoRAuter

    engine = LocalEngine(pico_model(), pico_tokenizer(), pico_pool, name="pico", limits=Limits(rows=1, queue=1))
    lorauter = LoRAuter(pico_lorauter.index, engine, options=GenerationOptions(max_tokens=8))
    return ChatLoRAuter(lorauter=lorauter)


def test_a_full_queue_is_a_rate_limit_error_or_asked_again(narrow, monkeypatch):
    released, begun = threading.Event(), threading.Event()

    def hold(*_):
        begun.set()
        assert released.wait(20)

    handle = narrow.lorauter.engine.mixtures.model.register_forward_pre_hook(hold)
    busy = [threading.Thread(target=narrow.invoke, args=("name a colour",)) for _ in range(2)]
    for thread in busy:
        thread.start()
    assert begun.wait(20)
    while len(narrow.lorauter.engine._scheduler._waiting) < 1:
        pass
    with pytest.raises(ModelRateLimitError, match="wait") as raised:
        narrow.invoke("name a colour")
    assert isinstance(raised.value, QueueFullError)

    def until_they_are_done(_):
        released.set()
        for thread in busy:
            thread.join()

    monkeypatch.setattr("tenacity.nap.time.sleep", until_they_are_done)
    assert narrow.model_copy(update={"max_retries": 5}).invoke("name a colour").content
    handle.remove()
