"""A torch model in which each row of a batch has its own mixture. Knows tensors, no text and no prompts.

The base model is not changed: the mixture is added to a module's output by a forward hook, so the module
tree, the state dict and every weight stay as they are, whatever the module's class.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from lorauter_integrations.errors import EngineError
from lorauter_integrations.mixing.low_rank import Stack, add_outer, gate
from lorauter_integrations.mixing.weights import (
    GIB,
    WeightCache,
    model_device,
    model_dtype,
    placements,
    side_by_side,
)
from lorauter_integrations.mixture import Mixture
from lorauter_integrations.pool import Adapter


@dataclass(frozen=True, slots=True, eq=False)
class _Inner:
    """``g * (A x)`` of all modules with one input, as one product; without gates they are in B."""

    a: Tensor
    gates: Tensor | None


@dataclass(frozen=True, slots=True)
class _Part:
    """What is added at one module: ``B (g * (A x))``; its A x are these columns of the product."""

    inner: _Inner
    columns: slice
    b: Tensor

    @property
    def nbytes(self) -> int:
        return self.inner.a[self.columns].nbytes + self.b.nbytes


Form = TypeVar("Form", Stack, _Part)


@dataclass(frozen=True, slots=True)
class _Forms(Generic[Form]):
    """The same in two types: for a pass over many tokens and for one over few; often one object."""

    many: Form
    few: Form

    @property
    def nbytes(self) -> int:
        return self.many.nbytes + (0 if self.few is self.many else self.few.nbytes)


class _Recent(Generic[Form]):
    """The last used of what was made for modules, within a budget of bytes; the last one stays whatever its size."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._held: OrderedDict[Hashable, tuple[Mapping[str, _Forms[Form]], int]] = OrderedDict()
        self.nbytes = 0

    def get(self, key: Hashable) -> Mapping[str, _Forms[Form]] | None:
        if key not in self._held:
            return None
        self._held.move_to_end(key)
        return self._held[key][0]

    def put(self, key: Hashable, made: Mapping[str, _Forms[Form]]) -> None:
        size = sum(forms.nbytes for forms in made.values())
        self._held[key] = (made, size)
        self.nbytes += size
        while self.nbytes > self._budget and len(self._held) > 1:
            self.nbytes -= self._held.popitem(last=False)[1][1]

    def clear(self) -> None:
        self._held.clear()
        self.nbytes = 0


_Plan: TypeAlias = Mapping[str, _Forms[_Part]]
"""What the hooks add during a forward pass, by module."""

FEW = 256
"""Tokens of a pass times ranks, up to which a CPU multiplies float32 matrices faster than 16-bit ones.

A 16-bit product costs about 15 microseconds before it begins (oneDNN), a float32 one 2; beyond this size reading
twice the bytes costs more than that. Measured with torch 2.13.
"""


