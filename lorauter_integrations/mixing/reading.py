"""Adapters' files to weights at their places. Knows torch and safetensors.

PEFT is not used to load: its cost grows with the adapters already loaded, and some files make it change
the shared base weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lorauter_integrations.errors import PoolError
from lorauter_integrations.mixing.alone import FullWeight, Own, Rescaling, rescaled
from lorauter_integrations.mixing.base_model import Placement, Placements, in_memory, is_transposed
from lorauter_integrations.mixing.low_rank import Factors
from lorauter_integrations.pool import PICKLED, Adapter, LowRankPart
from lorauter_integrations.pool.pickled import load_pickled


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """An adapter in memory.

    Attributes:
        factors: module of the base model -> its LoRA.
        own: module -> what it does there beside that; only in adapters that are used alone.
    """

    factors: Mapping[str, Factors]
    own: Mapping[str, Own]

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        low_rank = sum(f.a.nbytes + f.b.nbytes for f in self.factors.values())
        return low_rank + sum(own.tensor.nbytes for own in self.own.values())


def read_weights(adapter: Adapter, placement: Placements, model: nn.Module) -> AdapterWeights:
    """An adapter's weights, each module's where it computes.

    Args:
        adapter: as it was when the pool was checked.
        placement: says for each module where its factors go.
        model: the base.

    Raises:
        PoolError: the file has changed or gone, or DoRA has nothing to be measured against.
    """
    stored = _stored(adapter)
    where = {name: placement(m) for m, part in adapter.parts.items() if not part.magnitude for name in part.tensors}
    where |= {name: placement(module) for module, name in adapter.replaced.items()}
    moved = _moved(stored, where)
    factors: dict[str, Factors] = {}
    own: dict[str, Own] = {}
    for module, part in adapter.parts.items():
        if part.magnitude:
            base = _base_module(model, module, adapter)
            factors[module], own[module] = _with_lengths(part, stored, placement(module), base)
        else:
            factors[module] = Factors(moved[part.tensors[0]], moved[part.tensors[1]], part.scaling)
    for module, name in adapter.replaced.items():
        transposed = is_transposed(_base_module(model, module, adapter))
        own[module] = FullWeight(moved[name].T if transposed else moved[name])
    return AdapterWeights(factors, own)


def _stored(adapter: Adapter) -> dict[str, Tensor]:
    """What an adapter needs of its file, by the tensors' names.

    Raises:
        PoolError: the file has changed or gone since the pool was checked.
    """
    names = [name for part in adapter.parts.values() for name in (*part.tensors, part.magnitude) if name]
    try:
        facts = adapter.weights_file.stat()
        if (facts.st_size, facts.st_mtime_ns) != (adapter.size, adapter.changed):
            raise PoolError(
                f"the weights of adapter {adapter.name!r} have changed since the pool was checked",
                hint="open the pool again; `lorauter map` measures what has changed",
            )
        if adapter.weights == PICKLED:
            tensors = load_pickled(adapter.weights_file)
            return {name: tensors[name] for name in (*names, *adapter.replaced.values())}
        with safe_open(adapter.weights_file, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in (*names, *adapter.replaced.values())}
    except (OSError, SafetensorError) as error:
        raise PoolError(
            f"the weights of adapter {adapter.name!r} cannot be read any more: {error}",
            hint="run `lorauter pool check` again",
        ) from error


def _moved(stored: Mapping[str, Tensor], where: Mapping[str, Placement]) -> dict[str, Tensor]:
    """The tensors at their places."""
    moved: dict[str, Tensor] = {}
    for place in dict.fromkeys(where.values()):
        names = [name for name in where if where[name] == place]
        moved |= zip(names, _in_one_block([stored[name] for name in names], place), strict=True)
    return moved


def _in_one_block(tensors: list[Tensor], place: Placement) -> list[Tensor]:
    """The tensors at their place, in one block of memory: one transfer, however many they are.

    To CUDA, the block is read into page-locked memory and the copy is not waited for. It goes through the
    stream that computes, so what is computed next finds it done; torch keeps the page-locked block until then.
    """
    cuda = place.device.type == "cuda"
    sizes = [tensor.numel() for tensor in tensors]
    block = torch.empty(sum(sizes), dtype=place.dtype, pin_memory=cuda)
    for part, tensor in zip(torch.split(block, sizes), tensors, strict=True):
        part.copy_(tensor.flatten())
    block = block.to(place.device, non_blocking=cuda)
    return [part.view(tensor.shape) for part, tensor in zip(torch.split(block, sizes), tensors, strict=True)]


def _base_module(model: nn.Module, name: str, adapter: Adapter) -> nn.Module:
    """A module of the base whose weight or bias takes part in what an adapter does that is used alone."""
    module = model.get_submodule(name)
    if not in_memory(module):
        raise PoolError(
            f"adapter {adapter.name!r} cannot be used here: {adapter.alone}, and {name} is offloaded",
            hint="load the model without offloading, or leave this adapter out of the pool",
        )
    return module


def _with_lengths(
    part: LowRankPart, stored: Mapping[str, Tensor], place: Placement, base: nn.Module
) -> tuple[Factors, Rescaling]:
    """A module's DoRA."""
    wide = Placement(place.device, place.wide)
    a, b, magnitude = _in_one_block([stored[name] for name in (*part.tensors, part.magnitude)], wide)
    return rescaled(base, Factors(a, b, part.scaling), magnitude, place.dtype)
