"""An append-only file of lines, for work that must survive a kill. Knows files only."""

from __future__ import annotations

import os
from pathlib import Path

from filelock import FileLock

from lorauter_integrations.errors import MappingError


class Journal:
    """Whole lines of a file; each is on disk before `append` returns. Several processes may share one.

    Args:
        file: made at the first line.
        name: what it is called in messages, such as "ledger".
    """

    def __init__(self, file: Path, name: str) -> None:
        self._file = file
        self._name = name

    def lines(self) -> list[bytes]:
        """All lines; a last one that a killed process left half is cut off the file.

        Raises:
            MappingError: the file cannot be read.
        """
        if not self._file.exists():
            return []
        try:
            with self._alone():
                content = self._file.read_bytes()
                whole = content[: content.rfind(b"\n") + 1]
                if len(whole) < len(content):
                    os.truncate(self._file, len(whole))
        except OSError as error:
            raise MappingError(f"the {self._name} {self._file} cannot be read: {error}") from error
        return whole.splitlines()

    def append(self, text: str) -> None:
        """Write one or more lines, or nothing.

        Args:
            text: each line with its end.

        Raises:
            MappingError: the file cannot be written.
        """
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._alone(), self._file.open("ab") as stream:
                before = stream.tell()
                try:
                    stream.write(text.encode())
                    stream.flush()
                    os.fsync(stream.fileno())
                except OSError:
                    os.truncate(self._file, before)
                    raise
        except OSError as error:
            raise MappingError(f"the {self._name} {self._file} cannot be written: {error}") from error

    def _alone(self) -> FileLock:
        """Keeps two processes apart while a line is written or a torn one cut off."""
        return FileLock(self._file.with_name(self._file.name + ".lock"))
