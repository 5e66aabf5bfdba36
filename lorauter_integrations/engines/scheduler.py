"""Continuous batching without a thread of its own: whoever waits for a token runs the next step for everyone.

Rows of any number of callers share one forward pass. A caller that finds no news of its rows takes the lead and
runs one step for all live rows; the others wait and find their text there. Newcomers are read (prefill) in forward
passes of their own and then join the rows that are being written. There is no worker to start, to shut down or to
lose in a fork, and nothing runs when nobody asks.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from lorauter_integrations.engines.decoding import DecodingBatch, Row
from lorauter_integrations.engines.kv_cache import RowStates
from lorauter_integrations.engines.prefixes import PrefixCache
from lorauter_integrations.engines.seat import Seat, check_time, for_this_caller
from lorauter_integrations.errors import EngineClosedError, EngineError, QueueFullError
from lorauter_integrations.mixing import MixtureModel


class Scheduler:
    """Writes the rows of all callers together.

    Args:
        model: the base model with its adapters.
        end_tokens: ids that end an answer.
        prefixes: states of earlier conversations.
        most_rows: rows read and written at once; more wait until others are done.
        most_waiting: callers' rows that may wait.
        chunk: tokens of prompts that are read between two steps of writing.
    """

    def __init__(
        self,
        model: MixtureModel,
        end_tokens: frozenset[int],
        prefixes: PrefixCache,
        *,
        most_rows: int,
        most_waiting: int,
        chunk: int,
    ) -> None:
        self._model = model
        self._end_tokens = end_tokens
        self._prefixes = prefixes
        self._most_rows = most_rows
        self._most_waiting = most_waiting
        self._chunk = chunk
        self._process = os.getpid()
        self._closed = False
        self._news = threading.Condition()  # re-entrant: a collected stream may leave inside this thread's own step
        self._leader: object = None  # who runs a forward pass now
        self._waiting: deque[Seat] = deque()
        self._seats: dict[Row, Seat] = {}  # of the rows in a batch
        self._reading: deque[DecodingBatch] = deque()
        self._writing: deque[DecodingBatch] = deque()
        self._just_read = False

    def write(self, rows: Sequence[Row]) -> Writing:
        """Write rows to their ends: (row, new text) as it comes.

        The rows join the queue when the iterator is first asked. A caller with many rows may join whenever there
        is any room in the queue.
        """
        return Writing(self, [Seat(row) for row in rows])

    @contextmanager
    def lead(self) -> Iterator[None]:
        """Inside the block no step runs: for other uses of the model.

        Raises:
            EngineClosedError: the engine was closed.
            EngineError: this process is a fork of the one that made the engine.
        """
        me = object()
        try:
            with self._news:
                self._check_usable()
                while self._leader is not None:
                    self._news.wait()
                self._leader = me
            yield
        finally:
            self._step_back(me)

    def close(self) -> None:
        """Refuse new rows, wait for the step that runs, and give every caller an error."""
        with self._news:
            self._closed = True
            self._news.notify_all()
            while self._leader is not None and self._process == os.getpid():
                self._news.wait()
            self._reading.clear()
            self._writing.clear()
            self._waiting.clear()
            self._seats.clear()
            self._prefixes.clear()

    def join(self, seats: Sequence[Seat]) -> None:
        """Put rows at the end of the queue.

        Raises:
            QueueFullError: it is full.
            EngineClosedError: the engine was closed.
            EngineError: this process is a fork of the one that made the engine.
        """
        with self._news:
            self._check_usable()
            waiting = sum(not seat.gone for seat in self._waiting)
            if waiting >= self._most_waiting:
                raise QueueFullError(
                    f"{waiting} requests wait and {len(self._seats)} are being written; no more than "
                    f"{self._most_waiting} may wait",
                    hint="send it again later, or raise [engine] queue",
                )
            self._waiting.extend(seats)

    def until_news(self, seats: Sequence[Seat]) -> None:
        """Wait for news of these rows; run the steps meanwhile, unless another caller does.

        Raises:
            GenerationTimeoutError: a row's time is over.
            EngineClosedError: the engine was closed.
        """
        while not any(seat.has_news for seat in seats):
            me = object()
            try:
                if self._take_the_lead(me, seats) and not self._step():
                    raise EngineError("the engine was interrupted and lost this request", hint="send it again")
            finally:
                self._step_back(me)
        check_time(seats)

    def leave(self, seats: Sequence[Seat]) -> None:
        """The caller left. May run inside a step of this very thread (garbage collection), and from any other."""
        with self._news:
            for seat in seats:
                seat.gone = True
            self._news.notify_all()
            if self._leader is None:
                self._sweep()

    # ------------------------------------------------------------------ taking turns

    def _take_the_lead(self, me: object, seats: Sequence[Seat]) -> bool:
        """Wait until nobody leads, and lead; False when there is news instead."""
        with self._news:
            while not any(seat.has_news for seat in seats):
                self._check_usable()
                left = check_time(seats)
                if self._leader is None:
                    self._leader = me
                    return True
                self._news.wait(left)
            return False

    def _step_back(self, me: object) -> None:
        with self._news:
            if self._leader is me:
                self._leader = None
                self._sweep()  # nobody may come after those who left during the step
                self._news.notify_all()

    def _check_usable(self) -> None:
        if self._process != os.getpid():
            raise EngineError(
                f"the engine was loaded in process {self._process} and cannot be used in its fork {os.getpid()}: "
                "torch's threads do not survive a fork",
                hint="load the engine after the fork (gunicorn without --preload), or start processes with spawn",
            )
        if self._closed:
            raise EngineClosedError("the engine was closed", hint="load a new one")

    # ------------------------------------------------------------------ steps; only the leader is here

    def _step(self) -> bool:
        """One forward pass: newcomers are read, or rows get a token. In turns, so that neither waits for long.

        Returns:
            False when there is nothing to do.
        """
        with self._shared_fate(self._seats):
            self._sweep()
            self._call_newcomers()
            read = bool(self._reading) and not (self._just_read and self._writing)
            queue = self._reading if read else self._writing
            if not queue:
                return False
            self._just_read = read
            batch = queue.popleft()
            self._run(batch)
            if batch.live and batch.reading:
                self._reading.append(batch)
            elif batch.live and not (read and any(other.absorb(batch) for other in self._writing)):
                self._writing.append(batch)
        return True

    def _call_newcomers(self) -> None:
        """Batches of those who wait, as many rows as there is room for.

        Rows are read together while that is no more than one chunk: a short prompt does not wait for a long one.
        """
        together: list[tuple[Seat, tuple[int, RowStates] | None]] = []
        longest = 0
        while self._waiting and len(self._seats) < self._most_rows:
            seat = self._waiting.popleft()
            if seat.gone:
                continue
            row = seat.row
            known = None if row.content is None else self._prefixes.find(row.content, row.prompt)
            unread = len(row.prompt) - (known[0] if known else 0)
            if together and max(longest, unread) * (len(together) + 1) > self._chunk:
                self._begin(together)
                together, longest = [], 0
            longest = max(longest, unread)
            together.append((seat, known))
            self._seats[row] = seat
        if together:
            self._begin(together)

    def _begin(self, together: Sequence[tuple[Seat, tuple[int, RowStates] | None]]) -> None:
        rows = [seat.row for seat, _ in together]
        with self._shared_fate(rows):
            known = [one for _, one in together]
            self._reading.append(DecodingBatch(self._model, rows, self._end_tokens, chunk=self._chunk, known=known))

    def _run(self, batch: DecodingBatch) -> None:
        """Run a batch's step, give each row's text to its seat, and let rows that are done leave."""
        whole = False
        with self._shared_fate(batch.live):
            for row, piece in batch.step():
                if piece:
                    self._seats[row].pieces.append(piece)
            done = [row for row in batch.live if row.finish_reason is not None]
            for row in done:
                self._remember(batch, row)
                seat = self._seats.pop(row)
                seat.error, seat.over = row.error, True
            batch.drop(done)
            whole = True
        if not whole:  # the cache may be half written: these rows cannot go on
            batch.live = []

    def _remember(self, batch: DecodingBatch, row: Row) -> None:
        if row.content is not None and row.finish_reason != "failed":
            read = batch.states(row)
            if read:
                self._prefixes.keep(row.content, *read)

    @contextmanager
    def _shared_fate(self, rows: Collection[Row]) -> Iterator[None]:
        """What goes wrong inside the block, Ctrl-C too, goes to the callers of all these rows."""
        try:
            yield
        except BaseException as error:
            for row in list(rows):
                if seat := self._seats.pop(row, None):
                    seat.error = error
            if not isinstance(error, Exception):
                raise

    def _sweep(self) -> None:
        """Free the rows whose callers have left."""
        gone = {row for row, seat in self._seats.items() if seat.gone}
        if gone:
            for batch in (*self._reading, *self._writing):
                batch.drop(gone)
            self._reading = deque(batch for batch in self._reading if batch.live)
            self._writing = deque(batch for batch in self._writing if batch.live)
            for row in gone:
                del self._seats[row]


class Writing(Iterator[tuple[Row, str]]):
    """Rows being written: (row, new text) as it comes. `close` may be called from any thread, at any time."""

    def __init__(self, scheduler: Scheduler, seats: Sequence[Seat]) -> None:
        self._scheduler = scheduler
        self._seats = seats
        self._open: Sequence[Seat] = seats
        self._joined = False

    def __next__(self) -> tuple[Row, str]:
        try:
            if not self._joined:
                self._scheduler.join(self._seats)
                self._joined = True
            while self._open:
                for seat in self._open:
                    if seat.pieces:
                        return seat.row, seat.pieces.popleft()
                    if seat.error:
                        raise for_this_caller(seat.error)
                self._open = [seat for seat in self._open if not seat.done]
                if self._open:
                    self._scheduler.until_news(self._open)
        except BaseException:
            self.close()
            raise
        raise StopIteration

    def close(self) -> None:
        """Free the rows; whoever waits in this iterator finds it at its end."""
        if self._joined:
            self._scheduler.leave(self._seats)

    __del__ = close
