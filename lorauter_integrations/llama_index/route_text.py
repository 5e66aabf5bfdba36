"""A text to route finished prompts by. Knows messages; nothing of LlamaIndex' templates, tasks or routers."""

from __future__ import annotations

from collections.abc import Sequence

from lorauter_integrations.generation import Message
from lorauter_integrations.route_text import route_text

END = 300  # characters; two ends are at most 200 tokens of code or JSON, and encoders such as MiniLM read 256


def both_ends(messages: Sequence[Message]) -> str:
    """The system messages and the last user message, of which a long text loses its middle; a `route_on`.

    A finished prompt says what to do at its beginning and at its end, and holds the context in between. An encoder
    with a limit reads the beginning alone. Nothing of a template has to be known, so users' own work alike. Tools
    are not part of it, as of no function.

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
    """The first and the last 300 characters of a longer text, else the text."""
    return text if len(text) <= 2 * END else f"{text[:END]}\n{text[-END:]}"
