"""What the tensors of an adapter are for: which module's LoRA, magnitude or weight. Knows names and shapes only."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from lorauter_integrations.errors import AdapterRefusedError
from lorauter_integrations.pool.adapter import LowRankPart
from lorauter_integrations.pool.header import Header
from lorauter_integrations.pool.wording import shown

BaseShapes: TypeAlias = Mapping[str, tuple[int, int]]
"""Module of the base model -> (inputs, outputs) of its weight."""

# PEFT's names; `.default` is left in by tools that save the live model.
_FACTOR = re.compile(r"(?P<stem>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight")
_MAGNITUDE = re.compile(r"(?P<stem>.+)\.lora_magnitude_vector(?:\.default)?(?:\.weight)?")
_COPY = re.compile(r"(?P<stem>.+)\.(?:base_layer|original_module)\.weight")
_WHOLE = re.compile(r"(?P<stem>.+?)(?:\.modules_to_save(?:\.default)?)?\.weight")
_PEFT_PREFIX = "base_model.model."
# What tools put before, or between, the names of a model's modules.
_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_OUTER = frozenset({"base_model", "model", "module", "transformer", "language_model"})


class ModuleNames:
    """Finds the module of the base model that a tensor's name means, whatever a tool has put before it.

    Args:
        modules: those of the base model.
    """

    def __init__(self, modules: Collection[str]) -> None:
        self._modules = frozenset(modules)
        self._by_core: dict[str, str] = {}
        for module in modules:
            core = _core(module)
            # Two modules that only their prefix tells apart are never guessed between.
            self._by_core[core] = "" if core in self._by_core else module

    def find(self, stem: str) -> str:
        """The module of a tensor's name; one that the base model does not have as the file calls it."""
        plain = stem.removeprefix(_PEFT_PREFIX)
        return plain if plain in self._modules else self._by_core.get(_core(plain)) or plain


def _core(module: str) -> str:
    parts = [part for part in module.split(".") if part not in _WRAPPERS]
    while len(parts) > 1 and parts[0] in _OUTER:
        del parts[0]
    return ".".join(parts)


@dataclass(slots=True)
class Contents:
    """The tensors of a file by what they are, each under its module.

    Attributes:
        factors: module -> {"A": tensor name, "B": tensor name}.
        magnitudes: module -> DoRA's magnitude vector.
        whole: module -> a full weight.
        copies: module -> the base model's own weight; PEFT saves it beside a LoRA on an output layer, and other
            tools beside a whole one.
        renamed: name in the file -> module, where they differ by more than PEFT's own prefix.
    """

    factors: dict[str, dict[str, str]] = field(default_factory=dict)
    magnitudes: dict[str, str] = field(default_factory=dict)
    whole: dict[str, str] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)


def sort_tensors(header: Header, names: ModuleNames) -> Contents:
    """Tensors by what they are and by their module.

    Raises:
        AdapterRefusedError: a tensor that is none of these, two for the same purpose, or no LoRA at all.
    """
    contents = Contents()
    for name in header:
        kind, match = _kind(name)
        module = names.find(match["stem"])
        if module != match["stem"].removeprefix(_PEFT_PREFIX):
            contents.renamed[match["stem"]] = module
        if kind is _FACTOR:
            _put(contents.factors.setdefault(module, {}), match["side"], name)
        elif kind is _MAGNITUDE:
            _put(contents.magnitudes, module, name)
        else:
            _put(contents.copies if kind is _COPY else contents.whole, module, name)
    if not contents.factors:
        raise AdapterRefusedError("the weights file holds no LoRA" if header else "the weights file holds no tensors")
    return contents


def _put(into: dict[str, str], key: str, name: str) -> None:
    if key in into:
        raise AdapterRefusedError(f"two tensors mean the same: {shown(into[key])} and {shown(name)}")
    into[key] = name


def _kind(name: str) -> tuple[re.Pattern[str], re.Match[str]]:
    for kind in (_FACTOR, _MAGNITUDE, _COPY):
        if match := kind.fullmatch(name):
            return kind, match
    if ".lora_" in name or not (match := _WHOLE.fullmatch(name)):
        raise AdapterRefusedError(f"tensor {shown(name)} is {_what(name)}; it would be left out")
    return _WHOLE, match


