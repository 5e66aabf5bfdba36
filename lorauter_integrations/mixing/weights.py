"""Adapters' weights in memory: read from safetensors when asked for, the least used dropped at a budget.

PEFT is not used to load: its cost grows with the adapters already loaded, and some files make it change
the shared base weights.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TypeAlias

import torch
from safetensors import SafetensorError, safe_open

from lorauter_integrations.errors import PoolError
from lorauter_integrations.mixing.low_rank import Factors, Stack
from lorauter_integrations.pool import Adapter

AdapterWeights: TypeAlias = Mapping[str, Factors]
"""Module of the base model -> factors."""

GIB = 1 << 30


class WeightCache:
    """The weights of a pool's adapters, at most `budget` bytes of them.

    Args:
        adapters: the pool.
        dtype: type the factors are kept in; the base model's.
        device: where they are kept; the base model's.
        budget: bytes; one adapter may exceed it alone.
    """

    def __init__(
        self, adapters: Mapping[str, Adapter], dtype: torch.dtype, device: torch.device, *, budget: int = GIB
    ) -> None:
        self._adapters = adapters
        self._dtype = dtype
        self._device = device
        self._budget = budget
        self._held: OrderedDict[str, AdapterWeights] = OrderedDict()
        self._bytes = 0

    def __getitem__(self, name: str) -> AdapterWeights:
        """One adapter's weights.

        Raises:
            UnknownAdapterError: not in the pool.
            PoolError: its file has changed or gone since the pool was checked.
        """
        if name in self._held:
            self._held.move_to_end(name)
            return self._held[name]
        weights = self._read(self._adapters[name])
        self._held[name] = weights
        self._bytes += _size(weights)
        while self._bytes > self._budget and len(self._held) > 1:
            _, dropped = self._held.popitem(last=False)
            self._bytes -= _size(dropped)
        return weights

    @property
    def resident(self) -> list[str]:
        """Names of the adapters in memory, least recently used first."""
        return list(self._held)

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return self._bytes

    def _read(self, adapter: Adapter) -> AdapterWeights:
        try:
            facts = adapter.weights_file.stat()
            if (facts.st_size, facts.st_mtime_ns) != (adapter.size, adapter.changed):
                raise PoolError(
                    f"the weights of adapter {adapter.name!r} have changed since the pool was checked",
                    hint="open the pool again; `lorauter map` measures what has changed",
                )
            with safe_open(adapter.weights_file, framework="pt", device="cpu") as file:
                return {
                    module: Factors(
                        file.get_tensor(part.tensors[0]).to(self._device, self._dtype),
                        file.get_tensor(part.tensors[1]).to(self._device, self._dtype),
                        part.scaling,
                    )
                    for module, part in adapter.parts.items()
                }
        except (OSError, SafetensorError) as error:
            raise PoolError(
                f"the weights of adapter {adapter.name!r} cannot be read any more: {error}",
                hint="run `lorauter pool check` again",
            ) from error


def side_by_side(names: Iterable[str], weights: WeightCache) -> dict[str, Stack]:
    """Module -> the factors of these adapters side by side, each with its place among the names."""
    blocks: dict[str, list[tuple[int, Factors]]] = {}
    for place, name in enumerate(names):
        for module, factors in weights[name].items():
            blocks.setdefault(module, []).append((place, factors))
    return {module: Stack.of(pairs) for module, pairs in blocks.items()}


def _size(weights: AdapterWeights) -> int:
    return sum(f.a.nbytes + f.b.nbytes for f in weights.values())
