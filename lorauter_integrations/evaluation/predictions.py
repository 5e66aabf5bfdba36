"""Answers that were written once, kept in a file, so that no method asks for the same one again. Knows files only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from lorauter_integrations.errors import MappingError
from lorauter_integrations.journal import Journal


class Predictions:
    """Answers by key, in a JSONL file; a run that is stopped goes on from it.

    A line that a killed process left half is cut off; its answers are written again.

    Args:
        file: made at the first answer.

    Raises:
        MappingError: the file cannot be read, or a line before the last is damaged.
    """

    def __init__(self, file: str | Path) -> None:
        self._journal = Journal(Path(file), "predictions")
        self._answers: dict[str, str] = {}
        for number, line in enumerate(self._journal.lines(), 1):
            try:
                key, text = json.loads(line)
            except ValueError as error:
                raise MappingError(
                    f"the predictions {file} are damaged at line {number}: {error}",
                    hint="delete that line; its answer will be written again",
                ) from error
            self._answers[key] = text

    def __contains__(self, key: str) -> bool:
        return key in self._answers

    def __getitem__(self, key: str) -> str:
        return self._answers[key]

    def __len__(self) -> int:
        return len(self._answers)

    def keep(self, answers: Mapping[str, str]) -> None:
        """Keep some answers; they are on disk before this returns.

        Raises:
            MappingError: the file cannot be written.
        """
        self._journal.append("".join(json.dumps(pair) + "\n" for pair in answers.items()))
        self._answers.update(answers)
