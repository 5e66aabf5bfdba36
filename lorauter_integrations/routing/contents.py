"""What a task index held at one moment, from Chroma's records. Knows their layout; asks Chroma nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from lorauter_integrations.adapter_map import Ranking
from lorauter_integrations.digests import digest
from lorauter_integrations.errors import TaskIndexError
from lorauter_integrations.routing.known_tasks import KnownTasks
from lorauter_integrations.routing.views import Embedded

ReadExamples = Callable[[Sequence[Ranking]], Sequence[Embedded]]


@dataclass(frozen=True, slots=True)
class Contents:
    """What was read at one moment.

    Attributes:
        mark: changes with every write.
        identity: a hash of all that is stored.
        known: the mapped tasks.
    """

    mark: str
    identity: str
    known: KnownTasks


def contents_of(
    records: Mapping[str, Any],
    mark: str,
    encoder: Sequence[str],
    read_examples: ReadExamples,
    before: Contents | None,
) -> Contents:
    """The contents of all records; with the very tasks of before where nothing has changed.

    Args:
        records: Chroma's answer, with metadatas and embeddings.
        mark: of the moment.
        encoder: what tells the encoder.
        read_examples: reads the examples' vectors of some tasks, when they are wanted.
        before: what was read last.

    Raises:
        TaskIndexError: a ranking cannot be read.
    """
    rows = sorted(zip(records["ids"], records["metadatas"], records["embeddings"], strict=True), key=_name)
    facts = [(name, stored["hash"], stored["mapped"], stored["ranking"]) for name, stored, _ in rows]
    identity = digest([list(encoder), facts])
    if before and before.identity == identity:
        return Contents(mark, identity, before.known)
    mapped = [(stored, vector) for _, stored, vector in rows if stored["mapped"]]
    rankings = [read_ranking(stored) for stored, _ in mapped]
    vectors = np.array([vector for _, vector in mapped], dtype=np.float32)
    known = KnownTasks(rankings, vectors, partial(read_examples, rankings), len(rows), identity)
    return Contents(mark, identity, known)


def read_ranking(facts: Mapping[str, Any]) -> Ranking:
    """The ranking in a record's metadata.

    Raises:
        TaskIndexError: another version wrote it.
    """
    try:
        return Ranking.from_json(facts["ranking"])
    except (ValueError, TypeError, KeyError) as error:
        raise TaskIndexError(
            f"a stored ranking cannot be read: {type(error).__name__}: {error}",
            hint="another version of this package wrote it; use a new collection, or run `lorauter map` again",
        ) from error


def _name(row: tuple[str, Any, Any]) -> str:
    return row[0]
