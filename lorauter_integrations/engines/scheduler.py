"""Continuous batching without a thread of its own: whoever waits for a token runs the next step for everyone.

Rows of any number of callers share one forward pass. A caller that finds no news of its rows takes the turn and
runs one step for all live rows; the others find their text waiting. Newcomers are read (prefill) in a forward
pass of their own and then join the rows that are being written. There is no worker to start, to shut down or to
lose in a fork, and nothing runs when nobody asks.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lorauter_integrations.engines.decoding import DecodingBatch, Row
from lorauter_integrations.errors import EngineError
from lorauter_integrations.mixing import MixtureModel


@dataclass(slots=True, eq=False)
class _Seat:
    """A row's place: the text that its caller has not taken yet, what went wrong, and whether the caller left."""

    row: Row
    pieces: deque[str] = field(default_factory=deque)
    error: BaseException | None = None
    gone: bool = False

    @property
    def has_news(self) -> bool:
        return bool(self.pieces) or self.error is not None or self.row.finish_reason is not None


class Scheduler:
    """Writes the rows of all callers together.

    Args:
        model: the base model with its adapters.
        end_tokens: ids that end an answer.
        most_rows: rows written at once; more wait until others are done.

    Attributes:
        turn: held during every forward pass; whoever else uses the model takes it too.
    """

    def __init__(self, model: MixtureModel, end_tokens: frozenset[int], *, most_rows: int) -> None:
        self.turn = threading.Lock()
        self._model = model
        self._end_tokens = end_tokens
        self._most_rows = most_rows
        self._waiting: deque[_Seat] = deque()
        self._seats: dict[int, _Seat] = {}  # by the id of the row, for the rows in a batch
        self._batches: list[DecodingBatch] = []
        self._just_read = False

    def write(self, rows: Sequence[Row]) -> Iterator[tuple[Row, str]]:
        """Write rows to their ends: (row, new text) as it comes. Leaving the iterator early frees the rows.

        Raises:
            The error of a forward pass that one of the rows was in.
        """
        seats = open_seats = [_Seat(row) for row in rows]
        self._waiting.extend(seats)
        try:
            while open_seats:
                with self.turn:
                    while not any(seat.has_news for seat in open_seats):
                        if not self._step():
                            raise EngineError(
                                "the engine was interrupted and lost this request", hint="send it again"
                            )
                for seat in open_seats:
                    if seat.error is not None:
                        raise _for_this_caller(seat.error)
                    while seat.pieces:
                        yield seat.row, seat.pieces.popleft()
                open_seats = [seat for seat in open_seats if seat.row.finish_reason is None or seat.pieces]
        finally:
            self._leave(seats)

    def _step(self) -> bool:
        """One forward pass: newcomers are read, or rows get a token. In turns, so that neither waits for long.

        Returns:
            False when there is nothing to do.
        """
        self._sweep()
        room = self._most_rows - sum(len(batch.live) for batch in self._batches)
        newcomers = [] if self._just_read and self._batches else self._called(room)
        self._just_read = bool(newcomers)
        if newcomers:
            self._read(newcomers)
        elif self._batches:
            batch = self._batches.pop(0)
            self._deal(batch)
            self._seat(batch)
        else:
            return False
        return True

    def _called(self, room: int) -> list[_Seat]:
        """The next of those who wait, as many as there is room for."""
        seats: list[_Seat] = []
        while self._waiting and len(seats) < room:
            seat = self._waiting.popleft()
            if not seat.gone:
                seats.append(seat)
        return seats

    def _read(self, seats: Sequence[_Seat]) -> None:
        self._seats.update({id(seat.row): seat for seat in seats})
        batch = DecodingBatch(self._model, [seat.row for seat in seats], self._end_tokens)
        self._deal(batch)
        if not any(batch.live and other.absorb(batch) for other in self._batches):
            self._seat(batch)

    def _seat(self, batch: DecodingBatch) -> None:
        if batch.live:
            self._batches.append(batch)

    def _deal(self, batch: DecodingBatch) -> None:
        """Run a batch's step and give each row's text to its seat; a failure goes to all rows of the batch."""
        rows = list(batch.live)
        try:
            pieces = batch.step()
        except BaseException as error:
            # The cache may be half written, whatever happened (Ctrl-C too): these rows cannot go on.
            for row in rows:
                self._seats.pop(id(row)).error = error
            batch.live = []
            if not isinstance(error, Exception):
                raise
            return
        for row, piece in pieces:
            if piece:
                self._seats[id(row)].pieces.append(piece)
            if row.finish_reason is not None:
                del self._seats[id(row)]

    def _leave(self, seats: Sequence[_Seat]) -> None:
        """The caller left. May run inside another step of this thread (garbage collection), so it never waits."""
        for seat in seats:
            seat.gone = True
        if self.turn.acquire(blocking=False):
            try:
                self._sweep()
            finally:
                self.turn.release()

    def _sweep(self) -> None:
        """Free the rows whose callers have left."""
        gone = {key for key, seat in self._seats.items() if seat.gone}
        if gone:
            for batch in self._batches:
                batch.drop(gone)
            self._batches = [batch for batch in self._batches if batch.live]
            for key in gone:
                del self._seats[key]


def _for_this_caller(error: BaseException) -> BaseException:
    """An error of a shared step as each of its callers gets it."""
    if isinstance(error, Exception):
        return error
    stopped = EngineError(f"the step was stopped by {type(error).__name__} in another caller", hint="send it again")
    stopped.__cause__ = error
    return stopped
