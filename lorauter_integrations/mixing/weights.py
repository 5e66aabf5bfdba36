"""Adapters' weights in memory: read from safetensors when asked for, the least used dropped at a budget.

PEFT is not used to load: its cost grows with the adapters already loaded, and some files make it change
the shared base weights.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lorauter_integrations.errors import PoolError
from lorauter_integrations.mixing.low_rank import Factors, Stack
from lorauter_integrations.pool import Adapter

AdapterWeights: TypeAlias = Mapping[str, Factors]
"""Module of the base model -> factors."""

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the factors of a module must be, and the type they are kept in."""

    device: torch.device
    dtype: torch.dtype


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
        return Placement(_device(module), weight.dtype if _computes(weight) else activations)

    return place


def model_dtype(model: nn.Module) -> torch.dtype:
    """The type of a model's activations: that of its first weight, quantised ones apart."""
    stored = next((weight.dtype for weight in model.parameters() if _computes(weight)), None)
    stated = getattr(getattr(model, "config", None), "dtype", None)
    return stored or (stated if isinstance(stated, torch.dtype) else torch.bfloat16)


def model_device(model: nn.Module) -> torch.device:
    """Where token ids go in: the device of the input embeddings, or else of the first weight."""
    embeddings = getattr(model, "get_input_embeddings", None)
    return _device(embeddings() if embeddings else model)


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What a `WeightCache` holds and has done.

    Attributes:
        resident: adapters in memory.
        pinned: those of them that are never dropped.
        bytes: their size.
        budget: the most that `bytes` may be.
        hits: times that an adapter asked for was in memory.
        misses: times that it was read.
        evictions: times that one was dropped for another.
    """

    resident: int
    pinned: int
    bytes: int
    budget: int
    hits: int
    misses: int
    evictions: int


class WeightCache:
    """The weights of a pool's adapters, at most `budget` bytes of them. Threads may share it.

    Room is made before an adapter is read. One that still does not fit, beside those that must stay, serves
    the call and is not kept; one that is larger than the budget is kept alone.

    Args:
        adapters: the pool.
        placement: says for each module where its factors go; see `placements`.
        budget: bytes.
    """

    def __init__(self, adapters: Mapping[str, Adapter], placement: Placements, *, budget: int = GIB) -> None:
        self._adapters = adapters
        self._placement = placement
        self._budget = budget
        self._held: OrderedDict[str, AdapterWeights] = OrderedDict()
        self._pinned: set[str] = set()
        self._bytes = 0
        self._hits = self._misses = self._evictions = 0
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> AdapterWeights:
        """One adapter's weights; raises as `together` does."""
        return self.together([name])[name]

    def together(self, names: Iterable[str]) -> dict[str, AdapterWeights]:
        """Several adapters' weights; none of them is dropped for another.

        Raises:
            UnknownAdapterError: one is not in the pool.
            PoolError: a file has changed or gone since the pool was checked.
        """
        wanted = dict.fromkeys(names)
        with self._lock:
            return {name: self._take(name, wanted) for name in wanted}

    def pin(self, names: Iterable[str]) -> None:
        """Read adapters that will not be dropped until `unpin`; pinning one again changes nothing.

        Raises:
            UnknownAdapterError: one is not in the pool.
            PoolError: the pinned adapters would exceed the budget, or as in `together`; then none of these is pinned.
        """
        wanted = dict.fromkeys(names)
        with self._lock:
            pinned = self._pinned | wanted.keys()
            size = sum(self._size_of(self._adapters[name]) for name in pinned)
            if size > self._budget:
                raise PoolError(
                    f"{len(pinned)} pinned adapters take {size:,} bytes; {self._budget:,} may be in memory",
                    hint="pin fewer adapters or raise [pool] budget_mib",
                )
            for name in wanted:
                self._take(name, wanted)
            self._pinned = pinned

    def unpin(self, names: Iterable[str]) -> None:
        """Let adapters be dropped again; those that are not pinned are passed over."""
        with self._lock:
            self._pinned.difference_update(names)

    @property
    def stats(self) -> CacheStats:
        """A count of everything, all of one moment."""
        with self._lock:
            return CacheStats(
                resident=len(self._held),
                pinned=len(self._pinned),
                bytes=self._bytes,
                budget=self._budget,
                hits=self._hits,
                misses=self._misses,
                evictions=self._evictions,
            )

    @property
    def resident(self) -> list[str]:
        """Names of the adapters in memory, least recently used first."""
        with self._lock:
            return list(self._held)

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return self._bytes

    def _take(self, name: str, keep: Collection[str]) -> AdapterWeights:
        if name in self._held:
            self._hits += 1
            self._held.move_to_end(name)
            return self._held[name]
        adapter = self._adapters[name]
        has_room = self._make_room(self._size_of(adapter), keep)
        weights = _read(adapter, self._placement)
        self._misses += 1
        if has_room:
            self._held[name] = weights
            self._bytes += _size(weights)
        return weights

    def _make_room(self, size: int, keep: Collection[str]) -> bool:
        """Drop the least used until `size` more bytes fit, or nothing is held; False if neither can be."""
        while self._held and self._bytes + size > self._budget:
            name = next((name for name in self._held if name not in self._pinned and name not in keep), None)
            if name is None:
                return False
            self._bytes -= _size(self._held.pop(name))
            self._evictions += 1
        return True

    def _size_of(self, adapter: Adapter) -> int:
        """Bytes that an adapter will take in memory; known before it is read."""
        return sum(
            part.rank * (part.inputs + part.outputs) * self._placement(module).dtype.itemsize
            for module, part in adapter.parts.items()
        )


