import socket
import subprocess
import sys
import time
from pathlib import Path

import chromadb
import numpy as np
import pytest
from conftest import WordEncoder, set_winner

from lorauter_integrations import AdapterScore, Example, Ranking, Task, TaskIndex
from lorauter_integrations.errors import (
    ConfigError,
    EncoderMismatchError,
    MappingError,
    TaskError,
    TaskIndexError,
    UnknownTaskError,
)
from lorauter_integrations.routing import remembered
from lorauter_integrations.routing.encoder import mean_vector
from lorauter_integrations.routing.task_index import NOTICED


def task(name, *inputs, **changes):
    examples = [Example(text, "x") for text in inputs or ("some text",)]
    return Task(**({"name": name, "metric": "f1", "examples": examples} | changes))


# ------------------------------------------------------------------ tasks


def test_tasks_are_kept_whole_and_listed_by_name(index):
    b, a = task("b", "grüße", description="Greets."), task("a")
    index.add([b, a])
    assert index.names() == ["a", "b"]
    assert index.tasks() == [a, b]
    assert index.get("b") == b


def test_adding_nothing_does_nothing(index):
    index.add([])
    assert index.tasks() == []


def test_task_of_the_same_name_is_replaced(index):
    index.add([task("a", "old")])
    index.add([task("a", "new")])
    assert index.tasks() == [task("a", "new")]


def test_removed_task_is_gone_with_its_ranking(index):
    index.add([task("a"), task("b")])
    set_winner(index, "a", "sql", "h")
    index.remove("a")
    assert index.names() == ["b"]
    assert len(index.adapter_map()) == 0


@pytest.mark.parametrize(
    "ask",
    [
        lambda index: index.get("c"),
        lambda index: index.remove("c"),
        lambda index: index.ranking("c"),
        lambda index: index.set_ranking(Ranking("c", "h", "b", "s", (AdapterScore("", "", 0.0, 1),), 1)),
    ],
    ids=["get", "remove", "ranking", "set_ranking"],
)
def test_unknown_task_is_named_with_the_known_ones(index, ask):
    index.add([task("b"), task("a")])
    with pytest.raises(UnknownTaskError, match=r"(?s)there is no task 'c'.*Hint: the tasks are 'a', 'b'"):
        ask(index)


# ------------------------------------------------------------------ rankings


def test_task_has_no_ranking_before_it_is_mapped(index):
    index.add([task("a")])
    assert index.ranking("a") is None


def test_ranking_is_kept_while_the_task_is_unchanged(index):
    index.add([task("a", "one", "two")])
    set_winner(index, "a", "sql", "h")
    index.add([task("a", "one", "two", description="new words")])
    assert index.ranking("a").best.adapter == "sql"
    assert index.get("a").description == "new words"
    assert [near.task for near in index.nearest("one", 1)] == ["a"]


def test_ranking_is_dropped_when_the_examples_change(index):
    index.add([task("a", "one", "two"), task("b")])
    set_winner(index, "a", "sql", "h")
    set_winner(index, "b", "qa", "h")
    index.add([task("a", "one", "three")])
    assert index.ranking("a") is None
    assert list(index.adapter_map()) == ["b"]
    assert [near.task for near in index.nearest("one", 5)] == ["b"]


def test_stored_ranking_has_the_best_of_a_shortlist_and_the_base_model(index):
    index.add([task("a")])
    scores = [AdapterScore(f"a{place:02}", "h", 1 - place / 100, 3) for place in range(60)]
    ranking = Ranking(
        "a", index.get("a").content_hash, "b", "f1", (*scores[:50], AdapterScore("", "", 0.5, 3), *scores[50:]), 123
    )
    index.set_ranking(ranking)
    kept = index.ranking("a")
    assert [score.adapter for score in kept.scores] == [f"a{place:02}" for place in range(48)] + [""]
    assert (kept.questions, kept.best, kept.base) == (123, ranking.best, ranking.base)


# ------------------------------------------------------------------ vectors


