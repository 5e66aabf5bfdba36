"""Exact mixing of adapters in output space, a mixture a row. Knows tensors, no text."""

from lorauter_integrations.mixing.base_model import base_shapes, fingerprint
from lorauter_integrations.mixing.fusion import write_fused
from lorauter_integrations.mixing.mixture_model import MixtureModel
from lorauter_integrations.mixing.weights import WeightCache

__all__ = ["MixtureModel", "WeightCache", "base_shapes", "fingerprint", "write_fused"]
