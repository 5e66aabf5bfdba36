"""The text: tables as a reader parses them, so that a shifted or swapped cell is seen."""

import re
from dataclasses import replace

import pytest
from made_results import METHODS, REGIMES, results

from lorauter_integrations.evaluation.results import (
    Abstention,
    Difference,
    Interval,
    Latency,
    MethodScore,
    Results,
    RoutingQuality,
    WrongRoute,
)
from lorauter_integrations.reports import evaluation_markdown

NOTHING = Results({}, {}, {}, [])


def read(text):
    """Each table's rows, the names of the columns first; cells without their marks."""
    tables, last = [], ""
    for line in text.splitlines():
        if line.startswith("|"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if not last.startswith("|"):
                tables.append([])
            if not set(line) <= set("|-: "):
                tables[-1].append(cells)
        last = line
    return tables


def table(text, *columns):
    (found,) = [rows[1:] for rows in read(text) if tuple(rows[0][: len(columns)]) == columns]
    return found


def scored(method, regime, value, **more):
    interval = Interval(value, value - 0.015, value + 0.02)
    return MethodScore(method, regime, interval, 0.41, more.get("domains", {}), more.get("tasks", {}))


@pytest.fixture(scope="module")
def made():
    return results()


@pytest.fixture(scope="module")
def text(made):
    return evaluation_markdown(made)


def test_facts_are_listed(text):
    assert "- model: SmolLM2-135M-Instruct\n- encoder: all-MiniLM-L6-v2\n- tasks: 34\n" in text


def test_score_stands_in_its_methods_row_and_its_regimes_column():
    methods, regimes = {"base": "b", "oracle": "o", "mine": "m"}, {"in": "i", "out": "o"}
    scores = [
        scored("mine", "out", 0.8125),
        scored("mine", "in", 0.9876),
        scored("base", "in", 0.4),
        scored("oracle", "in", 1),
    ]
    found = table(evaluation_markdown(Results({}, methods, regimes, scores)), "method", "in, %")
    assert found == [
        ["base", "40.0 (38.5 to 42.0)", "0.410", "not run", "not run"],
        ["oracle", "100.0 (98.5 to 102.0)", "0.410", "not run", "not run"],
        ["mine", "**98.8 (97.3 to 100.8)**", "0.410", "**81.2 (79.8 to 83.2)**", "0.410"],
    ]


def test_every_score_of_a_large_evaluation_is_in_the_table(text, made):
    found = table(text, "method", "in_domain, %")
    assert [row[0] for row in found] == list(METHODS)
    for row in found:
        for place, regime in enumerate(REGIMES):
            one = made.score(row[0], regime)
            value, raw = (cell.strip("*") for cell in row[1 + 2 * place : 3 + 2 * place])
            said = (
                f"{100 * one.score.value:.1f} ({100 * one.score.low:.1f} to {100 * one.score.high:.1f})"
                if one
                else ""
            )
            assert (value, raw) == ((said, f"{one.raw:.3f}") if one else ("not run", "not run"))


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.001, 0.05, "above"),
        (0.0, 0.05, "level"),
        (-0.01, 0.05, "level"),
        (-0.05, 0.0, "level"),
        (-0.05, -0.001, "below"),
    ],
)
def test_difference_is_level_when_its_interval_holds_0(low, high, word):
    one = Difference("in", "mine", "arrow", Interval((low + high) / 2, low, high))
    (row,) = table(evaluation_markdown(replace(NOTHING, differences=[one])), "regime")
    assert row == ["in", "mine", "arrow", f"{50 * (low + high):+.1f} ({100 * low:+.1f} to {100 * high:+.1f})", word]


def test_domains_and_tasks_have_a_table_for_each_regime(text, made):
    assert re.findall("<summary>(.*)</summary>", text) == [
        f"By {p}, {r}" for p in ("domain", "task") for r in REGIMES
    ]
    tasks = [rows for rows in read(text) if rows[0][0] == "task"]
    assert [len(rows) for rows in tasks] == [35] * 4
    for rows, regime in zip(tasks, REGIMES, strict=True):
        for task, *cells in rows[1:]:
            found = {method: float(cell.strip("*")) for method, cell in zip(rows[0][1:], cells, strict=True)}
            assert found == {
                method: pytest.approx(one.tasks[task], abs=5.1e-4)
                for method in METHODS
                if (one := made.score(method, regime))
            }


