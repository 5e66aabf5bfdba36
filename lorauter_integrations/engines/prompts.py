"""Conversations to the token ids a model was trained to read. Knows tokenizers, no weights.

The model's own chat template is used whenever it has one. Where it has no place for tools, a system
message, or two turns of one role, the conversation is folded into a form that it takes.

Tools are shown, and calls written, in one form for one model: the template's own where answers can be read in it,
else Hermes'. A conversation that the template refuses is folded with its calls as text of the same form.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import count, groupby
from typing import Any

from jinja2.exceptions import TemplateError

from lorauter_integrations.engines.call_forms import keeps_text, native_form
from lorauter_integrations.errors import ContentError
from lorauter_integrations.generation import Message, ToolSchema
from lorauter_integrations.tool_calls import HERMES, CallForm, call_text, result_text, system_with_tools

logger = logging.getLogger(__name__)

ENCODED = 512  # prompts whose token ids are kept

_PLAIN_NAMES = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}


class PromptRenderer:
    """Renders conversations with a tokenizer's chat template.

    Args:
        tokenizer: a transformers tokenizer; not changed.

    Attributes:
        end_of_turn: what the template writes after an assistant's answer, such as `<|im_end|>`.
        stop: strings that end an answer when there is no template to train an end.
        call_form: how calls of tools are written.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._has_template = bool(getattr(tokenizer, "chat_template", None))
        # A mapping run asks the same prompts of one adapter after the other.
        self._encoded = lru_cache(maxsize=ENCODED)(self._encode)
        if not self._has_template:
            logger.warning("the tokenizer has no chat template; plain 'User: ... Assistant:' turns are used")
        self._takes_system = self._has_template and self._shows_system()
        self.end_of_turn = self._written_after_an_answer() if self._has_template else ""
        native = native_form(tokenizer, self.end_of_turn) if self._has_template else None
        self.call_form = native or HERMES
        self._native_tools = native is not None
        self._keeps_text = self._native_tools and keeps_text(tokenizer)
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
        if all(message.role == "system" and not message.content for message in messages):
            raise ContentError("the conversation has no messages")
        messages = _matched(messages)
        if not self._has_template:
            return _plain(_folded_tools(messages, tools, self.call_form))
        native = self._is_native(messages, tools)
        shown, told = (tools, ()) if native else ((), tools)
        folded = _folded_tools(messages, told, self.call_form)
        turns = list(self._native(messages)) if native else folded
        if turns[0]["role"] == "system" and not self._takes_system:
            return self._render_folded(folded, shown)
        try:
            return self._apply(turns, shown)
        except TemplateError:
            return self._render_folded(folded, shown)

    def _is_native(self, messages: Sequence[Message], tools: Sequence[ToolSchema]) -> bool:
        """Whether the template has tools, calls or results to write; of several templates, only tools choose it."""
        several = isinstance(self._tokenizer.chat_template, dict)
        used = not several and any(message.role == "tool" or message.tool_calls for message in messages)
        return self._native_tools and bool(tools or used)

    def _render_folded(self, turns: list[dict[str, Any]], tools: Sequence[ToolSchema]) -> str:
        """For templates without a system role or with strictly alternating turns."""
        alternating = _alternating(turns)
        try:
            return self._apply(alternating, tools)
        except TemplateError as error:
            raise ContentError(
                f"the model's chat template refuses the turns {[turn['role'] for turn in alternating]}: {error}"
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

    def _native(self, messages: Sequence[Message]) -> Iterator[dict[str, Any]]:
        """Turns for a template that knows tools."""
        for message in messages:
            turn: dict[str, Any] = {"role": message.role, "content": message.content}
            if message.role == "tool":
                turn |= {"tool_call_id": message.tool_call_id, "name": message.name}
            if message.tool_calls:
                if message.content and not self._keeps_text:
                    yield turn
                    turn = {**turn, "content": ""}
                turn["tool_calls"] = [
                    {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": dict(c.arguments)}}
                    for c in message.tool_calls
                ]
            yield turn


def _matched(messages: Sequence[Message]) -> list[Message]:
    """Neighbouring results in the order of their calls, and with the tools' names.

    Most templates write nothing of a call's id. Some frameworks send it alone, and results as they came.
    """
    number = count()
    calls: dict[str, tuple[float, str]] = {}
    unknown = (math.inf, "")  # the call was trimmed away
    matched: list[Message] = []
    for are_results, group in groupby(messages, lambda message: message.role == "tool"):
        turns = list(group)
        if are_results:
            turns.sort(key=lambda turn: calls.get(turn.tool_call_id, unknown)[0])
            turns = [replace(turn, name=turn.name or calls.get(turn.tool_call_id, unknown)[1]) for turn in turns]
        calls |= {call.id: (next(number), call.name) for turn in turns for call in turn.tool_calls}
        matched += turns
    return matched


def _folded_tools(messages: Sequence[Message], tools: Sequence[ToolSchema], form: CallForm) -> list[dict[str, Any]]:
    """Turns in which tools, calls and results are text; system messages come first, as one."""
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
            calls = (form.between or "\n").join(call_text(call, form) for call in message.tool_calls)
            turns.append(
                {"role": message.role, "content": "\n".join(part for part in (message.content, calls) if part)}
            )
        was_tool = message.role == "tool"
    return turns


def _alternating(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The system message inside the first user turn, neighbours of one role as one turn, and a user turn first."""
    merged: list[dict[str, Any]] = []
    for turn in turns:
        role = "user" if turn["role"] == "system" else turn["role"]
        if merged and merged[-1]["role"] == role:
            merged[-1]["content"] += "\n\n" + turn["content"]
        else:
            merged.append({"role": role, "content": turn["content"]})
    # The end of a longer conversation, of which a framework counts the tokens, may begin with an answer.
    return merged if merged[0]["role"] == "user" else [{"role": "user", "content": ""}, *merged]


def _plain(turns: list[dict[str, Any]]) -> str:
    """For base models without a template."""
    lines = [f"{_PLAIN_NAMES[turn['role']]}: {turn['content']}" for turn in turns]
    return "\n\n".join(lines if turns[-1]["role"] == "assistant" else [*lines, "Assistant:"])
