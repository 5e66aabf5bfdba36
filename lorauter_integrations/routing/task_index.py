"""Tasks found by meaning, kept in Chroma. Knows nothing of weights.

One record a task: the mean vector of its examples, the task itself as the document, and its ranking in the metadata.
The vectors of the examples lie in a second collection, one record a task. So every replica that reads both agrees.
"""

from __future__ import annotations

import logging
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from lorauter_integrations.adapter_map import AdapterMap, Ranking
from lorauter_integrations.errors import MappingError, TaskError, TaskIndexError, UnknownTaskError, listing
from lorauter_integrations.routing.chroma import (
    chroma_errors,
    folder_client,
    require_cosine,
    server_client,
)
from lorauter_integrations.routing.contents import Contents, contents_of, read_ranking
from lorauter_integrations.routing.encoder import Encoder, Vectors, as_encoder, mean_vector
from lorauter_integrations.routing.example_vectors import ExampleVectors
from lorauter_integrations.routing.known_tasks import KnownTasks, Neighbour, embed_examples
from lorauter_integrations.routing.probe import probe, require_same
from lorauter_integrations.routing.process_lock import ProcessLock
from lorauter_integrations.routing.remembered import Remembered
from lorauter_integrations.routing.views import Embedded
from lorauter_integrations.task import Task

logger = logging.getLogger(__name__)

SCHEMA = 2  # 1 had no vectors of examples, and read the beginning of long texts only
KEPT = 48  # of a ranking: a whole shortlist; a pool may have thousands
NOTICED = 1.0  # seconds after which what another process wrote is noticed


