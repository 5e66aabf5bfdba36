"""Routes of calls that LlamaIndex makes itself: engines and programs hand on the answer, not what the model told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.dispatcher import instrument_tags
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from pydantic import Field

from lorauter_integrations.llama_index.events import LoRAuterRouteEvent


class RouteRecorder(BaseEventHandler):
    """Keeps the route of each call that is made under `asking`; of several, the last one's."""

    routes: dict[str, dict[str, Any]] = Field(default_factory=dict)

    def handle(self, event: BaseEvent, **_: Any) -> None:
        if isinstance(event, LoRAuterRouteEvent) and "asked" in event.tags:
            self.routes[event.tags["asked"]] = event.route


@contextmanager
def recorded_routes() -> Iterator[dict[str, dict[str, Any]]]:
    """The routes by the text that was asked, while the context is open."""
    recorder, handlers = RouteRecorder(), get_dispatcher().event_handlers
    handlers.append(recorder)
    try:
        yield recorder.routes
    finally:
        handlers.remove(recorder)


def asking(text: str) -> AbstractContextManager[None]:
    """Calls within are about this text; each task or thread has its own."""
    return instrument_tags({"asked": text})
