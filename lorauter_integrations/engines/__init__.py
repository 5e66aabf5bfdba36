"""Engines: the language models behind the router. `LocalEngine` is loaded at its first use (torch)."""

from typing import TYPE_CHECKING, Any

from lorauter_integrations.engines.base import Engine, Limits

if TYPE_CHECKING:
    from lorauter_integrations.engines.local import LocalEngine

__all__ = ["Engine", "Limits", "LocalEngine"]


def __getattr__(name: str) -> Any:
    if name == "LocalEngine":
        from lorauter_integrations.engines.local import LocalEngine

        return LocalEngine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
