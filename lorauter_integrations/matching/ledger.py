"""Every score ever measured, in an append-only file, so that no question is asked twice. Knows files only."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from lorauter_integrations.errors import MappingError


class Key(NamedTuple):
    """What a score depends on.

    Attributes:
        scorer: base model, prompt form, metric and options, as one hash.
        adapter: the adapter's content hash; empty for the base model.
        example: the example's content hash.
    """

    scorer: str
    adapter: str
    example: str


class Ledger:
    """Scores by key, kept in a JSONL file; one line holds one batch, written at once.

    A process killed in the middle of a line loses that batch only: the piece is cut off at the next start.

    Args:
        file: made at the first record; None keeps the scores in memory only.

    Raises:
        MappingError: the file cannot be read, or a line before the last is damaged.
    """

    def __init__(self, file: str | Path | None = None) -> None:
        self._file = Path(file) if file else None
        self._scores: dict[Key, float] = {}
        if self._file and self._file.exists():
            self._load(self._file)

    def __len__(self) -> int:
        return len(self._scores)

    @property
    def adapters(self) -> set[str]:
        """Content hashes of all adapters that something is known of."""
        return {key.adapter for key in self._scores}

    def get(self, key: Key) -> float | None:
        """The score of a key, or None when it has not been measured."""
        return self._scores.get(key)

    def record(self, keys: Sequence[Key], scores: Sequence[float]) -> None:
        """Keep the scores of one batch, on disk before this returns.

        Raises:
            MappingError: the file cannot be written.
        """
        if not all(map(math.isfinite, scores)):
            raise MappingError(f"a score is not a finite number: {scores}")
        if self._file:
            line = json.dumps([[*key, score] for key, score in zip(keys, scores, strict=True)]) + "\n"
            try:
                _append(self._file, line.encode())
            except OSError as error:
                raise MappingError(f"the ledger {self._file} cannot be written: {error}") from error
        self._scores.update(zip(keys, scores, strict=True))

    def _load(self, file: Path) -> None:
        try:
            with _alone(file):
                content = file.read_bytes()
                whole = content[: content.rfind(b"\n") + 1]
                if len(whole) < len(content):
                    os.truncate(file, len(whole))
        except OSError as error:
            raise MappingError(f"the ledger {file} cannot be read: {error}") from error
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                self._scores.update({Key(s, a, e): float(score) for s, a, e, score in json.loads(line)})
            except (ValueError, TypeError) as error:
                raise MappingError(
                    f"the ledger {file} is damaged at line {number}: {error}",
                    hint="delete that line; its questions will be asked again",
                ) from error


def _alone(file: Path) -> FileLock:
    """Keeps two mapping processes on one ledger apart while a line is written or a torn one cut off."""
    return FileLock(file.with_name(file.name + ".lock"))


def _append(file: Path, line: bytes) -> None:
    """Write a whole line or nothing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with _alone(file), file.open("ab") as stream:
        before = stream.tell()
        try:
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())
        except OSError:
            os.truncate(file, before)
            raise