def _what(name: str) -> str:
    if ".lora_embedding_" in name:
        return "a LoRA on an embedding, which cannot be mixed"
    return "a bias" if name.endswith(".bias") else "not a LoRA factor"


def read_parts(contents: Contents, header: Header, config: Mapping[str, Any]) -> dict[str, LowRankPart]:
    """Module -> LoRA, from the shapes in the weights file and the scaling of the config.

    Args:
        contents: the tensors, see `sort_tensors`.
        header: the same with their shapes.
        config: the adapter's configuration.

    Raises:
        AdapterRefusedError: a factor without its partner, shapes that do not multiply, a rank that the config
            contradicts, or magnitudes that do not fit.
    """
    ranks, alphas = Patterns(config.get("rank_pattern")), Patterns(config.get("alpha_pattern"))
    parts: dict[str, LowRankPart] = {}
    for module, sides in contents.factors.items():
        a, b = _shapes(module, sides, header)
        stated = ranks.value(module, config.get("r") or a[0])
        if a[0] != stated:
            raise AdapterRefusedError(f"{shown(module)}: the file has rank {a[0]}, the config says {stated}")
        alpha = alphas.value(module, config.get("lora_alpha", 8))  # PEFT's default
        scaling = alpha / math.sqrt(a[0]) if config.get("use_rslora") else alpha / a[0]
        parts[module] = LowRankPart(a[0], a[1], b[0], scaling, (sides["A"], sides["B"]))
    if stray := [name for module, name in contents.magnitudes.items() if module not in parts]:
        raise AdapterRefusedError(f"tensor {shown(stray[0])} is a magnitude without a LoRA; it would be left out")
    if not config.get("use_dora"):
        if contents.magnitudes:
            raise AdapterRefusedError("the file has DoRA's magnitude vectors, the config does not say use_dora")
        return parts
    return {module: _with_magnitude(module, part, contents, header) for module, part in parts.items()}


def _shapes(module: str, sides: Mapping[str, str], header: Header) -> tuple[list[int], list[int]]:
    if len(sides) < 2:
        raise AdapterRefusedError(f"{shown(module)} has only lora_{next(iter(sides))}, its partner is missing")
    a, b = header[sides["A"]]["shape"], header[sides["B"]]["shape"]
    if len(a) != 2 or len(b) != 2 or a[0] != b[1] or not all((*a, *b)):
        raise AdapterRefusedError(f"{shown(module)}: lora_A {shown(a)} and lora_B {shown(b)} do not multiply")
    return a, b


def _with_magnitude(module: str, part: LowRankPart, contents: Contents, header: Header) -> LowRankPart:
    name = contents.magnitudes.get(module)
    if name is None:
        raise AdapterRefusedError(f"the config says use_dora, the file has no magnitude vector for {shown(module)}")
    if header[name]["shape"] != [part.outputs]:
        raise AdapterRefusedError(
            f"{shown(module)}: DoRA needs magnitudes of shape [{part.outputs}], not {shown(header[name]['shape'])}"
        )
    return replace(part, magnitude=name)


class Patterns:
    """PEFT's `rank_pattern` or `alpha_pattern`: numbers for the modules whose name ends as a pattern says.

    Args:
        patterns: regular expression -> number, in the order in which they are tried; None for none.
    """

    def __init__(self, patterns: Mapping[str, float] | None) -> None:
        self._all = [
            (pattern, re.compile(rf"(.*\.)?({pattern})$"), value) for pattern, value in (patterns or {}).items()
        ]

    def value(self, module: str, default: float) -> float:
        """The number of the first pattern that matches."""
        return next((value for _, compiled, value in self._all if compiled.match(module)), default)

    def useless(self, modules: Collection[str]) -> list[str]:
        """The patterns that match none of the modules."""
        return [pattern for pattern, compiled, _ in self._all if not any(map(compiled.match, modules))]