def test_vector_of_a_task_is_the_mean_of_its_examples_made_unit_length(index):
    index.add([task("a", "red", "green green blue")])
    set_winner(index, "a", "sql", "h")
    red, other, query = WordEncoder().encode(["red", "green green blue", "blue"])
    mean = (red + other) / 2
    (near,) = index.nearest("blue", 1)
    assert near.similarity == pytest.approx(float(query @ mean / np.linalg.norm(mean)), abs=1e-5)
    np.testing.assert_allclose(mean_vector(np.stack([red, other])), mean / np.linalg.norm(mean), rtol=1e-5)


def test_mean_of_opposite_vectors_is_the_first():
    np.testing.assert_array_equal(mean_vector(np.array([[1.0, 0.0], [-1.0, 0.0]])), [1.0, 0.0])


class TableEncoder:
    """The text "7" is the seventh of 1,100 random directions; the probe is one more."""

    name = "table"

    def __init__(self):
        vectors = np.random.default_rng(0).standard_normal((1101, 48)).astype(np.float32)
        self.vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def encode(self, texts):
        return np.stack([self.vectors[int(text) if text.isdigit() else -1] for text in texts])


def test_nearest_of_a_thousand_tasks_are_the_exact_ones(tmp_path):
    encoder = TableEncoder()
    vectors = encoder.vectors
    client = chromadb.PersistentClient(str(tmp_path))
    index = TaskIndex(client, encoder)
    names = [f"t{place}" for place in range(1000)]
    index.add([task(name, name[1:]) for name in names])
    rankings = [Ranking(name, "h", "b", "s", (AdapterScore("", "", 0.0, 1),), 1) for name in names]
    # As `set_ranking` stores them, in one call in place of a thousand.
    records = client.get_collection("lorauter", embedding_function=None)
    records.update(names, metadatas=[{"mapped": True, "ranking": ranking.to_json()} for ranking in rankings])
    for query in range(1000, 1050):
        similarities = vectors[:1000] @ vectors[query]
        exact = np.argsort(-similarities)[:3]
        near = index.nearest(str(query), 3)
        assert [match.task for match in near] == [f"t{place}" for place in exact]
        assert [match.similarity for match in near] == pytest.approx(similarities[exact], abs=1e-5)


# ------------------------------------------------------------------ opening


def test_reopened_index_sees_everything(tmp_path):
    with TaskIndex.embedded(tmp_path, WordEncoder()) as index:
        index.add([task("a", "red"), task("b", "blue")])
        set_winner(index, "b", "sql", "h")
        before = (index.tasks(), dict(index.adapter_map()), index.nearest("blue sky", 2))
    with TaskIndex.embedded(tmp_path, WordEncoder()) as index:
        assert (index.tasks(), dict(index.adapter_map()), index.nearest("blue sky", 2)) == before
        assert index.encoder.name == "words"


def test_closed_index_does_nothing_more(tmp_path):
    index = TaskIndex.embedded(tmp_path, WordEncoder())
    assert not index.closed
    index.close()
    assert index.closed
    with pytest.raises(TaskIndexError, match=r"(?s)the task index has been closed.*Hint: open it again"):
        index.names()


def test_collections_of_one_folder_do_not_meet(tmp_path):
    with TaskIndex.embedded(tmp_path, WordEncoder()) as one:
        one.add([task("a")])
        with TaskIndex.embedded(tmp_path, WordEncoder(), collection="other") as other:
            assert other.names() == []


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            WordEncoder("small", 32),
            r"encoder 'words' \(64 dimensions\), this one is 'small' \(32 dimensions\)",
        ),
        (
            WordEncoder("strange"),
            r"encoder 'words'; 'strange' places .* elsewhere \(cosine -?0\.\d+, at least 0.999",
        ),
    ],
    ids=["other dimension", "other vectors"],
)
def test_other_encoder_is_refused(tmp_path, other, message):
    TaskIndex.embedded(tmp_path, WordEncoder()).close()
    with pytest.raises(EncoderMismatchError, match=rf"(?s){message}.*Hint: use the encoder the index was made with"):
        TaskIndex.embedded(tmp_path, other)
    TaskIndex.embedded(tmp_path, WordEncoder()).close()  # the refusal did not keep the folder


