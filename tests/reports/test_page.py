import re
import subprocess
import sys

import pytest
from made_rankings import large, played, ranking, score, small
from page_tree import Node, Tree

from lorauter_integrations.reports import mapping_page, write_page

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "a&lt;b",
    "</style>",
]


def read(rankings):
    return Tree(mapping_page(rankings)).open[0]


def rows(table):
    return [[cell.text for cell in row.children if isinstance(cell, Node)] for row in table.one("tbody").all("tr")]


def tips(page):
    return [cell.attributes["title"] for cell in page.all("td") if "title" in cell.attributes]


@pytest.fixture(scope="module")
def rankings():
    return large()


@pytest.fixture(scope="module")
def page(rankings):
    return read(rankings)


# ------------------------------------------------------------------ what it says


def test_headline_says_what_was_asked_of_what(page, rankings):
    facts = {block.one("dt").text: block.one("dd").text for block in page.one("dl").all("div")}
    questions = sum(mapped.questions for mapped in rankings)
    whole = 12 * 1501 * 24
    assert facts == {
        "tasks": "12",
        "of them improved by an adapter": "12",
        "adapters in the pool": "1,500",
        "left out for each task by the screening": "1,468",
        "adapters asked at least one question": "324",
        f"questions asked, {100 * questions / whole:.1f} % of the {whole:,} that asking everything would take":
            f"{questions:,}",
    }  # fmt: skip


def test_winner_stands_in_its_tasks_row():
    scores = [score("sql", [0.5, 0.8333], error=0.0311), score("qa", [0.5, 0.6]), score("", [0.2, 0.125])]
    table = read([ranking("text_to_sql", scores, questions=1370)]).one("table", **{"class": "rows sortable"})
    assert rows(table) == [["text_to_sql", "sql", "0.833 ±0.061", "0.125", "+0.708", "qa", "1,370"]]


def test_base_model_that_wins_is_named():
    page = read([ranking("t", [score("", [0.9]), score("a", [0.3])])])
    assert rows(page.one("table", **{"class": "rows sortable"}))[0][1:5] == [
        "(base model)",
        "0.900 ±0.098",
        "0.900",
        "+0.000",
    ]
    facts = {block.one("dt").text: block.one("dd").text for block in page.one("dl").all("div")}
    assert facts["of them improved by an adapter"] == "0"


def test_adapter_seen_in_three_rounds_has_three_values_in_its_tip():
    scores = [
        score("best", [0.5, 0.6, 0.7, 0.8]),
        score("", [0.2] * 4),
        score("mid", [0.25, 1 / 3, 0.41], examples=15),
    ]
    assert tips(read([ranking("t", scores)])) == [
        "(base model), t: 0.200 → 0.200 → 0.200 → 0.200 over 24 examples",
        "best, t: 0.500 → 0.600 → 0.700 → 0.800 over 24 examples, the winner",
        "mid, t: 0.250 → 0.333 → 0.410 over 15 examples",
    ]


def test_bar_is_as_high_as_the_part_of_the_rounds_and_coloured_by_the_score():
    scores = [
        score("best", [0.5, 0.6, 0.7, 1.0]),
        score("", [0.0] * 4),
        score("mid", [0.5] * 3),
        score("low", [0.25]),
    ]
    filled = [cell for cell in read([ranking("t", scores)]).all("td") if "title" in cell.attributes]
    bars = {cell.attributes["title"].split(",")[0]: cell.one("i").attributes for cell in filled}
    assert bars == {
        "(base model)": {"class": "c0", "style": "height:100%"},
        "best": {"class": "c24", "style": "height:100%"},
        "mid": {"class": "c12", "style": "height:75%"},
        "low": {"class": "c6", "style": "height:25%"},
    }


def test_every_contestant_of_every_task_has_a_cell_under_its_name(page, rankings):
    table = page.one("table", **{"class": "map"})
    names = [head.attributes["title"] for head in list(table.one("thead").all("tr"))[1].all("th")]
    assert names[0] == "(base model)"
    body = list(table.one("tbody").all("tr"))
    assert [row.one("th").text for row in body] == [mapped.task for mapped in rankings]
    for row, mapped in zip(body, rankings, strict=True):
        filled = {name for name, cell in zip(names, row.all("td"), strict=True) if cell.children}
        assert filled == {entry.adapter or "(base model)" for entry in mapped.scores}
        assert [bar.attributes["class"] for bar in row.all("div")].count("bar win") == 1


def test_columns_stand_below_the_task_they_came_furthest_in(page, rankings):
    heads = list(page.one("table", **{"class": "map"}).all("th", scope="colgroup"))
    assert [head.text for head in heads] == [*(mapped.task for mapped in rankings), "all others"]
    spans = [int(head.attributes["colspan"]) for head in heads]
    assert (sum(spans[:-1]), sum(spans)) == (60, 324)


