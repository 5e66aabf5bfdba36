"""LangChain messages to ours and back. Knows langchain-core; nothing of routing or engines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast
from uuid import uuid4

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ChatMessage, ToolMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import invalid_tool_call, tool_call
from langchain_core.utils.json import parse_partial_json

from lorauter_integrations.errors import ContentError
from lorauter_integrations.generation import Completion, Message, Role, ToolCall
from lorauter_integrations.routing import Route
from lorauter_integrations.tool_calls import ParsedAnswer

PROVIDER = "lorauter"

_ROLES: Mapping[str, Role] = {
    "human": "user",
    "user": "user",
    "system": "system",
    "developer": "system",
    "ai": "assistant",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
# Parts of other providers' messages that carry no text for the model: calls are read from
# `tool_calls`, and a model does not read its own earlier thoughts.
_SKIPPED = frozenset({"tool_use", "tool_call", "thinking", "redacted_thinking", "reasoning", "cachePoint"})


def from_langchain(messages: Sequence[BaseMessage]) -> tuple[Message, ...]:
    """Our messages.

    Raises:
        ContentError: a role or a content block that a text model cannot read.
    """
    return tuple(map(_from_one, messages))


def _from_one(message: BaseMessage) -> Message:
    name = message.role if isinstance(message, ChatMessage) else message.type
    if name not in _ROLES:
        raise ContentError(f"a message has the role {name!r}", hint=f"the roles are {', '.join(sorted(_ROLES))}")
    calls = message.tool_calls if isinstance(message, AIMessage) else []
    return Message(
        _ROLES[name],
        _text(message.content),
        tuple(ToolCall(call["name"], call["args"], call["id"] or "") for call in calls),
        message.tool_call_id if isinstance(message, ToolMessage) else "",
        (message.name or "") if isinstance(message, ToolMessage) else "",
    )


def _text(content: str | Sequence[str | Mapping[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part for part in map(_block_text, content) if part)


def _block_text(block: str | Mapping[str, Any]) -> str:
    if isinstance(block, str):
        return block
    kind = block.get("type")
    if kind == "text":
        return str(block.get("text", ""))
    if kind == "tool_result":
        return _text(block.get("content") or "")
    if kind in _SKIPPED:
        return ""
    raise ContentError(f"a message has a content block of type {kind!r}", hint="this model reads text only")


def metadata(route: Route, completion: Completion, model: str) -> dict[str, Any]:
    """What goes into `response_metadata` of an answer, or of its last chunk."""
    return {
        "model_name": model,
        "model_provider": PROVIDER,
        "finish_reason": completion.finish_reason,
        "lorauter": route.as_dict(),
        **completion.logprob_facts(),
    }


def usage(completion: Completion) -> UsageMetadata:
    """Token counts as LangChain names them."""
    counted = completion.usage
    counts = {"input_tokens": counted.prompt_tokens, "output_tokens": counted.completion_tokens}
    return cast("UsageMetadata", {**counts, "total_tokens": counted.total_tokens})


def last_chunk(parsed: ParsedAnswer, text: str, facts: dict[str, Any], counted: UsageMetadata) -> AIMessageChunk:
    """The chunk that ends a stream: whatever text is left, the tool calls, the metadata and the usage."""
    return AIMessageChunk(
        content=text,
        tool_calls=[tool_call(name=c.name, args=dict(c.arguments), id=_call_id()) for c in parsed.calls],
        invalid_tool_calls=[
            invalid_tool_call(name=None, args=_unreadable(b.text), id=_call_id(), error=b.reason)
            for b in parsed.broken
        ],
        response_metadata=facts,
        usage_metadata=counted,
        chunk_position="last",
    )


def _unreadable(text: str) -> str:
    """A broken call that stays broken: merging chunks repairs half-written JSON, and would make it a call."""
    try:
        repaired = parse_partial_json(text)
    except ValueError:
        return text
    return json.dumps(text) if isinstance(repaired, dict) else text


def _call_id() -> str:
    return f"call_{uuid4().hex[:24]}"
