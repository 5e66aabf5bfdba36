"""A text that is costly to make, kept for a while. Knows nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Remembered:
    """A text that is made anew when it is asked for after some seconds, or after `forget`. For many threads.

    Args:
        make: makes it.
        seconds: how long it is kept.
    """

    def __init__(self, make: Callable[[], str], seconds: float) -> None:
        self._make = make
        self._seconds = seconds
        self._lock = threading.Lock()  # also while it is made: what `forget` follows must not be kept as new
        self._text = ""
        self._until = -1.0

    def __call__(self) -> str:
        """The text."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._text = self._make()
                self._until = time.monotonic() + self._seconds
            return self._text

    def forget(self) -> None:
        """Make it anew next time."""
        with self._lock:
            self._until = -1.0
