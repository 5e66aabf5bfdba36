"""Public bug reports about local models inside LangChain, each tried on this one. The numbers are those issues'."""

import asyncio
import copy
import pickle
import socket
import time
import warnings

import pytest
import torch
from conftest import CHATML, pico_model, pico_tokenizer
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage, trim_messages
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField
from langchain_core.tools import tool
from pydantic import BaseModel

from lorauter_integrations import GenerationRequest, LocalEngine
from lorauter_integrations.engines.prompts import PromptRenderer
from lorauter_integrations.errors import EngineError, OptionError
from lorauter_integrations.generation import Message
from lorauter_integrations.langchain import ChatLoRAuter
from lorauter_integrations.langchain.conversation import from_langchain


@pytest.fixture
def llm(pico_lorauter):
    return ChatLoRAuter(lorauter=pico_lorauter)


@tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


class Person(BaseModel):
    tall: bool
    age: int


CALLED = AIMessage("", tool_calls=[{"name": "add", "args": {"a": 1, "b": 2}, "id": "c1", "type": "tool_call"}])


def prompt(llm, messages, **keywords):
    """What the model reads."""
    bound = llm.bind_tools([add], **keywords)
    request = GenerationRequest(from_langchain(messages), tools=bound.kwargs["tools"])
    return llm.lorauter.engine.render(request)


def test_29033_30453_bound_tools_reach_the_prompt(llm):
    assert "Adds two numbers." in prompt(llm, [HumanMessage("3 + 4")])


def test_24430_22379_a_call_of_the_model_is_in_tool_calls(llm):
    [call] = (
        llm.bind_tools([add], tool_choice="any", parallel_tool_calls=False).invoke("3 + 4", max_tokens=150).tool_calls
    )
    assert call["name"] == "add"
    assert {name: type(value) for name, value in call["args"].items()} == {"a": int, "b": int}


def test_30453_an_unknown_keyword_never_vanishes(llm):
    with pytest.raises(OptionError, match="nonsense_kw"):
        llm.invoke("x", nonsense_kw=1)


@pytest.mark.parametrize(
    "last", [CALLED, ToolMessage("3", tool_call_id="c1"), AIMessage("The sum"), SystemMessage("be brief")]
)
def test_15232_any_role_may_be_last(llm, last):
    history = (
        [HumanMessage("add 1 and 2"), CALLED] if isinstance(last, ToolMessage) else [HumanMessage("add 1 and 2")]
    )
    assert isinstance(llm.invoke([*history, last]), AIMessage)


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
@pytest.mark.parametrize("strict", [None, True, False])
def test_29569_32197_a_class_gives_its_instance_by_every_method(llm, method, strict):
    bound = llm.with_structured_output(Person, method=method, strict=strict, max_tokens=200)
    assert isinstance(bound.invoke("Alice, 31"), Person)


async def test_34134_astream_works_on_a_local_engine(llm):
    assert len([chunk async for chunk in llm.astream("name a colour")]) > 1


async def test_3869_ainvoke_leaves_the_loop_alive(llm):
    beats = 0

    async def heart():
        nonlocal beats
        while True:
            await asyncio.sleep(0.001)
            beats += 1

    beating = asyncio.ensure_future(heart())
    steps = []
    llm.lorauter.engine.mixtures.model.register_forward_pre_hook(lambda *_: steps.append(time.sleep(0.01)))
    await llm.ainvoke("name a colour", max_tokens=30)
    beating.cancel()
    assert beats > len(steps) / 2


def test_18782_2309_2918_each_chunk_is_a_token_of_the_callbacks(llm):
    class Tokens(BaseCallbackHandler):
        count = 0

        def on_llm_new_token(self, *_, **__):
            self.count += 1

    told = Tokens()
    chunks = list(llm.stream("name a colour", {"callbacks": [told]}))
    assert told.count == len(chunks) > 2
    told.count = 0
    llm.model_copy(update={"streaming": True}).invoke("name a colour", {"callbacks": [told]})
    assert told.count == len(chunks)


