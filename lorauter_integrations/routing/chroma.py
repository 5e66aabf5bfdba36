"""Chroma clients, their errors as ours, and vectors as Chroma's metadata keeps them. Knows nothing of tasks."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lorauter_integrations.errors import TaskIndexError
from lorauter_integrations.routing.address import parse_address
from lorauter_integrations.routing.encoder import Vectors


def folder_client(folder: Path) -> Any:
    """A client of an embedded Chroma. Raises `TaskIndexError`."""
    import chromadb

    with chroma_errors(f"open the folder {folder}"):
        return chromadb.PersistentClient(str(folder.resolve()), settings=_quiet_settings())


def server_client(url: str) -> Any:
    """A client of a Chroma server.

    Raises:
        ConfigError: `url` is not http://HOST[:PORT] or https://HOST[:PORT].
        TaskIndexError: the server does not answer.
    """
    import chromadb

    host, port, secure = parse_address(url)
    with chroma_errors(f"reach the Chroma server {url}"):
        return chromadb.HttpClient(host, port, ssl=secure, settings=_quiet_settings())


def require_cosine(collection: Any) -> None:
    """Refuse a collection that compares otherwise. Raises `TaskIndexError`."""
    space = (collection.configuration.get("hnsw") or {}).get("space")
    if space != "cosine":
        raise TaskIndexError(
            f"the collection {collection.name!r} compares by {space!r}, not by 'cosine'",
            hint="give the index a collection of its own",
        )


@contextmanager
def chroma_errors(doing: str) -> Iterator[None]:
    """Turn Chroma's errors into `TaskIndexError`, with its own words kept."""
    from chromadb.errors import ChromaError
    from httpx import HTTPError  # what Chroma's client lets through when the server goes away

    try:
        yield
    except (ChromaError, HTTPError, ValueError, OSError) as error:
        raise TaskIndexError(
            f"Chroma could not {doing}: {error}",
            hint="check [index] in the settings, and that the server is up",
        ) from error


def packed(vectors: Vectors) -> str:
    """Unit vectors as text, with 2 bytes a number: one record can hold those of a task's examples."""
    return base64.b64encode(vectors.astype("<f2").tobytes()).decode("ascii")


def unpacked(text: str, dimension: int) -> Vectors:
    """What `packed` packed. *Shape:* ``(n, dimension)``."""
    return np.frombuffer(base64.b64decode(text), dtype="<f2").reshape(-1, dimension).astype(np.float32)


def _quiet_settings() -> Any:
    from chromadb.config import Settings

    return Settings(anonymized_telemetry=False)
