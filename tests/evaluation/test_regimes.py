import numpy as np
import pytest
from conftest import WordEncoder

from lorauter_integrations import AdapterMap, AdapterScore, Example, Ranking, Task
from lorauter_integrations.errors import OptionError
from lorauter_integrations.evaluation.regimes import REGIMES, remainder
from lorauter_integrations.evaluation.tested_task import TestedTask
from lorauter_integrations.routing import FixedTasks

DOMAINS = {"a": "one", "b": "one", "c": "two"}


def with_tests(name):
    task = Task(name, "f1", [Example(f"{name} {n}", "x") for n in range(3)])
    return TestedTask(task, DOMAINS[name], task.examples, [example.text for example in task.examples])


TASKS = [with_tests(name) for name in DOMAINS]


def ranking(task):
    """Its own adapter is best, then the next one."""
    order = [task, *(name for name in DOMAINS if name != task), ""]
    return Ranking(task, "h", "b", "s", tuple(AdapterScore(n, "h", 1 - 0.1 * at, 3) for at, n in enumerate(order)), 9)


@pytest.fixture
def known():
    return FixedTasks.of(WordEncoder(), [one.task for one in TASKS], AdapterMap(map(ranking, DOMAINS))).known()


@pytest.mark.parametrize(
    ("regime", "winners", "adapters"),
    [
        ("in_domain", {"a": "a", "b": "b", "c": "c"}, ["a", "b", "c"]),
        ("semi_ood", {"a": "b", "b": "b", "c": "c"}, ["b", "c"]),
        ("ood", {"b": "b", "c": "c"}, ["b", "c"]),
        ("ood_hard", {"c": "c"}, ["c"]),
    ],
)
def test_what_a_regime_leaves_for_the_inputs_of_a_task(known, regime, winners, adapters):
    left = remainder(regime, TASKS[0], TASKS)
    found = left.known(known)
    assert {one.task: one.best.adapter for one in found.rankings} == winners
    assert left.adapters(DOMAINS) == adapters
    assert len(found.vectors) == len(found.examples) == len(winners)
    np.testing.assert_array_equal(found.vectors[-1], known.vectors[-1])


def test_regimes_differ_in_their_version(known):
    versions = {regime: remainder(regime, TASKS[0], TASKS).known(known).version for regime in REGIMES}
    assert len(set(versions.values())) == 3  # masking an adapter changes no vector


def test_an_unknown_regime_is_refused():
    with pytest.raises(OptionError, match=r"there is no regime 'far'\nHint: the regimes are 'in_domain'"):
        remainder("far", TASKS[0], TASKS)
