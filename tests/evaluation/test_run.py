"""The whole evaluation on the pico model: numbers that need no skill, only that each part asks the right thing."""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import WordEncoder, make_adapter, pico_model, pico_tokenizer

from lorauter_integrations import (
    AdapterMap,
    AdapterPool,
    AdapterScore,
    Example,
    GenerationOptions,
    GenerationRequest,
    LocalEngine,
    Mixture,
    Ranking,
    Task,
)
from lorauter_integrations.errors import OptionError, TaskError
from lorauter_integrations.evaluation.answering import most_tokens
from lorauter_integrations.evaluation.methods import METHODS, World, contenders
from lorauter_integrations.evaluation.regimes import Remainder, remainder
from lorauter_integrations.evaluation.results import Results
from lorauter_integrations.evaluation.run import Evaluation
from lorauter_integrations.evaluation.tested_task import TestedTask
from lorauter_integrations.mixing import base_shapes
from lorauter_integrations.routing import FixedTasks

WORDS = {"colours": "name a colour like", "sums": "add the numbers", "beasts": "which animal says"}
DOMAINS = {"colours": "words", "sums": "numbers", "beasts": "words"}


def luck(answer, target):
    """Something that a model without skill can score."""
    return (len(answer) * 7 + len(target)) % 11 / 10


def examples(name, first, count):
    return [Example(f"{WORDS[name]} {n}", f"{name[:2]}{n}") for n in range(first, first + count)]


def with_tests(name):
    training = [example.text for example in examples(name, 0, 8)]
    return TestedTask(Task(name, luck, examples(name, 0, 8)), DOMAINS[name], examples(name, 100, 30), training)


TASKS = [with_tests(name) for name in sorted(WORDS)]


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    for seed, name in enumerate(WORDS):
        make_adapter(folder / name, seed=seed)
    return LocalEngine(
        pico_model(), pico_tokenizer(), AdapterPool.from_folder(folder, base_shapes(pico_model())), name="pico"
    )


@pytest.fixture(scope="module")
def rankings():
    def ranking(task):
        others = [name for name in sorted(WORDS) if name != task]
        scores = [AdapterScore(name, "h", 1 - 0.1 * at, 8) for at, name in enumerate([task, *others, ""])]
        return Ranking(task, "h", "pico", "s", tuple(scores), 32)

    return AdapterMap([ranking(name) for name in WORDS])


@pytest.fixture
def world(rankings):
    source = FixedTasks.of(WordEncoder(), [task.task for task in TASKS], rankings)
    return World(TASKS, rankings, sorted(WORDS), {"ends": source, "head": source})


def mixtures(world, method, regime="in_domain", task=1):
    """The mixtures of one task's test inputs."""
    left = remainder(regime, TASKS[task], TASKS)
    routes = METHODS[method].method(world, TASKS[task], left).route_all([one.text for one in TASKS[task].tests])
    return [dict(route.mixture) for route in routes]


# ------------------------------------------------------------------ methods


def test_the_simple_methods_are_what_they_say(world):
    assert mixtures(world, "base") == [{}] * 30
    assert mixtures(world, "oracle") == [{"colours": 1.0}] * 30
    assert mixtures(world, "uniform", "ood")[0] == {"beasts": 0.5, "sums": 0.5}
    drawn = mixtures(world, "random")
    assert drawn == mixtures(world, "random")
    assert {name for one in drawn for name in one} == set(WORDS)


def test_the_best_single_adapter_is_that_of_the_best_mean(world):
    # Ranked first once, second for the two others that come before it by name.
    assert mixtures(world, "best_single")[0] == {"beasts": 1.0}
    assert mixtures(world, "best_single", "ood", 0)[0] == {"colours": 1.0}


def test_loraretriever_goes_by_training_inputs(world):
    assert mixtures(world, "retriever_selection")[0] == {"colours": 1.0}
    assert "colours" not in mixtures(world, "retriever_selection", "semi_ood")[0]
    assert mixtures(world, "retriever_mixture")[0] == pytest.approx(dict.fromkeys(WORDS, 1 / 3))


