"""A row's place among those that are written together: what its caller finds there, in whichever thread."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from lorauter_integrations.engines.decoding import Row
from lorauter_integrations.errors import EngineError, GenerationTimeoutError, LoRAuterError


@dataclass(slots=True, eq=False)
class Seat:
    """What a row's caller reads while the leader, in another thread, goes on.

    Attributes:
        pieces: the text that the caller has not taken yet.
        error: what went wrong.
        over: there will be no more pieces; set after the last one.
        gone: the caller left.
    """

    row: Row
    pieces: deque[str] = field(default_factory=deque)
    error: BaseException | None = None
    over: bool = False
    gone: bool = False

    @property
    def has_news(self) -> bool:
        """Whether its caller has something to do."""
        return self.over or self.gone or bool(self.pieces) or self.error is not None

    @property
    def done(self) -> bool:
        """Whether its caller has taken everything."""
        return self.gone or (self.over and not self.pieces and self.error is None)


def check_time(seats: Sequence[Seat]) -> float | None:
    """Seconds until the first of these rows must be whole; None when there is no such time.

    Raises:
        GenerationTimeoutError: one of them should be and is not.
    """
    rows = [seat.row for seat in seats if seat.row.deadline < math.inf and not seat.has_news]
    if not rows:
        return None
    row = min(rows, key=lambda row: row.deadline)
    left = row.deadline - time.monotonic()
    if left <= 0:
        raise GenerationTimeoutError(
            f"the answer was not whole after {row.timeout:g} s: {len(row.produced)} of at most {row.max_tokens} "
            "tokens were written",
            hint="give it a longer timeout or a smaller max_tokens",
        )
    return left


def for_this_caller(error: BaseException) -> Exception:
    """An error of a shared step as each of its callers gets it: an object of its own, with the error as its cause."""
    if isinstance(error, LoRAuterError):
        own: Exception = type(error)(error.message, hint=error.hint)
    elif isinstance(error, Exception):
        own = EngineError(
            f"the step failed that this request was in: {type(error).__name__}: {error}",
            hint="the cause is shown above; the engine goes on, so the request may be sent again",
        )
    else:
        own = EngineError(f"the step was stopped by {type(error).__name__} in another caller", hint="send it again")
    own.__cause__ = error
    return own
