from itertools import chain

import pytest
from made_rankings import TASKS, large, ranking, score
from matplotlib.colors import LinearSegmentedColormap, to_hex

from lorauter_integrations.reports.grid import COLOURS, Scale, adapters_by_task, best_by_task, colour


def task(name, *adapters):
    """Adapters from the best to the worst, the base model last."""
    return ranking(name, [score(adapter, [0.9 - place / 10]) for place, adapter in enumerate([*adapters, ""])])


def test_adapter_stands_with_the_task_it_came_furthest_in():
    assert adapters_by_task([task("one", "a", "b", "c"), task("two", "c", "a", "d")]) == [["a", "b"], ["c", "d"]]


def test_a_tie_between_tasks_goes_to_the_first():
    assert adapters_by_task([task("one", "a"), task("two", "a", "b")]) == [["a"], ["b"]]


def test_base_model_is_no_adapter_and_takes_no_place():
    wins = ranking("one", [score("", [0.9]), score("a", [0.8])])
    assert adapters_by_task([wins, task("two", "b", "a")]) == [["a"], ["b"]]


def test_every_adapter_that_was_asked_has_one_column():
    rankings = large()
    asked = {entry.adapter for mapped in rankings for entry in mapped.scores} - {""}
    columns = list(chain(*adapters_by_task(rankings)))
    assert len(columns) == len(asked) > 300
    assert set(columns) == asked


def test_best_are_those_of_every_task_before_the_second_of_any():
    rankings = [task("one", "a", "b", "c", "d"), task("two", "e", "f", "g")]
    assert best_by_task(rankings, 3) == [["a", "b"], ["e"]]
    assert best_by_task(rankings, 4) == [["a", "b"], ["e", "f"]]


def test_no_winner_is_left_out_when_there_are_more_tasks_than_columns():
    assert best_by_task([task("one", "a"), task("two", "b"), task("three", "c")], 1) == [["a"], ["b"], ["c"]]


def test_of_a_large_map_sixty_are_shown_and_each_task_has_its_winner():
    rankings = large()
    groups = best_by_task(rankings)
    assert sum(map(len, groups)) == 60
    assert [group[0].split("-")[0] for group in groups if group] == list(TASKS)
    assert {mapped.best.adapter for mapped in rankings} <= set(chain(*groups))


# ------------------------------------------------------------------ colours


@pytest.mark.parametrize(
    ("scores", "ends"),
    [([0.2, 0.3], (0.0, 1.0)), ([0.0, 1.0], (0.0, 1.0)), ([-8.0, -2.5], (-8.0, -2.5)), ([0.5, 40.0], (0.5, 40.0))],
)
def test_scale_is_nought_to_one_unless_the_scores_leave_it(scores, ends):
    scale = Scale.of([ranking("t", [score("a", [value]) for value in scores])])
    assert (scale.lowest, scale.highest) == ends


def test_scale_places_scores_between_its_ends():
    assert [Scale(-10.0, 30.0).place(value) for value in (-10.0, 0.0, 30.0)] == [0.0, 0.25, 1.0]


def test_equal_scores_stand_in_the_middle():
    assert Scale(7.0, 7.0).place(7.0) == 0.5


def test_colours_are_those_of_the_picture():
    drawn = LinearSegmentedColormap.from_list("", COLOURS, N=1001)
    for thousandth in range(0, 1001, 25):
        own, theirs = colour(thousandth / 1000), to_hex(drawn(thousandth))
        assert all(abs(int(own[at : at + 2], 16) - int(theirs[at : at + 2], 16)) <= 1 for at in (1, 3, 5))


def test_higher_is_darker_at_every_step_so_that_no_eye_needs_the_hue():
    def luminance(hexadecimal):
        parts = [int(hexadecimal[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    steps = [luminance(colour(step / 24)) for step in range(25)]
    assert steps == sorted(steps, reverse=True)
    assert len(set(steps)) == 25
