"""A mixture of adapters as a value: which adapters, with which weights. Knows nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from lorauter_integrations.errors import OptionError


class Mixture(Mapping[str, float]):
    """Adapter name -> weight. The empty mixture is the base model.

    Immutable and hashable; equal mixtures are equal whatever the order they were written in.
    Weights may be negative or larger than one; an adapter of weight 0 is left out.

    Args:
        weights: adapter name -> weight.

    Raises:
        OptionError: a weight is not a finite number, or a name is not a non-empty string.
    """

    __slots__ = ("_items",)

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        if weights is not None and not isinstance(weights, Mapping):
            raise OptionError(
                f"adapters must be names with weights, not {weights!r}", hint='write for example {"sql": 1.0}'
            )
        items = []
        for name, weight in (weights or {}).items():
            if not isinstance(name, str) or not name:
                raise OptionError(f"an adapter's name must be a non-empty string, not {name!r}")
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
                raise OptionError(
                    f"the weight of adapter {name!r} must be a finite number, not {weight!r}",
                    hint='write for example {"sql": 1.0}',
                )
            if weight:
                items.append((name, float(weight)))
        self._items = tuple(sorted(items))

    def __getitem__(self, name: str) -> float:
        for known, weight in self._items:
            if known == name:
                return weight
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(self._items)

    def __eq__(self, other: object) -> bool:
        return self._items == other._items if isinstance(other, Mixture) else NotImplemented

    def __repr__(self) -> str:
        return f"Mixture({dict(self._items)!r})"

    def __str__(self) -> str:
        return " + ".join(f"{weight:.2f} {name}" for name, weight in self.by_weight()) or "base model"

    def by_weight(self) -> list[tuple[str, float]]:
        """The adapters with their weights, heaviest first."""
        return sorted(self._items, key=lambda item: (-abs(item[1]), item[0]))
