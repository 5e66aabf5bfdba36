"""What one call of `ChatLoRAuter` asks for: fields and call keywords as a conversation, options, choice and form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from langchain_core.messages import BaseMessage

from lorauter_integrations.errors import OptionError, UnknownAdapterError, listing
from lorauter_integrations.generation import GenerationOptions, Message
from lorauter_integrations.langchain.conversation import from_langchain
from lorauter_integrations.langchain.tools import Form, form_of
from lorauter_integrations.lorauter import CHOICE_NAMES, OPTION_NAMES, Choice, LoRAuter, refuse_unknown
from lorauter_integrations.route_text import route_text

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
    named = keywords.get("model")
    given = own if named is None else {**own, "model": None}
    form = _form(keywords)
    grammar = keywords.get("grammar") or form.grammar
    if keywords.get("grammar") and form.grammar:
        raise OptionError(
            "a grammar excludes tools and response_format, which make one of their own",
            hint="leave one of them out of this call",
        )
    given, keywords = _adapters(lorauter, given), {**_adapters(lorauter, keywords), "grammar": grammar}
    options, choice = lorauter.asked(given, keywords)
    if callable(choice.route_on):  # of LangChain's messages, not of ours
        text = route_text(cast("Any", list(messages)), route_on=choice.route_on)
        choice = replace(choice, text=text, route_on=None)
    model = named or given.get("model") or lorauter.engine.name
    return Call(from_langchain(messages), options, choice, replace(form, grammar=grammar), model)


def _form(keywords: Mapping[str, Any]) -> Form:
    return form_of(
        keywords.get("tools") or (),
        keywords.get("tool_choice"),
        keywords.get("response_format"),
        parallel=keywords.get("parallel_tool_calls"),
        strict=keywords.get("strict"),
    )


def _adapters(lorauter: LoRAuter, source: Mapping[str, Any]) -> dict[str, Any]:
    """The same with an adapter that is named as the `model` among the adapters, as servers of adapters have it.

    Raises:
        OptionError: `model` names an adapter, and adapters or a task are given as well.
        UnknownAdapterError: `model` is neither the base model nor an adapter.
    """
    source = dict(source)
    name = source.get("model")
    if name is None or name in lorauter.model_names:
        return source
    if name not in lorauter.engine.adapters:
        raise UnknownAdapterError(
            f"there is no model {name!r}: the base model is {lorauter.engine.name!r}, and no adapter has this name",
            hint=f"the pool has {listing(lorauter.engine.adapters)}; leave `model` out to route",
        )
    if source.get("adapters") is not None or source.get("task") is not None:
        raise OptionError(
            f"model={name!r} names an adapter, and adapters or task are given as well", hint="give one of them"
        )
    return {**source, "adapters": {name: 1.0}}
