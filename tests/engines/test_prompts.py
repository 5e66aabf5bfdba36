import logging

import pytest
from chat_templates import LLAMA, MISTRAL, QWEN
from conftest import CHATML, pico_tokenizer

from lorauter_integrations.engines.prompts import PromptRenderer
from lorauter_integrations.errors import ContentError
from lorauter_integrations.generation import Message, ToolCall

WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "description": "Weather.", "parameters": {}},
}
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML
)
STRICT = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
)
NATIVE = (
    "{% if tools %}TOOLS:{% for t in tools %}{{ t.function.name }};{% endfor %}{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% for c in m.tool_calls or [] %}"
    """CALL {"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}{% endfor %}"""
    "{% if m.role == 'tool' %} OF {{ m.name }}{% endif %}"
    "<eot>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
CALLED = [
    Message("system", "Be kind."),
    Message("user", "Weather in Oslo?"),
    Message("assistant", "", (ToolCall("get_weather", {"city": "Oslo"}, "c1"),)),
    Message("tool", "snow", tool_call_id="c1"),
]


def rendered(template, messages, tools=()):
    return PromptRenderer(pico_tokenizer(template)).render(messages, tools)


def test_the_models_own_template_is_used():
    text = rendered(CHATML, [Message("system", "Be kind."), Message("user", "Hi")])
    assert text == ("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_a_template_without_a_system_role_gets_it_in_the_first_user_turn():
    text = rendered(NO_SYSTEM, [Message("system", "Be kind."), Message("user", "Hi")])
    assert text.startswith("<|im_start|>user\nBe kind.\n\nHi<|im_end|>")


def test_a_template_that_alternates_gets_neighbours_merged():
    turns = [
        Message("user", "a"),
        Message("user", "b"),
        Message("assistant", "c"),
        Message("assistant", "d"),
        Message("user", "e"),
    ]
    assert rendered(STRICT, turns) == "[user]a\n\nb[assistant]c\n\nd[user]e"


def test_a_template_that_refuses_everything_is_one_clear_error():
    with pytest.raises(ContentError, match=r"refuses the turns \['user'\]: never"):
        rendered("{{ raise_exception('never') }}", [Message("user", "Hi")])


def test_no_template_gives_plain_turns_and_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        text = rendered(None, [Message("system", "Be kind."), Message("user", "Hi")])
    assert text == "System: Be kind.\n\nUser: Hi\n\nAssistant:"
    assert "no chat template" in caplog.text


def test_an_empty_conversation_is_refused():
    with pytest.raises(ContentError, match="no messages"):
        rendered(CHATML, [])


def test_tools_go_into_the_system_message_when_the_template_has_no_place_for_them():
    text = rendered(CHATML, CALLED, [WEATHER])
    assert "system\nBe kind.\n\nYou may call one or more functions" in text
    assert '{"type": "function", "function": {"name": "get_weather"' in text
    assert 'assistant\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>' in text
    assert "user\n<tool_response>\nsnow\n</tool_response>" in text


def test_results_of_parallel_calls_share_one_turn():
    turns = [*CALLED, Message("tool", "rain", tool_call_id="c2")]
    text = rendered(CHATML, turns)
    assert "user\n<tool_response>\nsnow\n</tool_response>\n<tool_response>\nrain\n</tool_response><|im_end|>" in text


def test_a_template_that_knows_tools_gets_them_itself_with_the_tools_name_filled_in():
    text = rendered(NATIVE, CALLED, [WEATHER])
    assert text == (
        "TOOLS:get_weather;<system>Be kind.<eot><user>Weather in Oslo?<eot>"
        '<assistant>CALL {"name": "get_weather", "arguments": {"city": "Oslo"}}<eot>'
        "<tool>snow OF get_weather<eot><assistant>"
    )


def test_an_answer_already_begun_is_continued():
    text = rendered(CHATML, [Message("user", "Count."), Message("assistant", "One, two,")])
    assert text.endswith("<|im_start|>assistant\nOne, two,")


def test_there_is_one_begin_of_text_token():
    tokenizer = pico_tokenizer("<|im_start|>" + CHATML)
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 257)]
    )
    assert tokenizer("x").input_ids[0] == 257
    ids = PromptRenderer(tokenizer).token_ids([Message("user", "Hi")])
    assert ids[:3].count(257) == 2  # the template's own, and the user turn's
    tokenizer.chat_template = None
    plain = PromptRenderer(tokenizer).token_ids([Message("user", "Hi")])
    assert plain[0] == 257
    assert plain.count(257) == 1


