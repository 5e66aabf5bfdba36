import pytest

from lorauter_integrations import AdapterMap, AdapterScore, Ranking
from lorauter_integrations.errors import TaskError

SCORES = (
    AdapterScore("sql", "h1", 0.9, 24),
    AdapterScore("qa", "h2", 0.6, 24),
    AdapterScore("", "", 0.5, 24),
    AdapterScore("ner", "h3", 0.25, 3),
)


def ranking(task="text_to_sql", scores=SCORES, questions=75):
    return Ranking(task, "t1", "base", "metric f1", scores, questions)


def test_winner_base_and_gain_are_read_off_the_scores():
    ranked = ranking()
    assert ranked.best == SCORES[0]
    assert ranked.base == SCORES[2]
    assert ranked.gain == pytest.approx(0.4)


def test_base_model_that_wins_has_no_gain():
    ranked = ranking(scores=(SCORES[2], SCORES[3]))
    assert ranked.best.is_base
    assert ranked.gain == 0.0


@pytest.mark.parametrize(("count", "kept"), [(1, ["sql", ""]), (3, ["sql", "qa", ""]), (9, ["sql", "qa", "", "ner"])])
def test_top_keeps_the_best_and_the_base_model(count, kept):
    top = ranking().top(count)
    assert [score.adapter for score in top.scores] == kept
    assert top.questions == 75


def test_ranking_survives_json():
    assert Ranking.from_json(ranking().to_json()) == ranking()


def test_map_is_a_mapping_in_name_order():
    adapters = AdapterMap([ranking("b"), ranking("a", SCORES[2:], 5)])
    assert list(adapters) == ["a", "b"]
    assert adapters["b"].best.adapter == "sql"
    assert adapters.questions == 80
    assert repr(adapters) == "AdapterMap(a: base model, b: sql)"


def test_later_ranking_of_a_task_replaces_the_earlier():
    assert AdapterMap([ranking(questions=1), ranking(questions=2)]).questions == 2


def test_map_survives_json():
    adapters = AdapterMap([ranking("b"), ranking("a")])
    assert dict(AdapterMap.from_json(adapters.to_json())) == dict(adapters)


@pytest.mark.parametrize("text", ["{", "5", '{"a": 1}', "[{}]", '[{"task": "a", "scores": []}]'])
def test_text_that_is_no_map_is_refused(text):
    with pytest.raises(TaskError, match="this is not an adapter map: "):
        AdapterMap.from_json(text)