class TaskIndex:
    """The tasks of one Chroma collection, and the encoder that places texts among them.

    The mapped tasks' vectors are searched in memory, exactly: `known` reads them again when they have changed.

    Args:
        client: a Chroma client; left open by `close`, since it is the caller's.
        encoder: makes the vectors; checked against the one the collection was made with. A LangChain
            `Embeddings` or a LlamaIndex embedding will do.
        collection: name of the collection, 3 to 503 characters; another one is named after it.

    Raises:
        EncoderMismatchError: the stored vectors were made by another encoder.
        TaskIndexError: Chroma refuses.
    """

    def __init__(self, client: Any, encoder: Any, *, collection: str = "lorauter") -> None:
        self._encoder = as_encoder(encoder)
        self._closing = ExitStack()
        self._client = client
        self._contents = Remembered(self._read_contents, NOTICED)
        with chroma_errors("open the collection"):
            self._opened, examples = (
                client.get_or_create_collection(
                    name, configuration={"hnsw": {"space": "cosine"}}, embedding_function=None
                )
                for name in (collection, f"{collection}-examples")
            )
        self._examples = ExampleVectors(examples)
        self._check_collection()

    @classmethod
    def embedded(cls, folder: str | Path, encoder: Encoder, *, collection: str = "lorauter") -> TaskIndex:
        """Open or create an index in a folder, for this process alone.

        Raises:
            IndexLockedError: another process has it open.
            EncoderMismatchError: as the class.
        """
        folder = Path(folder)
        with ExitStack() as opened:  # closes what was opened when a later step fails
            with chroma_errors(f"open the folder {folder}"):
                opened.callback(ProcessLock(folder).release)
            client = folder_client(folder)
            opened.callback(client.close)
            index = cls(client, encoder, collection=collection)
            index._closing = opened.pop_all()
        return index

    @classmethod
    def server(cls, url: str, encoder: Encoder, *, collection: str = "lorauter") -> TaskIndex:
        """Open or create an index on a Chroma server, shared by any number of processes.

        Raises:
            ConfigError: `url` is not http://HOST[:PORT] or https://HOST[:PORT].
            TaskIndexError: the server does not answer.
            EncoderMismatchError: as the class.
        """
        return cls(server_client(url), encoder, collection=collection)

    @property
    def encoder(self) -> Encoder:
        """Places texts among the tasks."""
        return self._encoder

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return self._opened is None

    def close(self) -> None:
        """Let another process open the folder; this object can do nothing more."""
        self._opened = None
        self._contents.forget()
        # Chroma keeps what it has read of a folder until its client is closed: without that, this process
        # would search an old index after another one has written.
        self._closing.close()

    @property
    def _collection(self) -> Any:
        if self._opened is None:
            raise TaskIndexError("the task index has been closed", hint="open it again")
        return self._opened

    def __enter__(self) -> TaskIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------ writing

    def add(self, tasks: Sequence[Task]) -> None:
        """Add tasks or replace those of the same name; the ranking of an unchanged task is kept.

        A task's vector is the plain mean of its examples' unit vectors (arXiv 2601.21795, section on task
        representation), compared by cosine.

        Raises:
            TaskError: two of them have one name.
        """
        if not tasks:
            return
        counts = Counter(task.name for task in tasks)
        if twice := [name for name, count in counts.items() if count > 1]:
            raise TaskError(
                f"two of the tasks to add are named {listing(twice)}", hint="give each task a name of its own"
            )
        before = self.adapter_map()
        metadatas = []
        for task in tasks:
            facts: dict[str, Any] = {
                "examples": len(task.examples),
                "metric": str(task.metric),
                "hash": task.content_hash,
            }
            old = before.get(task.name)
            keep = old is not None and old.task_hash == task.content_hash
            metadatas.append({**facts, "mapped": keep, "ranking": old.to_json() if keep and old else ""})
        examples = [embed_examples(self._encoder, task) for task in tasks]
        with self._writing("store tasks"):
            self._examples.put(tasks, examples)
            self._collection.upsert(
                ids=[task.name for task in tasks],
                embeddings=[mean_vector(one.whole).tolist() for one in examples],
                documents=[task.to_json() for task in tasks],
                metadatas=metadatas,
            )

    def remove(self, name: str) -> None:
        """Forget a task and its ranking.

        Raises:
            UnknownTaskError: no such task.
        """
        self._one(name, "metadatas")
        with self._writing("remove a task"):
            self._collection.delete(ids=[name])
            self._examples.remove(name)

    def set_ranking(self, ranking: Ranking) -> None:
        """Keep the result of a task's mapping; from now on texts can be routed to it.

        Raises:
            UnknownTaskError: no such task.
            MappingError: the task's examples or metric have changed since it was ranked.
        """
        facts = self._one(ranking.task, "metadatas")
        if facts["hash"] != ranking.task_hash:
            raise MappingError(
                f"task {ranking.task!r} was changed while it was mapped; its new examples have no ranking",
                hint="run `lorauter map` again; the ledger answers what was asked before",
            )
        with self._writing("store a ranking"):
            self._collection.update(
                ids=[ranking.task], metadatas=[{"mapped": True, "ranking": ranking.top(KEPT).to_json()}]
            )

    @contextmanager
    def _writing(self, doing: str) -> Iterator[None]:
        try:
            with chroma_errors(doing):
                yield
        finally:  # also of a write that failed half-way
            self._contents.forget()
            with chroma_errors("mark the change"):
                self._describe(lorauter_mark=uuid.uuid4().hex)

    # ------------------------------------------------------------------ reading

    @property
    def identity(self) -> str:
        """A hash that changes with the tasks, their rankings and the encoder. It is cheap."""
        return self._read_now().identity

    def known(self) -> KnownTasks:
        """The mapped tasks, with their vectors; the very same object as long as nothing has changed.

        It is cheap: what this object wrote is read at once, and whether anything else has changed is asked once a
        second at most. So what another process or another object wrote is noticed within a second.
        """
        return self._read_now().known

    def nearest(self, text: str | Vectors, k: int) -> list[Neighbour]:
        """The k mapped tasks of the nearest mean vectors to a text, or to its vector, nearest first; ties by name."""
        vector = self._encoder.encode([text])[0] if isinstance(text, str) else text
        return self.known().nearest(vector, k)

    def _read_now(self) -> Contents:
        if self.closed:
            raise TaskIndexError("the task index has been closed", hint="open it again")
        return self._contents()

    def _read_contents(self, before: Contents | None) -> Contents:
        with chroma_errors("read"):
            described = self._client.get_collection(self._collection.name, embedding_function=None).metadata
        mark = described.get("lorauter_mark", "")
        if before and before.mark == mark:
            return before
        found = self._read(include=["metadatas", "embeddings"])
        encoder = [self._encoder.name, described["lorauter_probe"]]
        return contents_of(found, mark, encoder, self._read_examples, before)

    def _read_examples(self, rankings: Sequence[Ranking]) -> list[Embedded]:
        """The vectors of these tasks' examples; of a task that was not wholly stored, made anew."""
        found = self._examples.read({ranking.task: ranking.task_hash for ranking in rankings})
        return [
            found[name] if name in found else embed_examples(self._encoder, self.get(name))
            for name in (ranking.task for ranking in rankings)
        ]

    def names(self) -> list[str]:
        """All task names, sorted."""
        return sorted(self._read(include=[])["ids"])

    def tasks(self) -> list[Task]:
        """All tasks, sorted by name."""
        documents = self._read(include=["documents"])["documents"]
        return sorted(map(Task.from_json, documents), key=lambda task: task.name)

    def get(self, name: str) -> Task:
        """One task.

        Raises:
            UnknownTaskError: no such task.
        """
        return Task.from_json(self._one(name, "documents"))

    def ranking(self, name: str) -> Ranking | None:
        """What a task was mapped to; None when it has not been mapped.

        Raises:
            UnknownTaskError: no such task.
        """
        facts = self._one(name, "metadatas")
        return read_ranking(facts) if facts["mapped"] else None

    def adapter_map(self) -> AdapterMap:
        """The rankings of all mapped tasks."""
        stored = self._read(where={"mapped": True}, include=["metadatas"])["metadatas"]
        return AdapterMap([read_ranking(facts) for facts in stored])

    def _one(self, name: str, part: str) -> Any:
        found = self._read(ids=[name], include=[part])[part]
        if not found:
            raise UnknownTaskError(f"there is no task {name!r}", hint=f"the tasks are {listing(self.names())}")
        return found[0]

    def _read(self, **query: Any) -> Any:
        with chroma_errors("read"):
            return self._collection.get(**query)

    # ------------------------------------------------------------------ the encoder's identity

    def _check_collection(self) -> None:
        """The collection is ours, compares by cosine, and was made by this encoder.

        The encoder is compared by what it does, not by its name: the vectors of fixed texts are stored.
        """
        stored = self._collection.metadata or {}
        if "lorauter_probe" not in stored:
            if self._collection.count():
                raise TaskIndexError(
                    f"the collection {self._collection.name!r} holds records of another program",
                    hint="give the index a collection of its own",
                )
            require_cosine(self._collection)
            self._describe_encoder()
            return
        if stored.get("lorauter_schema") not in (1, SCHEMA):
            raise TaskIndexError(
                f"the index has layout {stored.get('lorauter_schema')}, this version reads {SCHEMA}",
                hint="use the version that wrote it, or a new collection",
            )
        require_same(self._encoder, stored["lorauter_probe"], stored["lorauter_encoder"])
        if stored["lorauter_schema"] == 1:
            logger.warning("the index has layout 1; its %d tasks are embedded again for layout %d", *self._upgrade())

    def _upgrade(self) -> tuple[int, int]:
        """Make the vectors of an older layout anew; tasks and rankings stay."""
        tasks = self.tasks()
        self.add(tasks)
        self._describe_encoder()
        return len(tasks), SCHEMA

    def _describe_encoder(self) -> None:
        place = probe(self._encoder)
        with chroma_errors("describe the collection"):
            self._describe(lorauter_schema=SCHEMA, lorauter_encoder=self._encoder.name, lorauter_probe=place)

    def _describe(self, **facts: Any) -> None:
        self._collection.modify(metadata={**(self._collection.metadata or {}), **facts})
