import math

import pytest
from made_rankings import played, ranking, score

from lorauter_integrations.reports.summary import (
    everything,
    label,
    level,
    measured,
    next_best,
    number,
    path,
    pool,
    shortened,
    span,
)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("", "(base model)"),
        ("org/name", "org/name"),
        ("a\nb\x1b[31mc", "a\ufffdb\ufffd[31mc"),
        ("broken\udcff", "broken\ufffd"),
        ("left\u202eright", "left\ufffdright"),
    ],
    ids=["base", "plain", "control characters", "broken Unicode", "direction override"],
)
def test_label_can_be_shown_anywhere(name, shown):
    assert label(name) == shown
    assert label(name).encode("utf-8")


@pytest.mark.parametrize("length", [5, 6, 20, 21])
def test_long_name_keeps_both_ends_and_fits(length):
    name = "organisation/" + "x" * 60 + "-r16-seed3"
    short = shortened(name, length)
    assert len(short) == length
    head, tail = short.split("…")
    assert name.startswith(head) and name.endswith(tail)
    assert abs(len(head) - len(tail)) <= 1


def test_short_name_is_left_alone():
    assert shortened("twelve chars", 12) == "twelve chars"


@pytest.mark.parametrize(
    ("value", "sign", "text"),
    [
        (0.5, "", "0.500"),
        (-31.25, "", "-31.250"),
        (1e300, "", "1.000e+300"),
        (0.25, "+", "+0.250"),
        (-1.0, "+", "-1.000"),
    ],
)
def test_number_is_short(value, sign, text):
    assert number(value, sign) == text


def test_score_comes_with_half_its_interval():
    assert measured(score("a", [0.8333], error=0.0311)) == "0.833 ±0.061"


def test_single_example_has_no_interval():
    assert measured(score("a", [1.0], examples=1, error=0.0)) == "1.000"


def test_path_names_each_round_and_the_examples():
    assert path(score("a", [0.25, 1 / 3, 0.41])) == "0.250 → 0.333 → 0.410 over 24 examples"
    assert path(score("a", [1.0], examples=1)) == "1.000 over 1 example"


# ------------------------------------------------------------------ who is level with the winner


def test_level_is_within_the_standard_error_of_the_difference():
    most = math.hypot(0.03, 0.04)
    near, far = score("near", [0.9 - most], error=0.04), score("far", [0.9 - most - 0.001], error=0.04)
    assert level(ranking("t", [score("best", [0.9], error=0.03), near, far])) == [near]


def test_who_was_asked_less_is_never_level():
    early = score("early", [0.9], examples=12)
    base = score("", [0.5])
    assert level(ranking("t", [score("best", [0.9]), base, early])) == []


def test_base_model_can_be_level():
    base = score("", [0.88])
    assert level(ranking("t", [score("best", [0.9]), base])) == [base]


@pytest.mark.parametrize("count", range(2, 101))
def test_one_mistake_against_none_is_level_whatever_the_rounding(count):
    mean = (count - 1) / count
    error = math.sqrt(mean * (1 - mean) / (count - 1))
    second = score("b", [mean], examples=count, error=error)
    assert level(ranking("t", [score("a", [1.0], examples=count, error=0.0), second])) == [second]


@pytest.mark.parametrize(
    ("others", "text"),
    [
        ([score("b", [0.89]), score("", [0.88])], "level with 2 others"),
        ([score("b", [0.89]), score("", [0.1])], "level with 1 other"),
        ([score("b", [0.6]), score("", [0.1])], "b"),
        ([score("", [0.1])], "(base model)"),
        ([], ""),
    ],
    ids=["two", "one", "runner-up", "base", "alone"],
)
def test_next_best_is_a_count_or_a_name(others, text):
    assert next_best(ranking("t", [score("a" if others else "", [0.9]), *others])) == text


# ------------------------------------------------------------------ what it cost


def test_asking_everything_is_each_adapter_and_the_base_on_each_example():
    first = ranking("a", [score("x", [0.9], 24), score("", [0.5], 24)], pool=1500)
    second = ranking("b", [score("x", [0.9], 10), score("", [0.5], 10)], pool=1500)
    assert everything([first, second]) == 1501 * 34


def test_uniform_mapping_asks_everything():
    mapped = played("t", {"": 0.5, "a": 0.9, "b": 0.1})
    assert mapped.questions == everything([mapped]) == 3 * 24


def test_map_that_does_not_know_its_pool_counts_whom_it_asked():
    assert pool(ranking("t", [score("a", [0.9]), score("b", [0.8]), score("", [0.5])], pool=0)) == 2


@pytest.mark.parametrize(("values", "text"), [([1500, 1500], "1,500"), ([1500, 7], "7 to 1,500")])
def test_span_is_one_number_or_two(values, text):
    assert span(values) == text