def side_by_side(names: Iterable[str], weights: WeightCache) -> dict[str, Stack]:
    """Module -> the factors of these adapters side by side, each with its place among the names."""
    names = list(names)
    together = weights.together(names)
    blocks: dict[str, list[tuple[int, Factors]]] = {}
    for place, name in enumerate(names):
        for module, factors in together[name].items():
            blocks.setdefault(module, []).append((place, factors))
    return {module: Stack.of(pairs) for module, pairs in blocks.items()}


def _read(adapter: Adapter, placement: Placements) -> AdapterWeights:
    try:
        facts = adapter.weights_file.stat()
        if (facts.st_size, facts.st_mtime_ns) != (adapter.size, adapter.changed):
            raise PoolError(
                f"the weights of adapter {adapter.name!r} have changed since the pool was checked",
                hint="open the pool again; `lorauter map` measures what has changed",
            )
        modules: dict[Placement, list[str]] = {}
        for module in adapter.parts:
            modules.setdefault(placement(module), []).append(module)
        with safe_open(adapter.weights_file, framework="pt", device="cpu") as file:
            moved: dict[str, Tensor] = {}
            for place, here in modules.items():
                names = [tensor for module in here for tensor in adapter.parts[module].tensors]
                moved |= zip(names, _moved([file.get_tensor(name) for name in names], place), strict=True)
    except (OSError, SafetensorError) as error:
        raise PoolError(
            f"the weights of adapter {adapter.name!r} cannot be read any more: {error}",
            hint="run `lorauter pool check` again",
        ) from error
    return {
        module: Factors(moved[part.tensors[0]], moved[part.tensors[1]], part.scaling)
        for module, part in adapter.parts.items()
    }


def _moved(tensors: list[Tensor], place: Placement) -> list[Tensor]:
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


def _first_tensor(module: nn.Module) -> Tensor:
    """A module's weight; some quantised layers keep it in a buffer."""
    return next(chain(module.parameters(), module.buffers()))


def _computes(weight: Tensor) -> bool:
    """Whether a type is one to compute in: not the integers and 8-bit floats of quantised weights."""
    return weight.is_floating_point() and weight.element_size() > 1


def _device(module: nn.Module) -> torch.device:
    """Where a module computes: where its weight is, or where accelerate will bring an offloaded one."""
    device = _first_tensor(module).device
    hook = getattr(module, "_hf_hook", None)
    return torch.device(hook.execution_device) if device.type == "meta" and hook else device


def _size(weights: AdapterWeights) -> int:
    return sum(f.a.nbytes + f.b.nbytes for f in weights.values())
