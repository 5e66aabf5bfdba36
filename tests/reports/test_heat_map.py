import subprocess
import sys

import numpy as np
import pytest
from made_rankings import large, ranking, score, small
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from lorauter_integrations.reports.grid import colour
from lorauter_integrations.reports.heat_map import draw_heat_map

LEFT_OUT = "#e3e3e3"


def drawn(rankings, file):
    draw_heat_map(rankings, file)
    assert file.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    return imread(file)[:, :, :3]


def share(picture, wanted):
    """Part of the pixels that have this colour, to within the colour map's 256 steps."""
    return float((np.abs(picture - to_rgb(wanted)).max(axis=2) < 0.02).mean())


def pair(score_of_a, path_of_b=(0.3,)):
    return [
        ranking(
            "t", [score("a", [score_of_a] * len(path_of_b)), score("", [0.5] * len(path_of_b)), score("b", path_of_b)]
        )
    ]


def test_picture_has_room_for_sixty_columns_and_a_row_a_task(tmp_path):
    height, width, _ = drawn(large(), tmp_path / "large.png").shape
    low, narrow, _ = drawn(small(), tmp_path / "small.png").shape
    assert width == round((4.4 + 0.27 * 60) * 120)
    assert narrow == round((4.4 + 0.27 * 15) * 120)
    assert height - low > 10 * 0.42 * 120


def test_each_score_is_seen_in_its_colour(tmp_path):
    picture = drawn(pair(0.9), tmp_path / "map.png")
    for value in (0.9, 0.5, 0.3):
        assert share(picture, colour(value)) > 0.004


def test_other_score_is_another_picture_and_the_same_score_the_same(tmp_path):
    first, second, third = (drawn(pair(value), tmp_path / "map.png") for value in (0.9, 0.6, 0.9))
    assert share(first, colour(0.9)) > share(second, colour(0.9))
    assert np.array_equal(first, third)


def test_left_out_early_is_a_lower_bar(tmp_path):
    half, quarter = (
        drawn([ranking("t", [score("", [0.9] * 4), score("b", [0.3] * count)])], tmp_path / "map.png")
        for count in (2, 1)
    )
    assert share(half, colour(0.3)) > 1.5 * share(quarter, colour(0.3)) > 0
    assert share(quarter, LEFT_OUT) > share(half, LEFT_OUT) > 0


def test_winner_is_marked_also_when_it_is_the_base_model(tmp_path):
    # The star's white is the only white on the winner's colour, so it costs that colour pixels.
    won, lost = (
        drawn([ranking("t", scores)], tmp_path / "map.png")
        for scores in ([score("", [0.9]), score("b", [0.3])], [score("b", [0.3]), score("", [0.9])])
    )
    assert share(won, colour(0.9)) < share(lost, colour(0.9))
    assert share(won, colour(0.3)) > share(lost, colour(0.3))


@pytest.mark.parametrize("scores", [(-7.5, -2.0), (3.0, 3.0), (0.0, 250.0)], ids=["negative", "equal", "large"])
def test_any_finite_scores_can_be_drawn(tmp_path, scores):
    rankings = [ranking("t", [score("a", [max(scores)]), score("", [min(scores)])])]
    assert drawn(rankings, tmp_path / "map.png").std() > 0


def test_names_are_no_formulas_and_may_be_long(tmp_path):
    names = ["$\\frac{x$", "a$b$c_^", "line\nbreak", "x" * 80, "\udcff", "<b>"]
    rankings = [ranking("task $\\alpha" + "y" * 80, [score(name, [0.5]) for name in ("", *names)])]
    _, width, _ = drawn(rankings, tmp_path / "map.png").shape
    assert width == round((4.4 + 0.27 * 15) * 120)


FRESH = """
import sys
{before}
try:
    import lorauter_integrations.reports.heat_map
except ImportError as error:
    print(type(error).__name__, str(error))
print("matplotlib.pyplot" in sys.modules)
"""


def fresh(before=""):
    done = subprocess.run(
        [sys.executable, "-c", FRESH.format(before=before)], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_without_matplotlib_the_error_names_the_extra():
    out = fresh("sys.modules['matplotlib'] = None")
    assert out.startswith("MissingExtraError this needs matplotlib, which is not installed")
    assert "pip install 'lorauter-integrations[plots]'" in out


def test_no_global_state_of_pyplot_is_touched():
    assert fresh() == "False\n"
