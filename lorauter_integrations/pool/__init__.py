"""The pool of adapters: what each is, and which may be used. Knows nothing of tasks."""

from lorauter_integrations.pool.adapter import CONFIG, WEIGHTS, Adapter, LowRankPart
from lorauter_integrations.pool.adapter_pool import AdapterPool
from lorauter_integrations.pool.checks import BaseShapes, check_adapter

__all__ = ["CONFIG", "WEIGHTS", "Adapter", "AdapterPool", "BaseShapes", "LowRankPart", "check_adapter"]