def test_the_users_tokenizer_is_left_as_it_was():
    tokenizer = pico_tokenizer()
    before = (tokenizer.padding_side, tokenizer.pad_token, tokenizer.chat_template)
    PromptRenderer(tokenizer).token_ids(CALLED, [WEATHER])
    assert (tokenizer.padding_side, tokenizer.pad_token, tokenizer.chat_template) == before


def test_a_template_that_leaves_the_system_message_out_gets_it_in_the_first_user_turn():
    silent = (
        "{% for m in messages %}{% if m.role in ('user', 'assistant') %}"
        "[{{ m.role }}]{{ m.content }}{% endif %}{% endfor %}"
    )
    text = rendered(silent, [Message("system", "Be kind."), Message("user", "Hi")])
    assert text == "[user]Be kind.\n\nHi"


def test_the_end_of_a_turn_is_what_the_template_writes():
    assert PromptRenderer(pico_tokenizer()).end_of_turn == "<|im_end|>"
    other = "{% for m in messages %}<{{ m.role }}>{{ m.content }}<eot>\n{% endfor %}"
    assert PromptRenderer(pico_tokenizer(other)).end_of_turn == "<eot>"


def test_a_model_without_a_template_stops_before_it_writes_the_users_turn():
    assert "\n\nUser:" in PromptRenderer(pico_tokenizer(None)).stop
    assert PromptRenderer(pico_tokenizer()).stop == ()


def test_a_prompt_that_comes_again_is_not_encoded_again(monkeypatch):
    tokenizer = pico_tokenizer()
    renderer = PromptRenderer(tokenizer)
    messages = [Message("user", "the same for every adapter")]
    first = renderer.token_ids(messages)
    first_copy = list(first)
    first.clear()  # a caller's list is the caller's

    class Never:
        def __getattr__(self, name):
            return getattr(tokenizer, name)

        def __call__(self, *_, **__):
            raise AssertionError("encoded again")

    monkeypatch.setattr(renderer, "_tokenizer", Never())
    assert renderer.token_ids(messages) == first_copy


def weather(city, call_id):
    return ToolCall("get_weather", {"city": city}, call_id)


def call(city):
    return '<tool_call>\n{"name": "get_weather", "arguments": {"city": "' + city + '"}}\n</tool_call>'


ASKED = Message("user", "Oslo and Rome?")
BOTH = Message("assistant", "", (weather("Oslo", "c1"), weather("Rome", "c2")))
SNOW, SUN = Message("tool", "snow", tool_call_id="c1"), Message("tool", "sun", tool_call_id="c2")
RESULTS = "user\n<tool_response>\nsnow\n</tool_response>\n<tool_response>\nsun\n</tool_response><|im_end|>"


@pytest.mark.parametrize("template", [CHATML, QWEN])
@pytest.mark.parametrize("results", [[SNOW, SUN], [SUN, SNOW]])
def test_results_are_read_in_the_order_of_their_calls_however_they_come(template, results):
    text = rendered(template, [ASKED, BOTH, *results], [WEATHER])
    assert f"{call('Oslo')}\n{call('Rome')}<|im_end|>" in text
    assert text.endswith(f"{RESULTS}\n<|im_start|>assistant\n")


def test_results_keep_their_order_where_their_calls_have_one_id_or_none():
    nameless = Message("assistant", "", (weather("Oslo", ""), weather("Rome", "")))
    turns = [ASKED, nameless, Message("tool", "snow"), Message("tool", "sun")]
    assert RESULTS in rendered(CHATML, turns)
    assert RESULTS in rendered(QWEN, turns)


