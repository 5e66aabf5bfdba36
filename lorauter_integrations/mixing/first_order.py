"""Which adapters point the way a task's loss falls, without running any of them. Knows tensors, no text.

To first order, adding ``s B A`` to a weight W changes the loss by ``<G, s B A>``, with G the gradient of the loss
with respect to W. Backward passes of the base model give G for all modules; an adapter's share is then
``<G, s B A> = s tr((B^T G) A^T)``, from its factors alone. G comes from few examples and is kept in low rank
(99.9 % of its square norm in 32 columns on real tasks), so the product costs a few small matrix products.

The inner product grows with an adapter's strength, and the strongest are the broken ones; so what is compared is how
fast the loss falls in the adapter's direction, ``<-G, D> / |D|`` with D its change of all modules together.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lorauter_integrations.errors import EngineError, MappingError
from lorauter_integrations.mixing.low_rank import Factors

LowRank: TypeAlias = Mapping[str, Factors]
"""An adapter's change of the weights: module -> factors."""

RANK = 32
TOKENS = 1024  # whose inputs and gradients are gathered before they are summed up


@dataclass(frozen=True, slots=True)
class Descent:
    """The direction in which a loss falls fastest: ``-G`` of each module in low rank, ``left right^T``.

    Attributes:
        parts: module -> (left, right). *Shape:* ``(outputs, rank)`` and ``(inputs, rank)``.
        norm: Frobenius norm of all modules together.
    """

    parts: Mapping[str, tuple[Tensor, Tensor]]
    norm: float

    def save(self, file: Path) -> None:
        """Keep it; a process that is killed meanwhile leaves no half of it.

        Raises:
            MappingError: the file cannot be written.
        """
        tensors = {}
        for module, (left, right) in self.parts.items():
            tensors[f"{module}.left"], tensors[f"{module}.right"] = left.contiguous().cpu(), right.contiguous().cpu()
        beside = file.with_name(f"{file.name}.{os.getpid()}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, beside, {"norm": json.dumps(self.norm)})
            beside.replace(file)
        except (OSError, SafetensorError) as error:
            raise MappingError(
                f"the gradient of a task cannot be kept in {file}: {error}",
                hint="set [mapping] ledger to a place that may be written to; gradients are kept beside it",
            ) from error

    @classmethod
    def load(cls, file: Path) -> Descent:
        """Read what `save` wrote.

        Raises:
            MappingError: the file is damaged.
        """
        try:
            with safe_open(file, framework="pt", device="cpu") as stored:
                names = {name.rpartition(".")[0] for name in stored.keys()}  # noqa: SIM118 - not a mapping
                parts = {m: (stored.get_tensor(f"{m}.left"), stored.get_tensor(f"{m}.right")) for m in sorted(names)}
                return cls(parts, json.loads(stored.metadata()["norm"]))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise MappingError(
                f"the gradient kept in {file} cannot be read: {error}", hint="delete the file; it is made again"
            ) from error

    def and_of(self, other: Descent) -> Descent:
        """This one, and another loss's or other modules' parts beside it."""
        return Descent({**self.parts, **other.parts}, math.hypot(self.norm, other.norm))


class Slope:
    """Sums a loss's gradients of some modules over backward passes, in low rank.

    Args:
        model: its parameters are not changed and get no gradients.
        modules: names of modules that map (..., inputs) to (..., outputs).
    """

    def __init__(self, model: nn.Module, modules: Collection[str]) -> None:
        self._model = model
        self._modules = modules
        self._sums: dict[str, tuple[Tensor, Tensor]] = {}
        self._terms: dict[str, list[tuple[Tensor, Tensor]]] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside the block, forward and backward passes of the model are summed."""
        trained = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        embeddings = self._model.get_input_embeddings()  # type: ignore[operator]
        hooks = [embeddings.register_forward_hook(_needs_gradient)]
        for name in self._modules:
            hooks.append(self._model.get_submodule(name).register_forward_hook(self._hook(name)))
        try:
            for parameter in trained:
                parameter.requires_grad_(False)
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for parameter in trained:
                parameter.requires_grad_(True)

    def descent(self) -> Descent:
        """What was summed, with the sign turned.

        Raises:
            EngineError: a gradient is not finite.
        """
        for name in list(self._terms):
            self._fold(name)
        square = sum(float(((u.T @ u) * (v.T @ v)).sum()) for u, v in self._sums.values())
        # 16 bits are kept and used, so that a direction read back compares as the one that was just made.
        parts = {module: (-u.bfloat16(), v.bfloat16()) for module, (u, v) in self._sums.items()}
        return Descent(parts, square**0.5)

    def _hook(self, name: str) -> Any:
        def watch(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            x = args[0].detach().flatten(0, -2)
            output.register_hook(lambda change: self._add(name, change.flatten(0, -2), x))  # type: ignore[no-untyped-call]

        return watch

    def _add(self, name: str, change: Tensor, x: Tensor) -> None:
        terms = self._terms.setdefault(name, [])
        terms.append((change, x))
        if sum(len(x) for _, x in terms) >= TOKENS:
            self._fold(name)

    def _fold(self, name: str) -> None:
        """Bring what was gathered since the last time into the sum."""
        terms = self._terms.pop(name)
        change, x = (torch.cat([term[side].to(terms[0][0].device) for term in terms]).float() for side in (0, 1))
        gradient = change.T @ x
        if name in self._sums:
            left, right = self._sums[name]
            gradient += left @ right.T
        if not gradient.isfinite().all():
            raise EngineError(
                f"the gradient of the base model's loss at {name} is not finite",
                hint='load the model as bfloat16 or float32, or set [mapping] schedule = "halving"',
            )
        self._sums[name] = _low_rank(gradient)


def slopes(adapters: Iterable[LowRank], descents: Sequence[Descent]) -> list[list[float]]:
    """How fast each loss falls in each adapter's direction: ``<-G, D> / |D|``, over all modules.

    Args:
        adapters: taken one after the other.
        descents: the directions; of a module that one does not have, nothing is known, and nothing is added.

    Returns:
        A list an adapter, with a number for each loss; 0 for an adapter without effect.
    """
    sides: dict[tuple[str, torch.device], tuple[Tensor, Tensor]] = {}
    return [_slopes(weights, descents, sides) for weights in adapters]


def likeness(one: LowRank, others: Iterable[LowRank]) -> list[float]:
    """How alike an adapter is to others: ``<D, D'> / max(|D|, |D'|)^2`` of their changes, over all modules.

    1 for equal ones; smaller when the direction or the strength differs; 0 for one without effect.
    """
    square = _inner(one, one)
    found = []
    for other in others:
        larger = max(square, _inner(other, other))
        found.append(_finite(_inner(one, other) / larger) if larger else 0.0)
    return found


def _inner(one: LowRank, other: LowRank) -> float:
    """``<D, D'>``, modules of one shape at once."""
    alike: dict[object, list[str]] = {}
    for module in sorted(one.keys() & other.keys()):
        tensors = one[module].a, one[module].b, other[module].a, other[module].b
        alike.setdefault((tensors[0].device, *(tensor.shape for tensor in tensors)), []).append(module)
    total = 0.0
    for modules in alike.values():
        left, right = _Unit.of([one[m] for m in modules]), _Unit.of([other[m] for m in modules])
        products = (left.b.mT @ right.b) * (left.a @ right.a.mT)
        total += float((products.double().sum((1, 2)) * left.size * right.size).sum())
    return total


