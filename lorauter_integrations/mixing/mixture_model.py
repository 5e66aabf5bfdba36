"""A torch model in which each row of a batch has its own mixture. Knows tensors, no text and no prompts.

The base model is not changed: the mixture is added to a module's output by a forward hook, so the module
tree, the state dict and every weight stay as they are, whatever the module's class.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from lorauter_integrations.errors import OptionError
from lorauter_integrations.mixing.alone import Own, OwnRows
from lorauter_integrations.mixing.base_model import model_device, model_dtype, placements
from lorauter_integrations.mixing.low_rank import Stack, add_outer, gate, rows_are_apart
from lorauter_integrations.mixing.weights import GIB, WeightCache, side_by_side
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


_Groups: TypeAlias = Sequence[Mapping[str, _Forms[Stack]]]
"""By module, those that have one input together."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the hooks do during a forward pass, by module: what is added, and what rows have for themselves."""

    parts: Mapping[str, _Forms[_Part]]
    own: Mapping[str, OwnRows]

    @property
    def nbytes(self) -> int:
        return sum(forms.nbytes for forms in self.parts.values()) + sum(rows.nbytes for rows in self.own.values())


class _Active(threading.local):
    """What the hooks know in one thread: what to do, and the last product with the input that it was made of."""

    parts: Mapping[str, _Forms[_Part]] | None = None
    own: Mapping[str, OwnRows] | None = None
    length: int | None = None
    name: str = ""
    x: Tensor | None = None
    inner: _Inner | None = None
    product: Any = None


Made = TypeVar("Made")


