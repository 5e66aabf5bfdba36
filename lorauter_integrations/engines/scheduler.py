"""Continuous batching without a thread of its own: whoever waits for a token runs the next step for everyone.

Rows of any number of callers share one forward pass. A caller that finds no news of its rows takes the lead and
runs one step for all live rows; the others wait and find their text there. Newcomers are read (prefill) in forward
passes of their own and then join the rows that are being written. There is no worker to start, to shut down or to
lose in a fork, and nothing runs when nobody asks.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from lorauter_integrations.engines.decoding import DecodingBatch, Row
from lorauter_integrations.engines.prefixes import PrefixCache
from lorauter_integrations.engines.seat import Seat, check_time, for_this_caller
from lorauter_integrations.engines.threads import step_threads
from lorauter_integrations.engines.turns import Turn, Turns
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
        padding: whether rows of different lengths may stand in one batch; else each is read and written alone.

    Attributes:
        most_rows: as given.
        closed: whether `close` was called.
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
        padding: bool = True,
    ) -> None:
        self._model = model
        self._end_tokens = end_tokens
        self._prefixes = prefixes
        self.most_rows = most_rows
        self.closed = False
        self._most_waiting = most_waiting
        self._chunk = chunk
        self._padding = padding
        self._process = os.getpid()
        self._stepping = 0  # the thread that is inside a step
        self._turns = Turns()
        self._waiting: deque[Seat] = deque()  # guarded by the lock of the turns
        self._seats: dict[Row, Seat] = {}  # of the rows in a batch
        self._reading: deque[DecodingBatch] = deque()
        self._writing: deque[DecodingBatch] = deque()
        self._just_read = False

    @contextmanager
    def lead(self) -> Iterator[None]:
        """Inside the block no step runs: for other uses of the model.

        Raises:
            EngineClosedError: the engine was closed.
            EngineError: this process is a fork of the one that made the engine, or a step asks for another.
        """
        self._check_usable()
        with self._lead():
            self._check_usable()
            yield

    def close(self) -> None:
        """Refuse new rows, wait for the step that runs, and give every caller an error."""
        self.closed = True
        self._turns.wake_all()
        if self._process != os.getpid():
            return
        with self._lead():
            self._forget_batches()
            self._waiting.clear()
            self._prefixes.clear()

    @contextmanager
    def _lead(self) -> Iterator[None]:
        awake = threading.Event()
        turn = Turn(lambda: False, awake.set)
        try:
            while not self._turns.leads(turn):  # closing wakes everyone, whether they lead or not
                awake.clear()
                self._turns.ask(turn)
                awake.wait()
            yield
        finally:
            self._turns.end(turn)

    def join(self, seats: Sequence[Seat], *, late: bool = False) -> None:
        """Put rows at the end of the queue.

        Args:
            seats: their places.
            late: these are more rows of a caller that was let in before, so a full queue does not matter.

        Raises:
            QueueFullError: it is full.
            EngineClosedError: the engine was closed.
            EngineError: this process is a fork of the one that made the engine, or a step asks for another.
        """
        self._check_usable()
        with self._turns.lock:
            if len(self._waiting) >= self._most_waiting and not late:
                raise QueueFullError(
                    f"{len(self._waiting)} requests wait and {len(self._seats)} are being written; no more than "
                    f"{self._most_waiting} may wait",
                    hint="send it again later, or raise [engine] queue",
                )
            self._waiting.extend(seat for seat in seats if not seat.gone)

    def until_news(self, seats: Sequence[Seat]) -> None:
        """Wait for news of these rows; run a step when it is this caller's turn.

        Raises:
            GenerationTimeoutError: a row's time is over.
            EngineClosedError: the engine was closed.
        """
        while not _has_news(seats):
            self._check_usable()
            left = check_time(seats)
            awake = threading.Event()
            turn = Turn(partial(_has_news, seats), awake.set)
            try:
                self._turns.ask(turn)
                awake.wait(left)
                if self._turns.leads(turn):
                    self._lead_a_step(turn)
            finally:
                self._turns.end(turn)

    async def until_news_async(self, seats: Sequence[Seat]) -> None:
        """As `until_news`, in an event loop: only the one that leads takes a thread, for its step."""
        loop = asyncio.get_running_loop()
        while not _has_news(seats):
            self._check_usable()
            left = check_time(seats)
            awake: asyncio.Future[None] = loop.create_future()
            turn = Turn(partial(_has_news, seats), partial(_wake, loop, awake))
            try:
                self._turns.ask(turn)
                await asyncio.wait([awake], timeout=left)
                if self._turns.leads(turn):
                    # The step ends the turn, whatever becomes of this task meanwhile.
                    step = loop.run_in_executor(step_threads(), self._lead_a_step, turn)
                    turn = _NOBODYS
                    await asyncio.shield(step)
            finally:
                self._turns.end(turn)

    def leave(self, seats: Sequence[Seat]) -> None:
        """The caller left. May run inside a step of this very thread (garbage collection), and from any other."""
        for seat in seats:
            seat.gone = True
        if self._process != os.getpid():
            return
        with self._turns.lock:
            for seat in seats:
                if seat in self._waiting:
                    self._waiting.remove(seat)
        self._turns.wake_those_with_news()
        turn = Turn(lambda: False, lambda: None)
        if self._turns.take_if_free(turn):  # else the leader will free the rows
            try:
                with self._together():
                    self._sweep()
            finally:
                self._turns.end(turn)

    def _lead_a_step(self, turn: Turn) -> None:
        try:
            if not self._step() and not turn.has_news():  # the news may be that its adapter cannot be read
                raise EngineError("the engine was interrupted and lost this request", hint="send it again")
        finally:
            self._turns.end(turn)

    def _check_usable(self) -> None:
        if self._process != os.getpid():
            raise EngineError(
                f"the engine was loaded in process {self._process} and cannot be used in its fork {os.getpid()}: "
                "torch's threads do not survive a fork",
                hint="load the engine after the fork (gunicorn without --preload), or start processes with spawn",
            )
        if self._stepping == threading.get_ident():
            raise EngineError(
                "the engine was asked from within its own step (by a keep_on callback)",
                hint="ask it after the answer",
            )
        if self.closed:
            raise EngineClosedError("the engine was closed", hint="load a new one")

    # ------------------------------------------------------------------ steps; only the leader is here

    def _step(self) -> bool:
        """One forward pass: newcomers are read, or rows get a token. In turns, so that neither waits for long.

        Returns:
            False when there is nothing to do.
        """
        with self._together():
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
            self._sweep()  # nobody may come after those who left during the step
        return True

    @contextmanager
    def _together(self) -> Iterator[None]:
        """What goes wrong inside the block outside a batch's own step ends all batches."""
        before, self._stepping = self._stepping, threading.get_ident()
        whole = False
        try:
            with self._shared_fate(self._seats):
                yield
                whole = True
        finally:
            self._stepping = before
            if not whole:
                self._forget_batches()

    def _forget_batches(self) -> None:
        self._reading.clear()
        self._writing.clear()
        self._seats.clear()

    def _call_newcomers(self) -> None:
        """Batches of those who wait, as many rows as there is room for.

        Rows are read together while that is no more than one chunk: a short prompt does not wait for a long one.
        """
        together: list[Seat] = []
        for seat in self._called():
            longest = max(len(one.row.prompt) for one in (*together, seat))
            alone = not self._padding or longest * (len(together) + 1) > self._chunk
            if together and alone:
                self._begin(together)
                together = []
            together.append(seat)
        if together:
            self._begin(together)

    def _called(self) -> list[Seat]:
        """Those of the line for whom there is room and whose adapters can be read."""
        with self._turns.lock:
            room = self.most_rows - len(self._seats)
            seats = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
        ready = []
        for seat in seats:
            self._seats[seat.row] = seat
            with self._shared_fate([seat.row]):  # an adapter that cannot be read fails its own row alone
                self._model.read(seat.row.mixture)
                ready.append(seat)
        return ready

    def _begin(self, seats: Sequence[Seat]) -> None:
        rows = [seat.row for seat in seats]
        with self._shared_fate(rows):
            known = [None if row.content is None else self._prefixes.find(row.content, row.prompt) for row in rows]
            chunk = self._chunk if self._padding else max(len(row.prompt) for row in rows)
            self._reading.append(DecodingBatch(self._model, rows, self._end_tokens, chunk=chunk, known=known))

    def _run(self, batch: DecodingBatch) -> None:
        """Run a batch's step, give each row's text to its seat, and let rows that are done leave."""
        whole = False
        with self._shared_fate(batch.live):
            for row, piece in batch.step():
                if piece:
                    self._seats[row].pieces.append(piece)
            done = [row for row in batch.live if row.finish_reason is not None]
            for row in done:
                seat = self._seats.pop(row)
                seat.error, seat.over = row.error, True
            for row in done:
                if row.content is not None and row.finish_reason != "failed":
                    self._prefixes.keep(row.content, *batch.read_of(row), partial(batch.states, row))
            batch.drop(done)
            whole = True
        if not whole:  # the cache may be half written: these rows cannot go on
            batch.live = []

    @contextmanager
    def _shared_fate(self, rows: Collection[Row]) -> Iterator[None]:
        """What goes wrong inside the block, Ctrl-C too, goes to the callers of all these rows."""
        try:
            yield
        except BaseException as error:
            for row in list(rows):
                if seat := self._seats.pop(row, None):
                    seat.error = for_this_caller(error)
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


def _has_news(seats: Sequence[Seat]) -> bool:
    return any(seat.has_news for seat in seats)


def _wake(loop: asyncio.AbstractEventLoop, sleeper: asyncio.Future[None]) -> None:
    """From any thread. Raises RuntimeError when the loop is closed."""

    def set_result() -> None:
        if not sleeper.done():
            sleeper.set_result(None)

    loop.call_soon_threadsafe(set_result)


_NOBODYS = Turn(lambda: True, lambda: None)
