"""The route of a call as an event of LlamaIndex' instrumentation."""

from __future__ import annotations

from typing import Any

from llama_index.core.instrumentation.events import BaseEvent


class LoRAuterRouteEvent(BaseEvent):
    """Sent by `LoRAuterLLM` for each call, before its first token.

    Attributes:
        route: as `Route.as_dict` writes it.
        model: the name that the answer's `raw` shows.
    """

    route: dict[str, Any]
    model: str

    @classmethod
    def class_name(cls) -> str:
        """LlamaIndex' name of the event."""
        return "LoRAuterRouteEvent"
