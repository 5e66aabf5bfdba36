"""What `lorauter map` prints."""

import pytest
from made_rankings import large, played, ranking, score
from rich.console import Console

from lorauter_integrations.cli import output


@pytest.fixture
def printed(capsys, monkeypatch):
    """The lines of a table on a console of a width."""

    def run(rankings, width=120):
        monkeypatch.setattr(output, "console", Console(width=width))
        output.print_rankings(rankings, "mapped")
        return capsys.readouterr().out.splitlines()

    return run


def cells(line):
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_row_holds_winner_interval_base_gain_next_and_cost(printed):
    scores = [score("sql", [0.8333], error=0.0311), score("qa", [0.6]), score("", [0.125])]
    lines = printed([ranking("text_to_sql", scores, questions=1370)])
    assert [cell.strip() for cell in lines[2].strip("┃").split("┃")] == [
        "task", "winner", "score ±95 %", "base", "gain", "next", "questions",
    ]  # fmt: skip
    assert cells(lines[4]) == ["text_to_sql", "sql", "0.833 ±0.061", "0.125", "+0.708", "qa", "1,370"]


def test_base_model_that_wins_is_named_and_who_is_level_is_counted(printed):
    lines = printed([ranking("t", [score("", [0.9]), score("a", [0.89]), score("b", [0.88])])])
    assert cells(lines[4])[1:6] == ["(base model)", "0.900 ±0.098", "0.900", "+0.000", "level with 2 others"]


def test_numbers_stand_on_the_right(printed):
    scores = [score("a", [10.5], error=0.5), score("", [9.25])]
    lines = printed([ranking("t", scores, questions=7), ranking("u", [score("a", [0.5]), score("", [0.25])])])
    assert lines[4].index("10.500 ±0.980") + 13 == lines[5].index("0.500 ±0.098") + 12
    assert lines[4].index(" 7 ") + 2 == lines[5].index(" 75 ") + 3


def test_each_task_of_a_large_map_takes_one_line_of_120_columns(printed):
    lines = printed(large())
    assert len(lines) == 12 + 5
    assert max(map(len, lines)) <= 120
    assert [cells(line)[0] for line in lines[4:-1]] == [mapped.task for mapped in large()]


def test_long_names_are_shortened_in_the_middle(printed):
    name = "organisation/" + "x" * 60 + "-seed3"
    lines = printed([played("y" * 80 + "!", {"": 0.1, name: 0.9, "b": 0.1})])
    assert len(lines) == 1 + 5 and len(lines[4]) <= 120
    assert cells(lines[4])[1].startswith("organis") and cells(lines[4])[1].endswith("-seed3")


def test_wide_console_shows_whole_names(printed):
    name = "organisation/" + "x" * 60
    assert cells(printed([played("t", {"": 0.1, name: 0.9})], width=300)[4])[1] == name


def test_control_characters_do_not_reach_the_terminal(printed):
    lines = printed([played("t\x1b[31m", {"": 0.1, "[bold]a\x1b[2J\n": 0.9})])
    assert "\x1b" not in "".join(lines)
    assert cells(lines[4])[1] == "[bold]a\ufffd[2J\ufffd"