class _Recent(Generic[Made]):
    """The last used of what was made, within a budget of bytes; the last one stays whatever its size."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._held: OrderedDict[Hashable, tuple[Made, int]] = OrderedDict()
        self.nbytes = 0

    def get(self, key: Hashable) -> Made | None:
        if key not in self._held:
            return None
        self._held.move_to_end(key)
        return self._held[key][0]

    def put(self, key: Hashable, made: Made, size: int) -> None:
        self._held[key] = (made, size)
        self.nbytes += size
        while self.nbytes > self._budget and len(self._held) > 1:
            self.nbytes -= self._held.popitem(last=False)[1][1]

    def clear(self) -> None:
        self._held.clear()
        self.nbytes = 0


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
        self.weights = WeightCache(adapters, placements(model), model=model, budget=budget // 2)
        self._stacks: _Recent[_Groups] = _Recent(budget // 4)  # by the adapters' names
        self._plans: _Recent[_Plan] = _Recent(budget // 4)  # by the rows' mixtures
        self._hooks: dict[str, Any] = {}
        self._own_hooks: dict[str, Any] = {}
        self._twins: dict[str, str] = {}  # module -> the first one that was seen to have the same input
        self._active = _Active()
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
            UnknownAdapterError, OptionError: as `require`.
            PoolError: an adapter cannot be read any more, or not be used with this model.
        """
        active = self._active
        before, plan = (active.parts, active.own, active.length), self._plan(mixtures)
        active.parts, active.own, active.length = (plan.parts, plan.own, length) if plan else (None, None, length)
        self._forget_the_last_input()
        try:
            yield
        finally:
            active.parts, active.own, active.length = before
            self._forget_the_last_input()

    def _forget_the_last_input(self) -> None:
        self._active.name, self._active.x, self._active.inner, self._active.product = "", None, None, None

    def read(self, mixture: Mixture) -> None:
        """Have a mixture's adapters in memory.

        Raises:
            UnknownAdapterError: one is not in the pool.
            PoolError: one cannot be read any more, or not be used with this model.
        """
        self.weights.together(mixture)

    def require(self, mixture: Mixture) -> None:
        """Check that a mixture can be served.

        Raises:
            UnknownAdapterError: it names an adapter that is not in the pool.
            OptionError: it mixes or weights one that can only be used alone.
        """
        for name, weight in mixture.items():
            why = self.adapters[name].alone
            if why and (len(mixture) > 1 or weight != 1):
                how = f"the mixture has {len(mixture)} adapters" if len(mixture) > 1 else f"its weight is {weight:g}"
                raise OptionError(
                    f"adapter {name!r} can only be used alone: {why}; {how}", hint=f'choose {{"{name}": 1.0}}'
                )

    def close(self) -> None:
        """Take the hooks off the model; a later use puts them on again."""
        for hooks in (self._hooks, self._own_hooks):
            for hook in hooks.values():
                hook.remove()
            hooks.clear()
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
                self._plans.put(key, plan, plan.nbytes)
            return plan

    def _planned(self, names: tuple[str, ...], rows: Sequence[Mixture]) -> _Plan:
        for mixture in rows:
            self.require(mixture)
        groups, own = self._stacked(names), self._own(rows)
        self._attach([module for group in groups for module in group], own)
        weights = torch.tensor([[m.get(name, 0.0) for name in names] for m in rows], dtype=torch.float64)
        parts: dict[str, _Forms[_Part]] = {}
        for group in groups:
            many = _parts({module: forms.many for module, forms in group.items()}, weights)
            same = all(forms.few is forms.many for forms in group.values())
            few = many if same else _parts({module: forms.few for module, forms in group.items()}, weights)
            parts.update({module: _Forms(many[module], few[module]) for module in group})
        return _Plan(parts, own)

    def _own(self, rows: Sequence[Mixture]) -> dict[str, OwnRows]:
        """Module -> what those rows have for themselves whose adapter is used alone."""
        places: dict[str, list[int]] = {}
        for place, mixture in enumerate(rows):
            for name in mixture:
                if self.adapters[name].alone:
                    places.setdefault(name, []).append(place)
        parts: dict[str, list[tuple[Tensor, Own]]] = {}
        for name, weights in self.weights.together(places).items():
            for module, own in weights.own.items():
                where = torch.tensor(places[name], device=own.tensor.device)
                parts.setdefault(module, []).append((where, own))
        return {module: OwnRows(len(rows), pairs) for module, pairs in parts.items()}

    def _stacked(self, names: tuple[str, ...]) -> _Groups:
        """Factors of these adapters side by side; the last used sets of adapters are kept."""
        key = (names, len(self._twins))
        groups = self._stacks.get(key)
        if groups is None:
            stacks = {module: _in_both_types(stack) for module, stack in side_by_side(names, self.weights).items()}
            groups = [_joined(group) for group in self._grouped(stacks)]
            self._stacks.put(key, groups, sum(forms.nbytes for group in groups for forms in group.values()))
        return groups

    def _grouped(self, stacks: Mapping[str, _Forms[Stack]]) -> _Groups:
        groups: dict[object, dict[str, _Forms[Stack]]] = {}
        for module, forms in stacks.items():
            a = forms.many.a
            groups.setdefault((self._twins.get(module, module), a.device, a.dtype), {})[module] = forms
        return list(groups.values())

    def _attach(self, modules: Iterable[str], own: Iterable[str]) -> None:
        for name in modules:
            if name not in self._hooks:
                self._hooks[name] = self.model.get_submodule(name).register_forward_hook(self._hook(name))
        for name in own:
            if name not in self._own_hooks:  # first, since it takes the base's own output
                module = self.model.get_submodule(name)
                self._own_hooks[name] = module.register_forward_hook(self._own_hook(name), prepend=True)

    def _hook(self, name: str) -> Any:
        active = self._active

        def add_mixture(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            parts = active.parts
            forms = parts.get(name) if parts else None
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

    def _own_hook(self, name: str) -> Any:
        active = self._active

        def change_rows(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            own = active.own
            rows = own.get(name) if own else None
            return rows.output(module, args[0], output, length=active.length, name=name) if rows else None

        return change_rows


def _product(x: Tensor, inner: _Inner, length: int | None, name: str) -> Tensor:
    """``g * (A x)``; accelerate moves a module's input only after a hook has seen it."""
    product, gates = linear(x.to(inner.a.device, inner.a.dtype), inner.a), inner.gates
    if gates is None:
        return product
    apart = rows_are_apart(x, len(gates), length, name)
    return product * (gates if apart else gates[:, 0].repeat_interleave(x.shape[0] // len(gates), dim=0))


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
