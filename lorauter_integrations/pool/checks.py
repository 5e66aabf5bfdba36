"""One adapter folder against one base model: every rule in turn, cheapest first. Knows no torch.

An adapter ends as usable, perhaps with warnings or alone only, or refused with the first rule it breaks.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorauter_integrations.errors import AdapterRefusedError
from lorauter_integrations.pool.adapter import PICKLED, Adapter, LowRankPart
from lorauter_integrations.pool.cache import ValuesCache
from lorauter_integrations.pool.config_rules import CONFIG_RULES, compare_bases
from lorauter_integrations.pool.contents import BaseShapes, ModuleNames, read_parts, sort_tensors
from lorauter_integrations.pool.files import find_weights, read_config
from lorauter_integrations.pool.header import Header, read_header
from lorauter_integrations.pool.tensor_rules import describe
from lorauter_integrations.pool.values import Values, arithmetic, read_values


def check_config(folder: Path) -> dict[str, Any]:
    """Read an adapter's configuration and apply every rule that needs no weights.

    Args:
        folder: holds `adapter_config.json`.

    Raises:
        AdapterRefusedError: the first rule it breaks.
    """
    config = read_config(folder)
    for rule in CONFIG_RULES:
        rule(config)
    return config


def check_header(file: Path, config: Mapping[str, Any], shapes: BaseShapes | None = None) -> None:
    """Apply every rule that needs no values: the data of the file may be missing, as long as it has its size.

    Args:
        file: safetensors.
        config: as `check_config` returns it.
        shapes: the base model's modules; without them, only what holds for any base is checked.

    Raises:
        AdapterRefusedError: the first rule it breaks.
    """
    header = read_header(file)
    if shapes is None:
        read_parts(sort_tensors(header, ModuleNames(())), header, config)
    else:
        describe(header, config, shapes, ModuleNames(shapes))


def check_adapter(folder: Path, name: str, shapes: BaseShapes) -> Adapter:
    """Read one adapter folder and apply every rule.

    Args:
        folder: holds `adapter_config.json` and `adapter_model.safetensors`.
        name: what the pool calls it.
        shapes: the base model's modules.

    Raises:
        AdapterRefusedError: the first rule it breaks.
    """
    return Checker(shapes).check(folder, name)


class Checker:
    """Checks adapters against one base model. Threads may share it.

    Args:
        shapes: the base model's modules.
        pool: the folder that adapters' files may be links into; None for adapters that stand alone.
        cache: remembers what was read from weights files.
        allow_bin: take a pickle where there is no safetensors file.
        base: the base model's name, to be compared with the one that an adapter was trained on; empty for none.
        strict_base: refuse an adapter that names another base model, rather than warn.
    """

    def __init__(
        self,
        shapes: BaseShapes,
        *,
        pool: Path | None = None,
        cache: ValuesCache | None = None,
        allow_bin: bool = False,
        base: str = "",
        strict_base: bool = False,
    ) -> None:
        self._shapes = shapes
        self._names = ModuleNames(shapes)
        self._pool = pool
        self._cache = cache or ValuesCache(None)
        self._allow_bin = allow_bin
        self._base = base
        self._strict_base = strict_base
        self._same_parts: dict[tuple[Any, ...], Mapping[str, LowRankPart]] = {}

    def check(self, folder: Path, name: str) -> Adapter:
        """Apply every rule to one adapter; see `check_adapter`."""
        try:
            return self._check(folder, name)
        except OSError as error:
            raise AdapterRefusedError(f"it cannot be read: {error}") from error

    def _check(self, folder: Path, name: str) -> Adapter:
        config = read_config(folder, self._pool)
        warnings = [rule(config) for rule in CONFIG_RULES]
        warnings.append(compare_bases(config, self._base, strict=self._strict_base))
        file = find_weights(folder, self._pool, allow_bin=self._allow_bin)
        facts = file.stat()
        header = _header(file)
        found = describe(header, config, self._shapes, self._names)
        values = self._values(file, facts, header, arithmetic(config))
        if values.zero and not found.alone:
            raise AdapterRefusedError(f"every {values.zero} is zero; the adapter has no effect")
        return Adapter(
            name=name,
            folder=folder,
            base_model=str(config.get("base_model_name_or_path") or ""),
            content_hash=values.content_hash,
            parts=self._same_parts.setdefault(tuple(found.parts.items()), found.parts),
            size=facts.st_size,
            changed=facts.st_mtime_ns,
            alone=found.alone,
            warnings=tuple(filter(None, [*warnings, *found.warnings])),
            replaced=found.replaced,
            weights=file.name,
        )

    def _values(self, file: Path, facts: os.stat_result, header: Header, settings: str) -> Values:
        values = self._cache.get(file, facts, settings)
        if values is None:
            values = _read_values(file, header, settings)
            self._cache.put(file, facts, settings, values)
        if values.fault:
            raise AdapterRefusedError(values.fault)
        return values


def _header(file: Path) -> Header:
    if file.name != PICKLED:
        return read_header(file)
    from lorauter_integrations.pool.pickled import describe_pickled

    return describe_pickled(file)


def _read_values(file: Path, header: Header, settings: str) -> Values:
    if file.name != PICKLED:
        return read_values(file, header, settings)
    from lorauter_integrations.pool.pickled import read_pickled_values

    return read_pickled_values(file, settings)
