import re
import subprocess
import sys
from dataclasses import replace

import pytest
from made_results import METHODS, QUERY, REGIMES, TASKS, results
from page_tree import Node, Tree

from lorauter_integrations.evaluation.results import (
    Interval,
    MethodScore,
    Place,
    Results,
    RoutingQuality,
    WrongRoute,
)
from lorauter_integrations.reports import evaluation_page

NOTHING = Results({}, {}, {}, [])
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style></title></svg>",
]


def read(made):
    return Tree(evaluation_page(made)).open[0]


def figure(page, title):
    (found,) = [one for one in page.all("figure") if one.one("h3").text == title]
    return found


def titles(page):
    return [one.one("h3").text for one in page.all("figure")]


def tips(node):
    return [tip.text for tip in node.all("title")]


def rows(node):
    return [[cell.text for cell in row.children if isinstance(cell, Node)] for row in node.one("tbody").all("tr")]


@pytest.fixture(scope="module")
def made():
    return results()


@pytest.fixture(scope="module")
def page(made):
    return read(made)


# ------------------------------------------------------------------ what it says


def test_page_has_every_part_and_each_plot_its_title(page):
    assert [head.text for head in page.all("h2")] == [
        "Score by method", "Ours against others", "Score by domain and by task", "Which task inputs go to",
        "Tasks and a query", "Abstaining", "Latency of routing",
    ]  # fmt: skip
    assert titles(page) == [
        *(f"Score by method, {regime}" for regime in REGIMES),
        *(f"lorauter against others, {regime}" for regime in REGIMES),
        "Where inputs went, paper", "Where inputs went, default", "Map of the tasks",
        "Which texts are left to the base model", "What another threshold would do",
        "Latency against the number of tasks", "Latency against the number of adapters", "Latency against K",
    ]  # fmt: skip


def test_every_plot_names_its_axes_and_says_how_it_is_read(page):
    for one in page.all("figure"):
        assert list(one.all("text", **{"class": "axis"})), one.one("h3").text
    assert len([read for read in page.all("p", **{"class": "read"}) if read.text.startswith("Read: ")]) == 10


def test_facts_are_told(page, made):
    assert {block.one("dt").text: block.one("dd").text for block in page.one("dl").all("div")} == made.facts


def test_methods_stand_best_first_with_their_score_and_interval(page, made):
    for regime in REGIMES:
        found = sorted((one for one in made.scores if one.regime == regime), key=lambda one: -one.score.value)
        assert tips(figure(page, f"Score by method, {regime}")) == [
            f"{one.method}: {100 * one.score.value:.1f} ({100 * one.score.low:.1f} to {100 * one.score.high:.1f})"
            for one in found
        ]


def test_ours_is_marked_among_the_scores(page):
    marked = list(figure(page, "Score by method, ood").all("g", **{"class": "ours"}))
    assert [group.one("title").text.split(":")[0] for group in marked] == ["lorauter"]


def test_dots_whiskers_and_lines_stand_at_their_values_on_the_axis():
    scores = [
        MethodScore("base", "in", Interval(0.3, 0.25, 0.35), 0, {}, {}),
        MethodScore("mine", "in", Interval(0.9, 0.8, 0.95), 0, {}, {}),
    ]
    plot = figure(read(Results({}, {"base": "", "mine": ""}, {"in": ""}, scores)), "Score by method, in")
    ticks = {float(tick.text): float(tick.attributes["x"]) for tick in plot.all("text", **{"class": "tick"})}

    def at(value):
        low, high = min(ticks), max(ticks)
        return pytest.approx(ticks[low] + (ticks[high] - ticks[low]) * (value - low) / (high - low), abs=0.11)

    assert [float(dot.attributes["cx"]) for dot in plot.all("circle")] == [at(90), at(30)]
    whiskers = list(plot.all("line", **{"class": "whisker"}))
    assert [(float(w.attributes["x1"]), float(w.attributes["x2"])) for w in whiskers] == [
        (at(80), at(95)),
        (at(25), at(35)),
    ]
    marks = {text.text: float(text.attributes["x"]) for text in plot.all("text", **{"class": "said"})}
    assert marks == {"oracle": at(100), "base model": at(30)}
    assert [float(mark.attributes["x1"]) for mark in plot.all("line", **{"class": "mark"})] == [at(100), at(30)]


def test_difference_says_in_a_word_what_its_interval_tells(page, made):
    for regime in REGIMES:
        plot = figure(page, f"lorauter against others, {regime}")
        kinds = {group.one("title").text.split(":")[0]: group.attributes["class"] for group in plot.all("g")}
        assert kinds == {
            one.against: "above" if one.difference.low > 0 else "below" if one.difference.high < 0 else "level"
            for one in made.differences
            if one.regime == regime
        }


def test_table_of_scores_has_every_method_and_can_be_sorted(page):
    table = next(page.all("table"))
    assert table.attributes["class"] == "rows compact sortable"
    assert [row[0] for row in rows(table)] == list(METHODS)
    assert re.fullmatch(r"97\.\d \(\d+\.\d to \d+\.\d\)", rows(table)[list(METHODS).index("lorauter")][1])


