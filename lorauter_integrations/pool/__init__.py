"""The pool of adapters: what each is, and which may be used. Knows nothing of tasks."""

from lorauter_integrations.pool.adapter import CONFIG, PICKLED, WEIGHTS, Adapter, LowRankPart
from lorauter_integrations.pool.adapter_pool import AdapterPool
from lorauter_integrations.pool.checks import check_adapter, check_config
from lorauter_integrations.pool.contents import BaseShapes

__all__ = [
    "CONFIG",
    "PICKLED",
    "WEIGHTS",
    "Adapter",
    "AdapterPool",
    "BaseShapes",
    "LowRankPart",
    "check_adapter",
    "check_config",
]
