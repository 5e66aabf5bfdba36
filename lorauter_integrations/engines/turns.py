"""Who may use the model now: callers in threads and in event loops stand in one line. Knows no models."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Turn:
    """One caller's place in the line.

    Attributes:
        has_news: whether the caller has what it waits for, so that it need not lead.
        wake: called once, when it has news or leads; from any thread.
    """

    has_news: Callable[[], bool]
    wake: Callable[[], None]


class Turns:
    """At most one caller leads; at its end it wakes those with news and hands the lead to the first of the rest.

    Handing it over, instead of letting everyone try, keeps the line fair.

    Attributes:
        lock: guards what belongs to the line. Re-entrant: a collected stream may leave while its thread holds it.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._leader: Turn | None = None
        self._line: deque[Turn] = deque()

    def ask(self, turn: Turn) -> None:
        """Lead if nobody does, or stand in line; the turn is woken when there is something to do."""
        with self.lock:
            if turn.has_news():
                turn.wake()
            elif self._leader is None:
                self._leader = turn
                turn.wake()
            else:
                self._line.append(turn)

    def take_if_free(self, turn: Turn) -> bool:
        """Lead if nobody does."""
        with self.lock:
            if self._leader is None:
                self._leader = turn
            return self._leader is turn

    def leads(self, turn: Turn) -> bool:
        """Whether it is this turn's caller that leads."""
        return self._leader is turn

    def end(self, turn: Turn) -> None:
        """Leave the line; whoever led hands the lead on."""
        with self.lock:
            if turn in self._line:
                self._line.remove(turn)
            if self._leader is not turn:
                return
            self._leader = None
            self.wake_those_with_news()
            while self._line and self._leader is None:
                successor = self._line.popleft()
                if _woken(successor):
                    self._leader = successor

    def wake_those_with_news(self) -> None:
        """Let them out of the line."""
        with self.lock:
            lucky = [turn for turn in self._line if turn.has_news()]
            for turn in lucky:
                self._line.remove(turn)
                _woken(turn)

    def wake_all(self) -> None:
        """Let everyone out of the line, to look again."""
        with self.lock:
            while self._line:
                _woken(self._line.popleft())


def _woken(turn: Turn) -> bool:
    """Wake a caller; False when it is not there any more: its event loop was closed without ending its tasks."""
    try:
        turn.wake()
    except RuntimeError:
        return False
    return True