def test_encoder_of_another_name_that_places_texts_alike_is_accepted(tmp_path):
    TaskIndex.embedded(tmp_path, WordEncoder()).close()
    renamed = WordEncoder()
    renamed.encode, renamed.name = WordEncoder().encode, "words at another place"
    TaskIndex.embedded(tmp_path, renamed).close()


def test_collection_of_another_program_is_refused(tmp_path):
    client = chromadb.PersistentClient(str(tmp_path))
    client.create_collection("theirs", embedding_function=None).add(ids=["x"], embeddings=[[1.0, 0.0]])
    message = r"(?s)collection 'theirs' holds records of another program.*Hint: give the index a collection"
    with pytest.raises(TaskIndexError, match=message):
        TaskIndex(client, WordEncoder(), collection="theirs")


def test_index_of_another_layout_is_refused(tmp_path):
    client = chromadb.PersistentClient(str(tmp_path))
    metadata = {"lorauter_schema": 7, "lorauter_probe": "[]", "lorauter_encoder": "words"}
    client.create_collection("later", embedding_function=None, metadata=metadata)
    with pytest.raises(TaskIndexError, match=r"(?s)index has layout 7, this version reads 2.*Hint: use the version"):
        TaskIndex(client, WordEncoder(), collection="later")


def test_bad_collection_name_is_refused(tmp_path):
    with pytest.raises(TaskIndexError, match=r"could not open the collection: .*3-512 characters"):
        TaskIndex.embedded(tmp_path, WordEncoder(), collection="a")


def test_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(TaskIndexError, match=r"(?s)could not open the folder .*file: .*Hint: check \[index\]"):
        TaskIndex.embedded(tmp_path / "file", WordEncoder())


# ------------------------------------------------------------------ a server


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start_server(folder):
    port = free_port()
    program = Path(sys.executable).parent / "chroma"
    command = [program, "run", "--path", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert process.poll() is None, "the Chroma server ended"
            time.sleep(0.1)
        else:
            return process, f"http://127.0.0.1:{port}"
    process.kill()
    raise AssertionError("the Chroma server did not start")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    process, url = start_server(tmp_path_factory.mktemp("server"))
    yield url
    process.terminate()
    process.wait(timeout=60)


def test_two_clients_of_a_server_see_each_others_tasks_and_rankings(server):
    one, other = TaskIndex.server(server, WordEncoder()), TaskIndex.server(server + "/", WordEncoder())
    one.add([task("a", "red"), task("b", "blue")])
    assert other.names() == ["a", "b"]
    set_winner(other, "a", "sql", "h")
    assert one.ranking("a").best.adapter == "sql"
    assert [near.task for near in one.nearest("blue", 5)] == ["a"]
    other.remove("b")
    assert one.names() == ["a"]
    one.close()
    other.close()


def test_other_encoder_is_refused_by_a_server_too(server):
    TaskIndex.server(server, WordEncoder(), collection="shared").close()
    with pytest.raises(EncoderMismatchError, match="'strange' places the same texts elsewhere"):
        TaskIndex.server(server, WordEncoder("strange"), collection="shared")


def test_server_that_goes_away_is_named(tmp_path):
    process, url = start_server(tmp_path)
    index = TaskIndex.server(url, WordEncoder())
    process.terminate()
    process.wait(timeout=60)
    with pytest.raises(TaskIndexError, match=r"(?s)Chroma could not read: .*Hint: .* that the server is up"):
        index.names()


def test_unreachable_server_is_named():
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(TaskIndexError, match=f"could not reach the Chroma server {url}: Could not connect"):
        TaskIndex.server(url, WordEncoder())


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://h", "http://", "http://h:99999", "http://h/path"], ids=lambda url: url
)
def test_address_that_is_none_is_refused(url):
    with pytest.raises(ConfigError, match=rf"(?s){url!r} is not the address of a Chroma server.*HOST:PORT"):
        TaskIndex.server(url, WordEncoder())


