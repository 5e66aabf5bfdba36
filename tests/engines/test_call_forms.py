import logging

import pytest
from chat_templates import DEEPSEEK, LISTED, LLAMA, MISTRAL, QWEN, marked
from conftest import CHATML, pico_model, pico_tokenizer

from lorauter_integrations import GenerationRequest, Grammar, LocalEngine, Message
from lorauter_integrations.engines.call_forms import keeps_text
from lorauter_integrations.engines.prompts import PromptRenderer
from lorauter_integrations.tool_calls import HERMES, CallForm

WARNING = "the chat template's own form of tool calls cannot be read from an answer"


@pytest.mark.parametrize(
    ("template", "form"),
    [
        (QWEN, HERMES),
        (LLAMA, CallForm("", "", None, "parameters")),
        (marked("<c>", "</c>"), CallForm("<c>", "</c>", "", "arguments")),
        (marked("call: ", "", "; ", "parameters"), CallForm("call: ", "", "; ", "parameters")),
        (marked("", "", "\\n"), CallForm("", "", "\n")),
        (LISTED, CallForm("functools[", "]", None)),
    ],
    ids=["qwen", "llama", "marks", "one mark", "lines", "list"],
)
def test_a_templates_own_form_is_read_from_its_calls(caplog, template, form):
    assert PromptRenderer(pico_tokenizer(template)).call_form == form
    assert not caplog.records


@pytest.mark.parametrize(
    ("template", "special"),
    [
        (MISTRAL, ["[TOOL_CALLS]"]),
        (DEEPSEEK, []),
        (marked("<c>", "</c>"), ["<c>"]),
        (marked("<c>", "</c>"), ["</c>"]),
        (marked("<c>", "</c>", "<sep>"), ["<sep>"]),
        (marked("<c>", "</c>").replace("arguments | tojson", "arguments | tojson | tojson"), []),
        (marked("<c>", "</c>", key="args"), []),
        (marked("<c>", "</c>").replace("c.function.name", "c.function.title"), []),
        (marked("<c>", "</c>").replace("<eos>", ""), []),
        (marked("<c>", "</c>").replace("<{{ m.role }}>", "<{{ m.role }}{% if m.tool_calls %} calls{% endif %}>"), []),
    ],
    ids=[
        "mistral",
        "deepseek",
        "a special token begins a call",
        "a special token ends a call",
        "a special token between calls",
        "arguments as a text",
        "arguments of another name",
        "no names",
        "no end of turn",
        "a turn that begins otherwise",
    ],
)
def test_a_form_that_cannot_be_read_from_an_answer_gives_way_to_hermes_with_one_warning(caplog, template, special):
    tokenizer = pico_tokenizer(template)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", *special]})
    with caplog.at_level(logging.WARNING):
        assert PromptRenderer(tokenizer).call_form == HERMES
    assert [record.message.partition(";")[0] for record in caplog.records] == [WARNING]


@pytest.mark.parametrize("template", [CHATML, None, "{{ raise_exception('never') }}"])
def test_where_no_tools_are_shown_the_form_is_hermes_without_a_warning(caplog, template):
    assert PromptRenderer(pico_tokenizer(template)).call_form == HERMES
    assert WARNING not in caplog.text


def test_a_template_that_loses_the_text_beside_a_call_is_known():
    assert keeps_text(pico_tokenizer(QWEN))
    assert not keeps_text(pico_tokenizer(LLAMA))


@pytest.mark.parametrize(
    ("template", "answer"),
    [
        (CHATML, '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'),
        (QWEN, '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'),
        (LLAMA, '{"name": "now", "parameters": {}}'),
        (LISTED, 'functools[{"name": "now", "arguments": {}}]'),
    ],
    ids=["chatml", "qwen", "llama", "list"],
)
def test_an_engine_writes_calls_in_its_models_form(template, answer):
    engine = LocalEngine(pico_model(), pico_tokenizer(template))
    now = {"type": "function", "function": {"name": "now", "parameters": {}}}
    grammar = Grammar.tool_calls([now], parallel=False)
    [completion] = engine.complete([GenerationRequest([Message("user", "Now?")], tools=[now], grammar=grammar)])
    engine.close()
    assert completion.text == answer
    assert answer.startswith(engine.call_form.begin)
