import functools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorauter_integrations import metrics
from lorauter_integrations.errors import TaskError
from lorauter_integrations.metrics import METRICS, STILL_POSSIBLE, find_metric, metric_name


@pytest.mark.parametrize(
    ("metric", "answer", "target", "score"),
    [
        ("exact_match", "  New\n York. ", "new york", 1.0),
        ("exact_match", "new york city", "new york", 0.0),
        ("exact_match", "3.5", "35", 0.0),
        ("exact_text", " Yes\n", "Yes", 1.0),
        ("exact_text", "yes", "Yes", 0.0),
        ("exact_text", "Yes.", "Yes", 0.0),
        ("contains", "The answer is  Oslo.", "oslo", 1.0),
        ("contains", "The answer is Bergen", "Oslo", 0.0),
        # cat sat / cat ran fast: one shared token of 2 and 3
        ("f1", "The cat sat", "a cat ran, fast!", 2 * 1 / (2 + 3)),
        ("f1", "red red", "red", 2 * 1 / (2 + 1)),
        ("f1", "dog", "cat", 0.0),
        ("f1", "the", "a", 1.0),
        ("f1", "", "cat", 0.0),
        # longest common subsequence "the cat sat": precision 3/3, recall 3/6
        ("rouge_l", "The cat sat", "the cat on the mat sat", 2 / 3),
        ("rouge_l", "", "cat", 0.0),
        ("bleu", "the cat sat down here", "the cat sat down here", 1.0),
        # 1- to 3-grams all right; brevity penalty exp(1 - 4/3)
        ("bleu", "the cat sat", "the cat sat down", math.exp(-1 / 3)),
        # precisions 3/4, 2/3, 1/2 and (none right, smoothed) 1/2
        ("bleu", "the cat sat down", "the cat sat there", (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** 0.25),
    ],
)
def test_metric_gives_the_value_computed_by_hand(metric, answer, target, score):
    assert METRICS[metric](answer, target) == pytest.approx(score, abs=1e-9)


@pytest.mark.parametrize(
    ("answer", "target", "score"),
    [
        ('{"b": [1, {"c": null}], "a": "x"}', '{"a":"x","b":[1,{"c":null}]}', 1.0),
        ('{"a": 3.0}', '{"a": 3}', 1.0),
        ('{"a": true}', '{"a": 1}', 0.0),
        ("[0]", "[false]", 0.0),
        ("[1, 2]", "[2, 1]", 0.0),
        ("[1]", "[1, 2]", 0.0),
        ('{"a": 1, "b": 2}', '{"a": 1}', 0.0),
        ('{"a": "1"}', '{"a": 1}', 0.0),
        ("{}", "[]", 0.0),
        ('<tool_call>\n{"a": 1}\n</tool_call>', '{"a": 1}', 1.0),
        ('```json\n{"a": 1}\n```', '<tool_call>{"a": 1}</tool_call>', 1.0),
        ('{"a": 1', '{"a": 1}', 0.0),
        ('Sure: {"a": 1}', '{"a": 1}', 0.0),
        ("[" * 5000, "[]", 0.0),
    ],
    ids=[
        "key order",
        "3 is 3.0",
        "true is not 1",
        "0 is not false",
        "list order",
        "list length",
        "more keys",
        "text is no number",
        "object is no list",
        "tool call tags",
        "code fence",
        "broken",
        "words around",
        "too deep",
    ],
)
def test_json_metric_compares_values(answer, target, score):
    assert metrics.json_equal(answer, target) == score


# ------------------------------------------------------------------ names


@pytest.mark.parametrize("name", sorted(METRICS))
def test_name_and_function_of_a_metric_find_each_other(name):
    assert metric_name(name) == name
    assert metric_name(find_metric(name)) == name


@pytest.fixture
def own_metrics(tmp_path, monkeypatch):
    (tmp_path / "lorauter_own_metrics.py").write_text(
        "half = 0.5\ndef length(a, t):\n    return float(len(a) == len(t))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("own_metrics")
def test_function_of_a_module_is_a_metric():
    found = find_metric("lorauter_own_metrics:length")
    assert (found("ab", "cd"), found("a", "cd")) == (1.0, 0.0)
    assert metric_name(found) == "lorauter_own_metrics:length"


@pytest.mark.usefixtures("own_metrics")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("f2", r"(?s)unknown metric 'f2'.*Hint: use 'bleu', 'contains', .*, or a Python function"),
        ("lorauter_own_metrics:gone", "cannot be imported: .*no attribute 'gone'"),
        ("lorauter_own_metrics:half", "'lorauter_own_metrics:half' is not a function"),
        ("no_such_module:f", "'no_such_module:f' cannot be imported: No module named 'no_such_module'"),
        (":f", "':f' cannot be imported"),
        (".near:f", "'.near:f' cannot be imported"),
    ],
)
def test_metric_that_cannot_be_found_is_refused(name, message):
    with pytest.raises(TaskError, match=message):
        find_metric(name)


