"""One caller's rows on their way: (row, new text) as it comes, for threads and for event loops."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence

from lorauter_integrations.engines.decoding import Row
from lorauter_integrations.engines.scheduler import Scheduler
from lorauter_integrations.engines.seat import Seat


class Writing(Iterator[tuple[Row, str]], AsyncIterator[tuple[Row, str]]):
    """Rows being written, no more at once than one batch holds, so that other callers get their places too.

    The rows join the queue when the iterator is first asked. `close` may be called from any thread, at any time.

    Raises:
        QueueFullError: too many requests wait already.
        GenerationTimeoutError: a row is not whole in time.
        The error of a row, or of the step it was in.
    """

    def __init__(self, scheduler: Scheduler, rows: Sequence[Row]) -> None:
        self._scheduler = scheduler
        self._seats = [Seat(row) for row in rows]
        self._open: list[Seat] = []
        self._joined = 0

    def __next__(self) -> tuple[Row, str]:
        try:
            while (piece := self._piece()) is None and self._join():
                self._scheduler.until_news(self._open)
        except BaseException:
            self.close()
            raise
        if piece is None:
            raise StopIteration
        return piece

    async def __anext__(self) -> tuple[Row, str]:
        try:
            while (piece := self._piece()) is None and self._join():
                await self._scheduler.until_news_async(self._open)
        except BaseException:
            self.close()
            raise
        if piece is None:
            raise StopAsyncIteration
        return piece

    def _piece(self) -> tuple[Row, str] | None:
        """Some text that is there."""
        for seat in self._open:
            if seat.pieces:
                return seat.row, seat.pieces.popleft()
            if seat.error:
                raise seat.error
        return None

    def _join(self) -> bool:
        """Let further rows join for those that are done; False when all are."""
        self._open = [seat for seat in self._open if not seat.done]
        room = self._scheduler.most_rows - len(self._open)
        if newcomers := self._seats[self._joined : self._joined + room]:
            self._scheduler.join(newcomers, late=self._joined > 0)
            self._joined += len(newcomers)
            self._open += [seat for seat in newcomers if not seat.gone]
        return bool(self._open)

    def close(self) -> None:
        """Free the rows; whoever waits in this iterator finds it at its end."""
        self._scheduler.leave(self._seats)

    __del__ = close
