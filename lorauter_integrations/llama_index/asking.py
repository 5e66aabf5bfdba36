"""What one call of `LoRAuterLLM` asks for, in our terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, MessageRole
from pydantic import BaseModel

from lorauter_integrations.answer_form import form_of, unwrapped
from lorauter_integrations.asking import CALL_NAMES, Call, understood
from lorauter_integrations.choice import refuse_unknown
from lorauter_integrations.errors import OptionError
from lorauter_integrations.llama_index.messages import from_llama_index
from lorauter_integrations.lorauter import LoRAuter


def understand(
    lorauter: LoRAuter, own: Mapping[str, Any], messages: Sequence[ChatMessage], keywords: Mapping[str, Any]
) -> Call:
    """What a call asks for: its keywords win over the fields of the model object, those over the settings.

    Args:
        lorauter: knows the settings and the pool.
        own: the model object's fields; None = not set.
        messages: LlamaIndex'.
        keywords: the call's own; `tools` in OpenAI's form, `response_format` a pydantic class, a JSON schema or
            OpenAI's dictionary.

    Raises:
        OptionError: a keyword that is not known or out of range, or two that exclude each other.
        UnknownAdapterError: `model` is neither the base model nor an adapter.
        ContentError: a message holds what the model cannot read.
    """
    refuse_unknown(keywords, CALL_NAMES, "call keyword")
    form = form_of(
        keywords.get("tools") or (),
        keywords.get("tool_choice"),
        _schema(keywords.get("response_format")),
        parallel=keywords.get("parallel_tool_calls") is not False,
    )
    ours = from_llama_index(messages)
    return understood(lorauter, own, keywords, form, ours, lambda count: list(messages[:count]))


def conversation(user: str | ChatMessage | None, history: Sequence[ChatMessage] | None) -> list[ChatMessage]:
    """The turns so far, and what the user says now."""
    turns = list(history or ())
    if user is not None:
        turns.append(ChatMessage(role=MessageRole.USER, content=user) if isinstance(user, str) else user)
    return turns


def _schema(given: Any) -> Mapping[str, Any] | None:
    schema = unwrapped(given)
    if isinstance(schema, Mapping):
        return schema.get("schema", schema) if "type" not in schema else schema
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return schema.model_json_schema()
    if schema is None:
        return None
    raise OptionError(f"response_format={given!r} is no schema", hint="give a pydantic class or a JSON schema")