class MixtureModel:
    """A base model and a pool of adapters, mixed exactly in output space.

    Args:
        model: any torch model; modules that map (..., inputs) to (..., outputs) can carry a LoRA.
        adapters: the pool.
        budget: bytes of adapter weights kept in memory.
    """

    def __init__(self, model: nn.Module, adapters: Mapping[str, Adapter], *, budget: int = GIB) -> None:
        self.model = model
        self.adapters = adapters
        self.device = model_device(model)  # where token ids go in
        self.dtype = model_dtype(model)
        # Half for single adapters, a quarter each for sets of adapters side by side and for what is made of them.
        self.weights = WeightCache(adapters, placements(model), budget=budget // 2)
        self._stacks: _Recent[Stack] = _Recent(budget // 4)  # by the adapters' names
        self._plans: _Recent[_Part] = _Recent(budget // 4)  # by the rows' mixtures
        self._hooks: dict[str, Any] = {}
        self._twins: dict[str, str] = {}  # module -> the first one that was seen to have the same input
        self._active = threading.local()
        self._lock = threading.Lock()

    @contextmanager
    def rows(self, mixtures: Sequence[Mixture], length: int | None = None) -> Iterator[None]:
        """Inside the block, forward passes of this thread add `mixtures[i]` to row i.

        One mixture serves a batch of any size.

        Args:
            mixtures: one a row.
            length: tokens of each row in the pass; tells how a module's flattened input is cut into rows. None
                takes any input that can be cut evenly.

        Raises:
            UnknownAdapterError: a mixture names an adapter that is not in the pool.
        """
        before = getattr(self._active, "plan", None), getattr(self._active, "length", None)
        self._active.plan, self._active.length = self._plan(mixtures), length
        self._forget_the_last_input()
        try:
            yield
        finally:
            self._active.plan, self._active.length = before
            self._forget_the_last_input()

    def _forget_the_last_input(self) -> None:
        self._active.name, self._active.x, self._active.inner, self._active.product = "", None, None, None

    def read(self, mixture: Mixture) -> None:
        """Have a mixture's adapters in memory.

        Raises:
            UnknownAdapterError: one is not in the pool.
            PoolError: one cannot be read any more.
        """
        self.weights.together(mixture)

    def require(self, mixture: Mixture) -> None:
        """Check that every adapter of a mixture is in the pool.

        Raises:
            UnknownAdapterError: one is not.
        """
        for name in mixture:
            self.adapters[name]

    def close(self) -> None:
        """Take the hooks off the model; a later use puts them on again."""
        for hook in self._hooks.values():
            hook.remove()
        self._hooks.clear()
        self._plans.clear()  # a plan that is made anew attaches its hooks

    def _plan(self, mixtures: Sequence[Mixture]) -> _Plan | None:
        names = tuple(sorted({name for mixture in mixtures for name in mixture}))
        if not names:
            return None
        rows = mixtures[:1] if len(set(mixtures)) == 1 else tuple(mixtures)
        key = (tuple(rows), len(self._twins))
        with self._lock:
            plan = self._plans.get(key)  # decoding asks for the same mixtures step after step
            if plan is None:
                plan = self._planned(names, rows)
                self._plans.put(key, plan)
            return plan

    def _planned(self, names: tuple[str, ...], rows: Sequence[Mixture]) -> _Plan:
        stacks = self._stacked(names)
        self._attach(stacks)
        weights = torch.tensor([[m.get(name, 0.0) for name in names] for m in rows], dtype=torch.float64)
        plan: dict[str, _Forms[_Part]] = {}
        for group in self._groups(stacks):
            many = _parts({module: stacks[module].many for module in group}, weights)
            same = stacks[group[0]].few is stacks[group[0]].many
            few = many if same else _parts({module: stacks[module].few for module in group}, weights)
            plan.update({module: _Forms(many[module], few[module]) for module in group})
        return plan

    def _stacked(self, names: tuple[str, ...]) -> Mapping[str, _Forms[Stack]]:
        """Module -> factors of these adapters side by side; the last used sets of adapters are kept."""
        key = (names, len(self._twins))
        stacks = self._stacks.get(key)
        if stacks is None:
            stacks = {module: _in_both_types(stack) for module, stack in side_by_side(names, self.weights).items()}
            for group in self._groups(stacks):
                stacks |= _joined({module: stacks[module] for module in group})
            self._stacks.put(key, stacks)
        return stacks

    def _groups(self, stacks: Mapping[str, _Forms[Stack]]) -> list[list[str]]:
        """Modules that have one input, together."""
        groups: dict[object, list[str]] = {}
        for module, forms in stacks.items():
            a = forms.many.a
            groups.setdefault((self._twins.get(module, module), a.device, a.dtype), []).append(module)
        return list(groups.values())

    def _attach(self, modules: Iterable[str]) -> None:
        for name in modules:
            if name not in self._hooks:
                self._hooks[name] = self.model.get_submodule(name).register_forward_hook(self._hook(name))

    def _hook(self, name: str) -> Any:
        active = self._active

        def add_mixture(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            plan: _Plan | None = getattr(active, "plan", None)
            forms = plan.get(name) if plan else None
            if forms is None:
                return None
            x = args[0]
            if active.name != name and active.x is x:
                self._twins.setdefault(name, self._twins.get(active.name, active.name))
            part = forms.few if x.numel() // x.shape[-1] * len(forms.few.inner.a) <= FEW else forms.many
            if active.x is not x or active.inner is not part.inner:
                active.name, active.x, active.inner = name, x, part.inner
                active.product = _product(x, part.inner, active.length, name)
            return add_outer(output, active.product[..., part.columns], part.b)

        return add_mixture


def _product(x: Tensor, inner: _Inner, length: int | None, name: str) -> Tensor:
    """``g * (A x)``; accelerate moves a module's input only after a hook has seen it."""
    product = linear(x.to(inner.a.device, inner.a.dtype), inner.a)
    return product if inner.gates is None else product * _gates_for(x, inner.gates, length, name)


def _joined(group: Mapping[str, _Forms[Stack]]) -> dict[str, _Forms[Stack]]:
    """The same stacks, their A's views of one tensor: each is kept once, and all are multiplied at once."""
    many = _one_tensor([forms.many for forms in group.values()])
    same = all(forms.few is forms.many for forms in group.values())
    few = many if same else _one_tensor([forms.few for forms in group.values()])
    return {module: _Forms(*pair) for module, pair in zip(group, zip(many, few, strict=True), strict=True)}


def _one_tensor(stacks: Sequence[Stack]) -> list[Stack]:
    parts = torch.split(torch.cat([stack.a for stack in stacks]), [len(stack.a) for stack in stacks])
    return [Stack(a, stack.b, stack.layout) for a, stack in zip(parts, stacks, strict=True)]


def _parts(group: Mapping[str, Stack], weights: Tensor) -> dict[str, _Part]:
    """The parts of modules with one input; their A's are neighbours in one tensor, see `_joined`."""
    gates = {module: gate(weights, stack.layout, stack.a) for module, stack in group.items()}
    first = next(iter(group.values())).a
    ranks = sum(len(stack.a) for stack in group.values())
    a = first.as_strided((ranks, first.shape[1]), first.stride())
    one_mixture = len(weights) == 1
    inner = _Inner(a, None if one_mixture else torch.cat([*gates.values()], dim=-1))
    parts, start = {}, 0
    for module, stack in group.items():
        columns = slice(start, start := start + len(stack.a))
        # The gate of a batch with one mixture is multiplied into B once.
        parts[module] = _Part(inner, columns, stack.b * gates[module][0] if one_mixture else stack.b)
    return parts


def _in_both_types(stack: Stack) -> _Forms[Stack]:
    slow_when_small = stack.a.device.type == "cpu" and stack.a.dtype in (torch.bfloat16, torch.float16)
    return _Forms(stack, stack.to(torch.float32) if slow_when_small else stack)


def _gates_for(x: Tensor, gates: Tensor, length: int | None, name: str) -> Tensor:
    """Each row's gate for (rows, length, inputs), or for modules that see (rows * length, inputs)."""
    rows = gates.shape[0]
    if x.dim() == 3 and x.shape[0] == rows:
        return gates
    each, rest = divmod(x.shape[0], rows)
    if x.dim() == 2 and rest == 0 and length in (None, each):
        return gates[:, 0].repeat_interleave(each, dim=0)
    raise EngineError(
        f"{rows} mixtures for an input of shape {tuple(x.shape)} at {name}",
        hint="this module does not see the batch's rows, so it cannot carry a mixture a row",
    )


def base_shapes(model: nn.Module) -> dict[str, tuple[int, int]]:
    """The modules that can carry a LoRA: name -> (inputs, outputs).

    Found by what they are, not by class: `nn.Linear` and the packed layers of quantised models say
    `in_features` and `out_features`; GPT-2's `Conv1D` has a weight of shape (inputs, outputs) and `nf`.
    """
    shapes = {}
    for name, module in model.named_modules():
        if hasattr(module, "in_features") and hasattr(module, "out_features"):
            shapes[name] = (int(module.in_features), int(module.out_features))
        elif hasattr(module, "nf") and getattr(module, "weight", None) is not None:
            shapes[name] = (int(module.weight.shape[0]), int(module.weight.shape[1]))
    return shapes


def fingerprint(model: nn.Module) -> str:
    """Tells base models apart: a hash of every weight's name, shape, type and first and last 16 values."""
    digest = hashlib.sha256()
    for name, weight in model.state_dict().items():
        flat = _in_memory(model, name, weight).detach().flatten()
        ends = torch.cat([flat[:16], flat[-16:]]).float().cpu().numpy().tobytes()
        digest.update(json.dumps([name, list(weight.shape), str(weight.dtype)]).encode() + ends)
    return digest.hexdigest()[:16]


def _in_memory(model: nn.Module, name: str, weight: Tensor) -> Tensor:
    """A weight with its values: accelerate keeps those of offloaded modules beside the model."""
    if not weight.is_meta:
        return weight
    module, _, own = name.rpartition(".")
    kept: Tensor = model.get_submodule(module)._hf_hook.weights_map[own]  # type: ignore[union-attr, index]
    return kept
