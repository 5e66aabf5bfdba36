"""Engines: the language models behind the router. `LocalEngine` is loaded at its first use (torch)."""

from typing import TYPE_CHECKING, Any

from lorauter_integrations.engines.base import Engine, Limits

if TYPE_CHECKING:
    from lorauter_integrations.engines.local import LocalEngine
    from lorauter_integrations.mixing.first_order import Descent

__all__ = ["Descent", "Engine", "Limits", "LocalEngine"]


def __getattr__(name: str) -> Any:
    if name == "LocalEngine":
        from lorauter_integrations.engines.local import LocalEngine

        return LocalEngine
    if name == "Descent":
        from lorauter_integrations.mixing.first_order import Descent

        return Descent
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
