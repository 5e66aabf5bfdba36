"""LlamaIndex messages to ours and back. Knows llama-index-core; nothing of routing or engines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from lorauter_integrations.errors import ContentError
from lorauter_integrations.generation import Completion, Message, Role, ToolCall
from lorauter_integrations.routing import Route

_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "chatbot": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
}


def from_llama_index(messages: Sequence[ChatMessage]) -> tuple[Message, ...]:
    """Our messages.

    Raises:
        ContentError: a content block that a text model cannot read.
    """
    return tuple(map(_from_one, messages))


def _from_one(message: ChatMessage) -> Message:
    texts, calls = [], []
    for block in message.blocks:
        if isinstance(block, TextBlock):
            texts.append(block.text)
        elif isinstance(block, ToolCallBlock):
            calls.append(ToolCall(block.tool_name, _arguments(block.tool_kwargs), block.tool_call_id or ""))
        elif not isinstance(block, ThinkingBlock | CachePoint):
            raise ContentError(f"a message has a {type(block).__name__}", hint="this model reads text only")
    call_id = str(message.additional_kwargs.get("tool_call_id") or "")
    role = _ROLES[MessageRole(message.role).value]
    return Message(role, "\n".join(text for text in texts if text), tuple(calls), call_id)


def _arguments(given: Mapping[str, Any] | str) -> Mapping[str, Any]:
    if isinstance(given, Mapping):
        return given
    try:
        parsed = json.loads(given or "{}")
    except ValueError as error:
        raise ContentError(f"a tool call has arguments that are not JSON: {given[:80]!r}") from error
    if not isinstance(parsed, dict):
        raise ContentError(f"a tool call has arguments that are not an object: {given[:80]!r}")
    return parsed


def raw(route: Route, completion: Completion, model: str) -> dict[str, Any]:
    """What goes into `raw` of a whole answer: JSON-able, with the token counts that LlamaIndex looks for."""
    counted = completion.usage
    return {
        "model": model,
        "finish_reason": completion.finish_reason,
        "usage": {
            "prompt_tokens": counted.prompt_tokens,
            "completion_tokens": counted.completion_tokens,
            "total_tokens": counted.total_tokens,
        },
        "lorauter": route.as_dict(),
        **completion.logprob_facts(),
    }


def chat_response(text: str, delta: str | None, facts: dict[str, Any] | None) -> ChatResponse:
    """A chat answer so far."""
    message = ChatMessage(role=MessageRole.ASSISTANT, content=text)
    return ChatResponse(message=message, delta=delta, raw=facts)


def completion_response(text: str, delta: str | None, facts: dict[str, Any] | None) -> CompletionResponse:
    """A completion so far."""
    return CompletionResponse(text=text, delta=delta, raw=facts)
