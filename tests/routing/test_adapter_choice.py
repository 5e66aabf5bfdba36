import math

import pytest

from lorauter_integrations import AdapterScore, Mixture, Ranking
from lorauter_integrations.errors import ConfigError
from lorauter_integrations.routing.adapter_choice import BestOfTask, ExpectedGain, gains


def ranking(task, examples=1000, **scores):
    """Best first; many examples, so that scores are taken as they are. The base model is "base"."""
    rows = [AdapterScore("" if name == "base" else name, "", score, examples) for name, score in scores.items()]
    return Ranking(task, "", "", "", tuple(sorted(rows, key=lambda row: -row.score)), 0)


SQL = ranking("sql", coder=0.8, sql=0.6, base=0.4)
CODE = ranking("code", coder=0.9, poet=0.5, base=0.4)
CHAT = ranking("chat", base=0.7, poet=0.6)


def test_each_task_stands_for_its_best_and_the_same_add_up():
    assert BestOfTask().mixture([(SQL, 0.5), (CODE, 0.3), (CHAT, 0.2)]) == Mixture({"coder": 0.8})


def test_gains_are_parts_of_the_best_one():
    assert gains(SQL) == {"coder": pytest.approx(1.0), "sql": pytest.approx(0.5)}


def test_a_loss_is_a_negative_gain_and_no_worse_than_the_best_is_good():
    assert gains(ranking("t", good=0.6, base=0.5, bad=0.0))["bad"] == -1.0


@pytest.mark.parametrize("examples", [1, 24, 1000])
def test_the_winner_gained_all_there_was_to_gain(examples):
    """Also by little over a good base model, among many that are bad."""
    others = {f"bad{n}": 0.1 for n in range(20)}
    found = gains(ranking("t", examples, good=0.92, fair=0.91, base=0.9, **others))
    assert found["good"] == pytest.approx(1.0)
    assert found["fair"] == pytest.approx(0.5)
    assert found["bad0"] == -1.0
    assert list(ExpectedGain().mixture([(ranking("t", examples, good=0.92, base=0.9, **others), 1.0)])) == ["good"]


def test_few_examples_count_less():
    """Of the mean 0.5: 0.6 over 4 examples counts as 0.55."""
    rows = (AdapterScore("sure", "", 0.9, 100), AdapterScore("lucky", "", 0.6, 4), AdapterScore("", "", 0.0, 100))
    sure, lucky, base = (100 * 0.9 + 4 * 0.5) / 104, (4 * 0.6 + 4 * 0.5) / 8, 4 * 0.5 / 104
    found = gains(Ranking("t", "", "", "", rows, 0))
    assert found == {"sure": pytest.approx(1.0), "lucky": pytest.approx((lucky - base) / (sure - base))}


def test_a_best_that_was_asked_next_to_nothing_is_still_the_best():
    rows = (AdapterScore("new", "", 0.9, 1), AdapterScore("", "", 0.8, 1000), AdapterScore("bad", "", 0.0, 1000))
    assert gains(Ranking("t", "", "", "", rows, 0)) == {"new": 1.0}


def test_one_known_task_is_answered_by_its_best():
    assert ExpectedGain(temperature=0.01).mixture([(SQL, 1.0)]) == Mixture({"coder": 1.0})


def test_between_tasks_what_is_good_on_all_of_them_wins():
    """Each task's best is another, and `all_round` is the best of none."""
    first = ranking("a", one=0.9, all_round=0.8, two=0.1, base=0.0)
    second = ranking("b", two=0.9, all_round=0.8, one=0.1, base=0.0)
    found = ExpectedGain(temperature=0.05).mixture([(first, 0.5), (second, 0.5)])
    assert max(found, key=found.get) == "all_round"
    assert max(BestOfTask().mixture([(first, 0.6), (second, 0.4)]).items(), key=lambda pair: pair[1])[0] == "one"


