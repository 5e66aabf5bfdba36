"""Answers for event loops, and the threads of their blocking work; new ones in a fork, where the old are dead."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
_END: Any = object()


def _new() -> ThreadPoolExecutor:
    # asyncio's own pool has 6 threads on a machine with 2 cores.
    return ThreadPoolExecutor(max_workers=64, thread_name_prefix="lorauter")


_pool = _new()


def step_threads() -> ThreadPoolExecutor:
    """Threads for work that would block an event loop."""
    return _pool


def _renew() -> None:
    global _pool
    _pool = _new()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


async def in_threads(items: Iterator[Item]) -> AsyncGenerator[Item, None]:
    """A blocking iterator, one step at a time in a worker thread; closed when the caller leaves."""
    loop = asyncio.get_running_loop()
    step: asyncio.Future[Any] | None = None
    try:
        while True:
            step = asyncio.ensure_future(loop.run_in_executor(_pool, next, items, _END))
            item = await asyncio.shield(step)
            if item is _END:
                return
            yield item
    finally:
        close: Callable[[], None] = getattr(items, "close", lambda: None)
        try:
            close()
        except ValueError:  # cancelled in a step: a running generator cannot be closed before it is over
            if step is not None:
                step.add_done_callback(lambda _: close())


async def closed_at_the_end(items: AsyncIterator[Item]) -> AsyncGenerator[Item, None]:
    """An engine's own answer for event loops; closed when the caller leaves."""
    try:
        async for item in items:
            yield item
    finally:
        items.close()  # type: ignore[attr-defined]  # as of `Engine.stream`
