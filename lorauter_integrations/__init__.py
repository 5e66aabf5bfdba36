"""LoRAuter: each LLM call routed to the right mixture of LoRA adapters, by task.

Importing this package loads nothing heavy; each name below loads its module at the first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lorauter_integrations._version import __version__

if TYPE_CHECKING:
    from lorauter_integrations.adapter_map import AdapterMap, AdapterScore, Ranking
    from lorauter_integrations.choice import Choice
    from lorauter_integrations.engines import Engine, Limits, LocalEngine
    from lorauter_integrations.errors import LoRAuterError
    from lorauter_integrations.generation import (
        Completion,
        Delta,
        GenerationOptions,
        GenerationRequest,
        Grammar,
        Message,
        TokenLogprob,
        ToolCall,
        Usage,
    )
    from lorauter_integrations.lorauter import Answer, LoRAuter
    from lorauter_integrations.matching import Ledger, LikelihoodScorer, Matcher, MetricScorer
    from lorauter_integrations.mixing import MixtureModel, write_fused
    from lorauter_integrations.mixture import Mixture
    from lorauter_integrations.pool import Adapter, AdapterPool
    from lorauter_integrations.routing import (
        Encoder,
        Route,
        Router,
        SentenceTransformerEncoder,
        TaskIndex,
        TaskMatch,
        TaskRouter,
        as_encoder,
    )
    from lorauter_integrations.settings import Settings
    from lorauter_integrations.task import Example, Task

_HOMES = {
    "adapter_map": ("AdapterMap", "AdapterScore", "Ranking"),
    "engines": ("Engine", "Limits", "LocalEngine"),
    "errors": ("LoRAuterError",),
    "generation": (
        "Completion",
        "Delta",
        "GenerationOptions",
        "GenerationRequest",
        "Grammar",
        "Message",
        "TokenLogprob",
        "ToolCall",
        "Usage",
    ),
    "choice": ("Choice",),
    "lorauter": ("Answer", "LoRAuter"),
    "matching": ("Ledger", "LikelihoodScorer", "Matcher", "MetricScorer"),
    "mixing": ("MixtureModel", "write_fused"),
    "mixture": ("Mixture",),
    "pool": ("Adapter", "AdapterPool"),
    "routing": (
        "Encoder",
        "Route",
        "Router",
        "SentenceTransformerEncoder",
        "TaskIndex",
        "TaskMatch",
        "TaskRouter",
        "as_encoder",
    ),
    "settings": ("Settings",),
    "task": ("Example", "Task"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Adapter",
    "AdapterMap",
    "AdapterPool",
    "AdapterScore",
    "Answer",
    "Choice",
    "Completion",
    "Delta",
    "Encoder",
    "Engine",
    "Example",
    "GenerationOptions",
    "GenerationRequest",
    "Grammar",
    "Ledger",
    "LikelihoodScorer",
    "Limits",
    "LoRAuter",
    "LoRAuterError",
    "LocalEngine",
    "Matcher",
    "Message",
    "MetricScorer",
    "Mixture",
    "MixtureModel",
    "Ranking",
    "Route",
    "Router",
    "SentenceTransformerEncoder",
    "Settings",
    "Task",
    "TaskIndex",
    "TaskMatch",
    "TaskRouter",
    "TokenLogprob",
    "ToolCall",
    "Usage",
    "__version__",
    "as_encoder",
    "write_fused",
]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
