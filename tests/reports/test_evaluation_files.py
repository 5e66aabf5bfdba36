import pytest
from made_results import results

from lorauter_integrations.errors import LoRAuterError, MappingError
from lorauter_integrations.evaluation.results import Results, RoutingQuality, WrongRoute
from lorauter_integrations.reports import (
    evaluation_markdown,
    evaluation_page,
    write_evaluation,
    write_evaluation_page,
)


def test_three_files_hold_the_values_the_text_and_the_page(tmp_path):
    made = results()
    written = write_evaluation(made, tmp_path / "new" / "report")
    assert [path.name for path in written] == ["results.json", "evaluation.md", "evaluation.html"]
    values, text, page = (path.read_text(encoding="utf-8") for path in written)
    assert Results.from_json(values) == Results.from_json(made.to_json())
    assert (text, page) == (evaluation_markdown(made), evaluation_page(made))


def test_files_are_replaced_whole_and_nothing_is_left_beside_them(tmp_path):
    (tmp_path / "evaluation.md").write_text("old")
    write_evaluation(results(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluation.html", "evaluation.md", "results.json"]
    assert (tmp_path / "evaluation.md").read_text(encoding="utf-8").startswith("# How well")


def test_page_that_cannot_be_replaced_leaves_nothing_beside_it(tmp_path):
    (tmp_path / "page.html").mkdir()
    with pytest.raises(LoRAuterError, match=r"the report .*page\.html cannot be written"):
        write_evaluation_page(results(), tmp_path / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.parametrize("write", [write_evaluation, write_evaluation_page])
def test_report_that_cannot_be_written_is_one_clear_error_that_does_not_speak_of_mapping(tmp_path, write):
    (tmp_path / "taken").touch()
    with pytest.raises(LoRAuterError, match=r"the report .*taken.report.* cannot be written: ") as caught:
        write(results(), tmp_path / "taken" / "report")
    assert not isinstance(caught.value, MappingError)
    assert caught.value.hint == "name a folder that may be written to"


def test_half_a_surrogate_pair_in_a_text_can_be_written(tmp_path):
    wrong = [WrongRoute("a", "b", 0.5, 0.4, "caf\ud83d")]
    made = Results({}, {}, {}, [], routing=[RoutingQuality("p", 1, 0, 0, {"a": {"b": 1}}, wrong)])
    values, text, page = (path.read_text(encoding="utf-8") for path in write_evaluation(made, tmp_path))
    assert Results.from_json(values).routing[0].wrong[0].text == "caf?"
    assert "caf\ufffd" in text and "caf\ufffd" in page