def test_highest_of_a_row_is_bold_and_the_oracle_never():
    scores = [
        scored("oracle", "in", 1, tasks={"sum": 0.9, "say": 0.5}),
        scored("one", "in", 1, tasks={"sum": 0.7, "say": 0.5}),
        scored("two", "in", 1, tasks={"sum": 0.7}),
    ]
    made = Results({}, dict.fromkeys(("oracle", "one", "two"), ""), {"in": ""}, scores)
    assert table(evaluation_markdown(made), "task") == [
        ["say", "0.500", "**0.500**", "not run"],
        ["sum", "0.900", "**0.700**", "**0.700**"],
    ]


def test_routing_tells_shares_pairs_and_wrong_routes():
    confusion = {"snli": {"snli": 6, "mnli": 3, "copa": 1}, "mnli": {"mnli": 16, "snli": 4}, "copa": {"copa": 5}}
    wrong = [WrongRoute("snli", "copa", 0.61, 0.4321, "Does it\nfollow?")]
    text = evaluation_markdown(
        replace(NOTHING, routing=[RoutingQuality("default", 1035, 0.771, 0.9, confusion, wrong)])
    )
    assert table(text, "preset") == [["default", "1,035", "77.1", "90.0"]]
    assert table(text, "own task") == [
        ["mnli", "snli", "4", "20.0"],
        ["snli", "mnli", "3", "30.0"],
        ["snli", "copa", "1", "10.0"],
    ]
    assert "\n- snli → copa (0.610, own 0.432): Does it follow?\n" in text


def test_only_the_first_of_long_lists_are_told(text):
    assert [len(rows) - 1 for rows in read(text) if rows[0][0] == "own task"] == [10, 10]
    assert len(re.findall("^- .* → .*: ", text, re.MULTILINE)) == 20


def test_abstention_tells_how_many_are_left_to_the_base_model():
    made = Abstention(0.02, 0.25, in_domain=[0.1, 0.25, 0.3, 0.9], far=[0.2, 0.1, 0.3])
    text = evaluation_markdown(replace(NOTHING, abstention=made))
    assert "below the threshold, 0.250," in text
    assert table(text, "texts") == [
        ["test inputs of the tasks", "4", "25.0", "2.0"],
        ["texts far from every task", "3", "66.7", "100.0"],
    ]


def test_latency_has_a_row_for_each_measurement():
    text = evaluation_markdown(replace(NOTHING, latency=[Latency(10_000, 34, 3, 11.6, 16.449, 8.7)]))
    assert table(text, "tasks") == [["10,000", "34", "3", "11.60", "16.45", "8.70"]]


def test_text_of_users_stays_text():
    wrong = [WrongRoute("a_b", "_c_", 0.5, 0.4, "a | b\n<img src=x> ![x](y) `code` *bold* $x$ & \u202e\x00")]
    text = evaluation_markdown(replace(NOTHING, routing=[RoutingQuality("p", 1, 0, 0, {"a|b": {"c": 1}}, wrong)]))
    assert table(text, "own task") == [["a\\|b", "c", "1", "100.0"]]
    assert text.splitlines()[-1] == (
        r"- a_b → \_c\_ (0.500, own 0.400): "
        r"a \| b \<img src=x\> !\[x\](y) \`code\` \*bold\* \$x\$ \& " + "\ufffd\ufffd"
    )


def test_part_without_values_is_absent(made):
    heads = re.findall("^##* (.*)", evaluation_markdown(NOTHING), re.MULTILINE)
    assert heads == ["How well routed answers are"]
    assert re.findall("^## (.*)", evaluation_markdown(replace(NOTHING, notes=["One."])), re.MULTILINE) == ["Notes"]
    assert re.findall("^## (.*)", evaluation_markdown(replace(made, latency=[])), re.MULTILINE) == [
        "Score by method", "Ours against others", "By domain and by task", "Routing", "Abstaining", "Notes",
    ]  # fmt: skip


def test_same_results_are_the_same_text(text):
    assert evaluation_markdown(results()) == text
    assert evaluation_markdown(Results.from_json(results().to_json())) == text


def test_prose_is_not_wider_than_code(text):
    assert [line for line in text.splitlines() if not line.startswith(("|", "- ")) and len(line) > 118] == []
