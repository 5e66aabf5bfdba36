"""A new adapter takes its folder's place whole, or not at all; beside it `source.json` says where it came from.

Below the pool, `.hub` holds what is on its way. Knows no network.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lorauter_integrations.errors import PoolError
from lorauter_integrations.pool.adapter import CONFIG, PICKLED, WEIGHTS
from lorauter_integrations.pool.hub.location import SOURCE

STAGING = ".hub"
_OLD, _NAME = "old", "name"
_OWN = (CONFIG, WEIGHTS, PICKLED, SOURCE)


@dataclass(frozen=True, slots=True)
class Source:
    """Where an adapter came from.

    Attributes:
        repo: ORG/NAME.
        revision: what was asked for.
        commit: what it was then.
        sub: the folder within the repository.
        files: name -> {"sha256" or "etag", "size"}.
    """

    repo: str
    revision: str
    commit: str
    sub: str
    files: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, folder: Path) -> Source | None:
        """Of an adapter's folder; None when it has none that can be read."""
        try:
            source = cls(**json.loads((folder / SOURCE).read_text(encoding="utf-8")))
            return source if all(isinstance(facts["size"], int) for facts in source.files.values()) else None
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def write(self, folder: Path) -> None:
        """Into an adapter's folder."""
        (folder / SOURCE).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    def is_whole(self, folder: Path) -> bool:
        """Whether all its files are there, each of its size."""
        files = {name: folder / name for name in self.files}
        return all(file.is_file() and file.stat().st_size == self.files[name]["size"] for name, file in files.items())


class Slot:
    """The folder of one adapter in a pool, and where its next content is made ready.

    Args:
        pool: the pool's folder.
        name: the adapter's, made of plain names.
        commit: of the next content.

    Attributes:
        folder: where the adapter lies, or will.
        staged: where its next content is made ready.
        probe: a folder for what must not be taken along.
        source: of the adapter that is there; None without one.

    Raises:
        PoolError: a link leads out of the pool, or another's adapter lies there.
    """

    def __init__(self, pool: Path, name: str, commit: str) -> None:
        self.folder = pool / name
        if not self.folder.resolve().is_relative_to(pool.resolve()):
            raise PoolError(f"{self.folder} leads out of the pool, to {self.folder.resolve()}")
        # Both x--y and x/y may be names; the hash keeps them apart.
        key = f"{name.replace('/', '--')[:80]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        self._name = name
        self._room = pool / STAGING / key
        self.staged = self._room / commit
        self.probe = self._room / "probe"
        self._forget_other_commits()
        self.source = Source.read(self.folder)
        if self.source is None and any((self.folder / file).exists() for file in (CONFIG, WEIGHTS, PICKLED)):
            raise PoolError(
                f"{self.folder} holds an adapter that was not added from the Hub", hint="move it away, or rename it"
            )

    def _forget_other_commits(self) -> None:
        for left in self._room.glob("*/"):
            if left != self.staged:
                shutil.rmtree(left)

    def clear(self) -> None:
        """Forget what was made ready."""
        shutil.rmtree(self._room, ignore_errors=True)

    def fill(self, source: Source) -> None:
        """Put what was made ready into the adapter's place, on disk for good, with its source beside it.

        Anything else that lies in the folder, such as adapters of inner folders, stays.
        """
        source.write(self.staged)
        if self.folder.exists():
            shutil.copytree(
                self.folder,
                self.staged,
                symlinks=True,
                ignore=lambda folder, _: _OWN if Path(folder) == self.folder else (),
                copy_function=link_or_copy,
                dirs_exist_ok=True,
            )
        for name in (*source.files, SOURCE, ""):
            _to_disk(self.staged / name)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._swap()
        _to_disk(self.folder.parent)
        self.clear()

    def _swap(self) -> None:
        # No system call swaps two folders everywhere; a kill between the renames is undone by `undo_half_swaps`.
        old = self._room / _OLD
        if self.folder.exists():
            (self._room / _NAME).write_text(self._name, encoding="utf-8")
            os.replace(self.folder, old)
        try:
            os.replace(self.staged, self.folder)
        except OSError:
            if old.exists():
                os.replace(old, self.folder)
            raise


def undo_half_swaps(pool: Path) -> None:
    """Put adapters back whose replacement was killed in its middle."""
    for note in (pool / STAGING).glob(f"*/{_NAME}"):
        folder = pool / note.read_text(encoding="utf-8")
        if (note.parent / _OLD).exists() and not folder.exists():
            os.replace(note.parent / _OLD, folder)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """A second name for a file that is never written in place; a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _to_disk(path: Path) -> None:
    if os.name == "nt":  # Windows opens no folders, and syncs no file that is open for reading only
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
