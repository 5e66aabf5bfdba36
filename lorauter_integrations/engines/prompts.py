"""Conversations to the token ids a model was trained to read. Knows tokenizers, no weights.

The model's own chat template is used whenever it has one. Where it has no place for tools, a system
message, or two turns of one role, the conversation is folded into a form that it takes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from jinja2.exceptions import TemplateError

from lorauter_integrations.errors import ContentError
from lorauter_integrations.generation import Message, ToolSchema
from lorauter_integrations.tool_calls import call_text, result_text, system_with_tools

logger = logging.getLogger(__name__)

ENCODED = 512  # prompts whose token ids are kept

_PROBE_TOOL = {
    "type": "function",
    "function": {
        "name": "lorauter_probe",
        "description": "",
        "parameters": {"type": "object", "properties": {}},
    },
}
_PLAIN_NAMES = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}


class PromptRenderer:
    """Renders conversations with a tokenizer's chat template.

    Args:
        tokenizer: a transformers tokenizer; not changed.

    Attributes:
        end_of_turn: what the template writes after an assistant's answer, such as `<|im_end|>`.
        stop: strings that end an answer when there is no template to train an end.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._has_template = bool(getattr(tokenizer, "chat_template", None))
        # A mapping run asks the same prompts of one adapter after the other.
        self._encoded = lru_cache(maxsize=ENCODED)(self._encode)
        if not self._has_template:
            logger.warning("the tokenizer has no chat template; plain 'User: ... Assistant:' turns are used")
        self._native_tools = self._has_template and self._shows_tools()
        self._takes_system = self._has_template and self._shows_system()
        self.end_of_turn = self._written_after_an_answer() if self._has_template else ""
        self.stop = () if self._has_template else tuple(f"\n\n{name}:" for name in _PLAIN_NAMES.values())

    @property
    def identity(self) -> str:
        """The template's text: part of what decides an answer."""
        return str(getattr(self._tokenizer, "chat_template", None) or "plain")

    def token_ids(self, messages: Sequence[Message], tools: Sequence[ToolSchema] = ()) -> list[int]:
        """Ids of the whole prompt, ready for the assistant's answer.

        Raises:
            ContentError: no messages, or a conversation the template refuses in every form.
        """
        return list(self._encoded(self.render(messages, tools)))

    def _encode(self, text: str) -> tuple[int, ...]:
        # A template writes its own begin-of-text token; adding special tokens again would double it.
        return tuple(self._tokenizer(text, add_special_tokens=not self._has_template).input_ids)

    def render(self, messages: Sequence[Message], tools: Sequence[ToolSchema] = ()) -> str:
        """The prompt as text. Raises as `token_ids`."""
        if not messages:
            raise ContentError("the conversation has no messages")
        if not self._has_template:
            return _plain(_folded_tools(messages, tools))
        native = self._native_tools and (tools or any(m.role == "tool" or m.tool_calls for m in messages))
        turns = [_native(m, messages) for m in messages] if native else _folded_tools(messages, tools)
        if turns[0]["role"] == "system" and not self._takes_system:
            return self._render_folded(messages, tools)
        try:
            return self._apply(turns, tools if native else ())
        except TemplateError:
            return self._render_folded(messages, tools)

    def _render_folded(self, messages: Sequence[Message], tools: Sequence[ToolSchema]) -> str:
        """For templates without a system role or with strictly alternating turns."""
        try:
            return self._apply(_alternating(_folded_tools(messages, tools)), ())
        except TemplateError as error:
            roles = [message.role for message in messages]
            raise ContentError(
                f"the model's chat template refuses the turns {roles}: {error}",
                hint="start with a user message",
            ) from error

    def _apply(self, turns: list[dict[str, Any]], tools: Sequence[ToolSchema]) -> str:
        prefill = turns[-1]["role"] == "assistant" and not turns[-1].get("tool_calls")
        return str(
            self._tokenizer.apply_chat_template(
                turns,
                tools=list(tools) or None,
                tokenize=False,
                add_generation_prompt=not prefill,
                continue_final_message=prefill,
            )
        )

    def _shows_system(self) -> bool:
        """Whether the template writes a system message; some refuse it, some leave it out in silence."""
        turns = [{"role": "system", "content": "lorauter_probe"}, {"role": "user", "content": "hello"}]
        try:
            return "lorauter_probe" in self._tokenizer.apply_chat_template(turns, tokenize=False)
        except TemplateError:
            return False

    def _written_after_an_answer(self) -> str:
        turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "lorauter_probe"}]
        try:
            text = self._tokenizer.apply_chat_template(turns, tokenize=False)
        except TemplateError:
            return ""
        return str(text).rpartition("lorauter_probe")[2].strip()

    def _shows_tools(self) -> bool:
        """Whether the template does anything with tools: they are rendered and looked for."""
        turns = [{"role": "user", "content": "hello"}]
        try:
            text = self._tokenizer.apply_chat_template(turns, tools=[_PROBE_TOOL], tokenize=False)
        except TemplateError:
            return False
        return "lorauter_probe" in text


def _native(message: Message, conversation: Sequence[Message]) -> dict[str, Any]:
    """A turn for templates that know tools."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        turn["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": dict(c.arguments)}}
            for c in message.tool_calls
        ]
    if message.role == "tool":
        turn["tool_call_id"] = message.tool_call_id
        turn["name"] = message.name or _called(message.tool_call_id, conversation)
    return turn


def _called(call_id: str, conversation: Sequence[Message]) -> str:
    """The tool's name of an earlier call; some frameworks send its id alone with the result."""
    return next((c.name for m in conversation for c in m.tool_calls if c.id == call_id), "")


def _folded_tools(messages: Sequence[Message], tools: Sequence[ToolSchema]) -> list[dict[str, Any]]:
    """Turns in which tools, calls and results are text (Hermes' form); system messages come first, as one."""
    system = "\n\n".join(m.content for m in messages if m.role == "system" and m.content)
    system = system_with_tools(system, tools)
    turns = [{"role": "system", "content": system}] if system else []
    was_tool = False
    for message in messages:
        if message.role == "system":
            continue
        if message.role == "tool":
            text = result_text(message.content)
            if was_tool:  # results of parallel calls share one turn
                turns[-1]["content"] += "\n" + text
            else:
                turns.append({"role": "user", "content": text})
        else:
            parts = [message.content, *map(call_text, message.tool_calls)]
            turns.append({"role": message.role, "content": "\n".join(part for part in parts if part)})
        was_tool = message.role == "tool"
    return turns


def _alternating(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The system message inside the first user turn, and neighbours of one role as one turn."""
    merged: list[dict[str, Any]] = []
    for turn in turns:
        role = "user" if turn["role"] == "system" else turn["role"]
        if merged and merged[-1]["role"] == role:
            merged[-1]["content"] += "\n\n" + turn["content"]
        else:
            merged.append({"role": role, "content": turn["content"]})
    return merged


def _plain(turns: list[dict[str, Any]]) -> str:
    """For base models without a template."""
    lines = [f"{_PLAIN_NAMES[turn['role']]}: {turn['content']}" for turn in turns]
    return "\n\n".join(lines if turns[-1]["role"] == "assistant" else [*lines, "Assistant:"])
