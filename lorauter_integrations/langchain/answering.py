"""An answer as it begins: routed, and with its place in the engine, which may be full."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Any, TypeVar, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.llms import create_base_retry_decorator

from lorauter_integrations.asking import Call
from lorauter_integrations.errors import QueueFullError
from lorauter_integrations.generation import Delta
from lorauter_integrations.langchain.routes import noted
from lorauter_integrations.lorauter import LoRAuter
from lorauter_integrations.routing import Route

Begin = TypeVar("Begin", bound=Callable[[], Any])


def begun(
    lorauter: LoRAuter, call: Call, retries: int, run: CallbackManagerForLLMRun | None
) -> tuple[Route, Iterator[Delta]]:
    """The route, and the answer once its first piece is there.

    Args:
        lorauter: answers.
        call: what is asked.
        retries: how often to ask again when the queue is full, with growing pauses.
        run: is told of them.

    Raises:
        As `LoRAuter.stream`.
    """

    def begin() -> tuple[Route, Iterator[Delta]]:
        route, deltas = call.stream(lorauter)
        return route, noted(_joined(next(deltas), deltas))

    return _patient(begin, retries, run)()


async def abegun(
    lorauter: LoRAuter, call: Call, retries: int, run: AsyncCallbackManagerForLLMRun | None
) -> tuple[Route, AsyncGenerator[Delta, None]]:
    """As `begun`, for event loops."""

    async def begin() -> tuple[Route, AsyncGenerator[Delta, None]]:
        route, deltas = await call.astream(lorauter)
        return route, noted(_ajoined(await anext(deltas), deltas))

    return await _patient(begin, retries, run)()


def _patient(begin: Begin, retries: int, run: Any) -> Begin:
    retry = create_base_retry_decorator([QueueFullError], max_retries=1 + retries, run_manager=run)
    return cast("Begin", retry(begin))


def _joined(first: Delta, rest: Iterator[Delta]) -> Iterator[Delta]:
    yield first
    yield from rest  # closes it too, when the caller leaves


async def _ajoined(first: Delta, rest: AsyncGenerator[Delta, None]) -> AsyncGenerator[Delta, None]:
    async with aclosing(rest):
        yield first
        async for delta in rest:
            yield delta
