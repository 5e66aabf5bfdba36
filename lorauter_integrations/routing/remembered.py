"""A value that is costly to make, kept for a while. Knows nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Remembered(Generic[Value]):
    """A value that is made anew when it is asked for after some seconds, or after `forget`. For many threads.

    Args:
        make: makes it from the one before, None at first.
        seconds: how long it is kept.
    """

    def __init__(self, make: Callable[[Value | None], Value], seconds: float) -> None:
        self._make = make
        self._seconds = seconds
        self._lock = threading.Lock()  # also while it is made: what `forget` follows must not be kept as new
        self._value: Value | None = None
        self._until = -1.0

    def __call__(self) -> Value:
        """The value."""
        with self._lock:
            if self._value is None or time.monotonic() >= self._until:
                self._value = self._make(self._value)
                self._until = time.monotonic() + self._seconds
            return self._value

    def forget(self) -> None:
        """Make it anew next time."""
        with self._lock:
            self._until = -1.0
