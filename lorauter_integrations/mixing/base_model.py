"""A base model's modules: their shapes, weights and places, and a fingerprint of all. Knows torch only."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn


def base_shapes(model: nn.Module) -> dict[str, tuple[int, int]]:
    """The modules that can carry a LoRA: name -> (inputs, outputs)."""
    shapes = ((name, shape_of(module)) for name, module in model.named_modules())
    return {name: shape for name, shape in shapes if shape}


def shape_of(module: nn.Module) -> tuple[int, int] | None:
    """Inputs and outputs of a module that can carry a LoRA; None of any other.

    Found by what it is, not by class: `nn.Linear` and the packed layers of quantised models say `in_features` and
    `out_features`; GPT-2's `Conv1D` has a weight of shape (inputs, outputs) and `nf`.
    """
    facts: Any = module
    if hasattr(module, "in_features") and hasattr(module, "out_features"):
        return int(facts.in_features), int(facts.out_features)
    if is_transposed(module):
        return int(facts.weight.shape[0]), int(facts.weight.shape[1])
    return None


def is_transposed(module: nn.Module) -> bool:
    """Whether a module keeps its weight as (inputs, outputs), as GPT-2's `Conv1D` does."""
    return hasattr(module, "nf") and getattr(module, "weight", None) is not None


def columns(module: nn.Module, start: int, stop: int, like: Tensor) -> Tensor:
    """The weight of some inputs of a module that can carry a LoRA, whatever its class.

    What a packed weight stands for is seen in what the module makes of the identity.

    Args:
        module: its weights are in memory.
        start: the first input.
        stop: after the last one; at most the module's inputs.
        like: gives type and device of what the module computes with.

    Returns:
        *Shape:* ``(outputs, stop - start)``.
    """
    weight = getattr(module, "weight", None)
    if type(weight) is nn.Parameter and computes(weight):  # a quantised one is a kind of its own
        if is_transposed(module):
            return weight[start:stop].T
        if type(module) is nn.Linear:
            return weight[:, start:stop]
    rows = torch.zeros(stop - start, int(module.in_features), dtype=like.dtype, device=like.device)  # type: ignore[arg-type]
    rows[:, start:stop].fill_diagonal_(1)
    # By its class: neither hooks nor accelerate's wrapping take part.
    made: Tensor = type(module).forward(_without_bias(module), rows)
    return made.T


def _without_bias(module: nn.Module) -> nn.Module:
    """The same module but for its bias, beside which small weights would be rounded away."""
    twin: Any = copy.copy(module)
    twin._parameters, twin._buffers = {**module._parameters}, {**module._buffers}
    twin.bias = None
    return twin  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the factors of a module must be, and the type they are kept in."""

    device: torch.device
    dtype: torch.dtype

    @property
    def wide(self) -> torch.dtype:
        """What lengths are measured in: float32, or more where the factors have more."""
        return torch.promote_types(self.dtype, torch.float32)


Placements: TypeAlias = Callable[[str], Placement]
"""Module of the base model -> placement of its factors."""


def placements(model: nn.Module) -> Placements:
    """Each module's factors go where its own weight is, in its own type; models may be spread over devices.

    Quantised weights are stored in types that nothing is computed in; their factors take the type of the
    model's activations. A 4-bit layer's `compute_dtype` is not that: it casts its input and casts back.
    """
    activations = model_dtype(model)

    def place(name: str) -> Placement:
        module = model.get_submodule(name)
        weight = _first_tensor(module)
        return Placement(_device(module), weight.dtype if computes(weight) else activations)

    return place


def model_dtype(model: nn.Module) -> torch.dtype:
    """The type of a model's activations: that of its first weight, quantised ones apart."""
    stored = next((weight.dtype for weight in model.parameters() if computes(weight)), None)
    stated = getattr(getattr(model, "config", None), "dtype", None)
    return stored or (stated if isinstance(stated, torch.dtype) else torch.bfloat16)


def model_device(model: nn.Module) -> torch.device:
    """Where token ids go in: the device of the input embeddings, or else of the first weight."""
    embeddings = getattr(model, "get_input_embeddings", None)
    return _device(embeddings() if embeddings else model)


def computes(weight: Tensor) -> bool:
    """Whether a type is one to compute in: not the integers and 8-bit floats of quantised weights."""
    return weight.is_floating_point() and weight.element_size() > 1


def in_memory(module: nn.Module) -> bool:
    """Whether a module's weight is there; accelerate brings an offloaded one only for the module's own call."""
    return not _first_tensor(module).is_meta


def _first_tensor(module: nn.Module) -> Tensor:
    """A module's weight; some quantised layers keep it in a buffer."""
    return next(chain(module.parameters(), module.buffers()))


def _device(module: nn.Module) -> torch.device:
    """Where a module computes: where its weight is, or where accelerate will bring an offloaded one."""
    device = _first_tensor(module).device
    hook = getattr(module, "_hf_hook", None)
    return torch.device(hook.execution_device) if device.type == "meta" and hook else device


def fingerprint(model: nn.Module) -> str:
    """Tells base models apart: a hash of every weight's name, shape, type and first and last 16 values."""
    digest = hashlib.sha256()
    for name, weight in model.state_dict().items():
        flat = _with_values(model, name, weight).detach().flatten()
        ends = torch.cat([flat[:16], flat[-16:]]).float().cpu().numpy().tobytes()
        digest.update(json.dumps([name, list(weight.shape), str(weight.dtype)]).encode() + ends)
    return digest.hexdigest()[:16]


def _with_values(model: nn.Module, name: str, weight: Tensor) -> Tensor:
    """A weight with its values: accelerate keeps those of offloaded modules beside the model."""
    if not weight.is_meta:
        return weight
    module, _, own = name.rpartition(".")
    kept: Tensor = model.get_submodule(module)._hf_hook.weights_map[own]  # type: ignore[union-attr, index]
    return kept
