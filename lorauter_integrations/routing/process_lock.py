"""One process at a time in a folder. Knows files only.

Two processes that write one embedded Chroma folder damage its vector index without an error, so a second
one is refused.
"""

from __future__ import annotations

import os
from pathlib import Path

from filelock import FileLock, Timeout

from lorauter_integrations.errors import IndexLockedError


class ProcessLock:
    """The right of this process to a folder, held until `release` or the process ends.

    Several may be held for one folder within a process; the folder is free when all are released.

    Raises:
        IndexLockedError: another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder.resolve() / "lorauter.lock"
        owner = file.with_suffix(".owner")
        # A singleton counts its holders, so that one process can open the folder twice.
        self._lock = FileLock(file, is_singleton=True, thread_local=False)
        try:
            self._lock.acquire(blocking=False)
        except Timeout as error:
            raise IndexLockedError(
                f"the index {folder} is open in another process ({_read(owner)})",
                hint='close it there, or run a Chroma server and set [index] url = "http://HOST:PORT"',
            ) from error
        self._held = True
        owner.write_text(f"process {os.getpid()}")

    def release(self) -> None:
        """Give the folder back; a second call does nothing."""
        if self._held:
            self._held = False
            self._lock.release()


def _read(owner: Path) -> str:
    try:
        return owner.read_text()
    except OSError:
        return "process unknown"
