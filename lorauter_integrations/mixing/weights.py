"""Adapters' weights in memory: read when asked for, the least used dropped at a budget. Knows torch only."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from lorauter_integrations.errors import PoolError
from lorauter_integrations.mixing.base_model import Placements, shape_of
from lorauter_integrations.mixing.low_rank import Factors, Stack
from lorauter_integrations.mixing.reading import AdapterWeights, read_weights
from lorauter_integrations.pool import Adapter

GIB = 1 << 30
_NO_MODEL = nn.Module()


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
        model: the base, which adapters that are used alone are measured against; others need none.
        budget: bytes.
    """

    def __init__(
        self,
        adapters: Mapping[str, Adapter],
        placement: Placements,
        *,
        model: nn.Module = _NO_MODEL,
        budget: int = GIB,
    ) -> None:
        self._adapters = adapters
        self._placement = placement
        self._model = model
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
            PoolError: a file has changed or gone since the pool was checked, or DoRA has nothing to be measured
                against.
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
        weights = read_weights(adapter, self._placement, self._model)
        self._misses += 1
        if has_room:
            self._held[name] = weights
            self._bytes += weights.nbytes
        return weights

    def _make_room(self, size: int, keep: Collection[str]) -> bool:
        """Drop the least used until `size` more bytes fit, or nothing is held; False if neither can be."""
        while self._held and self._bytes + size > self._budget:
            name = next((name for name in self._held if name not in self._pinned and name not in keep), None)
            if name is None:
                return False
            self._bytes -= self._held.pop(name).nbytes
            self._evictions += 1
        return True

    def _size_of(self, adapter: Adapter) -> int:
        """Bytes that an adapter will take in memory; known before it is read."""
        size = 0
        for module, part in adapter.parts.items():
            place = self._placement(module)
            size += part.rank * (part.inputs + part.outputs) * place.dtype.itemsize
            size += part.outputs * place.wide.itemsize if part.magnitude else 0
        for module in adapter.replaced:
            shape = shape_of(self._model.get_submodule(module)) or ()
            size += math.prod(shape) * self._placement(module).dtype.itemsize
        return size


def side_by_side(names: Iterable[str], weights: WeightCache) -> dict[str, Stack]:
    """Module -> the factors of these adapters side by side, each with its place among the names."""
    names = list(names)
    together = weights.together(names)
    blocks: dict[str, list[tuple[int, Factors]]] = {}
    for place, name in enumerate(names):
        for module, factors in together[name].factors.items():
            blocks.setdefault(module, []).append((place, factors))
    return {module: Stack.of(pairs) for module, pairs in blocks.items()}