def test_shares_are_a_softmax_of_the_promises():
    found = ExpectedGain(most=2, temperature=0.5).mixture([(SQL, 0.5), (CODE, 0.5)])
    coder, sql = (gains(SQL)["coder"] + gains(CODE)["coder"]) / 2, gains(SQL)["sql"] / 2
    assert list(found) == ["coder", "sql"]
    assert found["coder"] / found["sql"] == pytest.approx(math.exp((coder - sql) / 0.5))
    assert sum(found.values()) == pytest.approx(1.0)


def test_the_base_model_keeps_the_share_of_tasks_that_it_does_best():
    found = ExpectedGain().mixture([(CODE, 0.4), (CHAT, 0.6)])
    assert found == Mixture({"coder": 0.4})
    level = ranking("level", base=0.1, **{f"a{n}": 0.5 for n in range(9)})
    found = ExpectedGain().mixture([(level, 0.55), (CHAT, 0.45)])
    assert list(found.values()) == pytest.approx([0.11] * 5)


def test_only_the_base_model_is_the_empty_mixture():
    assert ExpectedGain().mixture([(CHAT, 1.0)]) == Mixture()
    assert BestOfTask().mixture([(CHAT, 1.0)]) == Mixture()


def test_an_adapter_that_was_not_measured_on_a_task_has_no_promise_there():
    """`sql` has half of the gain on one of two tasks: a quarter, against a half for both winners."""
    far = ranking("far", other=0.9, base=0.0)
    found = ExpectedGain(temperature=0.5).mixture([(SQL, 0.5), (far, 0.5)])
    assert found["coder"] == pytest.approx(found["other"])
    assert found["sql"] / found["coder"] == pytest.approx(math.exp(-0.25 / 0.5))


def test_what_promises_a_loss_does_not_answer():
    first, second = ranking("a", one=0.9, bad=0.3, base=0.4), ranking("b", two=0.9, bad=0.3, base=0.4)
    assert set(ExpectedGain(temperature=1.0).mixture([(first, 0.5), (second, 0.5)])) == {"one", "two"}


def test_where_nothing_promises_more_than_the_base_model_one_adapter_answers():
    """Each task's best ruins the other."""
    first, second = ranking("a", one=0.9, two=0.0, base=0.45), ranking("b", two=0.9, one=0.0, base=0.45)
    assert ExpectedGain().mixture([(first, 0.5), (second, 0.5)]) == Mixture({"one": 1.0})


def test_equal_promises_stand_as_in_the_ranking():
    """The ranking has told them apart, by likelihood; names never decide."""
    twins = ranking("t", zeta=0.5, gamma=0.5, alpha=0.5, base=0.0)
    assert set(ExpectedGain(most=2).mixture([(twins, 1.0)])) == {"zeta", "gamma"}
    assert ExpectedGain(most=1).mixture([(twins, 1.0)]) == Mixture({"zeta": 1.0})


def test_a_task_without_a_share_is_not_looked_at():
    other = ranking("other", far=0.9, base=0.0)
    assert set(ExpectedGain(temperature=1.0).mixture([(SQL, 1.0), (other, 0.0)])) == {"coder", "sql"}


def test_shares_below_a_hundredth_go_to_the_others():
    small = ranking("t", good=0.9, weak=0.4, base=0.0)  # at 0.1: softmax of 10 and 4.4
    assert ExpectedGain().mixture([(small, 1.0)]) == Mixture({"good": 1.0})


def test_however_many_share_alike_none_is_dropped():
    level = ranking("t", base=0.0, **{f"a{n}": 0.5 for n in range(150)})
    assert len(ExpectedGain(most=150).mixture([(level, 1.0)])) == 150


@pytest.mark.parametrize("wrong", [{"most": 0}, {"temperature": 0.0}])
def test_out_of_range(wrong):
    with pytest.raises(ConfigError, match="most must be at least 1 and temperature above 0"):
        ExpectedGain(**wrong)
