"""Where adapters lie below a folder. Opens no file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lorauter_integrations.pool.files import is_adapter_folder


@dataclass(frozen=True, slots=True)
class Place:
    """A folder that holds an adapter, or looks like one.

    Attributes:
        name: its path below the pool, with `/`, without characters that do not print.
        folder: the same as it is.
        refused: why nothing in it may be opened; empty if it may.
    """

    name: str
    folder: Path
    refused: str = ""


def find_adapters(pool: Path) -> list[Place]:
    """The adapters at any depth below a folder, sorted by name; hidden folders are left out.

    A link right in the pool is followed as a folder is. One further down, which may have come with a download, is
    followed only to a folder that is itself an adapter.
    """
    return sorted(_below(pool, pool, frozenset()), key=lambda place: place.name)


def _below(folder: Path, pool: Path, above: frozenset[str]) -> Iterator[Place]:
    here = os.path.realpath(folder)
    if here in above:
        return
    try:
        entries = sorted(os.listdir(folder))
    except OSError as error:
        yield _place(folder, pool, f"the folder cannot be read: {error.strerror}")
        return
    for entry in entries:
        inner = folder / entry
        if entry.startswith(".") or not os.path.isdir(inner):
            continue
        if inner.is_symlink() and folder != pool:
            yield from _linked(inner, pool)
        else:
            yield from _folder(inner, pool, above | {here})


def _folder(folder: Path, pool: Path, above: frozenset[str]) -> Iterator[Place]:
    if _is_adapter(folder):
        yield _place(folder, pool)
    yield from _below(folder, pool, above)


def _linked(folder: Path, pool: Path) -> Iterator[Place]:
    if _is_adapter(folder):
        yield _place(folder, pool)
    elif not Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(pool)):
        yield _place(folder, pool, "a link to a folder outside the pool that is no adapter")


def _is_adapter(folder: Path) -> bool:
    _, _, files = next(os.walk(folder), ("", [], []))
    return is_adapter_folder(files)


def _place(folder: Path, pool: Path, refused: str = "") -> Place:
    name = folder.relative_to(pool).as_posix()
    if name.isprintable():
        return Place(name, folder, refused)
    return Place(name.encode("unicode_escape").decode(), folder, "its name has characters that do not print")
