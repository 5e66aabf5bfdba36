"""The adapters of a folder: those that passed the checks, and those refused, each with its reason."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

from lorauter_integrations.errors import AdapterRefusedError, PoolError, UnknownAdapterError, listing
from lorauter_integrations.pool.adapter import CONFIG, WEIGHTS, Adapter
from lorauter_integrations.pool.cache import ValuesCache
from lorauter_integrations.pool.checks import Checker
from lorauter_integrations.pool.contents import BaseShapes
from lorauter_integrations.pool.search import Place, find_adapters

# Quoted names, lists, mappings, names of modules, and numbers.
_VARIABLE = re.compile(r"""\B'[^']*'|"[^"]*"|\[[^]]*]|\{[^}]*}|[\w-]+(?:\.[\w-]+){2,}|\d[\d,.]*""")


class AdapterPool(Mapping[str, Adapter]):
    """Adapter name -> adapter.

    Args:
        adapters: those that may be used.
        refused: name -> reason of those that may not.
    """

    def __init__(self, adapters: Mapping[str, Adapter], refused: Mapping[str, str] | None = None) -> None:
        self._adapters = dict(adapters)
        self.refused: Mapping[str, str] = dict(refused or {})

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        shapes: BaseShapes,
        *,
        cache: Path | None = None,
        allow_bin: bool = False,
        base: str = "",
        strict_base: bool = False,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> AdapterPool:
        """Check every adapter below a folder; a folder that holds a config or weights is one.

        Args:
            folder: searched at any depth; an adapter's name is its path below it. Nothing is written into it.
            shapes: the base model's modules, see `mixing.base_shapes`.
            cache: a JSON file that remembers what was read from weights files, so that the next check need not.
            allow_bin: take `adapter_model.bin`, a pickle, where there is no safetensors file; torch's
                `weights_only` reader opens it.
            base: the base model's name, to be compared with the one that an adapter was trained on.
            strict_base: refuse an adapter that names another base model; else it gets a warning.
            on_progress: called with the number of adapters checked and of all, after each.

        Raises:
            PoolError: the folder does not exist, or holds no adapter at all.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise PoolError(f"the pool {folder} is not a folder", hint="set [pool] path in the settings")
        places = find_adapters(folder)
        if not places:
            raise PoolError(
                f"the pool {folder} holds no adapter",
                hint=f"an adapter is a folder with {CONFIG} and {WEIGHTS}; the pool is the folder around it",
            )
        known = ValuesCache(cache)
        checker = Checker(shapes, pool=folder, cache=known, allow_bin=allow_bin, base=base, strict_base=strict_base)
        adapters: dict[str, Adapter] = {}
        refused: dict[str, str] = {}
        # Reading, hashing and numpy leave Python's lock to the other threads.
        with (
            ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 2)) as threads,
            closing(threads.map(partial(_judged, checker), places)) as results,  # type: ignore[type-var]
        ):
            for done, (place, result) in enumerate(zip(places, results, strict=True), 1):
                if isinstance(result, Adapter):
                    adapters[place.name] = result
                else:
                    refused[place.name] = result
                on_progress(done, len(places))
        known.save(folder)
        return cls(adapters, refused)

    def refused_by_reason(self) -> dict[str, list[str]]:
        """Reason -> names of the adapters refused for it, the most frequent first.

        Reasons are the same that differ only in numbers and quoted names; the first one's text stands for all.
        """
        groups: defaultdict[str, list[str]] = defaultdict(list)
        for name, reason in self.refused.items():
            groups[_VARIABLE.sub("", reason)].append(name)
        ordered = sorted(groups.values(), key=len, reverse=True)
        return {self.refused[names[0]]: names for names in ordered}

    def __getitem__(self, name: str) -> Adapter:
        if name in self._adapters:
            return self._adapters[name]
        if name in self.refused:
            raise UnknownAdapterError(
                f"adapter {name!r} was refused: {self.refused[name]}", hint="see `lorauter pool check`"
            )
        raise UnknownAdapterError(f"there is no adapter {name!r}", hint=f"the pool has {listing(self._adapters)}")

    def __contains__(self, name: object) -> bool:
        return name in self._adapters

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._adapters))

    def __len__(self) -> int:
        return len(self._adapters)

    def __repr__(self) -> str:
        return f"AdapterPool({len(self)} adapters, {len(self.refused)} refused)"


def _judged(checker: Checker, place: Place) -> Adapter | str:
    """The adapter, or why it is refused."""
    if place.refused:
        return place.refused
    try:
        return checker.check(place.folder, place.name)
    except AdapterRefusedError as error:
        return error.message
