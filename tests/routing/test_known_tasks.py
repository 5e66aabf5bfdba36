"""What an index gives routers: the mapped tasks of the moment, exact and whole."""

import json
import logging

import chromadb
import numpy as np
import pytest
from conftest import WordEncoder, set_winner

from lorauter_integrations import Example, Task, TaskIndex, TaskRouter
from lorauter_integrations.errors import TaskIndexError
from lorauter_integrations.routing import PAPER, remembered
from lorauter_integrations.routing.known_tasks import embed_examples
from lorauter_integrations.routing.probe import PROBE
from lorauter_integrations.routing.task_index import NOTICED
from lorauter_integrations.routing.views import ENDING, LONG, embed

LONG_TEXT = "a passage about many things. " * 10 + "What is asked of it?"


def task(name, *inputs):
    return Task(name, "f1", [Example(text, "x") for text in inputs or ("some text",)])


def mapped(index, *tasks):
    index.add(tasks)
    for one in tasks:
        set_winner(index, one.name, one.name, "h")


def test_the_vectors_of_examples_come_back_from_chroma(index, encoder):
    one = task("one", "red", LONG_TEXT, "green")
    mapped(index, one, task("two", "blue"))
    first, second = index.known().examples
    made = embed_examples(encoder, one)
    np.testing.assert_allclose(first.whole, made.whole, atol=1e-3)  # two bytes a number
    np.testing.assert_allclose(first.endings, made.endings, atol=1e-3)
    assert (first.long.tolist(), len(second), second.long.tolist()) == ([1], 1, [])
    np.testing.assert_allclose(index.known().vectors[0], index.known().vectors[0])


def test_only_mapped_tasks_are_known_sorted_by_name(index):
    mapped(index, task("b"), task("a"))
    index.add([task("c")])
    known = index.known()
    assert (list(known.names), len(known), known.total) == (["a", "b"], 2, 3)


def test_the_same_object_is_known_until_something_changes(index):
    mapped(index, task("a"))
    before = index.known()
    assert index.known() is before
    index.add([task("a")])  # nothing new
    assert index.known() is before
    mapped(index, task("b"))
    assert index.known() is not before


def test_another_objects_change_is_noticed_after_a_second(tmp_path, encoder, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(remembered.time, "monotonic", lambda: now[0])
    client = chromadb.PersistentClient(str(tmp_path))
    one, other = (TaskIndex(client, encoder) for _ in range(2))
    mapped(one, task("a", "red"))
    router = TaskRouter(other, PAPER)
    assert router.route("red").matches[0].task == "a"
    mapped(one, task("b", "blue"))
    assert [match.task for match in router.route("blue").matches] == ["a"]
    now[0] += NOTICED
    assert [match.task for match in router.route("blue").matches] == ["b", "a"]
    one.close()
    other.close()
    client.close()


def test_the_examples_are_read_only_for_what_is_fitted_to_them(index, monkeypatch):
    mapped(index, task("a", "red", "blue"), task("b", "sum", "total"))
    monkeypatch.setattr(index._examples, "read", lambda hashes: pytest.fail("read"))
    assert TaskRouter(index, PAPER).route("red").matches[0].task == "a"


def test_examples_that_were_not_stored_are_embedded_again(index, encoder):
    mapped(index, task("a", "red", "blue"), task("b", "sum", "total"))
    index._examples.remove("a")
    np.testing.assert_allclose(index.known().examples[0].whole, encoder.encode(["red", "blue"]))
    assert TaskRouter(index).route("red").matches[0].task == "a"


def test_the_paper_and_the_default_agree_where_it_is_plain(index):
    mapped(index, task("a", "name red", "name blue"), task("b", "sum one", "sum two"))
    for rules in (PAPER, TaskRouter(index)._rules):
        assert TaskRouter(index, rules).route("name green").matches[0].task == "a"


def test_a_closed_index_knows_nothing(tmp_path, encoder):
    index = TaskIndex.embedded(tmp_path, encoder)
    mapped(index, task("a"))
    index.known()
    index.close()
    with pytest.raises(TaskIndexError, match="the task index has been closed"):
        index.known()


# ------------------------------------------------------------------ an older layout


def as_layout_one(folder, encoder):
    """What version 1 has left: no vectors of examples, one text in the probe."""
    client = chromadb.PersistentClient(str(folder))
    collection = client.get_collection("lorauter", embedding_function=None)
    facts = {**collection.metadata, "lorauter_schema": 1}
    facts["lorauter_probe"] = json.dumps([round(float(x), 6) for x in encoder.encode([PROBE])[0]])
    facts.pop("lorauter_mark")
    collection.modify(metadata=facts)
    client.delete_collection("lorauter-examples")
    client.close()


def test_an_older_index_is_embedded_again_with_its_rankings(tmp_path, encoder, caplog):
    with TaskIndex.embedded(tmp_path, encoder) as index:
        mapped(index, task("a", "red"), task("b", LONG_TEXT))
        index.add([task("c")])
    as_layout_one(tmp_path, encoder)
    with caplog.at_level(logging.WARNING), TaskIndex.embedded(tmp_path, encoder) as index:
        assert "layout 1; its 3 tasks are embedded again for layout 2" in caplog.text
        assert (list(index.known().names), index.names()) == (["a", "b"], ["a", "b", "c"])
        assert len(index.known().examples[1].endings) == 1
    caplog.clear()
    with TaskIndex.embedded(tmp_path, encoder) as index:
        assert index.ranking("a").best.adapter == "a"
    assert not caplog.text


# ------------------------------------------------------------------ what is embedded of a text


def test_the_ending_of_a_longer_text_is_embedded_too():
    encoder = WordEncoder()
    texts = ["short", "x " * LONG, "just long enough ".ljust(LONG, ".")]
    found = embed(encoder, texts)
    np.testing.assert_array_equal(found.whole, encoder.encode(texts))
    assert found.long.tolist() == [1]
    np.testing.assert_array_equal(found.endings, encoder.encode([texts[1][-ENDING:]]))
    assert encoder.calls == 3  # one for all


def test_without_endings_texts_are_embedded_whole():
    found = embed(WordEncoder(), ["x " * LONG], endings=False)
    assert (len(found), found.endings.shape[0], len(found.long)) == (1, 0, 0)
