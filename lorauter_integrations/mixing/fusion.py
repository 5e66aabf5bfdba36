"""A mixture written as one ordinary PEFT adapter, for servers that take one adapter a request.

Rank concatenation: ``A = [A_1; A_2; ...]``, ``B = [w_1 s_1 B_1, w_2 s_2 B_2, ...]`` with scaling 1
computes the same sum as the mixture.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from lorauter_integrations.errors import OptionError
from lorauter_integrations.mixing.base_model import Placement
from lorauter_integrations.mixing.low_rank import gate
from lorauter_integrations.mixing.weights import WeightCache, side_by_side
from lorauter_integrations.mixture import Mixture
from lorauter_integrations.pool import CONFIG, WEIGHTS, Adapter


def write_fused(mixture: Mixture, adapters: Mapping[str, Adapter], folder: str | Path) -> Path:
    """Write a mixture as a PEFT adapter in float32; its rank is the sum of the ranks.

    Args:
        mixture: at least one adapter.
        adapters: the pool.
        folder: made if needed; files in it are replaced.

    Raises:
        OptionError: the mixture is empty, or names an adapter that can only be used alone.
        UnknownAdapterError: an adapter is not in the pool.
    """
    if not mixture:
        raise OptionError("the empty mixture is the base model; there is nothing to write")
    for name in mixture:
        if why := adapters[name].alone:
            raise OptionError(
                f"adapter {name!r} cannot be written into a sum: {why}",
                hint="it is one adapter already; serve its folder",
            )
    folder = Path(folder)
    cache = WeightCache(adapters, lambda _: Placement(torch.device("cpu"), torch.float32))
    weights = torch.tensor([list(mixture.values())], dtype=torch.float64)
    tensors, ranks = {}, {}
    for module, stack in side_by_side(mixture, cache).items():
        prefix = f"base_model.model.{module}"
        tensors[f"{prefix}.lora_A.weight"] = stack.a.contiguous()
        tensors[f"{prefix}.lora_B.weight"] = (stack.b * gate(weights, stack.layout, stack.a)[0]).contiguous()
        ranks[module] = int(stack.a.shape[0])
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(_config(ranks, adapters[next(iter(mixture))].base_model), indent=1))
    return folder


def _config(ranks: Mapping[str, int], base_model: str) -> dict[str, object]:
    top = max(ranks.values())
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "inference_mode": True,
        "r": top,
        "lora_alpha": top,
        "rank_pattern": {module: rank for module, rank in ranks.items() if rank != top},
        "alpha_pattern": {module: rank for module, rank in ranks.items() if rank != top},
        "target_modules": sorted(ranks),
        "bias": "none",
    }
