"""Why an adapter's tensors rule it out on this base model: one small function a rule. Knows names and shapes only.

Each rule raises `AdapterRefusedError` with one reason; those that may warn return a text, empty for none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lorauter_integrations.errors import AdapterRefusedError, listing
from lorauter_integrations.pool.adapter import LowRankPart
from lorauter_integrations.pool.contents import (
    BaseShapes,
    Contents,
    ModuleNames,
    Patterns,
    read_parts,
    sort_tensors,
)
from lorauter_integrations.pool.header import Header
from lorauter_integrations.pool.wording import shown

_HEADS = frozenset({"lm_head", "embed_out"})
_EMBEDDINGS = frozenset({"embed_tokens", "wte", "embed_in", "word_embeddings", "tok_embeddings"})


@dataclass(frozen=True, slots=True)
class Description:
    """What an adapter does to this base model; see the same names in `Adapter`."""

    parts: Mapping[str, LowRankPart]
    replaced: Mapping[str, str]
    alone: str
    warnings: Sequence[str]


def describe(header: Header, config: Mapping[str, Any], shapes: BaseShapes, names: ModuleNames) -> Description:
    """Apply every rule on the tensors' names and shapes.

    Args:
        header: the tensors.
        config: the adapter's configuration, which has passed the rules of its own.
        shapes: the base model's modules.
        names: the same, by the names that tools give them.

    Raises:
        AdapterRefusedError: the first rule it breaks.
    """
    contents = sort_tensors(header, names)
    is_in_the_base(contents, shapes)
    parts = read_parts(contents, header, config)
    replaced = read_replaced(contents, header, config, shapes)
    fits_the_base(parts, shapes)
    leaves_the_embeddings([*parts, *replaced], config)
    warnings = [
        keeps_its_names(contents),
        copies_the_base(contents, header, shapes),
        reaches_its_targets(parts, config, shapes),
        has_patterns_that_match(parts, config),
    ]
    alone = _alone(contents, replaced)
    if not alone:
        has_an_effect(parts)
    return Description(parts, replaced, alone, warnings)


def _alone(contents: Contents, replaced: Mapping[str, str]) -> str:
    """Why it cannot be mixed: what it does is not a sum that a weight could scale."""
    dora = ["uses DoRA"] if contents.magnitudes else []
    whole = [f"replaces the weights of {', '.join(replaced)}"] if replaced else []
    return f"it {' and '.join(dora + whole)}" if dora or whole else ""


def is_in_the_base(contents: Contents, shapes: BaseShapes) -> None:
    """The base model has every module that it changes."""
    if missing := [module for module in contents.factors if module not in shapes]:
        known = {name.rpartition(".")[2] for name in shapes}
        raise AdapterRefusedError(
            f"{len(missing)} of its {len(contents.factors)} modules are not in the base model, such as "
            f"{shown(missing[0])}; the base has {listing(known)} in {len(shapes)} places"
        )


def fits_the_base(parts: Mapping[str, LowRankPart], shapes: BaseShapes) -> None:
    """Every module that it changes has the same shape in the base model."""
    for module, part in parts.items():
        if (part.inputs, part.outputs) != shapes[module]:
            _has_the_vocabulary(module, part.outputs, shapes)
            raise AdapterRefusedError(
                f"{module} maps {part.inputs} to {part.outputs} numbers, "
                f"the base model's {shapes[module][0]} to {shapes[module][1]}"
            )


def _has_the_vocabulary(module: str, tokens: int, shapes: BaseShapes) -> None:
    last = module.rpartition(".")[2]
    known = next((outputs for name, (_, outputs) in shapes.items() if name.rpartition(".")[2] in _HEADS), None)
    if known and tokens != known and last in _HEADS | _EMBEDDINGS:
        raise AdapterRefusedError(f"vocabulary {tokens:,} against the base's {known:,} in {shown(module)}")


def has_an_effect(parts: Mapping[str, LowRankPart]) -> None:
    """Some scaling is not zero; else it would be the base model under an adapter's name."""
    if not any(part.scaling for part in parts.values()):
        raise AdapterRefusedError("every lora_alpha is zero; the adapter has no effect")


