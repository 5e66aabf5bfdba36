"""LlamaIndex messages to ours. Knows llama-index-core; nothing of routing or engines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from llama_index.core.base.llms.types import (
    ChatMessage,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    MessageRole,
    ToolCallBlock,
)

from lorauter_integrations.errors import ContentError
from lorauter_integrations.generation import Message, Role
from lorauter_integrations.tool_calls import broken_text, read_calls

Asked: TypeAlias = tuple[str, Any, str]  # a call's name, arguments and id, before its arguments are read

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
_TEXT_TYPES = frozenset({"application/json", "application/xml", "application/yaml"})
BROKEN = "broken_tool_calls"
"""Key of `message.additional_kwargs` under which calls stand that cannot be read: their text, name and why."""

_UNTITLED = "input_document"  # LlamaIndex' title for a document without one


def from_llama_index(messages: Sequence[ChatMessage]) -> tuple[Message, ...]:
    """Our messages.

    Args:
        messages: a conversation. Calls are read from a message's blocks, or else from OpenAI's `tool_calls` in its
            `additional_kwargs`, where a result has its `tool_call_id` or `name`. A call that cannot be parsed
            stays in the content. Thoughts and cache points are left out.

    Raises:
        ContentError: a content block that a text model cannot read.
    """
    return tuple(_ours(message, f"message {number}") for number, message in enumerate(messages, 1))


def _ours(message: ChatMessage, place: str) -> Message:
    role = _ROLES[MessageRole(message.role).value]
    text = _text(message.blocks, f"{place} ({role})")
    if role == "tool":
        facts = message.additional_kwargs
        return Message(role, text, tool_call_id=facts.get("tool_call_id") or "", name=facts.get("name") or "")
    calls, broken = read_calls(_asked(message))
    broken += [broken_text(None, call["text"]) for call in message.additional_kwargs.get(BROKEN) or ()]
    return Message(role, "\n".join(part for part in (text, *broken) if part), calls)


# ------------------------------------------------------------------ calls


def _asked(message: ChatMessage) -> Sequence[Asked]:
    blocks = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    if blocks:
        return [(block.tool_name, block.tool_kwargs, block.tool_call_id or "") for block in blocks]
    return [_beside(call) for call in message.additional_kwargs.get("tool_calls") or ()]


def _beside(call: Any) -> Asked:
    """A call in OpenAI's form, as a dictionary or as the client's object."""
    function = _part(call, "function")
    return _part(function, "name") or "", _part(function, "arguments"), _part(call, "id") or ""


def _part(thing: Any, name: str) -> Any:
    return thing.get(name) if isinstance(thing, Mapping) else getattr(thing, name, None)


# ------------------------------------------------------------------ text


def _text(blocks: Iterable[Any], place: str) -> str:
    return "\n".join(text for text in (_block_text(block, place) for block in blocks) if text)


def _block_text(block: Any, place: str) -> str:
    if isinstance(block, CitableBlock | CitationBlock):
        title = block.title if isinstance(block, CitableBlock) else ""
        return "\n".join(part for part in (title, _text(block.nested_blocks, place)) if part)
    read = _TEXTS.get(block.block_type)
    text = read(block) if read else None
    if text is None:
        hint = "this model reads text only; send what it should know as text"
        raise ContentError(f"{place} has a content block of type {block.block_type!r}", hint=hint)
    return text


def _document(block: DocumentBlock) -> str | None:
    """A document's text under its title; None of one that is no text, or that is not in the block itself."""
    kind = block.document_mimetype or "text/plain"
    if not block.data or not (kind.startswith("text/") or kind in _TEXT_TYPES):
        return None
    try:
        text = block.resolve_document().read().decode()
    except UnicodeDecodeError:
        return None
    return text if block.title in (None, _UNTITLED) else f"{block.title}\n{text}"


_TEXTS: Mapping[str, Callable[[Any], str | None]] = {
    "text": lambda block: block.text,
    "document": _document,
    # A model does not read its own earlier thoughts, and calls are no text.
    **dict.fromkeys(("thinking", "tool_call", "cache"), lambda _: ""),
}