def test_a_stored_name_is_not_imported_until_it_scores():
    """A replica that only routes need not have the function, and a shared index cannot make it import one."""
    assert metric_name("no_such_module:f") == "no_such_module:f"
    with pytest.raises(TaskError, match="unknown metric 'f2'"):
        metric_name("f2")


def inner():
    def metric(answer, target):
        return 1.0

    return metric


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (lambda answer, target: 1.0, "<lambda> cannot be stored\nHint: use a function defined at the top"),
        (inner(), "inner.<locals>.metric cannot be stored"),
        (functools.partial(metrics.f1), r"the metric .* cannot be imported"),
    ],
    ids=["lambda", "inner function", "partial"],
)
def test_function_that_cannot_be_found_again_is_refused(metric, message):
    with pytest.raises(TaskError, match=message):
        metric_name(metric)


@given(answer=st.text("aB .\n", max_size=7), target=st.text("aB .", min_size=1, max_size=5), cut=st.integers(0, 7))
def test_an_answer_given_up_early_could_not_have_scored(answer, target, cut):
    """The law of every early end: whatever scores above 0 is never given up at any of its beginnings."""
    for name, possible in STILL_POSSIBLE.items():
        if METRICS[name](answer, target) > 0:
            assert possible(answer[:cut], target), name


@pytest.mark.parametrize("metric", STILL_POSSIBLE)
def test_an_answer_that_goes_wrong_is_given_up(metric):
    assert not STILL_POSSIBLE[metric]("Sure, here", "here")


@pytest.mark.parametrize(
    "answer", ['{"a": 1}', " [1, true]", '<tool_call>\n{"a": 1}\n</tool_call>', '```json\n{"a": 1}\n```', "-3", "NaN"]
)
def test_every_beginning_of_json_is_kept(answer):
    assert all(STILL_POSSIBLE["json"](answer[:cut], "1") for cut in range(len(answer) + 1))


@pytest.mark.parametrize(
    ("answer", "target", "score"),
    [
        ('<tool_call>\n{"a": 1}\n</tool_call>\n<tool_call>\n{"b": 2}\n</tool_call>', '[{"a": 1}, {"b": 2}]', 1.0),
        ('<tool_call>{"a": 1}</tool_call> and so on', '{"a": 1}', 0.0),
        ('{"a": "```json"}', '{"a": ""}', 0.0),
        ('{"a": "<tool_call>"}', '{"a": "<tool_call>"}', 1.0),
        ("```\n[1]\n```", "[1]", 1.0),
    ],
    ids=["two calls", "text beside", "fence in a string", "tag in a string", "fence"],
)
def test_only_the_wrapping_of_json_is_taken_off(answer, target, score):
    assert METRICS["json"](answer, target) == score


def test_words_of_every_script_count():
    assert METRICS["rouge_l"]("Привет мир", "привет, мир!") == 1.0
    assert METRICS["rouge_l"]("東京", "大阪") == 0.0


def test_a_target_of_punctuation_is_looked_for_as_it_is():
    assert METRICS["contains"]("no", ".") == 0.0
    assert METRICS["contains"]("yes.", ".") == 1.0
