"""The vectors of tasks' examples in a Chroma collection of their own, one record a task. Knows no rankings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lorauter_integrations.routing.chroma import chroma_errors, packed, unpacked
from lorauter_integrations.routing.encoder import mean_vector
from lorauter_integrations.routing.views import Embedded
from lorauter_integrations.task import Task

AT_ONCE = 100  # records that are read in one request: some 20 MB


class ExampleVectors:
    """The records of a collection: a task's name, its content hash, and the vectors of its examples.

    Args:
        collection: of Chroma.
    """

    def __init__(self, collection: Any) -> None:
        self._collection = collection

    def put(self, tasks: Sequence[Task], examples: Sequence[Embedded]) -> None:
        """Store or replace the vectors of some tasks. Chroma's errors are the caller's."""
        self._collection.upsert(
            ids=[task.name for task in tasks],
            embeddings=[mean_vector(one.whole).tolist() for one in examples],
            metadatas=[_record(task.content_hash, one) for task, one in zip(tasks, examples, strict=True)],
        )

    def remove(self, name: str) -> None:
        """Forget a task. Chroma's errors are the caller's."""
        self._collection.delete(ids=[name])

    def read(self, hashes: Mapping[str, str]) -> dict[str, Embedded]:
        """The vectors of tasks; those whose content is another than stored are left out.

        Args:
            hashes: task -> its content hash.

        Raises:
            TaskIndexError: Chroma refuses.
        """
        found: dict[str, Embedded] = {}
        names = list(hashes)
        for start in range(0, len(names), AT_ONCE):
            with chroma_errors("read"):
                stored = self._collection.get(ids=names[start : start + AT_ONCE], include=["metadatas", "embeddings"])
            for name, facts, mean in zip(stored["ids"], stored["metadatas"], stored["embeddings"], strict=True):
                if facts["hash"] == hashes[name]:
                    found[name] = _examples(facts, len(mean))
        return found


def _record(content_hash: str, examples: Embedded) -> dict[str, str]:
    return {
        "hash": content_hash,
        "whole": packed(examples.whole),
        "endings": packed(examples.endings),
        "long": json.dumps(examples.long.tolist()),
    }


def _examples(facts: Mapping[str, Any], dimension: int) -> Embedded:
    long = np.array(json.loads(facts["long"]), dtype=np.int64)
    return Embedded(unpacked(facts["whole"], dimension), unpacked(facts["endings"], dimension), long)
