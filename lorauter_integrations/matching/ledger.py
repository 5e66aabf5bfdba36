"""Every score ever measured, in an append-only file, so that no question is asked twice. Knows files only."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lorauter_integrations.errors import MappingError
from lorauter_integrations.journal import Journal


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
        self._journal = Journal(Path(file), "ledger") if file else None
        self._scores: dict[Key, float] = {}
        if file and self._journal:
            self._load(file, self._journal.lines())

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
        if self._journal:
            self._journal.append(json.dumps([[*key, score] for key, score in zip(keys, scores, strict=True)]) + "\n")
        self._scores.update(zip(keys, scores, strict=True))

    def _load(self, file: str | Path, lines: Sequence[bytes]) -> None:
        for number, line in enumerate(lines, 1):
            try:
                self._scores.update({Key(s, a, e): float(score) for s, a, e, score in json.loads(line)})
            except (ValueError, TypeError) as error:
                raise MappingError(
                    f"the ledger {file} is damaged at line {number}: {error}",
                    hint="delete that line; its questions will be asked again",
                ) from error
