import re
from functools import partial

import pytest

from lorauter_integrations import Message, ToolCall
from lorauter_integrations.errors import OptionError, RoutingError
from lorauter_integrations.route_text import checked_route_on, route_on_name, route_text

TALK = [
    Message("system", "Be kind."),
    Message("user", "first"),
    Message("assistant", "yes"),
    Message("user", "second"),
    Message("assistant", "no"),
]
TOOL = {"type": "function", "function": {"name": "add"}}


@pytest.mark.parametrize(
    ("route_on", "text"),
    [
        ("system_and_last_user", "Be kind.\n\nsecond"),
        ("last_user", "second"),
        ("conversation", "Be kind.\n\nsecond\n\nfirst"),
        (lambda messages: f"{len(messages)} turns", "5 turns"),
    ],
    ids=["system_and_last_user", "last_user", "conversation", "function"],
)
def test_text_is_what_route_on_says(route_on, text):
    assert route_text(TALK, route_on=route_on) == text


def test_default_is_the_system_message_and_the_last_user_message():
    assert route_text(TALK) == route_text(TALK, route_on="system_and_last_user")


@pytest.mark.parametrize("route_on", ["system_and_last_user", "conversation"])
def test_tools_are_part_of_the_text_as_the_model_reads_them(route_on):
    text = route_text(TALK, [TOOL], route_on)
    assert text.startswith("Be kind.\n\nYou may call one or more functions")
    assert '"name": "add"' in text
    assert text.index("second") > text.index('"name": "add"')


def test_last_user_message_alone_is_without_tools():
    assert route_text(TALK, [TOOL], "last_user") == "second"


@pytest.mark.parametrize("route_on", ["system_and_last_user", "last_user", "conversation"])
def test_an_agents_step_after_a_tools_result_routes_as_the_step_before(route_on):
    step = [Message("system", "Be kind."), Message("user", "add 2 and 3")]
    results = [
        *(
            Message("assistant", tool_calls=(ToolCall("add", {"a": 2, "b": 3}, "c1"),)),
            Message("tool", "5", (), "c1"),
        ),
        *(Message("assistant", "Again.", (ToolCall("add", {}, "c2"),)), Message("tool", "error", (), "c2")),
    ]
    assert route_text([*step, *results], [TOOL], route_on) == route_text(step, [TOOL], route_on)


@pytest.mark.parametrize(
    ("route_on", "message"),
    [
        ("system_and_last_user", r"turns: assistant, tool\) has no system or user text to route on"),
        ("last_user", r"turns: assistant, tool\) has no user text to route on"),
        ("conversation", r"turns: assistant, tool\) has no system or user text to route on"),
    ],
)
def test_conversation_without_text_says_which_turns_it_has(route_on, message):
    with pytest.raises(RoutingError, match=message):
        route_text([Message("assistant", "x"), Message("tool", "y")], route_on=route_on)


def chosen(messages, text=""):
    return text


@pytest.mark.parametrize("text", ["", " \n", None, 3])
def test_function_that_gives_no_text_is_named(text):
    with pytest.raises(
        RoutingError, match=r"(?s)gave .* for a conversation of 5 turns.*Hint: it must return the text"
    ):
        route_text(TALK, route_on=lambda messages: text)


def test_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(OptionError, match=r"(?s)unknown route_on 'all'.*use 'conversation', 'last_user', 'system"):
        checked_route_on("all")


def chosen_last(messages):
    return messages[-1].content


class Caller:
    def __call__(self, messages):
        return "text"

    def method(self, messages):
        return "text"


def test_a_function_is_named_by_its_place_and_its_code():
    name = route_on_name(chosen_last)
    assert re.fullmatch(rf"{__name__}:chosen_last:[0-9a-f]{{16}}", name)
    assert route_on_name(chosen_last) == name
    made = [eval(f"lambda messages: messages[{n}].content") for n in (0, 0, 1)]
    assert route_on_name(made[0]) == route_on_name(made[1]) != route_on_name(made[2])
    assert route_on_name("last_user") == "last_user"


def test_what_holds_values_is_named_by_itself():
    def inner(text):
        return lambda messages: text

    pairs = [
        (inner("x"), inner("y")),
        (partial(chosen, text="x"), partial(chosen, text="y")),
        (lambda messages, text="x": text, lambda messages, text="y": text),
        (Caller(), Caller()),
    ]
    for one, other in pairs:
        assert route_on_name(one) == route_on_name(one) != route_on_name(other)
    assert len({route_on_name(Caller().method) for _ in range(3)}) == 3  # a method is made anew each time
    assert route_on_name(partial(chosen, text="x")).startswith("functools:partial:")