def test_a_stop_string_of_several_tokens_ends_a_stream(llm):
    whole = llm.invoke("name a colour").content
    stop = whole[3:6]
    assert "".join(chunk.content for chunk in llm.stream("name a colour", stop=[stop])) == whole[: whole.index(stop)]


def test_25219_32234_max_tokens_is_honoured_wherever_it_is_said(llm):
    def written(model, config=None, **keywords):
        return model.invoke("name a colour", config, **keywords).usage_metadata["output_tokens"]

    free = llm.configurable_fields(max_tokens=ConfigurableField(id="most"))
    assert written(llm, max_tokens=2) == 2
    assert written(ChatLoRAuter(lorauter=llm.lorauter, max_tokens=2)) == 2
    assert written(llm.bind(max_tokens=2)) == 2
    assert written(free, {"configurable": {"most": 2}}) == 2


def test_25916_24929_the_answer_does_not_repeat_the_prompt(llm):
    answer = llm.invoke("name a colour", max_tokens=30).content
    assert "<|im_start|>" not in answer
    assert not answer.startswith("name a colour")


REFUSES_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML
)
ALTERNATES = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}{% endfor %}" + CHATML
)


def test_26656_a_template_without_a_system_role_still_shows_the_system_message():
    text = PromptRenderer(pico_tokenizer(REFUSES_SYSTEM)).render(
        [Message("system", "be brief"), Message("user", "hi")]
    )
    assert text.index("be brief") < text.index("hi")


def test_26656_a_model_without_a_template_gets_plain_turns_and_a_warning(caplog):
    text = PromptRenderer(pico_tokenizer(None)).render([Message("user", "hi")])
    assert text == "User: hi\n\nAssistant:"
    assert "has no chat template" in caplog.text


def test_16992_turns_of_one_role_in_a_row_are_merged_for_strict_templates():
    roles = ["user", "user", "assistant", "assistant", "user"]
    text = PromptRenderer(pico_tokenizer(ALTERNATES)).render([Message(role, f"m{n}") for n, role in enumerate(roles)])
    assert [f"m{n}" in text for n in range(5)] == [True] * 5
    assert text.count("<|im_start|>user") == 2


def test_10795_5892_a_batch_is_not_one_prompt_after_the_other(llm):
    steps = []
    llm.lorauter.engine.mixtures.model.register_forward_pre_hook(lambda *_: steps.append(time.sleep(0.01)))
    llm.batch(["name a colour"] * 4, max_tokens=40)
    assert len(steps) < 2 * 40


def test_25431_tokens_are_counted_offline_and_not_as_gpt2(llm):
    assert llm.get_num_tokens("hello world") == len("hello world")  # the pico model has a token a byte
    history = [HumanMessage("old " * 40), AIMessage("yes"), HumanMessage("name a colour")]
    kept = trim_messages(history, max_tokens=60, token_counter=llm, strategy="last")
    assert kept == history[1:]


def test_28226_parameters_of_hosted_models_are_constructor_fields(pico_lorauter):
    llm = ChatLoRAuter(lorauter=pico_lorauter, model="pico", temperature=0, max_tokens=5, timeout=60, max_retries=2)
    assert llm.invoke("hi there").usage_metadata["output_tokens"] == 5