def test_cell_of_the_confusion_is_where_its_tasks_meet(page, made):
    quality, plot = made.routing[1], figure(page, "Where inputs went, default")
    order = [text.text for text in plot.all("text", **{"class": "small"}) if "transform" in text.attributes]
    assert len(order) == len(TASKS)
    names = dict(zip(order, sorted(TASKS, key=lambda task: (TASKS[task], task)), strict=True))
    corner = {float(text.attributes["y"]): names[text.text] for text in plot.all("text") if text.text in names}
    seen = {}
    for group in plot.all("g"):
        task, first, count = re.match(r"(\S+) → (\S+): (\d+) of 30 inputs", group.one("title").text).groups()
        square = group.one("rect").attributes
        assert square["class"] == ("right" if task == first else "wrong")
        seen.setdefault(task, {})[first] = int(count)
        middle = float(square["y"]) + float(square["height"]) / 2 + 4
        assert corner[min(corner, key=lambda y: abs(y - middle))] == task
        place = (float(square["x"]) - 290) / float(square["width"])
        assert list(names.values())[round(place)] == first
    assert seen == {task: dict(went) for task, went in quality.confusion.items()}


def test_confusion_of_60_tasks_still_has_a_readable_cell_for_each_mistake():
    tasks = [f"task_{number:02}" for number in range(60)]
    confusion = {task: {task: 99, tasks[0]: 1} if task != tasks[0] else {task: 100} for task in tasks}
    plot = figure(
        read(replace(NOTHING, routing=[RoutingQuality("p", 6000, 1, 1, confusion)])), "Where inputs went, p"
    )
    wrong = list(plot.all("rect", **{"class": "wrong"}))
    assert len(wrong) == 59
    assert all(
        float(cell.attributes["width"]) >= 13 and float(cell.attributes["fill-opacity"]) >= 0.35 for cell in wrong
    )


def test_query_is_joined_to_the_tasks_that_it_is_routed_to(page, made):
    plot, near = figure(page, "Map of the tasks"), made.places[-1].near
    routes = list(plot.all("line", **{"class": "route"}))
    assert {line.one("title").text for line in routes} == {
        f"{QUERY} → {task}: weight {weight:.3f}" for task, weight in near.items()
    }
    points = {node.one("title").text.split(",")[0]: node.attributes["d"] for node in plot.all("path") if tips(node)}
    assert set(points) == {*TASKS, QUERY.split(",")[0]}
    assert {text.text for text in plot.all("text")} >= {f"{weight:.2f}" for weight in near.values()}


@pytest.mark.parametrize("near", [{}, {"a": 0.0}])
def test_query_that_is_left_to_the_base_model_has_no_line(near):
    plot = figure(
        read(replace(NOTHING, places=[Place("a", "x", 0, 0), Place("hm", "", 1, 1, near)])), "Map of the tasks"
    )
    assert list(plot.all("line", **{"class": "route"})) == []
    assert [item.text for item in plot.one("ul", **{"class": "queries"}).all("li")] == [
        "“hm” is left to the base model"
    ]


def test_distances_on_the_map_have_one_scale():
    places = [Place("a", "x", 0, 0), Place("b", "x", 10, 0), Place("c", "x", 0, 5), Place("d", "x", 10, 5)]
    plot = figure(read(replace(NOTHING, places=places)), "Map of the tasks")
    dots = {tips(node)[0][0]: node.attributes["d"] for node in plot.all("path") if tips(node)}
    at = {
        name: [float(each) for each in re.match(r"M(\S+?)[ ](\S+?)[aL]", path).groups()]
        for name, path in dots.items()
    }
    assert at["b"][0] - at["a"][0] == pytest.approx(2 * (at["a"][1] - at["c"][1]), rel=0.01)


def test_domains_look_different(page):
    legend = [
        item.one("path").attributes
        for item in figure(page, "Map of the tasks").one("ul", **{"class": "key"}).all("li")
    ]
    assert len({(mark["class"], mark["d"]) for mark in legend}) == len(set(TASKS.values())) == 10


def test_shares_left_to_the_base_model_are_written(page, made):
    found = made.abstention
    legend = [item.text for item in figure(page, "Which texts are left to the base model").all("li")]
    assert legend == [
        f"the tasks' own test inputs: {100 * found.false:.1f} % left to the base model",
        f"texts far from every task: {100 * found.right:.1f} % left to the base model",
    ]


def test_bars_of_either_kind_add_up_to_all_its_texts(page):
    plot = figure(page, "Which texts are left to the base model")
    for kind in ("in", "far"):
        bars = [
            float(tips(bar)[0].split(": ")[1].removesuffix(" %"))
            for bar in plot.all("rect", **{"class": f"area {kind}"})
        ]
        assert sum(bars) == pytest.approx(100, abs=0.05 * len(bars))


def test_only_texts_that_were_given_are_drawn(made):
    page = read(replace(NOTHING, abstention=replace(made.abstention, far=[])))
    plot = figure(page, "What another threshold would do")
    assert [curve.attributes["class"] for curve in plot.all("polyline")] == ["curve in"]
    assert titles(read(replace(NOTHING, abstention=replace(made.abstention, far=[], in_domain=[])))) == []


