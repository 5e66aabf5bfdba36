"""Public bug reports about local models inside LlamaIndex, each tried on this one. The numbers are those issues'."""

import gc
import json
import socket
import threading

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, MessageRole, ToolCallBlock
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.prompts import PromptTemplate

from lorauter_integrations import GenerationRequest, Grammar
from lorauter_integrations.errors import OptionError
from lorauter_integrations.llama_index import LoRAuterLLM
from lorauter_integrations.llama_index.messages import from_llama_index

TEXT = "name a colour"
CHAT = [ChatMessage(TEXT)]


@pytest.fixture
def llm(pico_lorauter):
    return LoRAuterLLM(pico_lorauter)


def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


def test_17553_14872_agents_take_it_for_a_function_calling_model(llm):
    assert FunctionAgent(tools=[add], llm=llm).llm.metadata.is_function_calling_model


def test_4626_6746_options_of_a_call_are_honoured(llm):
    whole = llm.complete(TEXT).text
    assert llm.complete(TEXT, max_tokens=2).raw["usage"]["completion_tokens"] == 2
    assert llm.complete(TEXT, stop=[whole[2:4]]).text == whole[: whole.index(whole[2:4])]
    assert llm.complete(TEXT, temperature=1.0, seed=1).text != llm.complete(TEXT, temperature=1.0, seed=2).text


def test_13204_arguments_of_transformers_are_refused_by_name(llm):
    with pytest.raises(OptionError, match="unknown call keyword 'generate_kwargs'"):
        llm.chat(CHAT, generate_kwargs={"stopping_criteria": []})


def test_9184_special_tokens_are_never_in_the_text(llm):
    streamed = "".join(response.delta for response in llm.stream_chat(CHAT, max_tokens=40))
    assert "<|im_end|>" not in streamed
    assert "<|im_start|>" not in streamed


def test_16035_11883_the_tokenizer_and_the_name_are_the_models(llm, pico_folder):
    from lorauter_integrations import LocalEngine

    assert llm.metadata.model_name == "pico"
    engine = LocalEngine.load(str(pico_folder))
    assert engine.token_ids("hi") == llm.lorauter.engine.token_ids("hi")
    assert engine.name == pico_folder.name


def test_8755_13343_system_prompt_and_template_reach_the_model(pico_lorauter):
    llm = LoRAuterLLM(pico_lorauter, system_prompt="add the numbers")
    assert llm.metadata.is_chat_model
    asked = llm.complete(TEXT).raw["usage"]["prompt_tokens"]
    turns = [ChatMessage(role="system", content="add the numbers"), ChatMessage(TEXT)]
    request = GenerationRequest(from_llama_index(turns))
    assert asked == pico_lorauter.engine.count_tokens(request)
    assert "<|im_start|>system\nadd the numbers" in pico_lorauter.engine.render(request)
    assert llm.predict(PromptTemplate("name a {x}"), x="colour") == llm.complete(TEXT).text


def test_complete_and_its_stream_have_one_prompt_also_with_ones_own_wrapper(pico_lorauter):
    llm = LoRAuterLLM(pico_lorauter, completion_to_prompt=lambda text: f"add the numbers {text}")
    whole = llm.complete(TEXT)
    *_, last = llm.stream_complete(TEXT)
    assert (last.text, last.raw["usage"]) == (whole.text, whole.raw["usage"])
    assert (
        whole.raw["lorauter"]["tasks"] == llm.chat([ChatMessage(f"add the numbers {TEXT}")]).raw["lorauter"]["tasks"]
    )


def test_12214_19740_3952_one_call_is_one_event_with_the_true_counts(pico_lorauter):
    counter = TokenCountingHandler()
    llm = LoRAuterLLM(pico_lorauter, callback_manager=CallbackManager([counter]))
    usage = llm.chat(CHAT).raw["usage"]
    [event] = counter.llm_token_counts
    assert (event.prompt_token_count, event.completion_token_count) == (
        usage["prompt_tokens"],
        usage["completion_tokens"],
    )
    list(llm.stream_chat(CHAT))
    assert len(counter.llm_token_counts) == 2


def test_23_235_raw_is_json_and_nothing_is_kept_of_a_call(llm):
    import torch

    assert json.loads(json.dumps(llm.complete(TEXT).raw))["lorauter"]["tasks"]

    def tensors():
        gc.collect()
        return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())

    def ask(times):
        for number in range(times):
            llm.chat([ChatMessage(f"{TEXT} {number % 7}")], max_tokens=2)

    ask(21)  # what is kept of prompts, mixtures and conversations is bounded, and these are all
    before = tensors()
    ask(200)
    assert tensors() <= before + 10


def test_a_message_with_nothing_but_a_call_is_read(llm):
    call = ToolCallBlock(tool_call_id="c1", tool_name="add", tool_kwargs={"a": 1, "b": 2})
    result = ChatMessage(role=MessageRole.TOOL, content="3", additional_kwargs={"tool_call_id": "c1"})
    history = [ChatMessage("add the numbers 1 and 2"), ChatMessage(role="assistant", blocks=[call]), result]
    assert llm.chat(history).message.content


def test_13375_eight_threads_get_what_they_would_alone(llm):
    texts = [f"{TEXT} {number}" for number in range(8)]
    alone = [llm.complete(text, max_tokens=20).text for text in texts]
    found = [""] * 8

    def ask(number):
        found[number] = llm.complete(texts[number], max_tokens=20).text

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone


def test_11392_20_40406_a_local_model_asks_no_network(llm, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert llm.complete(TEXT).text


def test_265_a_schema_that_cannot_be_kept_is_refused_by_its_keyword(llm):
    odd = {"type": "object", "patternProperties": {"^a": {"type": "string"}, "^ab": {"type": "integer"}}}
    with pytest.raises(OptionError, match=r"patternProperty regexes .* are not disjoint"):
        llm.complete(TEXT, grammar=Grammar.json_schema(odd))
