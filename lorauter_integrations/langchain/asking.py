"""What one call of `ChatLoRAuter` asks for: fields and call keywords as a conversation, options, choice and form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import wraps
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig

from lorauter_integrations.answer_form import Form
from lorauter_integrations.errors import OptionError
from lorauter_integrations.generation import GenerationOptions, Grammar, Message
from lorauter_integrations.langchain.conversation import from_langchain
from lorauter_integrations.langchain.tools import asked_form
from lorauter_integrations.lorauter import CHOICE_NAMES, OPTION_NAMES, Choice, LoRAuter, refuse_unknown
from lorauter_integrations.route_text import route_on_name

CONFIGURABLE = ("adapters", "task")
FORM_NAMES = ("tools", "tool_choice", "parallel_tool_calls", "strict", "response_format")
# LangChain itself hands `stream` on, having read it.
OWN_NAMES = (*OPTION_NAMES, *CHOICE_NAMES, "model")
CALL_NAMES = (*OWN_NAMES, *FORM_NAMES, "grammar", "stream")


@dataclass(frozen=True, slots=True)
class Call:
    """One call, understood.

    Attributes:
        messages: the conversation.
        options: how to choose tokens.
        choice: adapters or a task instead of routing, or what routes.
        form: tools and grammar.
        model: the name that the answer's metadata shows.
    """

    messages: Sequence[Message]
    options: GenerationOptions
    choice: Choice
    form: Form
    model: str


def understand(
    lorauter: LoRAuter, own: Mapping[str, Any], messages: Sequence[BaseMessage], keywords: Mapping[str, Any]
) -> Call:
    """What a call asks for: its keywords win over the fields of the model object, those over the settings.

    Args:
        lorauter: knows the settings and the pool.
        own: the model object's fields of `CALL_NAMES`; None = not set.
        messages: LangChain's.
        keywords: the call's own.

    Raises:
        OptionError: a keyword that is not known or out of range, or two that exclude each other.
        UnknownAdapterError: `model` is neither the base model nor an adapter.
        ContentError: a message holds what the model cannot read.
    """
    refuse_unknown(keywords, CALL_NAMES, "call keyword")
    form = _form(keywords)
    grammar = keywords.get("grammar") or form.grammar
    if grammar is not None and not isinstance(grammar, Grammar):
        raise OptionError(f"grammar={grammar!r} is none", hint="make one by Grammar.json_schema or Grammar.lark")
    if keywords.get("grammar") and form.grammar:
        raise OptionError(
            "a grammar excludes tools and response_format, which make one of their own",
            hint="leave one of them out of this call",
        )
    options, choice = lorauter.asked(own, {**keywords, "grammar": grammar})
    if callable(choice.route_on):
        choice = replace(choice, route_on=_of_theirs(choice.route_on, messages))
    model = keywords.get("model") or own.get("model") or lorauter.engine.name
    return Call(from_langchain(messages), options, choice, replace(form, grammar=grammar), model)


def with_choice(config: RunnableConfig, keywords: dict[str, Any]) -> dict[str, Any]:
    """The call keywords, with the adapters or the task that the config chooses where they choose nothing."""
    if any(keywords.get(name) is not None for name in (*CONFIGURABLE, "model")):
        return keywords
    configurable: Mapping[str, Any] = config.get("configurable") or {}
    return {**{name: configurable[name] for name in CONFIGURABLE if name in configurable}, **keywords}


def named(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The call keywords as traces and keys of caches hold them: a function by its name, a grammar by its parts."""
    told = dict(keywords)
    if told.get("route_on") is not None:
        told["route_on"] = route_on_name(told["route_on"])
    if isinstance(told.get("grammar"), Grammar):
        told["grammar"] = asdict(told["grammar"])
    return told


def _of_theirs(route_on: Callable[[Any], str], messages: Sequence[BaseMessage]) -> Callable[[Sequence[Message]], str]:
    """A function of LangChain's messages as one of ours, of which it is given a conversation's beginning."""

    @wraps(route_on)
    def of_ours(ours: Sequence[Message]) -> str:
        ends = range(len(messages) + 1)  # one message of theirs may be several of ours
        end = next(end for end in ends if len(from_langchain(messages[:end])) >= len(ours))
        return route_on(list(messages[:end]))

    return of_ours


def _form(keywords: Mapping[str, Any]) -> Form:
    return asked_form(
        keywords.get("tools") or (),
        keywords.get("tool_choice"),
        keywords.get("response_format"),
        parallel=keywords.get("parallel_tool_calls"),
        strict=keywords.get("strict"),
    )
