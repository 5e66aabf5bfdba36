"""The algebra of low-rank sums on tensors. Knows torch only.

For one module with weight ``W`` and adapters ``i`` with factors ``A_i`` (rank_i, in), ``B_i`` (out, rank_i):

    y = W x + sum_i w_i s_i B_i A_i x

The factors of several adapters stand side by side, ``A = [A_1; A_2; ...]`` and ``B = [B_1, B_2, ...]``,
so the sum is ``B (g * (A x))`` with the gate ``g = (w_1 s_1, ..., w_1 s_1, w_2 s_2, ...)``. There are no
cross terms: the gate acts between A and B, per rank, and each row of a batch may have a gate of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear

from lorauter_integrations.errors import EngineError


@dataclass(frozen=True, slots=True)
class Factors:
    """One adapter's LoRA of one module.

    Attributes:
        a: *Shape:* ``(rank, inputs)``.
        b: *Shape:* ``(outputs, rank)``.
        scaling: the adapter's own, ``alpha / rank`` or ``alpha / sqrt(rank)``.
    """

    a: Tensor
    b: Tensor
    scaling: float

    @property
    def rank(self) -> int:
        """Rows of A."""
        return int(self.a.shape[0])


@dataclass(frozen=True, slots=True)
class Stack:
    """Several adapters' factors of one module, side by side.

    Attributes:
        a: *Shape:* ``(sum of ranks, inputs)``.
        b: *Shape:* ``(outputs, sum of ranks)``.
        layout: (adapter's place among the adapters asked for, rank, scaling) of each block.
    """

    a: Tensor
    b: Tensor
    layout: tuple[tuple[int, int, float], ...]

    @classmethod
    def of(cls, blocks: Sequence[tuple[int, Factors]]) -> Stack:
        """Put the factors of some adapters, each with its place, side by side."""
        layout = tuple((place, factors.rank, factors.scaling) for place, factors in blocks)
        a = torch.cat([factors.a for _, factors in blocks])
        b = torch.cat([factors.b for _, factors in blocks], dim=1)
        return cls(a, b, layout)

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.a.nbytes + self.b.nbytes

    def to(self, dtype: torch.dtype) -> Stack:
        """The same in another type; itself when it has that type."""
        return self if self.a.dtype == dtype else Stack(self.a.to(dtype), self.b.to(dtype), self.layout)


def gate(weights: Tensor, layout: Sequence[tuple[int, int, float]], like: Tensor) -> Tensor:
    """The gate of each row: ``w_i s_i`` repeated for every rank of adapter i.

    Args:
        weights: *Shape:* ``(rows, adapters)``, float64.
        layout: of the stack that the gate is for.
        like: gives type and device.

    Returns:
        *Shape:* ``(rows, 1, sum of ranks)``.
    """
    columns = [weights[:, place, None] * scaling for place, _, scaling in layout]
    ranks = [rank for _, rank, _ in layout]
    wide = torch.cat([column.expand(-1, rank) for column, rank in zip(columns, ranks, strict=True)], dim=1)
    return wide[:, None, :].to(like.device, like.dtype)


def add_outer(y: Tensor, inner: Tensor, b: Tensor) -> Tensor:
    """``y + B inner``, computed in the type of B and returned in that of y.

    Args:
        y: *Shape:* ``(..., outputs)``.
        inner: ``g * (A x)``. *Shape:* ``(..., ranks)``.
        b: *Shape:* ``(outputs, ranks)``.
    """
    if y.dtype == b.dtype:  # the product and the sum in one operation
        return torch.addmm(y.flatten(0, -2), inner.flatten(0, -2), b.T).view(y.shape)
    return (y + linear(inner, b)).to(y.dtype)


def rows_are_apart(x: Tensor, rows: int, length: int | None, name: str) -> bool:
    """True for (rows, length, inputs), False for modules that see (rows * length, inputs).

    Args:
        x: a module's input.
        rows: of the batch.
        length: tokens a row; None takes any input that can be cut evenly.
        name: the module's, for the error.

    Raises:
        EngineError: it is neither.
    """
    if x.dim() == 3 and x.shape[0] == rows:
        return True
    each, rest = divmod(x.shape[0], rows)
    if x.dim() == 2 and rest == 0 and length in (None, each):
        return False
    raise EngineError(
        f"{rows} mixtures for an input of shape {tuple(x.shape)} at {name}",
        hint="this module does not see the batch's rows, so it cannot carry a mixture a row",
    )
