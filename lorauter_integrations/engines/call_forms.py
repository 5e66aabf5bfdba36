"""How a chat template writes calls of tools, found out by rendering some. Knows tokenizers, no weights."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from typing import Any

from jinja2.exceptions import TemplateError

from lorauter_integrations.tool_calls import CallForm

logger = logging.getLogger(__name__)

NAME, TEXT = "lorauter_probe", "lorauter_text"
ARGUMENTS = {"lorauter_key": "lorauter_value"}
ARGUMENT_KEYS = ("arguments", "parameters")
PARAMETERS = {"type": "object", "properties": {"lorauter_key": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": NAME, "description": "", "parameters": PARAMETERS}}
USER = {"role": "user", "content": "hello"}


def native_form(tokenizer: Any, end_of_turn: str) -> CallForm | None:
    """How the model was trained to write calls, if tools are shown to it by its template alone.

    None where the template does not show tools. None as well, with a warning, where it writes calls that are not
    JSON objects of a name and arguments, or marks them by special tokens, which an answer's text does not hold.

    Args:
        tokenizer: has a chat template.
        end_of_turn: what the template writes after an answer.
    """
    if NAME not in _rendered(tokenizer, [USER]):
        return None
    form = _form(tokenizer, end_of_turn)
    if form is None or not _is_text(tokenizer, form):
        logger.warning(
            "the chat template's own form of tool calls cannot be read from an answer; "
            "tools are shown in the system message, in Hermes' form"
        )
        return None
    return form


def keeps_text(tokenizer: Any) -> bool:
    """Whether the template writes the text of a turn that has calls too."""
    return TEXT in _rendered(tokenizer, _called(1, TEXT))


def _form(tokenizer: Any, end_of_turn: str) -> CallForm | None:
    answered, found, _ = _rendered(tokenizer, [USER, {"role": "assistant", "content": TEXT}, USER]).partition(TEXT)
    if not found or not end_of_turn:
        return None
    one, two = (_answer(_rendered(tokenizer, _called(n)), answered, end_of_turn) for n in (1, 2))
    calls = _calls(one)
    if len(calls) != 1:
        return None
    first, last, key = calls[0]
    form = CallForm(one[:first], one[last:], None, key)
    return replace(form, between=_between(two, form))


def _called(calls: int, text: str = "") -> list[dict[str, Any]]:
    """A conversation with a turn of so many calls. More turns follow: some templates write the last one otherwise."""
    ids = [f"lorauter{n}" for n in range(calls)]  # nine letters and digits: some templates ask for it
    made = [{"id": one, "type": "function", "function": {"name": NAME, "arguments": ARGUMENTS}} for one in ids]
    return [
        USER,
        {"role": "assistant", "content": text, "tool_calls": made},
        *({"role": "tool", "name": NAME, "content": "done", "tool_call_id": one} for one in ids),
        {"role": "assistant", "content": "done"},
        USER,
    ]


def _rendered(tokenizer: Any, turns: list[dict[str, Any]]) -> str:
    """The conversation as text; empty if the template refuses it."""
    try:
        return str(tokenizer.apply_chat_template(turns, tools=[TOOL], tokenize=False))
    except (TemplateError, TypeError):  # some templates add the arguments to a text, and they are an object
        return ""


def _answer(conversation: str, before: str, end_of_turn: str) -> str:
    """The first answer of a conversation; empty if there is none."""
    found = conversation.startswith(before) and end_of_turn in conversation[len(before) :]
    return conversation[len(before) :].partition(end_of_turn)[0] if found else ""


def _calls(text: str) -> list[tuple[int, int, str]]:
    """Where the probe's calls begin and end, and what the key of their arguments is."""
    calls = []
    for brace in re.finditer("{", text):
        try:
            value, end = json.JSONDecoder().raw_decode(text, brace.start())
        except ValueError:
            continue
        calls += [(brace.start(), end, key) for key in ARGUMENT_KEYS if value == {"name": NAME, key: ARGUMENTS}]
    return calls


def _between(answer: str, form: CallForm) -> str | None:
    """What stands between two calls; None if they are not the one call twice."""
    calls = _calls(answer)
    if len(calls) != 2:
        return None
    (first, first_end, _), (second, second_end, _) = calls
    middle = answer[first_end:second]
    between = middle.removeprefix(form.end).removesuffix(form.begin)
    whole = (answer[:first], middle, answer[second_end:])
    return between if whole == (form.begin, form.end + between + form.begin, form.end) else None


def _is_text(tokenizer: Any, form: CallForm) -> bool:
    """Whether the marks of calls come back when an answer's tokens become text."""
    marks = form.begin + form.end + (form.between or "")
    tokens = tokenizer(marks, add_special_tokens=False).input_ids
    text = tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return bool(text.split() == marks.split())  # some tokenizers add or drop a space in front
