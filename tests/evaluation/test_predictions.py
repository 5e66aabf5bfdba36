import pytest

from lorauter_integrations.errors import MappingError
from lorauter_integrations.evaluation.predictions import Predictions


def test_answers_are_found_again_by_another_process(tmp_path):
    file = tmp_path / "deep" / "predictions.jsonl"
    kept = Predictions(file)
    kept.keep({"a": "grüße\nzwei", "b": ""})
    kept.keep({"c": "three"})
    again = Predictions(file)
    assert [again[key] for key in "abc"] == ["grüße\nzwei", "", "three"]
    assert ("d" in again, len(again)) == (False, 3)


def test_a_line_that_was_cut_is_written_again(tmp_path):
    file = tmp_path / "predictions.jsonl"
    Predictions(file).keep({"a": "one", "b": "two"})
    file.write_bytes(file.read_bytes()[:-4])
    cut = Predictions(file)
    assert ("a" in cut, "b" in cut) == (True, False)
    cut.keep({"b": "two"})
    assert Predictions(file)["b"] == "two"


def test_a_damaged_line_is_named(tmp_path):
    file = tmp_path / "predictions.jsonl"
    file.write_text('["a", "one"]\nnothing\n')
    with pytest.raises(MappingError, match=r"are damaged at line 2: .*\nHint: delete that line"):
        Predictions(file)