@pytest.mark.parametrize("template", [CHATML, QWEN])
def test_results_whose_calls_were_trimmed_away_are_shown(template):
    text = rendered(template, [SUN, SNOW, Message("user", "So?")], [WEATHER])
    assert "<tool_response>\nsun\n</tool_response>\n<tool_response>\nsnow\n</tool_response><|im_end|>" in text
    assert text.endswith("<|im_start|>user\nSo?<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize("template", [CHATML, QWEN])
def test_a_users_turn_may_come_between_call_and_result(template):
    text = rendered(template, [ASKED, BOTH, Message("user", "Hurry!"), SUN, SNOW], [WEATHER])
    assert text.endswith(
        f"{call('Rome')}<|im_end|>\n<|im_start|>user\nHurry!<|im_end|>\n<|im_start|>{RESULTS}\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("template", [CHATML, QWEN])
def test_text_stands_before_the_calls_of_its_turn(template):
    text = rendered(
        template, [ASKED, Message("assistant", "Let me see.", BOTH.tool_calls), SNOW, SUN, ASKED], [WEATHER]
    )
    assert f"assistant\nLet me see.\n{call('Oslo')}\n{call('Rome')}<|im_end|>" in text


def test_where_the_template_loses_the_text_beside_a_call_it_gets_a_turn_of_its_own():
    said = Message("assistant", "Let me see.", (weather("Oslo", "c1"),))
    assert rendered(LLAMA, [ASKED, said, SNOW], [WEATHER]) == (
        "[user]Functions: get_weather. Oslo and Rome?<eot>[assistant]Let me see.<eot>"
        '[assistant]{"name": "get_weather", "parameters": {"city": "Oslo"}}<eot>[ipython]"snow"<eot>[assistant]'
    )


def test_calls_that_the_template_refuses_are_folded_in_its_own_form_and_its_tools_stay():
    assert rendered(LLAMA, [ASKED, BOTH, SUN, SNOW], [WEATHER]) == (
        "[user]Functions: get_weather. Oslo and Rome?<eot>"
        '[assistant]{"name": "get_weather", "parameters": {"city": "Oslo"}}\n'
        '{"name": "get_weather", "parameters": {"city": "Rome"}}<eot>'
        "[user]<tool_response>\nsnow\n</tool_response>\n<tool_response>\nsun\n</tool_response><eot>[assistant]"
    )


def test_the_system_message_is_folded_and_the_templates_tools_stay():
    silent = NATIVE.replace(
        "<{{ m.role }}>", "{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}<{{ m.role }}>"
    )
    assert rendered(silent, CALLED, [WEATHER]) == (
        "TOOLS:get_weather;<user>Be kind.\n\nWeather in Oslo?<eot>"
        '<assistant>CALL {"name": "get_weather", "arguments": {"city": "Oslo"}}<eot>'
        "<user><tool_response>\nsnow\n</tool_response><eot><assistant>"
    )


def test_a_result_has_the_name_of_the_latest_call_of_its_id():
    other = Message("assistant", "", (ToolCall("get_time", {}, "c1"),))
    text = rendered(NATIVE, [*CALLED, other, Message("tool", "noon", tool_call_id="c1")])
    assert "snow OF get_weather" in text
    assert "noon OF get_time" in text


def test_of_several_templates_the_one_for_tools_is_used_with_tools_and_calls_are_never_lost():
    templates = {"default": CHATML, "tool_use": QWEN}
    assert '<tools>\n{"type": "function"' in rendered(templates, CALLED, [WEATHER])
    text = rendered(templates, CALLED)
    assert "<tools>" not in text
    assert call("Oslo") in text
    assert "<|im_start|>user\n<tool_response>\nsnow\n</tool_response>" in text


@pytest.mark.parametrize(
    ("turns", "text"),
    [
        ([Message("assistant", "Hi!")], "[user][assistant]Hi!"),
        ([Message("assistant", "Hi!"), Message("user", "Ho!")], "[user][assistant]Hi![user]Ho!"),
        ([Message("system", "Be kind."), Message("assistant", "Hi!")], "[user]Be kind.[assistant]Hi!"),
        (
            [SNOW, Message("assistant", "It snows.")],
            "[user]<tool_response>\nsnow\n</tool_response>[assistant]It snows.",
        ),
    ],
)
def test_the_end_of_a_conversation_can_be_counted_where_the_template_wants_a_user_first(turns, text):
    assert rendered(STRICT, turns) == text
    assert PromptRenderer(pico_tokenizer(STRICT)).token_ids(turns) == pico_tokenizer()(text).input_ids


def test_every_end_of_a_conversation_with_tools_can_be_counted():
    turns = [*CALLED, Message("assistant", "It snows."), ASKED, BOTH, SUN, SNOW]
    for template in (MISTRAL, LLAMA, QWEN, CHATML, STRICT, NATIVE, NO_SYSTEM, None):
        renderer = PromptRenderer(pico_tokenizer(template))
        for start in range(len(turns)):
            for end in range(start + 1, len(turns) + 1):
                assert renderer.token_ids(turns[start:end], [WEATHER])


def test_a_system_message_that_says_nothing_is_no_conversation():
    with pytest.raises(ContentError, match="no messages"):
        rendered(CHATML, [Message("system", "")])
