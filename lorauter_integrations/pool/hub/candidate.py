"""One adapter of the Hub on its way into a pool: its configuration is judged first, its weights come last."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lorauter_integrations.errors import AdapterRefusedError, PoolError
from lorauter_integrations.pool.adapter import CONFIG, PICKLED, WEIGHTS
from lorauter_integrations.pool.checks import Checker, check_config, check_header
from lorauter_integrations.pool.config_rules import compare_bases
from lorauter_integrations.pool.contents import BaseShapes
from lorauter_integrations.pool.hub.client import Hub
from lorauter_integrations.pool.hub.listing import Listing, RemoteFile
from lorauter_integrations.pool.hub.location import folder_problem, pool_name
from lorauter_integrations.pool.hub.placement import Slot, Source
from lorauter_integrations.pool.wording import shown

HEADER = 1 << 16  # bytes that are asked for first; few headers have more
# The checks read no more of either.
_LARGEST_HEADER = 32 << 20
_LARGEST_CONFIG = 8 << 20


@dataclass(frozen=True, slots=True)
class Criteria:
    """Which adapters may enter a pool.

    Attributes:
        base: the base model's name, compared with the one that an adapter names; not compared when empty.
        shapes: gives the base model's modules, which the weights must fit; called when the first weights are
            judged, since a base model takes seconds to describe. Not compared when None.
        strict_base: refuse an adapter that names another base model; else that is a remark.
        allow_bin: take `adapter_model.bin`, a pickle, where there are no safetensors.
    """

    base: str = ""
    shapes: Callable[[], BaseShapes] | None = None
    strict_base: bool = False
    allow_bin: bool = False


ANY = Criteria()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one adapter.

    Attributes:
        adapter: its name in the pool; the location when no adapter was found.
        state: refused is by a rule, failed for any other reason.
        reason: why it was refused or failed, and what to do; a remark on one that was added.
        commit: where it is pinned; empty unless it is in the pool.
        size: bytes of its weights; 0 unless it is in the pool.
    """

    adapter: str
    state: Literal["added", "already there", "refused", "failed"]
    reason: str = ""
    commit: str = ""
    size: int = 0

    @classmethod
    def there(cls, adapter: str, source: Source) -> Outcome:
        """It is in the pool already."""
        return cls(adapter, "already there", "", source.commit, _bytes_of_weights(source))


