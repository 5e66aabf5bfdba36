"""What only an adapter that is used alone does to its rows: DoRA, and weights that stand in. Knows torch only.

DoRA (Liu et al., arXiv 2402.09353) gives each row of ``W + s B A`` a length of its own, ``m``:

    y = bias + c (W x + s B A x),    c = m / ||W + s B A||,    one norm and one c an output

So it adds ``(c - 1) W x`` to the output of the base, and a low-rank part whose B has its rows scaled by c.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from lorauter_integrations.mixing.base_model import columns
from lorauter_integrations.mixing.low_rank import Factors, rows_are_apart

AT_ONCE = 256
"""Inputs of a weight that are looked at together, so that no whole copy of it is made."""


@dataclass(frozen=True, slots=True)
class Rescaling:
    """The part of DoRA that is not of low rank.

    Attributes:
        growth: ``c - 1``, in float32 or more. *Shape:* ``(outputs,)``.
    """

    growth: Tensor

    @property
    def tensor(self) -> Tensor:
        """What it keeps in memory."""
        return self.growth

    def output(self, _: Tensor, y: Tensor, bias: Tensor | None) -> Tensor:
        """``y + (c - 1) (y - bias)``.

        Args:
            y: the base's output. *Shape:* ``(..., outputs)``.
            bias: the base's. *Shape:* ``(outputs,)``.
        """
        wide = y.to(self.growth.dtype)
        product = wide if bias is None else wide - bias
        return torch.addcmul(wide, self.growth, product).to(y.dtype)


@dataclass(frozen=True, slots=True)
class FullWeight:
    """A weight that stands in for the base's.

    Attributes:
        weight: *Shape:* ``(outputs, inputs)``.
    """

    weight: Tensor

    @property
    def tensor(self) -> Tensor:
        """What it keeps in memory."""
        return self.weight

    def output(self, x: Tensor, y: Tensor, bias: Tensor | None) -> Tensor:
        """``weight x + bias``, in the type of y.

        Args:
            x: *Shape:* ``(..., inputs)``.
            y: the base's output. *Shape:* ``(..., outputs)``.
            bias: the base's. *Shape:* ``(outputs,)``.
        """
        product = linear(x.to(self.weight.device, self.weight.dtype), self.weight)
        return (product if bias is None else product + bias).to(y.dtype)


Own: TypeAlias = Rescaling | FullWeight
"""What an adapter that is used alone does at a module, beside its low-rank part."""


@dataclass(frozen=True, slots=True)
class OwnRows:
    """What some rows of a batch have for themselves at one module.

    Attributes:
        count: rows of the batch; 1 for a batch of any size that has one mixture.
        parts: places of rows, and what they have; no place is named twice.
    """

    count: int
    parts: Sequence[tuple[Tensor, Own]]

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(own.tensor.nbytes for _, own in self.parts)

    def output(self, module: nn.Module, x: Tensor, y: Tensor, *, length: int | None, name: str) -> Tensor:
        """The module's output with these rows changed; the others are as they are in y.

        Args:
            module: gives the bias.
            x: its input. *Shape:* ``(rows, length, inputs)`` or ``(rows * length, inputs)``.
            y: its output.
            length: see `rows_are_apart`.
            name: the module's, for the error.

        Raises:
            EngineError: the module does not see the batch's rows.
        """
        bias: Tensor | None = getattr(module, "bias", None)
        if self.count == 1:
            return self.parts[0][1].output(x, y, bias)
        changed = y.clone()
        by_row = changed
        if not rows_are_apart(x, self.count, length, name):
            x, y, by_row = (torch.unflatten(tensor, 0, (self.count, -1)) for tensor in (x, y, changed))
        for places, own in self.parts:
            by_row[places] = own.output(x[places], y[places], bias)
        return changed


@torch.no_grad()
def rescaled(module: nn.Module, factors: Factors, magnitude: Tensor, dtype: torch.dtype) -> tuple[Factors, Rescaling]:
    """What a DoRA adds at a module: the low-rank part, and the part that is not.

    Args:
        module: of the base model; its weight is in memory.
        factors: of the adapter, in float32 or more.
        magnitude: the lengths m, of that type. *Shape:* ``(outputs,)``.
        dtype: of the low-rank part that is returned.
    """
    like = torch.empty(0, dtype=dtype, device=magnitude.device)
    squares = torch.zeros_like(magnitude)
    inputs = int(factors.a.shape[1])
    for start in range(0, inputs, AT_ONCE):
        stop = min(start + AT_ONCE, inputs)
        weight = columns(module, start, stop, like).to(magnitude.dtype)
        squares += torch.addmm(weight, factors.b, factors.a[:, start:stop], alpha=factors.scaling).square().sum(1)
    # A row without length is 0 whatever it is multiplied by (PEFT divides 0 by 0 there).
    c = torch.where(squares > 0, magnitude / squares.sqrt(), 1.0)
    # Copies: what was read is one block of memory, which a part of it would keep whole.
    low_rank = Factors(factors.a.to(dtype, copy=True), (factors.b * c[:, None]).to(dtype), factors.scaling)
    return low_rank, Rescaling(c - 1)
