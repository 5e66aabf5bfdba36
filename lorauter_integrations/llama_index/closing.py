"""Streams that end their work when they are closed, whoever still holds on to LlamaIndex' wrappers.

LlamaIndex' callbacks wrap each stream in a generator that does not close the one within; that is left to Python's
reference count. A handler that keeps events keeps a traceback too, and with it the stream: its row would go on.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, closing
from contextvars import ContextVar
from functools import wraps
from typing import Any, TypeVar

Piece = TypeVar("Piece")
Method = TypeVar("Method", bound=Callable[..., Any])

_opened: ContextVar[list[Any]] = ContextVar("opened")


def opened(stream: Piece) -> Piece:
    """The same stream, to be closed with what is returned by the `closes` or `acloses` method that opened it."""
    _opened.get([]).append(stream)
    return stream


def closes(method: Method) -> Method:
    """A method that returns a generator, which on its end closes what the method has `opened`."""

    @wraps(method)
    def closing_method(*args: Any, **kwargs: Any) -> Generator[Any, None, None]:
        mine: list[Any] = []
        token = _opened.set(mine)
        try:
            seen = method(*args, **kwargs)
        finally:
            _opened.reset(token)
        return _closed(seen, mine)

    return closing_method  # type: ignore[return-value]


def acloses(method: Method) -> Method:
    """As `closes`, of a method that returns an async generator when it is awaited."""

    @wraps(method)
    async def closing_method(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        mine: list[Any] = []
        token = _opened.set(mine)
        try:
            seen = await method(*args, **kwargs)
        finally:
            _opened.reset(token)
        return _aclosed(seen, mine)

    return closing_method  # type: ignore[return-value]


def _closed(seen: Generator[Piece, None, None], mine: list[Any]) -> Generator[Piece, None, None]:
    try:
        with closing(seen):
            yield from seen
    finally:
        for stream in mine:
            stream.close()


async def _aclosed(seen: AsyncGenerator[Piece, None], mine: list[Any]) -> AsyncGenerator[Piece, None]:
    try:
        async with aclosing(seen):
            async for piece in seen:
                yield piece
    finally:
        for stream in mine:
            await stream.aclose()
