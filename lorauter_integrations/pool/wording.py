"""Values of other people's files in messages. Knows nothing of adapters."""

from __future__ import annotations

from typing import Any

_LENGTH = 120


def shown(value: Any) -> str:
    """A value as Python writes it: on one line, without control characters, and cut where it is long."""
    text = repr(value)
    return text if len(text) <= _LENGTH else f"{text[: _LENGTH - 3]}..."
