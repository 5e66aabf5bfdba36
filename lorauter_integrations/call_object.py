"""The JSON object of one tool call, followed while it is written. Knows neither marks nor answers."""

from __future__ import annotations

import json
import string
from collections.abc import Collection

from lorauter_integrations.generation import ToolCall

_ARGUMENTS = frozenset({"arguments", "parameters"})
_HEAD = _ARGUMENTS | {"name", "type"}  # models of the Llama 3 family begin with "type": "function"
_SPACE = " \t\n\r"
_SCALAR = string.ascii_letters + string.digits + "+-."
_VALUE = '"{[' + _SCALAR
_CLOSER = {"{": "}", "[": "]"}


class CallObject:
    """Reads a call's object character by character, until it is complete or cannot be JSON any more.

    Args:
        names: the names that a call may have; None for any.

    Attributes:
        name: the tool's name; "" as long as it is not known.
        is_invalid: what came is not JSON.
        is_complete: the last brace is closed.
        may_be_call: name and arguments came, or nothing came yet that a call does not have before them; the
            name, if it came, is one of `names`.
    """

    def __init__(self, names: Collection[str] | None = None) -> None:
        self._names = names
        self.name = ""
        self.is_invalid = False
        self.is_complete = False
        self.may_be_call = names is None or bool(names)
        self._read: list[str] = []
        self._allowed = "{"  # which characters may come next, outside of strings
        self._closers: list[str] = []
        self._in_string = False
        self._in_escape = False
        self._in_scalar = False
        self._key: str | None = None  # of the value at the top level that comes or is being read
        self._string_start = 0
        self._start: int | None = None  # of the arguments
        self._end: int | None = None

    @property
    def text(self) -> str:
        """What was read."""
        return "".join(self._read)

    @property
    def is_begun(self) -> bool:
        """Whether the name is known, and the arguments are an object."""
        return bool(self.name) and self._start is not None

    def arguments(self, sent: int = 0) -> str:
        """The text of the arguments as far as it came, without its first characters; "" before `is_begun`."""
        if self._start is None:
            return ""
        return "".join(self._read[self._start + sent : self._end])

    def read(self, text: str) -> str:
        """Take what belongs to the object; returns the rest."""
        for place, char in enumerate(text):
            if not self._accept(char):
                self.is_invalid = True
                return text[place:]
            self._read.append(char)
            if not self._closers:
                self.is_complete = True
                return text[place + 1 :]
        return ""

    def call(self) -> ToolCall:
        """The call of a complete object.

        Raises:
            ValueError: it is none; the text says why.
        """
        if reason := fault(self.text):
            raise ValueError(reason)
        if not self.name:
            raise ValueError('it has no "name" that is text')
        if self._start is None and _ARGUMENTS & json.loads(self.text).keys():
            raise ValueError("its arguments are not an object")
        return ToolCall(self.name, json.loads(self.arguments() or "{}"))

    def _accept(self, char: str) -> bool:
        """Take one character; False when it cannot stand here."""
        if self._in_string:
            return self._accept_in_string(char)
        if self._in_scalar and char in _SCALAR:
            return True
        self._in_scalar = False
        if char in _SPACE:
            return True
        if char not in self._allowed:
            return False
        if "{" in self._allowed and len(self._closers) == 1:
            self._begin_value(char)
        self._step(char)
        return True

    def _accept_in_string(self, char: str) -> bool:
        if self._in_escape:
            self._in_escape = False
            return char in '"\\/bfnrtu'
        if char == "\\":
            self._in_escape = True
        elif char == '"':
            self._in_string = False
            return self._end_string()
        return char >= " "

    def _step(self, char: str) -> None:
        if char == '"':
            self._in_string = True
            self._string_start = len(self._read)
            self._allowed = self._next() if "{" in self._allowed else ":"
        elif char in "{[":
            self._closers.append(_CLOSER[char])
            self._allowed = '"}' if char == "{" else _VALUE + "]"
        elif char in "}]":
            self._close()
        elif char == ",":
            self._allowed = '"' if self._closers[-1] == "}" else _VALUE
        elif char == ":":
            self._allowed = _VALUE
        else:
            self._in_scalar = True
            self._allowed = self._next()

    def _next(self) -> str:
        return "," + self._closers[-1]

    def _close(self) -> None:
        self._closers.pop()
        if not self._closers:
            self._doubt()
            return
        self._allowed = self._next()
        if len(self._closers) == 1 and self._start is not None and self._end is None:
            self._end = len(self._read) + 1

    def _doubt(self) -> None:
        self.may_be_call = self.may_be_call and self.is_begun

    def _begin_value(self, char: str) -> None:
        """At the top level."""
        if self._key in _ARGUMENTS and self._start is None:
            if char == "{":
                self._start = len(self._read)
            else:
                self._doubt()
        elif self._key == "name" and char != '"':
            self._doubt()

    def _end_string(self) -> bool:
        if len(self._closers) > 1:
            return True
        try:
            text = json.loads("".join([*self._read[self._string_start :], '"']))
        except ValueError:  # \u without its four digits
            return False
        if self._allowed == ":":
            self._key = text
            if text not in _HEAD:
                self._doubt()
        elif self._key == "name" and not self.name:
            self.name = text
            self.may_be_call = self.may_be_call and (self._names is None or text in self._names)
        return True


def fault(text: str) -> str:
    """Why a text is no JSON object; "" when it is one."""
    try:
        value = json.loads(text)
    except RecursionError:  # a model can write nothing but brackets
        return "it is nested too deeply"
    except ValueError as error:
        return f"it is not JSON: {error}"
    return "" if isinstance(value, dict) else "it is not a JSON object"
