"""What an evaluation says, in words and tables: the same in the text, the page and the plots. Knows values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lorauter_integrations.evaluation.results import Interval, Results, RoutingQuality
from lorauter_integrations.reports.summary import number, printable

TITLE = "How well routed answers are"
BASE, ORACLE = "base", "oracle"  # the methods that the others are read against
RAW = "raw"
SCORES = (
    "% is the score: the mean over the domains of the domain's score in per cent of the oracle's, and its 95 % "
    "interval; domains in which the oracle fails are not counted. Raw is the mean over the tasks of their metric, at "
    "most 1."
)
DIFFERENCES = (
    "A point is 1 % of the oracle's score. Level means that the 95 % interval holds 0: the examples do not tell "
    "which of the two is better."
)
PARTS = "Mean of the metric, at most 1."
HIGHEST_OF_COLUMN = "Bold is the highest of a column, the oracle left out."
HIGHEST_OF_ROW = "Bold is the highest of a row, the oracle left out."
MISSING = "not run"


@dataclass(frozen=True)
class Table:
    """Rows of text.

    Attributes:
        columns: their names.
        rows: as many texts as there are columns.
        numbers: places of the columns that hold numbers.
        strong: the highest number of a row or column: places of cells, row first.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: range = range(0)
    strong: frozenset[tuple[int, int]] = frozenset()


@dataclass(frozen=True, slots=True)
class Confused:
    """How many of a task's inputs went to another task."""

    task: str
    first: str
    count: int
    share: float


def plain(text: str) -> str:
    """The text on one line."""
    return printable(" ".join(text.split()))


def percent(share: float, sign: str = "") -> str:
    """A share in per cent, one decimal."""
    return f"{100 * share:{sign}.1f}"


def with_interval(interval: Interval, sign: str = "") -> str:
    """A number in per cent and the ends of its interval."""
    low, high = (percent(end, sign) for end in (interval.low, interval.high))
    return f"{percent(interval.value, sign)} ({low} to {high})"


def verdict(difference: Interval) -> str:
    """Whether a difference's interval is above 0, below 0, or holds 0."""
    return "above" if difference.low > 0 else "below" if difference.high < 0 else "level"


def ours(results: Results) -> set[str]:
    """The methods that are compared with the others."""
    return {one.method for one in results.differences}


def regimes_run(results: Results) -> list[str]:
    """The regimes that any method was run in."""
    run = {one.regime for one in results.scores}
    return [regime for regime in results.regimes if regime in run]


def domains_of(results: Results) -> dict[str, str]:
    """Each task's domain, as far as the map of tasks knows it."""
    return {place.name: place.domain for place in results.places if place.domain}


def inputs_of(quality: RoutingQuality) -> dict[str, int]:
    """How many inputs each task had."""
    return {task: sum(went.values()) for task, went in quality.confusion.items()}


def confused(quality: RoutingQuality) -> list[Confused]:
    """The pairs of tasks of which one's inputs went to the other, most inputs first."""
    inputs = inputs_of(quality)
    pairs = [
        Confused(task, first, count, count / inputs[task])
        for task, went in quality.confusion.items()
        for first, count in went.items()
        if first != task and count
    ]
    return sorted(pairs, key=lambda pair: (-pair.count, -pair.share, pair.task, pair.first))


# ------------------------------------------------------------------ tables


def sentences(kind: str, what: str, described: Mapping[str, str]) -> Table:
    """Names and what they stand for."""
    return Table((kind, what), [(plain(name), plain(text)) for name, text in described.items()])


def scores(results: Results) -> Table:
    """Methods down, regimes across: the score and the raw mean."""
    regimes = regimes_run(results)
    methods = [method for method in results.methods if any(results.score(method, regime) for regime in regimes)]
    columns = [name for regime in regimes for name in (f"{plain(regime)}, %", RAW)]
    rows = [(plain(method), *_scores(results, method, regimes)) for method in methods]
    values = [
        {method: one.score.value for method in methods if (one := results.score(method, regime))}
        for regime in regimes
    ]
    strong = {
        (methods.index(method), 1 + 2 * place) for place, column in enumerate(values) for method in _highest(column)
    }
    return Table(("method", *columns), rows, range(1, 1 + len(columns)), frozenset(strong))