def read_replaced(
    contents: Contents, header: Header, config: Mapping[str, Any], shapes: BaseShapes
) -> dict[str, str]:
    """Module -> the full weight that stands in for its own, which PEFT's `modules_to_save` has put into the file.

    Args:
        contents: the tensors, see `sort_tensors`.
        header: the same with their shapes.
        config: the adapter's configuration.
        shapes: the base model's modules.

    Raises:
        AdapterRefusedError: a weight that was not asked for, is not there, or cannot stand in.
    """
    wanted = config.get("modules_to_save") or []
    for module, name in contents.whole.items():
        shape = header[name]["shape"]
        _has_the_vocabulary(module, shape[0] if shape else 0, shapes)
        if not any(module.endswith(suffix) for suffix in wanted):  # PEFT's rule
            raise AdapterRefusedError(
                f"tensor {shown(name)} is a full weight that modules_to_save does not name; "
                "it would overwrite the base that all adapters share"
            )
        _can_be_replaced(module, shape, shapes)
        if module in contents.factors:
            raise AdapterRefusedError(f"the file has both a LoRA and a full weight for {shown(module)}")
    for suffix in wanted:
        if not any(module.endswith(suffix) for module in contents.whole):
            raise AdapterRefusedError(f"modules_to_save names {shown(suffix)}, the file has no weight for it")
    return dict(contents.whole)


def _can_be_replaced(module: str, shape: list[int], shapes: BaseShapes) -> None:
    if module not in shapes:
        raise AdapterRefusedError(
            f"modules_to_save has {shown(module)}, which cannot be replaced for one adapter alone; "
            "only linear modules can, such as lm_head"
        )
    inputs, outputs = shapes[module]
    if shape != [outputs, inputs]:
        raise AdapterRefusedError(
            f"the full weight of {shown(module)} has shape {shown(shape)}, the base model's has [{outputs}, {inputs}]"
        )


def copies_the_base(contents: Contents, header: Header, shapes: BaseShapes) -> str:
    """A weight saved as what the adapter is added to, or put in the place of, is the base's own; it is not read."""
    for module, name in contents.copies.items():
        changed = module in contents.factors or module in contents.whole
        if not changed or header[name]["shape"] != list(reversed(shapes[module])):
            raise AdapterRefusedError(f"tensor {shown(name)} is not the base model's own weight beside a changed one")
    if not contents.copies:
        return ""
    return f"the file holds the weights of {listing(contents.copies)} too; the base model's own are used"


def leaves_the_embeddings(changed: Iterable[str], config: Mapping[str, Any]) -> None:
    """It does not ask PEFT to put what it does to the output layer into the tied embeddings too."""
    heads = [module for module in changed if module.rpartition(".")[2] in _HEADS]
    if heads and config.get("ensure_weight_tying"):
        raise AdapterRefusedError(
            f"ensure_weight_tying makes the change of {shown(heads[0])} one of the embeddings too; it cannot be mixed"
        )


def reaches_its_targets(parts: Mapping[str, LowRankPart], config: Mapping[str, Any], shapes: BaseShapes) -> str:
    """The file has a LoRA wherever the config's plain list of targets asks for one; the rest is left unchanged."""
    targets = config.get("target_modules")
    partly = any(config.get(key) is not None for key in ("layers_to_transform", "exclude_modules"))
    if partly or not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        return ""
    suffixes = tuple(f".{target}" for target in targets)
    asked = [module for module in shapes if f".{module}".endswith(suffixes)]
    missing = [module for module in asked if module not in parts]
    if not missing or not suffixes:
        return ""
    return f"target_modules asks for {len(asked)} modules; the file lacks {len(missing)}, such as {shown(missing[0])}"


def has_patterns_that_match(parts: Mapping[str, LowRankPart], config: Mapping[str, Any]) -> str:
    """Every pattern for ranks and alphas matches a module; else it is perhaps meant for other names."""
    for key in ("rank_pattern", "alpha_pattern"):
        if useless := Patterns(config.get(key)).useless(parts):
            return f"{key}: {shown(useless[0])} matches none of its modules"
    return ""


def keeps_its_names(contents: Contents) -> str:
    """Its tensors are called as PEFT calls those of the base model."""
    if not contents.renamed:
        return ""
    name, module = next(iter(contents.renamed.items()))
    return f"{len(contents.renamed)} names were read as the base model's, such as {shown(name)} as {shown(module)}"