def test_latency_tells_each_measurement(page, made):
    plot, found = figure(page, "Latency against the number of tasks"), made.latency[:4]
    cases = [f"{one.tasks:,} tasks, {one.tasks:,} adapters, K 3" for one in found]
    assert tips(plot) == [
        *(f"{case}: whole route, 95th percentile {one.p95:.2f} ms" for case, one in zip(cases, found, strict=True)),
        *(f"{case}: whole route, median {one.p50:.2f} ms" for case, one in zip(cases, found, strict=True)),
        *(f"{case}: encoder alone, median {one.encoder:.2f} ms" for case, one in zip(cases, found, strict=True)),
    ]
    curves = [curve.attributes["class"] for curve in plot.all("polyline")]
    assert curves == ["curve p95", "curve p50", "curve encoder"]
    assert plot.one("p").text.endswith("Here: an adapter for each task; K is 3.")


@pytest.mark.parametrize(
    ("against", "cases", "held"),
    [
        ("the number of adapters", [(10, 3), (100, 3), (1000, 3), (10_000, 3)], "1,000 tasks; K is 3."),
        ("K", [(1000, 1), (1000, 3), (1000, 10), (1000, 100)], "1,000 tasks, 1,000 adapters; K is 1 to 100."),
    ],
)
def test_line_joins_measurements_in_which_only_its_number_differs(page, against, cases, held):
    plot = figure(page, f"Latency against {against}")
    expected = [f"1,000 tasks, {adapters:,} adapters, K {k}" for adapters, k in cases]
    assert [tip.split(":")[0] for tip in tips(plot)] == 3 * expected
    assert plot.one("p").text.endswith(f"Here: {held}")


def test_number_that_was_never_changed_alone_has_no_plot(made):
    assert titles(read(replace(NOTHING, latency=made.latency[:4]))) == ["Latency against the number of tasks"]
    assert titles(read(replace(NOTHING, latency=made.latency[:1]))) == []


# ------------------------------------------------------------------ what it is


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_stays_text(name):
    def with_name(name):
        scores = [MethodScore(name, name, Interval(0.5, 0.4, 0.6), 0.5, {name: 0.5}, {name: 0.5})]
        routing = [RoutingQuality(name, 2, 0.5, 1, {name: {name: 1, "b": 1}}, [WrongRoute(name, "b", 1, 0, name)])]
        places = [Place(name, name, 0, 0), Place(f"ask {name}", "", 1, 1, {name: 1.0})]
        return Results({name: name}, {name: name}, {name: name}, scores, (), routing, None, places, (), [name])

    harmless, page = read(with_name("task")), read(with_name(name))
    assert name in [dd.text for dd in page.all("dd")]
    for tag in ("script", "img", "style", "title", "svg", "th", "td", "text", "path"):
        kinds = [[set(node.attributes) for node in tree.all(tag)] for tree in (harmless, page)]
        assert kinds[0] == kinds[1], tag


def test_page_needs_nothing_from_elsewhere(made):
    assert re.findall(r"https?:|//[a-z]|@import|url\(|\bsrc=|\bhref=|<link", evaluation_page(made)) == []


def test_part_without_values_is_absent():
    page = read(NOTHING)
    assert (titles(page), list(page.all("section")), list(page.all("dl")), list(page.all("footer"))) == (
        [],
        [],
        [],
        [],
    )


def test_same_results_are_the_same_page(made):
    assert evaluation_page(results()) == evaluation_page(made)
    assert evaluation_page(Results.from_json(made.to_json())) == evaluation_page(made)


def test_every_picture_is_named_and_every_scrolled_one_can_be_reached(page):
    pictures = [svg for one in page.all("figure") for svg in one.all("svg") if "aria-hidden" not in svg.attributes]
    assert len(pictures) == 16
    assert all(svg.attributes["role"] == "img" and svg.attributes["aria-label"] for svg in pictures)
    scrolled = [div for one in page.all("figure") for div in one.all("div", **{"class": "wide"})]
    assert [div.attributes["tabindex"] for div in scrolled] == ["0"] * 3


def luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_colours_have_the_contrast_that_wcag_asks_of_text(page, mode):
    blocks = re.findall(r":root \{[^}]+\}", page.one("style").text)
    colours = [dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", block)) for block in blocks]
    paper, own = colours[mode]["paper"], colours[2 + mode]
    assert len(own) == 11
    for name, colour in own.items():
        low, high = sorted(luminance(each) for each in (paper, colour))
        assert (high + 0.05) / (low + 0.05) >= 4.5, name


def test_page_needs_no_matplotlib():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from lorauter_integrations.evaluation.results import Latency, Results\n"
        "from lorauter_integrations.reports import evaluation_page\n"
        "times = [Latency(n, 1, 3, 1.0, 2.0, 0.5) for n in (10, 100)]\n"
        "print('<polyline' in evaluation_page(Results({}, {}, {}, [], latency=times)))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "True\n"
