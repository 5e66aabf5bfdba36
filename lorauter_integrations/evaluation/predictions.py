"""Answers that were written once, kept in a file, so that no method asks for the same one again. Knows files only."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from lorauter_integrations.errors import MappingError


class Predictions:
    """Answers by key, in a JSONL file; a run that is stopped goes on from it.

    A line that a killed process left half is cut off; its answers are written again.

    Args:
        file: made at the first answer.

    Raises:
        MappingError: a line before the last cannot be read.
    """

    def __init__(self, file: str | Path) -> None:
        self._file = Path(file)
        self._answers: dict[str, str] = {}
        if self._file.exists():
            self._read()

    def __contains__(self, key: str) -> bool:
        return key in self._answers

    def __getitem__(self, key: str) -> str:
        return self._answers[key]

    def __len__(self) -> int:
        return len(self._answers)

    def keep(self, answers: Iterable[tuple[str, str]]) -> None:
        """Keep some answers; they are on disk before this returns."""
        lines = ""
        for key, text in answers:
            self._answers[key] = text
            lines += json.dumps([key, text], ensure_ascii=False) + "\n"
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(lines)
            stream.flush()
            os.fsync(stream.fileno())

    def _read(self) -> None:
        content = self._file.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(self._file, len(whole))
        for number, line in enumerate(whole.decode("utf-8").splitlines(), 1):
            try:
                key, text = json.loads(line)
            except ValueError as error:
                raise MappingError(
                    f"the predictions {self._file} are damaged at line {number}: {error}",
                    hint="delete that line; its answer will be written again",
                ) from error
            self._answers[key] = text
