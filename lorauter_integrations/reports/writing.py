"""How a report is written, and the error for one that cannot be. Knows files only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lorauter_integrations.errors import LoRAuterError, MappingError

KEPT = "set [mapping] report to a folder that may be written to; the mapping itself is kept"


@contextmanager
def writing(file: str | Path, error: type[LoRAuterError] = MappingError, hint: str = KEPT) -> Iterator[None]:
    """Wrap the writing of a report; its folder is made.

    Args:
        file: the report.
        error: what is raised when it cannot be written.
        hint: what to do then.

    Raises:
        LoRAuterError: the file cannot be written; of the kind that was asked for.
    """
    try:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as caught:
        raise error(f"the report {file} cannot be written: {caught}", hint=hint) from caught


def write_whole(file: Path, text: str) -> None:
    """Write a text; who reads at the same time sees all of it, or what was there before.

    Half a surrogate pair, which JSON may hold and UTF-8 may not, becomes a question mark.
    """
    beside = file.with_name(f"{file.name}.tmp")
    try:
        beside.write_text(text, encoding="utf-8", errors="replace")
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)
