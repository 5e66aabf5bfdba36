"""What a repository holds, as values. Takes the answers of huggingface_hub, makes no call."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorauter_integrations.errors import PoolError, listing
from lorauter_integrations.pool.adapter import CONFIG, PICKLED, WEIGHTS
from lorauter_integrations.pool.hub.placement import link_or_copy
from lorauter_integrations.pool.wording import shown

_COMMIT = re.compile(r"[0-9a-f]{40}")
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository.

    Attributes:
        path: within the repository.
        size: bytes.
        digest: SHA-256 of a file in LFS, git's blob id (SHA-1) of any other; empty when unknown.
    """

    path: str
    size: int
    digest: str = ""

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]

    @property
    def facts(self) -> dict[str, str | int]:
        """What `source.json` says of it."""
        return {"sha256" if len(self.digest) == 64 else "etag": self.digest, "size": self.size}

    def is_intact(self, file: Path) -> bool:
        """Whether a file on disk is this one, by size and digest."""
        if file.stat().st_size != self.size:
            return False
        if not self.digest:
            return True
        digest = hashlib.sha256() if len(self.digest) == 64 else hashlib.sha1(f"blob {self.size}\0".encode())
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
        return digest.hexdigest() == self.digest

    def take(self, known: Path, target: Path) -> None:
        """Use a file of this machine that should be this one; not when `target` has begun to arrive."""
        if not target.exists() and known.stat().st_size == self.size:
            link_or_copy(known, target)


@dataclass(frozen=True, slots=True)
class Listing:
    """The adapters' files of a repository at one commit.

    Attributes:
        repo: ORG/NAME.
        revision: what was asked for.
        commit: what it was when it was asked for.
        files: path -> file.
    """

    repo: str
    revision: str
    commit: str
    files: Mapping[str, RemoteFile] = field(repr=False)

    @classmethod
    def from_answer(cls, repo: str, revision: str, info: Any) -> Listing:
        """From huggingface_hub's ModelInfo with the files' facts.

        Raises:
            PoolError: it does not say what the commit is, or how large an adapter's file.
        """
        if not isinstance(info.sha, str) or not _COMMIT.fullmatch(info.sha):
            raise PoolError(f"the Hub does not say which commit {repo} at {revision!r} is")
        files = [_sibling(repo, sibling) for sibling in info.siblings or () if _is_an_adapters(sibling.rfilename)]
        return cls(repo, revision, info.sha, {file.path: file for file in files})

    @classmethod
    def from_cache(cls, repo: str, revision: str, cached: Any) -> Listing:
        """From huggingface_hub's CachedRevisionInfo; its blobs are named by digest."""
        files = [
            RemoteFile(
                file.file_path.relative_to(cached.snapshot_path).as_posix(),
                file.size_on_disk,
                file.blob_path.name if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", file.blob_path.name) else "",
            )
            for file in cached.files
            if _is_an_adapters(file.file_name)
        ]
        return cls(repo, revision, cached.commit_hash, {file.path: file for file in files})

    def adapters(self, below: str = "") -> list[str]:
        """The folders with an `adapter_config.json`, sorted.

        Args:
            below: only this folder and those in it.

        Raises:
            PoolError: there is none.
        """
        every = [path.rpartition("/")[0] for path in self.files if path.rpartition("/")[2] == CONFIG]
        found = sorted(sub for sub in every if not below or f"{sub}/".startswith(f"{below}/"))
        if not found:
            where = f"{self.repo} at {self.revision!r}" + (f" below {below!r}" if below else "")
            hint = f"it has adapters in the folders {listing(every)}" if every else "this is no PEFT adapter"
            raise PoolError(f"{where} has no {CONFIG}", hint=hint)
        return found


def _is_an_adapters(path: str) -> bool:
    return path.rpartition("/")[2] in {CONFIG, WEIGHTS, PICKLED}


def _sibling(repo: str, sibling: Any) -> RemoteFile:
    digest = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id or ""
    if type(sibling.size) is not int or sibling.size < 0:
        raise PoolError(f"the Hub does not say how large {shown(sibling.rfilename)} of {repo} is")
    return RemoteFile(sibling.rfilename, sibling.size, str(digest))


@dataclass(frozen=True, slots=True)
class Found:
    """An adapter that a search found.

    Attributes:
        repo: ORG/NAME.
        downloads: in the last 30 days.
        likes: in all.
        changed: the day of the last change; empty when unknown.
        size: bytes of the whole repository; None when unknown.
    """

    repo: str
    downloads: int
    likes: int
    changed: str
    size: int | None

    @classmethod
    def from_answer(cls, info: Any) -> Found:
        """From huggingface_hub's ModelInfo."""
        changed = info.last_modified.date().isoformat() if info.last_modified else ""
        return cls(info.id, info.downloads or 0, info.likes or 0, changed, info.used_storage)