def test_each_task_lists_its_contestants_by_round():
    scores = [
        score("best", [0.5, 0.6, 0.7]),
        score("second", [0.5, 0.5, 0.4]),
        score("", [0.2] * 3),
        score("third", [0.5, 0.3], examples=12),
        score("fourth", [0.3], examples=5),
        score("fifth", [0.1], examples=5),
    ]
    details = read([ranking("text_to_sql", scores)]).one("details")
    assert " ".join(details.one("summary").text.split()) == "text_to_sql best 0.700 ±0.098"
    assert [[head.text.strip() for head in body.all("th")] for body in details.all("tbody")] == [
        ["asked in every round (3): 3", "best winner", "second", "(base model)"],
        ["left out after round 2 of 3: 1", "third"],
        ["left out after round 1 of 3: 2", "fourth", "fifth"],
    ]
    assert [cell.text for cell in details.all("td")][6:8] == ["0.300 ±0.098", "0.500 → 0.300 over 12 examples"]


def test_large_map_lists_every_contestant_of_every_task(page, rankings):
    listed = [sum(1 for _ in details.all("th", scope="row")) for details in page.all("details")]
    assert listed == [len(mapped.scores) for mapped in rankings] == [33] * 12


def test_level_contestants_are_marked():
    scores = [score("a", [0.9]), score("b", [0.88]), score("c", [0.5]), score("", [0.1])]
    heads = [head.text.strip() for head in read([ranking("t", scores)]).one("details").all("th", scope="row")]
    assert heads == ["a winner", "b level with the winner", "c", "(base model)"]


# ------------------------------------------------------------------ what it is


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_name_stays_text(name):
    harmless = read([played("task", {"": 0.2, "x": 0.9, "y": 0.1})])
    page = read([played(name, {"": 0.2, name: 0.9, "y": 0.1})])
    assert [node.name for node in page.all("script")] == ["script"]
    assert sorted(node.name for node in page.all("img")) == []
    kinds = [
        {key for node in tree.all(tag) for key in node.attributes}
        for tree in (harmless, page)
        for tag in ("td", "th")
    ]
    assert kinds[:2] == kinds[2:]
    assert rows(page.one("table", **{"class": "rows sortable"}))[0][:2] == [name, name]


def test_broken_unicode_in_a_name_can_be_written(tmp_path):
    write_page([ranking("t\x00", [score("a\udcff", [0.9]), score("", [0.2])])], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "a\ufffd" in text and "\x00" not in text


def test_page_needs_nothing_from_elsewhere(rankings):
    text = mapping_page(rankings)
    assert re.findall(r"https?:|//[a-z]|@import|url\(|\bsrc=|\bhref=|<link", text) == []


def test_tables_name_their_rows_and_columns_for_screen_readers(page):
    assert page.one("html").attributes["lang"] == "en"
    assert {head.attributes["scope"] for head in page.all("th")} == {"col", "row", "colgroup", "rowgroup"}
    scroll = page.one("div", **{"class": "scroll"}).attributes
    assert scroll["tabindex"] == "0" and scroll["aria-label"]


def luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_text_has_the_contrast_that_wcag_asks_for(mode):
    style = read(small()).one("style").text
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", re.findall(r":root \{[^}]+\}", style)[mode]))
    for paper in ("paper", "card"):
        for ink in ("ink", "faint"):
            low, high = sorted(luminance(colours[name]) for name in (paper, ink))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, paper)


def test_high_scores_stand_out_on_either_paper():
    style = read(small()).one("style").text
    light, dark = (re.findall(rf"\.c{step} \{{ background: (#\w+)", style) for step in (0, 24))
    assert luminance(light[0]) > luminance(dark[0])  # on white the highest is the darkest
    assert luminance(light[1]) < luminance(dark[1])
    assert light == dark[::-1]


def test_score_of_ones_own_metric_may_be_any_number():
    page = read([ranking("t", [score("a", [-2.5]), score("", [-80.0])])])
    assert "score -80.000" in page.one("ul").text and "-2.500" in page.one("ul").text


def test_page_needs_no_matplotlib(tmp_path):
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from lorauter_integrations.adapter_map import AdapterScore, Ranking\n"
        "from lorauter_integrations.reports import write_page\n"
        "scores = (AdapterScore('a', 'h', 0.9, 24), AdapterScore('', '', 0.5, 24))\n"
        f"write_page([Ranking('t', 't', 'b', 's', scores, 48)], {str(tmp_path / 'page.html')!r})\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert "0.900" in (tmp_path / "page.html").read_text(encoding="utf-8")
