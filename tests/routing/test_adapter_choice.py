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
    assert gains(SQL) == {"": 0.0, "coder": pytest.approx(1.0, abs=0.01), "sql": pytest.approx(0.5, abs=0.01)}


def test_a_loss_is_a_negative_gain_and_no_worse_than_the_best_is_good():
    assert gains(ranking("t", good=0.6, base=0.5, bad=0.0))["bad"] == -1.0


def test_a_task_that_no_adapter_improves_promises_the_base_model():
    assert gains(CHAT) == {"": 1.0}


def test_few_examples_count_less():
    """4 of 4 right, where the mean is 0.5: (4 + 4 * 0.5) / 8 = 0.75."""
    rows = (AdapterScore("sure", "", 0.9, 100), AdapterScore("lucky", "", 0.6, 4), AdapterScore("", "", 0.0, 100))
    found = gains(Ranking("t", "", "", "", rows, 0))
    assert found["lucky"] == pytest.approx((4 * 0.6 + 4 * 0.5) / 8 / 0.9)
    assert found["sure"] == pytest.approx((100 * 0.9 + 4 * 0.5) / 104 / 0.9)


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


def test_the_base_models_share_is_left_out():
    found = ExpectedGain(most=2, temperature=0.5).mixture([(CODE, 0.5), (CHAT, 0.5)])  # 0.5 for each of them, about
    assert list(found) == ["coder"]
    assert found["coder"] == pytest.approx(0.5, abs=0.01)


def test_only_the_base_model_is_the_empty_mixture():
    assert ExpectedGain().mixture([(CHAT, 1.0)]) == Mixture()
    assert BestOfTask().mixture([(CHAT, 1.0)]) == Mixture()


def test_an_adapter_that_was_not_measured_on_a_task_has_no_promise_there():
    far = ranking("far", other=0.9, base=0.0)
    found = ExpectedGain(temperature=0.1).mixture([(SQL, 0.5), (far, 0.5)])
    assert set(found) == {"coder", "other", "sql"}
    assert found["coder"] == pytest.approx(found["other"], rel=0.05)


def test_equal_promises_are_told_apart_by_name():
    twins = ranking("t", b=0.5, a=0.5, c=0.5, base=0.0)
    assert list(ExpectedGain(most=2).mixture([(twins, 1.0)])) == ["a", "b"]


def test_a_task_without_a_share_is_not_looked_at():
    assert ExpectedGain().mixture([(SQL, 1.0), (CHAT, 0.0)]) == ExpectedGain().mixture([(SQL, 1.0)])


@pytest.mark.parametrize("wrong", [{"most": 0}, {"temperature": 0.0}])
def test_out_of_range(wrong):
    with pytest.raises(ConfigError, match="most must be at least 1 and temperature above 0"):
        ExpectedGain(**wrong)