@pytest.mark.parametrize("method", ["lorauter", "lorauter_paper"])
def test_lorauter_takes_the_next_adapter_where_its_own_is_masked(world, method):
    own, masked, unknown = (mixtures(world, method, regime)[0] for regime in ("in_domain", "semi_ood", "ood"))
    assert max(own, key=own.get) == "colours"
    assert max(masked, key=masked.get) == "beasts"  # the task is known, and this ranks next
    assert "colours" not in unknown


def test_an_unknown_method_is_refused():
    with pytest.raises(OptionError, match=r"unknown method 'magic'\nHint: the methods are 'arrow'"):
        contenders(["magic"])


# ------------------------------------------------------------------ the run


class Counting:
    """An engine that counts what it writes."""

    def __init__(self, engine):
        self.engine, self.written = engine, 0

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def complete(self, requests):
        self.written += len(requests)
        return self.engine.complete(requests)


def evaluation(engine, rankings, folder, tasks=TASKS):
    def open_averaged(pool):
        return LocalEngine(
            pico_model(), pico_tokenizer(), AdapterPool.from_folder(pool, base_shapes(pico_model())), name="pico"
        )

    encoder = WordEncoder()
    return Evaluation(tasks, engine, {"ends": encoder, "head": encoder}, rankings, folder, open_averaged)


def test_a_whole_run_scores_every_method_and_is_the_same_again(engine, rankings, tmp_path):
    pytest.importorskip("nevergrad")
    counting = Counting(engine)
    found = evaluation(counting, rankings, tmp_path).run()
    assert {(one.method, one.regime) for one in found.scores} == {
        (method, regime) for method in METHODS for regime in ("in_domain", "semi_ood", "ood", "ood_hard")
    }
    assert found.score("oracle", "in_domain").score.value == pytest.approx(1.0)
    assert replace(found.score("base", "ood"), regime="in_domain") == found.score("base", "in_domain")
    assert all(one.against != "lorauter" for one in found.differences)
    written = counting.written
    again = evaluation(counting, rankings, tmp_path).run()
    assert again == found
    assert counting.written == written  # every answer was kept
    assert Results.from_json(found.to_json()).to_json() == found.to_json()
    json.loads(found.to_json())


def test_some_methods_and_regimes_are_enough(engine, rankings, tmp_path):
    found = evaluation(engine, rankings, tmp_path).run(["uniform"], ["ood"])
    assert list(found.methods) == ["base", "oracle", "uniform", "lorauter"]
    assert list(found.regimes) == ["ood"]


def test_an_oracles_answer_is_what_the_adapter_writes(engine, rankings, tmp_path):
    found = evaluation(engine, rankings, tmp_path).run(["base"], ["in_domain"])
    requests = [
        GenerationRequest(
            one.messages, Mixture({"sums": 1.0}), GenerationOptions(max_tokens=most_tokens(engine, TASKS[2]))
        )
        for one in TASKS[2].tests
    ]
    answers = engine.complete(requests)
    expected = np.mean([TASKS[2].task.score(a.text, e.target) for a, e in zip(answers, TASKS[2].tests, strict=True)])
    assert found.score("oracle", "in_domain").tasks["sums"] == pytest.approx(expected)


def test_adapters_that_have_nothing_right_measure_nothing(engine, rankings, tmp_path):
    tasks = [replace(one, task=replace(one.task, metric="exact_match")) for one in TASKS]
    with pytest.raises(TaskError, match="the adapters of 3 tasks have next to no answer right"):
        evaluation(engine, rankings, tmp_path, tasks).run(["base"], ["in_domain"])


def test_tasks_without_an_adapter_of_their_own_cannot_be_scored(engine, rankings, tmp_path):
    task = Task("other", "f1", [Example("a", "b")])
    lone = TestedTask(task, "other", [Example("a", "b")] * 40, ["a"])
    with pytest.raises(TaskError, match="none of the 1 tasks has an adapter of its own among 3 and at least 30 test"):
        evaluation(engine, rankings, tmp_path, [lone]).run()


def test_nothing_held_out_changes_nothing(world):
    known = world.sources["ends"].known()
    assert Remainder().known(known) is known