class Candidate:
    """An adapter that a repository lists.

    Args:
        listing: the repository at a commit.
        sub: the adapter's folder in it.
        pool: the pool's folder.
        hub: where the files come from.
        criteria: what they must meet.
    """

    def __init__(self, listing: Listing, sub: str, *, pool: Path, hub: Hub, criteria: Criteria) -> None:
        self._problem = folder_problem(sub)
        name = pool_name(listing.repo, sub)
        self.name = shown(name) if self._problem else name
        self._listing = listing
        self._sub = sub
        self._pool = pool
        self._hub = hub
        self._criteria = criteria
        self._config: Mapping[str, Any] = {}
        self._remark = ""

    def check(self) -> Outcome | None:
        """Judge all that needs no weights; None when it may go on.

        Raises:
            AdapterRefusedError: a rule that the folder's name or the configuration breaks.
            PoolError: the configuration cannot be had.
        """
        if self._problem:
            raise AdapterRefusedError(f"this cannot be a folder of the pool: {self._problem}")
        self._slot = Slot(self._pool, self.name, self._listing.commit)
        source, wanted = self._slot.source, (self._listing.repo, self._sub, self._listing.commit)
        if source and (source.repo, source.sub, source.commit) == wanted and source.is_whole(self._slot.folder):
            self._slot.clear()
            return Outcome.there(self.name, source)
        try:
            self._config = self._judged_config()
            self._weights()
        except AdapterRefusedError:
            self._slot.clear()
            raise
        return None

    def _judged_config(self) -> Mapping[str, Any]:
        file = self._config_file
        if file.size > _LARGEST_CONFIG:
            raise AdapterRefusedError(f"its {CONFIG} has {file.size} bytes, more than {_LARGEST_CONFIG}")
        self._slot.staged.mkdir(parents=True, exist_ok=True)
        self._hub.download(self._listing, file, self._slot.staged / CONFIG)
        config = check_config(self._slot.staged)
        self._remark = compare_bases(config, self._criteria.base, strict=self._criteria.strict_base)
        return config

    @property
    def _config_file(self) -> RemoteFile:
        return self._listing.files[f"{self._sub}/{CONFIG}" if self._sub else CONFIG]

    def _weights(self) -> RemoteFile:
        folder = f"{self._sub}/" if self._sub else ""
        files = self._listing.files
        if weights := files.get(folder + WEIGHTS):
            return weights
        pickle = files.get(folder + PICKLED)
        if pickle and self._criteria.allow_bin:
            return pickle
        if self._hub.offline:
            raise PoolError(
                f"offline, and {folder}{WEIGHTS} of {self._listing.repo} is not in huggingface_hub's cache"
            )
        if pickle:
            raise AdapterRefusedError(
                f"only {PICKLED} (a pickle, which can run code); --allow-bin takes it all the same"
            )
        raise AdapterRefusedError(f"no {WEIGHTS}")

    def bring(self) -> Outcome:
        """Fetch the weights and put the adapter into the pool; call it after `check`.

        Raises:
            AdapterRefusedError: the weights do not fit the base model or break another rule.
            PoolError: they cannot be had.
        """
        weights = self._weights()
        try:
            self._fetch_checked(weights)
        except AdapterRefusedError:
            self._slot.clear()
            raise
        files = {file.name: file.facts for file in (self._config_file, weights)}
        listing = self._listing
        self._slot.fill(Source(listing.repo, listing.revision, listing.commit, self._sub, files))
        return Outcome(self.name, "added", self._remark, listing.commit, weights.size)

    def _fetch_checked(self, weights: RemoteFile) -> None:
        source, target = self._slot.source, self._slot.staged / weights.name
        if source and source.files.get(weights.name) == weights.facts:  # another commit with the same weights
            weights.take(self._slot.folder / weights.name, target)
        # A whole file is seen to be the right one before it is judged.
        if self._fetch_header(weights, target) and target.stat().st_size < weights.size:
            self._check_header(weights, target)
        self._hub.download(self._listing, weights, target)
        self._check_whole(target)

    def _check_whole(self, target: Path) -> None:
        asked = self._criteria
        if asked.shapes:
            checker = Checker(
                asked.shapes(), allow_bin=asked.allow_bin, base=asked.base, strict_base=asked.strict_base
            )
            adapter = checker.check(self._slot.staged, self.name)
            alone = f"alone only: {adapter.alone}" if adapter.alone else ""
            self._remark = "; ".join(filter(None, [*adapter.warnings, alone]))
        elif target.name == WEIGHTS:
            check_header(target, self._config)

    def _fetch_header(self, weights: RemoteFile, target: Path) -> bool:
        """Bring the header only; False when there is none, or the server sends no beginnings of files."""
        if weights.name != WEIGHTS or not self._hub.fetch(self._listing, weights, target, until=HEADER):
            return False
        length = 8 + _header_length(target)
        return length > _LARGEST_HEADER or self._hub.fetch(self._listing, weights, target, until=length)

    def _check_header(self, weights: RemoteFile, target: Path) -> None:
        self._slot.probe.mkdir(exist_ok=True)
        probe = self._slot.probe / WEIGHTS
        with target.open("rb") as stream, probe.open("wb") as out:
            out.write(stream.read(min(8 + _header_length(target), _LARGEST_HEADER)))
            out.truncate(weights.size)  # the values are a hole in the file
        check_header(probe, self._config, self._criteria.shapes and self._criteria.shapes())
        shutil.rmtree(self._slot.probe)


def _header_length(file: Path) -> int:
    with file.open("rb") as stream:
        return int.from_bytes(stream.read(8), "little")


def _bytes_of_weights(source: Source) -> int:
    return sum(int(facts["size"]) for name, facts in source.files.items() if name != CONFIG)
