"""LangChain messages to ours, in whichever provider's form. Knows langchain-core; nothing of routing or engines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeAlias

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, ToolMessage

from lorauter_integrations.errors import ContentError, listing
from lorauter_integrations.generation import Message, Role, ToolCall
from lorauter_integrations.tool_calls import broken_text, read_calls

Block: TypeAlias = Mapping[str, Any]

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
# Where a call keeps its arguments and its id: in the field `tool_calls`, and by its type in the content.
_FIELD = ("args", "id")
_CALLS: Mapping[str, tuple[str, str]] = {
    "tool_call": _FIELD,
    "tool_use": ("input", "id"),
    "function_call": ("arguments", "call_id"),
}
# Without text for the model, as are results of a provider's own tools: a model does not read its own earlier
# thoughts, and what those tools found is told by the text after them.
_SKIPPED = frozenset(
    {
        *_CALLS,
        *("tool_call_chunk", "invalid_tool_call", "input_json_delta", "cachePoint"),
        *("reasoning", "reasoning_content", "thinking", "redacted_thinking"),
        *("server_tool_call", "server_tool_call_chunk", "server_tool_use", "mcp_tool_use"),
        *("web_search_call", "file_search_call", "code_interpreter_call", "mcp_call", "mcp_list_tools"),
    }
)


def from_langchain(messages: Sequence[BaseMessage]) -> tuple[Message, ...]:
    """Our messages.

    The `name` of a human or AI message is not passed on, since chat templates have no place for it.

    Args:
        messages: a conversation, in the form of LangChain, OpenAI, Anthropic or Bedrock. A message with
            `tool_result` blocks becomes one for each, and one for each text between them. A failed tool's
            result begins with "Error". A call that could not be parsed stays in the content.

    Raises:
        ContentError: a role, or a content block, that a text model cannot read.
    """
    return tuple(ours for number, message in enumerate(messages, 1) for ours in _ours(message, f"message {number}"))


def _ours(message: BaseMessage, place: str) -> Sequence[Message]:
    role = _role(message, place)
    place = f"{place} ({role})"
    blocks = _blocks(message)
    if role == "assistant":
        return [_answer(message, blocks, place)]
    turns: list[Message] = []
    for are_results, group in groupby(blocks, lambda block: _kind(block) == "tool_result"):
        if are_results:
            turns += [_result(block, place) for block in group]
        elif text := _text(group, place):
            turns.append(_turn(message, role, text))
    return turns or [_turn(message, role, "")]


def _role(message: BaseMessage, place: str) -> Role:
    name = message.role if isinstance(message, ChatMessage) else message.type.removesuffix("MessageChunk")
    role = _ROLES.get(name.lower())
    if role is None:
        hint = "apply it to the graph's state first" if name == "remove" else f"the roles are {listing(_ROLES)}"
        raise ContentError(f"{place} is a {type(message).__name__} with the role {name!r}", hint=hint)
    return role


def _turn(message: BaseMessage, role: Role, text: str) -> Message:
    if isinstance(message, ToolMessage):
        text = _outcome(text, failed=message.status == "error")
        return Message(role, text, tool_call_id=message.tool_call_id, name=message.name or "")
    return Message(role, text, name=(message.name or "") if role == "tool" else "")


def _result(block: Block, place: str) -> Message:
    text = _outcome(_text(_opened(block.get("content") or ""), place), failed=bool(block.get("is_error")))
    return Message("tool", text, tool_call_id=block.get("tool_use_id", ""))


def _outcome(text: str, *, failed: bool) -> str:
    return f"Error: {text}" if failed and not text.lstrip().lower().startswith("error") else text


def _answer(message: BaseMessage, blocks: Sequence[Block], place: str) -> Message:
    calls, broken = _calls(message, blocks)
    # Providers cut one sentence into blocks, at citations; LangChain's `message.text` joins them so.
    text = _text(blocks, place, between="")
    return Message("assistant", "\n".join(part for part in (text, *broken) if part), calls)


def _calls(message: BaseMessage, blocks: Sequence[Block]) -> tuple[tuple[ToolCall, ...], list[str]]:
    """The calls of an answer, from its fields or else from its content; and the texts of broken ones."""
    valid: Sequence[Block] = message.tool_calls if isinstance(message, AIMessage) else ()
    invalid: Sequence[Block] = message.invalid_tool_calls if isinstance(message, AIMessage) else ()
    if not valid and not invalid:
        valid = [block for block in blocks if _kind(block) in _CALLS]
    invalid = invalid or [block for block in blocks if _kind(block) == "invalid_tool_call"]
    asked = []
    for call in valid:
        arguments_key, id_key = _CALLS.get(_kind(call), _FIELD)
        asked.append((call.get("name"), call.get(arguments_key), call.get(id_key) or ""))
    calls, broken = read_calls(asked)
    return calls, [*(broken_text(call.get("name"), call.get("args")) for call in invalid), *broken]


def _blocks(message: BaseMessage) -> list[Block]:
    """The content as blocks, with what OpenAI's older forms keep beside it."""
    blocks = _opened(message.content)
    beside = message.additional_kwargs
    if refusal := beside.get("refusal"):
        blocks.append({"type": "refusal", "refusal": refusal})
    if call := beside.get("function_call"):
        blocks.append({"type": "function_call", **call})
    return blocks


def _opened(content: Any) -> list[Block]:
    """Content as blocks: bare strings are text, and what is wrapped as non-standard is taken out."""
    parts = content if isinstance(content, list) else [content]
    blocks: list[Block] = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return [block.get("value") or block if block.get("type") == "non_standard" else block for block in blocks]


def _kind(block: Block) -> str:
    """A block's type; Bedrock's blocks are named by their only key."""
    return str(block.get("type") or next(iter(block), ""))


def _text(blocks: Iterable[Block], place: str, between: str = "\n") -> str:
    return between.join(text for text in (_block_text(block, place) for block in blocks) if text)


def _block_text(block: Block, place: str) -> str:
    kind = _kind(block)
    if kind in _SKIPPED or kind.endswith("_tool_result"):
        return ""
    text = _TEXTS[kind](block) if kind in _TEXTS else None
    if text is None:
        hint = "this model reads text only; send what it should know as text"
        raise ContentError(f"{place} has a content block of type {kind!r}", hint=hint)
    return str(text)


def _document(block: Block) -> str | None:
    """A document's text under its title and context, as providers show it to a model."""
    source = block.get("source") or {"type": "text", "data": block.get("text")}
    text = source.get("data") if source.get("type") == "text" else None
    return text and "\n".join(part for part in (block.get("title"), block.get("context"), text) if part)


_TEXTS: Mapping[str, Callable[[Block], Any]] = {
    **dict.fromkeys(("text", "input_text", "output_text"), lambda block: block.get("text") or ""),
    "refusal": lambda block: block.get("refusal") or "",
    "json": lambda block: json.dumps(block.get("json"), ensure_ascii=False),
    **dict.fromkeys(("text-plain", "document"), _document),
    # LangChain v0 keeps the text of a text file under `url`.
    "file": lambda block: block.get("url") if block.get("source_type") == "text" else None,
}