def test_31357_23872_a_local_model_asks_no_network(llm, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert llm.invoke("name a colour").content
    assert llm.get_num_tokens("hi") == 2


def test_24540_35442_14090_a_model_that_must_not_be_moved_is_served():
    model = pico_model()

    def refuse(*_, **__):
        raise ValueError("`.to` is not supported for `4-bit` or `8-bit` models")

    model.to = refuse
    engine = LocalEngine(model, pico_tokenizer())
    assert engine.complete([GenerationRequest([Message("user", "hi")])])[0].text


def test_23628_the_dtype_of_the_settings_is_the_models(pico_folder):
    engine = LocalEngine.load(str(pico_folder), dtype="bfloat16")
    assert {weight.dtype for weight in engine.mixtures.model.parameters()} == {torch.bfloat16}


def test_5431_copies_and_pickles_work(llm):
    whole = llm.invoke("name a colour").content
    chain = ChatPromptTemplate.from_template("name a colour") | llm
    pickled = pickle.loads(pickle.dumps(llm))  # noqa: S301
    for twin in (copy.deepcopy(llm), pickled, llm.model_copy(update={"seed": 1})):
        assert twin.lorauter is llm.lorauter
        assert twin.invoke("name a colour").content == whole
    assert copy.deepcopy(chain).invoke({}).content


def test_31611_content_may_be_a_list(llm):
    blocks = [{"type": "text", "text": "name a"}, {"type": "text", "text": "colour"}]
    assert llm.invoke([HumanMessage(blocks)]).content == llm.invoke("name a\ncolour").content


def test_22576_an_error_of_the_model_ends_a_stream_at_once(llm):
    def fail(*_):
        raise RuntimeError("out of order")

    llm.lorauter.engine.mixtures.model.register_forward_pre_hook(fail)
    with pytest.raises(EngineError, match="out of order"):
        list(llm.stream("hi there"))


def test_a_stream_closed_early_stops_the_model(llm):
    steps = []
    llm.lorauter.engine.mixtures.model.register_forward_hook(lambda *_: steps.append(1))
    stream = llm.stream("name a colour", max_tokens=400)
    next(stream)
    stream.close()
    taken = len(steps)
    time.sleep(0.05)
    assert len(steps) <= taken + 1
    assert not llm.lorauter.engine._scheduler._seats


def test_28372_1802_interleaved_streams_keep_their_adapters(llm):
    models = [llm.bind(adapters={name: 1.0}, max_tokens=20) for name in ("plain", "wide")]
    alone = ["".join(chunk.content for chunk in model.stream("name a colour")) for model in models]
    streams = [model.stream("name a colour") for model in models]
    texts = ["", ""]
    for pieces in zip(*streams, strict=False):
        texts = [text + piece.content for text, piece in zip(texts, pieces, strict=True)]
    assert alone[0] != alone[1]
    assert texts == [text[: len(shown)] for text, shown in zip(alone, texts, strict=True)]
    assert min(map(len, texts)) > 10


def test_2090_an_adapter_that_is_not_there_is_a_key_error(llm):
    with pytest.raises(KeyError, match="nope"):
        llm.invoke("x", adapters={"nope": 1.0})
    with pytest.raises(OptionError, match="num_beams is not supported"):
        llm.invoke("x", num_beams=2)


def test_969_687_959_temperature_0_is_greedy_and_warns_not(llm):
    cold = ChatLoRAuter(lorauter=llm.lorauter, temperature=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cold.invoke("name a colour").content == cold.invoke("name a colour").content


def test_1439_888_there_is_one_begin_of_text():
    from tokenizers.processors import TemplateProcessing

    tokenizer = pico_tokenizer("<|im_start|>" + CHATML.replace("<|im_start|>", ""))
    begin = tokenizer.convert_tokens_to_ids("<|im_start|>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", begin)]
    )
    ids = PromptRenderer(tokenizer).token_ids([Message("user", "hi")])
    assert tokenizer("hi").input_ids[0] == begin
    assert ids.count(begin) == 1
    assert ids[0] == begin


def test_625_752_a_batch_of_uneven_prompts_equals_each_alone(llm, recwarn):
    tokenizer = llm.lorauter.engine._tokenizer
    side = tokenizer.padding_side
    prompts = ["add", "name a colour like the sky on a summer's day", "add the numbers 1 and 2"]
    assert [m.content for m in llm.batch(prompts)] == [llm.invoke(text).content for text in prompts]
    assert tokenizer.padding_side == side
    assert not [str(warning.message) for warning in recwarn]
