"""Tasks found by meaning, kept in Chroma. The only code that touches Chroma; knows nothing of weights.

One record a task: the mean vector of its examples, the task itself as the document, and its ranking in
the metadata, so that every replica that reads the collection agrees.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorauter_integrations.adapter_map import AdapterMap, Ranking
from lorauter_integrations.digests import digest
from lorauter_integrations.errors import MappingError, TaskError, TaskIndexError, UnknownTaskError, listing
from lorauter_integrations.routing.address import parse_address
from lorauter_integrations.routing.encoder import Encoder, Vectors, as_encoder, mean_vector
from lorauter_integrations.routing.probe import probe, require_same
from lorauter_integrations.routing.process_lock import ProcessLock
from lorauter_integrations.routing.remembered import Remembered
from lorauter_integrations.task import Task

SCHEMA = 1
KEPT = 20  # of a ranking; every query reads its matches' rankings, and a pool may have thousands
SEARCH_EFFORT = 500  # Chroma's default of 100 finds half of the true neighbours among 10,000 vectors
NOTICED = 5.0  # seconds after which `identity` has noticed what another process wrote


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A mapped task near a text: its name, the cosine similarity, its ranking."""

    task: str
    similarity: float
    ranking: Ranking


class TaskIndex:
    """The tasks of one Chroma collection, and the encoder that places texts among them.

    Args:
        client: a Chroma client; left open by `close`, since it is the caller's.
        encoder: makes the vectors; checked against the one the collection was made with. A LangChain
            `Embeddings` or a LlamaIndex embedding will do.
        collection: name of the collection, 3 to 512 characters.

    Raises:
        EncoderMismatchError: the stored vectors were made by another encoder.
        TaskIndexError: Chroma refuses.
    """

    def __init__(self, client: Any, encoder: Any, *, collection: str = "lorauter") -> None:
        self._encoder = as_encoder(encoder)
        self._closing = ExitStack()
        self._contents = Remembered(self._read_identity, NOTICED)
        with _chroma_errors("open the collection"):
            self._opened = client.get_or_create_collection(
                collection,
                configuration={"hnsw": {"space": "cosine", "ef_search": SEARCH_EFFORT, "ef_construction": 200}},
                embedding_function=None,
            )
        self._check_collection()

    @classmethod
    def embedded(cls, folder: str | Path, encoder: Encoder, *, collection: str = "lorauter") -> TaskIndex:
        """Open or create an index in a folder, for this process alone.

        Raises:
            IndexLockedError: another process has it open.
            EncoderMismatchError: as the class.
        """
        import chromadb

        folder = Path(folder)
        with ExitStack() as opened:  # closes what was opened when a later step fails
            with _chroma_errors(f"open the folder {folder}"):
                opened.callback(ProcessLock(folder).release)
                client: Any = chromadb.PersistentClient(str(folder.resolve()), settings=_quiet_settings())
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
        import chromadb

        host, port, secure = parse_address(url)
        with _chroma_errors(f"reach the Chroma server {url}"):
            client: Any = chromadb.HttpClient(host, port, ssl=secure, settings=_quiet_settings())
        return cls(client, encoder, collection=collection)

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
        vectors = [mean_vector(self._encoder.encode([example.text for example in task.examples])) for task in tasks]
        with self._writing("store tasks"):
            self._collection.upsert(
                ids=[task.name for task in tasks],
                embeddings=[vector.tolist() for vector in vectors],
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
            with _chroma_errors(doing):
                yield
        finally:  # also of a write that failed half-way
            self._contents.forget()

    # ------------------------------------------------------------------ reading

    @property
    def identity(self) -> str:
        """A hash that changes with the tasks, their rankings and the encoder.

        It is cheap: the index is read after this object's own changes, else every 5 seconds at most. So what
        another process or another object wrote is noticed within 5 seconds.
        """
        return self._contents()

    def _read_identity(self) -> str:
        found = self._read(include=["metadatas"])
        facts = sorted(
            (name, stored["hash"], stored["mapped"], stored["ranking"])
            for name, stored in zip(found["ids"], found["metadatas"], strict=True)
        )
        encoder = [self._encoder.name, self._collection.metadata["lorauter_probe"]]
        return digest([encoder, facts])

    def nearest(self, text: str | Vectors, k: int) -> list[Neighbour]:
        """The k mapped tasks nearest to a text, or to its vector, nearest first; ties by name."""
        vector = self._encoder.encode([text])[0] if isinstance(text, str) else text
        with _chroma_errors("search"):
            found = self._collection.query(
                query_embeddings=[vector.tolist()],
                n_results=k,
                where={"mapped": True},
                include=["metadatas", "distances"],
            )
        rows = zip(found["ids"][0], found["distances"][0], found["metadatas"][0], strict=True)
        near = [Neighbour(name, 1.0 - gap, _ranking(facts)) for name, gap, facts in rows]
        return sorted(near, key=lambda match: (-round(match.similarity, 6), match.task))

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
        return _ranking(facts) if facts["mapped"] else None

    def adapter_map(self) -> AdapterMap:
        """The rankings of all mapped tasks."""
        stored = self._read(where={"mapped": True}, include=["metadatas"])["metadatas"]
        return AdapterMap([_ranking(facts) for facts in stored])

    def _one(self, name: str, part: str) -> Any:
        found = self._read(ids=[name], include=[part])[part]
        if not found:
            raise UnknownTaskError(f"there is no task {name!r}", hint=f"the tasks are {listing(self.names())}")
        return found[0]

    def _read(self, **query: Any) -> Any:
        with _chroma_errors("read"):
            return self._collection.get(**query)

    # ------------------------------------------------------------------ the encoder's identity

    def _check_collection(self) -> None:
        """The collection is ours, compares by cosine, and was made by this encoder.

        The encoder is compared by what it does, not by its name: the vector of a fixed text is stored.
        """
        stored = self._collection.metadata or {}
        if "lorauter_probe" not in stored:
            if self._collection.count():
                raise TaskIndexError(
                    f"the collection {self._collection.name!r} holds records of another program",
                    hint="give the index a collection of its own",
                )
            _check_space(self._collection)
            place = probe(self._encoder)
            facts = {"lorauter_schema": SCHEMA, "lorauter_encoder": self._encoder.name, "lorauter_probe": place}
            with _chroma_errors("describe the collection"):
                self._collection.modify(metadata=facts)
            return
        if stored.get("lorauter_schema") != SCHEMA:
            raise TaskIndexError(
                f"the index has layout {stored.get('lorauter_schema')}, this version reads {SCHEMA}",
                hint="use the version that wrote it, or a new collection",
            )
        require_same(self._encoder, stored["lorauter_probe"], stored["lorauter_encoder"])


def _ranking(facts: Mapping[str, Any]) -> Ranking:
    try:
        return Ranking.from_json(facts["ranking"])
    except (ValueError, TypeError, KeyError) as error:
        raise TaskIndexError(
            f"a stored ranking cannot be read: {type(error).__name__}: {error}",
            hint="another version of this package wrote it; use a new collection, or run `lorauter map` again",
        ) from error


def _check_space(collection: Any) -> None:
    space = (collection.configuration.get("hnsw") or {}).get("space")
    if space != "cosine":
        raise TaskIndexError(
            f"the collection {collection.name!r} compares by {space!r}, not by 'cosine'",
            hint="give the index a collection of its own",
        )


def _quiet_settings() -> Any:
    from chromadb.config import Settings

    return Settings(anonymized_telemetry=False)


@contextmanager
def _chroma_errors(doing: str) -> Iterator[None]:
    """Turn Chroma's errors into ours, with its own words kept."""
    from chromadb.errors import ChromaError
    from httpx import HTTPError  # what Chroma's client lets through when the server goes away

    try:
        yield
    except (ChromaError, HTTPError, ValueError, OSError) as error:
        raise TaskIndexError(
            f"Chroma could not {doing}: {error}",
            hint="check [index] in the settings, and that the server is up",
        ) from error