def test_two_tasks_of_one_name_in_one_call_are_refused_by_name(index):
    twins = [Task("same", "f1", [Example("a", "b")]), Task("same", "f1", [Example("c", "d")])]
    with pytest.raises(TaskError, match="two of the tasks to add are named 'same'"):
        index.add(twins)
    assert index.names() == []


def test_a_ranking_of_a_task_that_changed_meanwhile_is_refused(index):
    index.add([task("a")])
    old = index.get("a")
    index.add([Task("a", "f1", [Example("other", "examples")])])
    late = Ranking("a", old.content_hash, "b", "s", (AdapterScore("x", "h", 1.0, 1), AdapterScore("", "", 0.0, 1)), 2)
    with pytest.raises(MappingError, match="task 'a' was changed while it was mapped"):
        index.set_ranking(late)
    assert index.ranking("a") is None


def test_what_another_process_wrote_is_searched_after_reopening(tmp_path, encoder):
    """Chroma keeps a folder's index in memory until its client is closed."""
    with TaskIndex.embedded(tmp_path / "i", encoder) as first:
        first.add([task("a")])
        set_winner(first, "a", "x", "h")
        assert [found.task for found in first.nearest("a", 3)] == ["a"]
    program = (
        "import sys; sys.path.insert(0, sys.argv[2]);"
        "from conftest import WordEncoder, set_winner;"
        "from lorauter_integrations import Example, Task, TaskIndex;"
        "index = TaskIndex.embedded(sys.argv[1], WordEncoder());"
        "index.add([Task('b', 'f1', [Example('quite different words', 'x')])]);"
        "set_winner(index, 'b', 'y', 'h'); index.close()"
    )
    tests = str(Path(__file__).parents[1])
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "i"), tests], check=True)
    with TaskIndex.embedded(tmp_path / "i", encoder) as again:
        assert again.nearest("quite different words", 1)[0].task == "b"
        assert {found.task for found in again.nearest("a", 3)} == {"a", "b"}


def test_a_collection_that_compares_otherwise_is_refused(tmp_path, encoder):
    client = chromadb.PersistentClient(str(tmp_path))
    client.create_collection("lorauter", configuration={"hnsw": {"space": "l2"}})
    with pytest.raises(TaskIndexError, match="compares by 'l2', not by 'cosine'"):
        TaskIndex(client, encoder)
    client.close()


def test_a_langchain_embedding_is_an_encoder(tmp_path):
    from langchain_core.embeddings import DeterministicFakeEmbedding

    client = chromadb.PersistentClient(str(tmp_path))
    index = TaskIndex(client, DeterministicFakeEmbedding(size=8))
    index.add([task("a")])
    assert index.names() == ["a"]
    index.close()
    assert client.heartbeat()  # a caller's client stays open
    client.close()


# ------------------------------------------------------------------ identity


def test_identity_changes_with_each_change_and_is_that_of_the_contents(index, tmp_path, encoder):
    seen = [index.identity]
    index.add([task("a", "one"), task("b", "two")])
    seen.append(index.identity)
    set_winner(index, "a", "sql", "h")
    seen.append(index.identity)
    index.remove("b")
    seen.append(index.identity)
    assert len(set(seen)) == 4
    index.add([task("b", "two")])
    assert index.identity == seen[2]
    with TaskIndex.embedded(tmp_path / "other", WordEncoder()) as other:
        assert other.identity == seen[0]
    with TaskIndex.embedded(tmp_path / "third", WordEncoder("other words")) as other:
        assert other.identity != seen[0]


def test_what_another_object_wrote_is_noticed_after_some_seconds(server, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(remembered.time, "monotonic", lambda: now[0])
    one, other = (TaskIndex.server(server, WordEncoder(), collection="noticed") for _ in range(2))
    before = one.identity
    other.add([task("a", "one")])
    assert other.identity != before
    assert one.identity == before
    now[0] += NOTICED
    assert one.identity == other.identity


def test_a_vector_is_searched_as_its_text(index, encoder):
    index.add([task("a", "red"), task("b", "blue")])
    for name in "ab":
        set_winner(index, name, "sql", "h")
    assert index.nearest(encoder.encode(["blue"])[0], 2) == index.nearest("blue", 2)
