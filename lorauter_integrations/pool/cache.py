"""What earlier checks have read from weights files, in a JSON file outside the pool. Knows no rules.

Only what takes reading a whole file is remembered; the rules are applied anew every time. A file that has another
size, time or inode than it had is read again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

from lorauter_integrations.pool import values
from lorauter_integrations.pool.values import Values

logger = logging.getLogger(__name__)


class ValuesCache:
    """Weights file -> what its numbers have shown. Threads may share it; processes may share the file.

    Args:
        file: where it is kept; one that is missing, damaged or of another version counts as empty. None keeps
            nothing.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._entries: dict[str, list[Any]] = _read(file) if file else {}
        self._used: set[str] = set()
        self._changed = False

    def get(self, weights: Path, facts: os.stat_result, settings: str) -> Values | None:
        """What was read from a file in this state and under these settings; None if it was not."""
        key = _key(weights)
        entry = self._entries.get(key)
        if entry is None or entry[:5] != [*_listed(facts), settings]:
            return None
        self._used.add(key)
        return Values(*entry[5:])

    def put(self, weights: Path, facts: os.stat_result, settings: str, found: Values) -> None:
        """Remember what was read from a file.

        Args:
            weights: the file.
            facts: its state before it was read.
            settings: see `values.arithmetic`.
            found: what the numbers have shown.
        """
        key = _key(weights)
        self._entries[key] = [*_listed(facts), settings, found.content_hash, found.fault, found.zero]
        self._used.add(key)
        self._changed = True

    def save(self, pool: Path) -> None:
        """Write the file if anything is new; what lay in this pool and was not asked for is forgotten.

        A file that cannot be written is a warning in the log: the next check reads the weights again.
        """
        if self._file is None or not self._changed:
            return
        inside = _key(pool) + os.sep
        kept = {k: v for k, v in self._entries.items() if k in self._used or not k.startswith(inside)}
        text = json.dumps({"version": _version(), "files": kept})
        try:
            _write(self._file, text)
        except OSError as error:
            logger.warning("the pool's cache %s cannot be written: %s", self._file, error)


def _write(file: Path, text: str) -> None:
    # Renaming is atomic: a reader, and a second writer, see a whole file or the one before.
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f"{file.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.replace(name, file)
    except OSError:
        os.unlink(name)
        raise


def _read(file: Path) -> dict[str, list[Any]]:
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(stored, dict) or stored.get("version") != _version():
        return {}
    entries = stored.get("files")
    return {k: v for k, v in entries.items() if _is_entry(v)} if isinstance(entries, dict) else {}


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 8 and all(isinstance(part, str) for part in entry[4:])


def _version() -> str:
    """Changes with the code that reads the numbers."""
    source = Path(values.__file__)
    code = [source.with_name(name).read_bytes() for name in (source.name, "pickled.py")]
    return hashlib.sha256(b"".join(code)).hexdigest()[:16]


def _key(path: Path) -> str:
    return os.path.abspath(path)


def _listed(facts: os.stat_result) -> list[int]:
    return [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino]
