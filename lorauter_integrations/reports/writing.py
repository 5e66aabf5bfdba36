"""The error for a report that cannot be written. Knows files only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lorauter_integrations.errors import MappingError


@contextmanager
def writing(file: str | Path) -> Iterator[None]:
    """Wrap the writing of a report; its folder is made.

    Raises:
        MappingError: the file cannot be written.
    """
    try:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise MappingError(
            f"the report {file} cannot be written: {error}",
            hint="set [mapping] report to a folder that may be written to; the mapping itself is kept",
        ) from error