def _scores(results: Results, method: str, regimes: Sequence[str]) -> list[str]:
    found = [results.score(method, regime) for regime in regimes]
    return [
        cell for one in found for cell in ((with_interval(one.score), number(one.raw)) if one else (MISSING, MISSING))
    ]


def _highest(values: Mapping[str, float]) -> list[str]:
    """Who has the highest value, the oracle left out."""
    others = {name: value for name, value in values.items() if name != ORACLE}
    return [name for name, value in others.items() if value == max(others.values())]


def differences(results: Results) -> Table:
    """Ours against each other method."""
    columns = ("regime", "method", "against", "difference, points (95 % interval)", "so the method is")
    rows = [
        (
            plain(one.regime),
            plain(one.method),
            plain(one.against),
            with_interval(one.difference, "+"),
            verdict(one.difference),
        )
        for one in results.differences
    ]
    return Table(columns, rows, range(3, 4))


def by_domain(results: Results, regime: str) -> Table:
    """Domains down, methods across: the mean of the metric."""
    return _parts("domain", {one.method: one.domains for one in results.scores if one.regime == regime}, results)


def by_task(results: Results, regime: str) -> Table:
    """Tasks down, methods across: the mean of the metric."""
    return _parts("task", {one.method: one.tasks for one in results.scores if one.regime == regime}, results)


def _parts(kind: str, found: Mapping[str, Mapping[str, float]], results: Results) -> Table:
    methods = [method for method in results.methods if method in found]
    parts = sorted({part for means in found.values() for part in means})
    rows = [
        (plain(part), *(number(found[method][part]) if part in found[method] else MISSING for method in methods))
        for part in parts
    ]
    strong = {
        (row, 1 + methods.index(method))
        for row, part in enumerate(parts)
        for method in _highest({method: found[method][part] for method in methods if part in found[method]})
    }
    return Table((kind, *map(plain, methods)), rows, range(1, 1 + len(methods)), frozenset(strong))


def routing(results: Results) -> Table:
    """How often each preset finds the own task."""
    columns = ("preset", "test inputs", "own task is the nearest, %", "own task among the three nearest, %")
    rows = [(plain(one.preset), f"{one.inputs:,}", percent(one.top1), percent(one.top3)) for one in results.routing]
    return Table(columns, rows, range(1, 4))


def most_confused(quality: RoutingQuality, most: int) -> Table:
    """The pairs with the most inputs that went to the other task."""
    columns = ("own task", "went to", "inputs", "% of the own task's")
    rows = [
        (plain(pair.task), plain(pair.first), f"{pair.count:,}", percent(pair.share))
        for pair in confused(quality)[:most]
    ]
    return Table(columns, rows, range(2, 4))


def wrong_routes(quality: RoutingQuality, most: int) -> Table:
    """Examples, worst first."""
    columns = ("own task", "went to", "similarity to it", "to the own task", "text")
    rows = [
        (plain(one.task), plain(one.first), number(one.similarity), number(one.own), plain(one.text))
        for one in quality.wrong[:most]
    ]
    return Table(columns, rows, range(2, 4))


def abstention(results: Results) -> Table:
    """How many texts of either kind are left to the base model."""
    columns = ("texts", "number", "left to the base model, %", "should be, %")
    found = results.abstention
    if not found:
        return Table(columns, ())
    kinds = (
        ("test inputs of the tasks", found.in_domain, found.false, percent(found.rate)),
        ("texts far from every task", found.far, found.right, percent(1)),
    )
    rows = [(name, f"{len(texts):,}", percent(share), asked) for name, texts, share, asked in kinds if texts]
    return Table(columns, rows, range(1, 4))


def latency(results: Results) -> Table:
    """Milliseconds for one text."""
    columns = ("tasks", "adapters", "K", "median, ms", "95th percentile, ms", "encoder alone, median, ms")
    rows = [
        (f"{one.tasks:,}", f"{one.adapters:,}", f"{one.k}", f"{one.p50:.2f}", f"{one.p95:.2f}", f"{one.encoder:.2f}")
        for one in results.latency
    ]
    return Table(columns, rows, range(6))
