"""The error for a framework that is not installed. Knows the names of the extras only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lorauter_integrations.errors import MissingExtraError


@contextmanager
def needs_extra(extra: str, package: str) -> Iterator[None]:
    """Wrap the imports of a framework.

    Raises:
        MissingExtraError: the package is not installed; the message names the extra.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise MissingExtraError(
            f"this needs {package.replace('_', '-')}, which is not installed",
            hint=f"pip install 'lorauter-integrations[{extra}]'",
        ) from error
