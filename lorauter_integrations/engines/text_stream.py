"""Token ids of one answer to text, piece by piece, ending before a stop string. Knows tokenizers only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lorauter_integrations.tool_calls import begun


class TextStream:
    """The text of one row of a batch.

    Pieces never end inside a character of several tokens, and never hold the beginning of what may become
    a stop string; a stop string is found across token borders.

    Args:
        tokenizer: decodes ids; special tokens are left out.
        stop: the text ends before the first of these.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._ids: list[int] = []
        self._start = 0  # ids before it are text already, but give the next ones their context
        self._read = 0  # ids before it are text already
        self._held = ""
        self.text = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """Add one token; returns the text that is certain now (may be empty)."""
        self._ids.append(token)
        before = self._decode(self._start, self._read)
        now = self._decode(self._start, len(self._ids))
        if now.endswith("\ufffd") or len(now) <= len(before):
            return ""
        self._start, self._read = self._read, len(self._ids)
        return self._take(now[len(before) :])

    def finish(self) -> str:
        """The answer is over: returns what was held back."""
        if self.stopped:
            return ""
        rest = self._decode(self._start, len(self._ids))[len(self._decode(self._start, self._read)) :]
        piece = self._take(rest)
        held, self._held = self._held, ""
        self.text += held
        return piece + held

    def token(self, token: int) -> str:
        """The text of one token alone, special ones too."""
        return str(self._tokenizer.decode([token], clean_up_tokenization_spaces=False))

    def _decode(self, start: int, end: int) -> str:
        if start == end:
            return ""
        return str(
            self._tokenizer.decode(self._ids[start:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )

    def _take(self, piece: str) -> str:
        """Hold back what may be the start of a stop string; cut at the first whole one."""
        pending = self._held + piece
        places = [place for stop in self._stop if (place := pending.find(stop)) >= 0]
        if places:
            self.stopped = True
            self._held = ""
            certain = pending[: min(places)]
        else:
            keep = max((begun(stop, pending) for stop in self._stop), default=0)
            certain = pending[: len(pending) - keep]
            self._held = pending[len(pending) - keep :]
        self.text += certain
        return certain
