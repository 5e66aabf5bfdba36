"""A text to route finished prompts by. Knows messages; nothing of LlamaIndex' templates, tasks or routers."""

from __future__ import annotations

from collections.abc import Sequence

from lorauter_integrations.generation import Message
from lorauter_integrations.route_text import route_text

BEGINNING, END = 700, 250  # characters; together about as much as an encoder of 256 tokens reads


def both_ends(messages: Sequence[Message]) -> str:
    """The system messages and the last user message, without the middle of a long text; a `route_on`.

    A finished prompt says what to do at its beginning and at its end, and holds its context in between. An encoder
    with a limit reads the beginning alone. Nothing of a template has to be known, so one's own work alike. Tools
    are not part of the text, as with any function.

    Args:
        messages: the conversation.

    Raises:
        RoutingError: there is no such text.

    Example:
        ```python
        llm = LoRAuterLLM.from_config("lorauter.toml", route_on=both_ends)
        ```
    """
    return ends(route_text(messages))


def ends(text: str) -> str:
    """The first 700 and the last 250 characters of a longer text, else the text."""
    return text if len(text) <= BEGINNING + END else f"{text[:BEGINNING]}\n{text[-END:]}"
