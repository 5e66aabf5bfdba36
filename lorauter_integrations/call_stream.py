"""A model's answer taken apart while it is written: text, and pieces of calls. Knows no framework."""

from __future__ import annotations

import string
from collections.abc import Callable, Collection
from dataclasses import dataclass

from lorauter_integrations.call_object import CallObject, fault
from lorauter_integrations.generation import ToolCall
from lorauter_integrations.tool_calls import HERMES, BrokenCall, CallForm, ParsedAnswer, begun


@dataclass(frozen=True, slots=True)
class CallPiece:
    """A piece of a call that is being written.

    Attributes:
        index: which call of the answer, from 0; broken ones count.
        name: the tool's name in the first piece of a call, "" in later ones.
        arguments: JSON text to append to the call's arguments.
    """

    index: int
    name: str
    arguments: str


def parse_tool_calls(
    text: str, form: CallForm = HERMES, names: Collection[str] | None = None, cut: bool = False
) -> ParsedAnswer:
    """Take the calls out of a whole answer, as `CallStream` does."""
    stream = CallStream(form, names)
    stream.push(text)
    return stream.finish(cut)[1]


class CallStream:
    """Takes an answer apart as it comes; how it is cut into pieces changes nothing.

    A call is a JSON object between the form's two marks; the end mark may be missing. At the beginning of an
    answer it may stand without marks: in a form without a begin mark more may follow, in any other it is a
    call only if it is the whole answer. A call that cannot be read comes back as a `BrokenCall`.

    All else is text: to the letter in an answer without calls, else without whitespace at its end, at its
    beginning behind a call, and without whitespace or one separator alone behind a call. What may have to go
    waits for more text, so the pieces of text together are exactly the parsed answer's text.

    A call's arguments are sent as they are written, as soon as its name is known and they are an object. So
    pieces of a call that turns out to be broken may have been sent.

    Args:
        form: how the model writes its calls; whitespace around the marks does not matter.
        names: an object without marks is a call only if its name is one of these, and else text as soon as the
            name is known; None for any name. A call between marks may have any name.
    """

    def __init__(self, form: CallForm = HERMES, names: Collection[str] | None = None) -> None:
        self._names = names
        self._begin, self._end = form.begin.strip(), form.end.strip()
        self._between = form.between or ""
        self._mode: Callable[[str], str] = self._at_start
        self._after_call = self._in_text if self._begin or form.between is None else self._at_start
        self._held = ""  # perhaps the beginning of a mark
        self._gap = ""  # whitespace and separators where no text stands yet: text only if text follows
        self._in_gap = True
        self._gap_characters = string.whitespace
        self._blank = ""  # whitespace at the end of the text so far: text only if more follows
        self._end_is_due = False
        self._object = CallObject()
        self._is_bare = False
        self._sent: int | None = None  # characters of the call's arguments; None before its name
        self._junk: list[str] = []
        self._items: list[str | CallPiece] = []
        self._text: list[str] = []
        self._calls: list[ToolCall] = []
        self._broken: list[BrokenCall] = []

    def push(self, piece: str) -> list[str | CallPiece]:
        """Add a piece of the answer; returns what is certain now: text outside calls, and pieces of calls."""
        while piece:
            piece = self._mode(piece)
        items, self._items = self._items, []
        return items

    def finish(self, cut: bool = False) -> tuple[list[str | CallPiece], ParsedAnswer]:
        """The answer is over; returns what was held back, and the whole answer taken apart.

        Args:
            cut: the answer was cut at `max_tokens`: the beginning of a begin mark at its very end is then a
                broken call, and not text.
        """
        items: list[str | CallPiece] = []
        while rest := self._settle(cut=cut):
            items += self.push(rest)
        if self._index:
            self._end_gap()
        else:
            self._emit(self._blank + self._gap)
        return items + self._items, ParsedAnswer("".join(self._text), tuple(self._calls), tuple(self._broken))

    # Modes: each takes a piece of the answer, and returns what of it the next mode is to take.

    def _at_start(self, rest: str) -> str:
        """Where a call may stand without marks."""
        text = rest.lstrip(self._gap_characters)
        self._gap += rest[: len(rest) - len(text)]
        if text.startswith("{"):
            self._open(bare=True)
        elif text:
            self._mode = self._in_text
        return text

    def _in_text(self, rest: str) -> str:
        text, self._held = self._held + rest, ""
        marks = [mark for mark in (self._begin, self._end if self._end_is_due else "") if mark]
        found = [(place, mark) for mark in marks if (place := text.find(mark)) >= 0]
        if not found:
            certain = len(text) - max((begun(mark, text) for mark in marks), default=0)
            self._held = text[certain:]
            self._show(text[:certain])
            return ""
        place, mark = min(found)
        self._show(text[:place])
        self._end_is_due = False
        if mark == self._begin:
            self._end_gap()
            self._open(bare=False)
        return text[place + len(mark) :]

    def _before_object(self, rest: str) -> str:
        text = rest.lstrip()
        if text:
            self._mode = self._in_object
        return text

    def _in_object(self, rest: str) -> str:
        rest = self._object.read(rest)
        if self._is_certain:
            self._send()
            if self._object.is_invalid:
                return self._reread(self._in_junk, rest)
        elif self._object.is_invalid or not self._object.may_be_call:
            return self._reread(self._in_text, rest)
        return self._close(rest) if self._object.is_complete else rest

    def _after_whole_answer(self, rest: str) -> str:
        """Behind an object that is a call only if nothing follows."""
        self._held += rest
        return self._reread(self._in_text, "") if rest.strip() else ""

    def _in_junk(self, rest: str) -> str:
        """In a call that is not JSON: it ends at the end mark, wherever that stands."""
        text, self._held = self._held + rest, ""
        place = text.find(self._end) if self._end else -1
        if place < 0:
            certain = len(text) - begun(self._end, text)
            self._junk.append(text[:certain])
            self._held = text[certain:]
            return ""
        body = "".join([*self._junk, text[:place]])
        self._break(body, fault(body))
        self._mode = self._after_call
        return text[place + len(self._end) :]

    def _after_object(self, rest: str) -> str:
        """Behind a call: its end mark, if it is there."""
        rest, self._held = self._held + rest, ""
        text = rest.lstrip()
        self._gap += rest[: len(rest) - len(text)]
        if len(text) < len(self._end) and self._end.startswith(text):
            self._held = text
            return ""
        self._mode = self._after_call
        if self._end and text.startswith(self._end):
            self._gap = ""
            return text.removeprefix(self._end)
        self._end_is_due = True
        return text

    def _settle(self, *, cut: bool) -> str:
        """The answer is over: ends the mode, and returns what is to be read anew."""
        if self._mode == self._in_object and self._is_certain:
            return self._reread(self._in_junk, "")
        if self._mode in (self._in_junk, self._before_object):
            body = "".join([*self._junk, self._held])
            self._break(body, fault(body) if self._object.is_invalid else "the answer ends before the call does")
        elif self._mode == self._in_object:
            return self._reread(self._in_text, "")
        elif self._mode == self._after_whole_answer:
            self._take(self._object.call())
        elif self._mode == self._in_text:
            self._end_text(begun(self._begin, self._held) if cut else 0)
        return ""

    # Steps of the modes.

    @property
    def _index(self) -> int:
        return len(self._calls) + len(self._broken)

    @property
    def _is_certain(self) -> bool:
        """Whether the object is a call, if perhaps a broken one."""
        return not self._is_bare or (not self._begin and self._object.is_begun and self._object.may_be_call)

    def _end_text(self, marked: int) -> None:
        """Text ends the answer; so many characters at its end are half a begin mark."""
        certain = len(self._held) - marked
        self._show(self._held[:certain])
        if marked:
            self._open(bare=False)
            self._break(self._held[certain:], "the answer ends within the mark that begins a call")

    def _say(self, text: str) -> None:
        text = self._blank + text
        if self._index and not self._text:
            text = text.lstrip()
        words = text.rstrip()
        self._blank = text[len(words) :]
        self._emit(words)

    def _emit(self, text: str) -> None:
        if text:
            self._text.append(text)
            self._items.append(text)

    def _show(self, text: str) -> None:
        if self._in_gap and not text.strip(self._gap_characters):
            self._gap += text
            return
        self._say(self._gap + text)
        self._gap, self._in_gap = "", False

    def _end_gap(self) -> None:
        """No text follows: whitespace and a separator are dropped."""
        if self._gap.strip() not in ("", self._between.strip()):
            self._say(self._gap)
        self._gap = ""

    def _open(self, *, bare: bool) -> None:
        self._object, self._is_bare = CallObject(self._names), bare
        self._mode = self._in_object if bare else self._before_object

    def _reread(self, mode: Callable[[str], str], rest: str) -> str:
        """Read the object's text again, in another mode."""
        text, self._held = self._object.text + self._held + rest, ""
        self._mode = mode
        return text

    def _send(self) -> None:
        """The name, once it is known, and what came of the arguments."""
        if not self._object.is_begun:
            return
        if self._sent is None:
            self._end_gap()
            self._items.append(CallPiece(self._index, self._object.name, ""))
            self._sent = 0
        if piece := self._object.arguments(self._sent):
            self._items.append(CallPiece(self._index, "", piece))
            self._sent += len(piece)

    def _close(self, rest: str) -> str:
        """At the end of the object."""
        try:
            call = self._object.call()
        except ValueError as error:
            if not self._is_certain:
                return self._reread(self._in_text, rest)
            self._break(self._object.text, str(error))
        else:
            if not self._is_certain:
                self._mode = self._after_whole_answer
                return rest
            self._take(call)
        self._mode = self._after_object
        return rest

    def _take(self, call: ToolCall) -> None:
        self._send()
        if self._sent is None:
            self._items += [CallPiece(self._index, call.name, ""), CallPiece(self._index, "", "{}")]
        self._calls.append(call)
        self._end_call()

    def _break(self, text: str, reason: str) -> None:
        self._broken.append(BrokenCall(text.strip(), reason, self._index, self._object.name))
        self._end_call()

    def _end_call(self) -> None:
        self._in_gap = True
        self._gap_characters = string.whitespace + self._between
        self._sent = None
        self._junk = []
