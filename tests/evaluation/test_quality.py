import numpy as np
import pytest
from conftest import WordEncoder

from lorauter_integrations import Example, Task
from lorauter_integrations.evaluation import latency
from lorauter_integrations.evaluation.latency import latencies
from lorauter_integrations.evaluation.quality import abstention, places, routing_quality
from lorauter_integrations.evaluation.tested_task import TestedTask
from lorauter_integrations.routing import PAPER

WORDS = {
    "animals": "which animal has claws and eats fish",
    "colours": "name a colour like the sky",
    "numbers": "add the numbers and tell the total",
    "places": "how far is the town from the coast",
    "verbs": "put the verb into the past tense",
}


def with_tests(name, strange=()):
    """Ten examples, ten tests of the task's words, and some tests of other words."""
    examples = [Example(f"{WORDS[name]} {n}", "x") for n in range(30)]
    tests = [Example(f"{WORDS[name]} {n}", "x") for n in range(50, 60)] + [Example(text, "x") for text in strange]
    return TestedTask(Task(name, "f1", examples), "domain", tests, [])


TASKS = [with_tests(name) for name in WORDS]
ENCODERS = {"ends": WordEncoder(), "head": WordEncoder()}


def test_routing_is_counted_over_all_test_inputs():
    strange = with_tests("animals", ["add the numbers and tell the total 99"])
    found = routing_quality([strange, *TASKS[1:]], ENCODERS)
    assert [one.preset for one in found] == ["paper", "default"]
    for one in found:
        assert one.inputs == 51
        assert one.top1 == pytest.approx(50 / 51)
        assert one.confusion["animals"] == {"animals": 10, "numbers": 1}
        assert one.confusion["verbs"] == {"verbs": 10}
        [wrong] = one.wrong
        assert (wrong.task, wrong.first, wrong.text) == (
            "animals",
            "numbers",
            "add the numbers and tell the total 99",
        )
        assert wrong.similarity > wrong.own


def test_far_texts_are_told_apart_and_counted():
    far = ["Write me a bedtime story about a snail", "chmod +x run.sh && ./run.sh"]
    found = abstention(TASKS, ENCODERS["ends"], far)
    assert (len(found.in_domain), len(found.far)) == (50, 2)
    assert found.right == 1.0
    assert found.false == np.mean([each < found.threshold for each in found.in_domain])
    assert abstention(TASKS, ENCODERS["ends"], []) is None


def test_the_map_has_each_task_and_the_query_near_its_task():
    found = places(TASKS, ENCODERS["ends"], "name a colour like the sky 77")
    assert [one.name for one in found] == [*WORDS, "name a colour like the sky 77"]
    assert max(found[-1].near, key=found[-1].near.get) == "colours"
    query = np.array([found[-1].x, found[-1].y])
    distances = {one.name: np.hypot(*(query - [one.x, one.y])) for one in found[:-1]}
    assert min(distances, key=distances.get) == "colours"
    assert found == places(TASKS, ENCODERS["ends"], "name a colour like the sky 77")


def test_so_few_tasks_have_no_map():
    assert places(TASKS[:3], ENCODERS["ends"], "name a colour") == []


def test_latency_is_measured_for_each_size(monkeypatch):
    for name, value in (("MANY", 20), ("TASKS", (5, 20)), ("KS", (1, 4)), ("ADAPTERS", (5, 20, 60)), ("TEXTS", 3)):
        monkeypatch.setattr(latency, name, value)
    found = latencies(WordEncoder(), ["one", "two"], PAPER)
    assert [(one.tasks, one.adapters, one.k) for one in found] == [
        (5, 5, 3),
        (20, 20, 3),
        (20, 20, 1),
        (20, 20, 4),
        (20, 5, 3),
        (20, 60, 3),
    ]
    assert all(0 < one.p50 <= one.p95 and one.encoder > 0 for one in found)
