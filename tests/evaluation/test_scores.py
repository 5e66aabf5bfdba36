import numpy as np
import pytest

from lorauter_integrations.evaluation.results import Interval
from lorauter_integrations.evaluation.scores import Scale

DOMAINS = {"a": "one", "b": "one", "c": "two"}
ORACLE = {"a": [1.0, 1.0, 1.0, 0.0], "b": [0.5, 0.5], "c": [1.0, 0.5]}


@pytest.fixture
def scale():
    return Scale(DOMAINS, ORACLE)


def test_the_score_is_the_mean_over_domains_of_quotients(scale):
    found = scale.score("m", "r", {"a": [1.0, 0.0, 0.0, 0.0], "b": [0.5, 0.0], "c": [0.25, 0.25]})
    # one: (0.25 + 0.25) / 2 against (0.75 + 0.5) / 2; two: 0.25 against 0.75
    assert found.score.value == pytest.approx((0.25 / 0.625 + 0.25 / 0.75) / 2)
    assert found.raw == pytest.approx((0.25 + 0.25 + 0.25) / 3)
    assert found.domains == {"one": pytest.approx(0.25), "two": pytest.approx(0.25)}
    assert found.tasks == {"a": 0.25, "b": 0.25, "c": 0.25}


def test_the_oracle_is_one_without_doubt(scale):
    assert scale.score("oracle", "r", ORACLE).score == Interval(1.0, 1.0, 1.0)  # the draws are paired


def test_intervals_hold_the_value_and_shrink_with_more_examples():
    rng = np.random.default_rng(0)
    widths = []
    for count in (30, 3000):
        oracle, own = {"a": [1.0] * count}, {"a": list((rng.random(count) < 0.5).astype(float))}
        interval = Scale({"a": "one"}, oracle).score("m", "r", own).score
        assert interval.low < interval.value < interval.high
        widths.append(interval.high - interval.low)
        # 1.96 standard errors to each side
        assert widths[-1] == pytest.approx(2 * 1.96 * np.sqrt(0.25 / count), rel=0.15)
    assert widths[1] < widths[0] / 5


def test_a_difference_is_paired(scale):
    better = {"a": [1.0, 1.0, 1.0, 1.0], "b": [0.5, 0.5], "c": [1.0, 0.5]}
    found = scale.difference("r", "m", better, "oracle", ORACLE)
    assert (found.regime, found.method, found.against) == ("r", "m", "oracle")
    assert found.difference.value == pytest.approx((0.75 / 0.625 - 1) / 2)
    assert found.difference.low >= 0.0  # it is nowhere worse


def test_two_runs_give_the_same(scale):
    again = Scale(DOMAINS, ORACLE)
    scores = {"a": [1.0, 0.0, 0.0, 1.0], "b": [0.5, 0.0], "c": [0.25, 0.25]}
    assert scale.score("m", "r", scores) == again.score("m", "r", scores)


@pytest.mark.parametrize("right", [0, 1, 3])
def test_a_domain_where_the_oracle_is_hardly_above_nothing_is_left_out(right):
    """A quotient by 1 right answer of 30 would weigh as much as one by 25, and say nothing."""
    oracle = {"a": [1.0] * 30, "b": [1.0] * right + [0.0] * (30 - right)}
    scale = Scale({"a": "one", "b": "two"}, oracle)
    found = scale.score("m", "r", {"a": [1.0, 0.0] * 15, "b": [1.0] * 30})
    assert scale.left_out == {"two"}
    assert found.score.value == 0.5
    assert found.domains == {"one": 0.5, "two": 1.0}  # told, but not counted


def test_a_domain_where_the_oracle_is_sometimes_right_counts():
    """5 of 30 is 0.167, with a standard error of 0.068; translations score 0.05 each time, which is no chance."""
    some = [1.0] * 5 + [0.0] * 25
    scale = Scale({"a": "one", "b": "two"}, {"a": some, "b": [0.05] * 30})
    assert not scale.left_out
    assert scale.score("m", "r", {"a": some, "b": [0.025] * 30}).score.value == pytest.approx(0.75)


def test_tasks_of_a_domain_are_judged_together():
    scale = Scale({"a": "one", "b": "one"}, {"a": [1.0] * 30, "b": [0.0] * 30})
    assert not scale.left_out
