"""What one call of `ChatLoRAuter` asks for, in our terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig

from lorauter_integrations import asking
from lorauter_integrations.asking import Call, understood
from lorauter_integrations.choice import refuse_unknown
from lorauter_integrations.langchain.conversation import from_langchain
from lorauter_integrations.langchain.tools import asked_form
from lorauter_integrations.lorauter import LoRAuter

CONFIGURABLE = ("adapters", "task")
# LangChain itself hands `stream` on, having read it.
CALL_NAMES = (*asking.CALL_NAMES, "strict", "stream")


def understand(
    lorauter: LoRAuter, own: Mapping[str, Any], messages: Sequence[BaseMessage], keywords: Mapping[str, Any]
) -> Call:
    """What a call asks for: its keywords win over the fields of the model object, those over the settings.

    Args:
        lorauter: knows the settings and the pool.
        own: the model object's fields; None = not set.
        messages: LangChain's.
        keywords: the call's own.

    Raises:
        OptionError: a keyword that is not known or out of range, or two that exclude each other.
        UnknownAdapterError: `model` is neither the base model nor an adapter.
        ContentError: a message holds what the model cannot read.
    """
    refuse_unknown(keywords, CALL_NAMES, "call keyword")
    form = asked_form(
        keywords.get("tools") or (),
        keywords.get("tool_choice"),
        keywords.get("response_format"),
        parallel=keywords.get("parallel_tool_calls"),
        strict=keywords.get("strict"),
    )

    def beginning(count: int) -> list[BaseMessage]:
        ends = range(len(messages) + 1)  # one message of theirs may be several of ours
        return list(messages[: next(end for end in ends if len(from_langchain(messages[:end])) >= count)])

    return understood(lorauter, own, keywords, form, from_langchain(messages), beginning)


def with_choice(config: RunnableConfig, keywords: dict[str, Any]) -> dict[str, Any]:
    """The call keywords, with the adapters or the task that the config chooses where they choose nothing."""
    if any(keywords.get(name) is not None for name in (*CONFIGURABLE, "model")):
        return keywords
    configurable: Mapping[str, Any] = config.get("configurable") or {}
    return {**{name: configurable[name] for name in CONFIGURABLE if name in configurable}, **keywords}
