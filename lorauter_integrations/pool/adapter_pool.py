"""The adapters of a folder: those that passed the checks, and those refused, each with its reason."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from lorauter_integrations.errors import AdapterRefusedError, PoolError, UnknownAdapterError, listing
from lorauter_integrations.pool.adapter import CONFIG, WEIGHTS, Adapter
from lorauter_integrations.pool.checks import BaseShapes, check_adapter


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
    def from_folder(cls, folder: str | Path, shapes: BaseShapes) -> AdapterPool:
        """Check every adapter below a folder; a folder that holds a config or weights is one.

        Args:
            folder: searched at any depth; an adapter's name is its path below it.
            shapes: the base model's modules, see `mixing.base_shapes`.

        Raises:
            PoolError: the folder does not exist, or holds no adapter at all.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise PoolError(f"the pool {folder} is not a folder", hint="set [pool] path in the settings")
        adapters: dict[str, Adapter] = {}
        refused: dict[str, str] = {}
        for place in _adapter_folders(folder):
            name = place.relative_to(folder).as_posix()
            try:
                adapters[name] = check_adapter(place, name, shapes)
            except AdapterRefusedError as error:
                refused[name] = error.message
        if not adapters and not refused:
            raise PoolError(
                f"the pool {folder} holds no adapter",
                hint=f"an adapter is a folder with {CONFIG} and {WEIGHTS}",
            )
        return cls(adapters, refused)

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


def _adapter_folders(folder: Path) -> list[Path]:
    """Folders at any depth below, in name order, that look like an adapter."""
    return sorted(set(_walk(folder, frozenset())) - {folder})


def _walk(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    # Links are followed, which rglob does not do, but never in a circle.
    here = folder.resolve()
    if here in above:
        return
    _, inner, files = next(os.walk(folder), ("", [], []))
    if {CONFIG, WEIGHTS, "adapter_model.bin"} & set(files):
        yield folder
    for name in inner:
        yield from _walk(folder / name, above | {here})