@dataclass(frozen=True, slots=True)
class _Unit:
    """Factors of modules of one shape with entries of at most 1, and the sizes that were taken out.

    A broken adapter's numbers may be of any size; so no product overflows.
    """

    a: Tensor
    b: Tensor
    size: Tensor

    @classmethod
    def of(cls, factors: Sequence[Factors]) -> _Unit:
        a, b = torch.stack([f.a for f in factors]).float(), torch.stack([f.b for f in factors]).float()
        tiny = torch.finfo(torch.float32).tiny
        largest_a, largest_b = (side.abs().amax((1, 2), keepdim=True).clamp_min(tiny) for side in (a, b))
        scaling = torch.tensor([f.scaling for f in factors], dtype=torch.float64, device=a.device)
        size = largest_a.flatten().double() * largest_b.flatten().double() * scaling
        return cls(a / largest_a, b / largest_b, size)


def _slopes(
    weights: LowRank, descents: Sequence[Descent], sides: dict[tuple[str, torch.device], tuple[Tensor, Tensor]]
) -> list[float]:
    """An adapter's; `sides` keeps the directions where their modules are."""
    totals: dict[torch.device, Tensor] = {}  # inner products, and the square of the adapter's own norm
    for module, factors in weights.items():
        unit = _Unit.of([factors])
        a, b = unit.a[0], unit.b[0]
        key = module, a.device
        if key not in sides:
            sides[key] = _side_by_side(module, descents, a.device, (b.shape[0], a.shape[1]))
        left, right = sides[key]
        inner = ((b.T @ left) * (a @ right)).double().sum(0).view(len(descents), -1).sum(1) * unit.size
        square = ((b.T @ b) * (a @ a.T)).double().sum() * unit.size**2
        total = torch.cat([inner, square])
        totals[key[1]] = totals[key[1]] + total if key[1] in totals else total
    if not totals:
        return [0.0] * len(descents)
    *inner_products, square = torch.stack([total.cpu() for total in totals.values()]).sum(0).tolist()
    return [_finite(inner / square**0.5) if square else 0.0 for inner in inner_products]


def _finite(value: float) -> float:
    """0 for what an adapter of absurd size makes of it: it is not worth a look."""
    return value if math.isfinite(value) else 0.0


def _side_by_side(
    module: str, descents: Sequence[Descent], device: torch.device, shape: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """The sides of all directions at a module, as many columns each; a direction without it has zeros."""
    parts = [descent.parts.get(module) for descent in descents]
    width = max((part[0].shape[1] for part in parts if part), default=1)
    sides = []
    for side, height in enumerate(shape):
        wide = torch.zeros(height, len(descents), width)
        for place, part in enumerate(parts):
            if part:
                wide[:, place, : part[side].shape[1]] = part[side]
        sides.append(wide.flatten(1).to(device))
    return sides[0], sides[1]


def _low_rank(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """``left right^T`` close to a matrix: subspace iteration (Halko et al., arXiv 0909.4061, algorithm 4.4)."""
    rank = min(RANK, *matrix.shape)
    # The same start every time: two runs must agree, and a user's own random state is not ours to move.
    start = torch.randn(matrix.shape[1], rank, generator=torch.Generator().manual_seed(0)).to(matrix.device)
    basis = _orthonormal(matrix @ start)
    basis = _orthonormal(matrix @ (matrix.T @ basis))
    return basis, matrix.T @ basis


def _orthonormal(matrix: Tensor) -> Tensor:
    """A basis of a tall matrix's columns, from their few inner products: ten times faster than QR on a CPU."""
    columns = matrix.double()
    squares, directions = torch.linalg.eigh(columns.T @ columns)
    present = squares > squares[-1] * 1e-12
    lengths = torch.where(present, squares, 1.0).rsqrt() * present
    basis: Tensor = columns @ (directions * lengths)
    return basis.float()


def _needs_gradient(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor:
    """Without trained parameters, the graph begins at the embeddings."""
    return output.requires_grad_(True)
