"""An evaluation's numbers as plots: scores, differences, abstaining. Knows values only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from lorauter_integrations.evaluation.results import Abstention, Difference, Interval, Results
from lorauter_integrations.reports.evaluation_tables import (
    BASE,
    ours,
    percent,
    plain,
    regimes_run,
    verdict,
    with_interval,
)
from lorauter_integrations.reports.summary import number, shortened
from lorauter_integrations.reports.svg import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    Plot,
    curve,
    element,
    frame,
    line,
    picture,
    round_steps,
    swatches,
    words,
)

NAME, VALUE = 140, 96  # pixels for names and values beside dots
ROW = 23
LETTERS = 20  # characters of a name
BINS = 32
KINDS = {"in": "the tasks' own test inputs", "far": "texts far from every task"}


@dataclass(frozen=True, slots=True)
class Dot:
    """A row of a plot of dots: in per cent."""

    name: str
    interval: Interval
    said: str
    kind: str


# ------------------------------------------------------------------ scores and differences


def score_plots(results: Results) -> list[Plot]:
    """One plot a regime, best method first; all have the same axis."""
    ends = [end for one in results.scores for end in (one.score.low, one.score.high)]
    steps = round_steps(100 * min(ends, default=0), 100 * max([1.0, *ends]), most=8)
    return [_scores(results, regime, steps) for regime in regimes_run(results)]


def _scores(results: Results, regime: str, steps: Sequence[float]) -> Plot:
    found = sorted((one for one in results.scores if one.regime == regime), key=lambda one: -one.score.value)
    marked = ours(results)
    dots = [
        Dot(one.method, one.score, percent(one.score.value), "ours" if one.method in marked else "other")
        for one in found
    ]
    lines = [(100.0, "oracle", "start")]
    if base := results.score(BASE, regime):
        lines.append((100 * base.score.value, "base model", "end"))
    reading = (
        "a dot is a method's score, the further right the better; its line is the 95 % interval. Oracle: each task's "
        "own adapter, by its label. Methods whose lines overlap widely may be equally good."
    )
    title = f"Score by method, {plain(regime)}"
    return Plot(title, _dots(title, "score, % of the oracle", dots, lines, steps), reading)


def difference_plots(results: Results) -> list[Plot]:
    """One plot for each of our methods in each regime; all have the same axis."""
    ends = [end for one in results.differences for end in (one.difference.low, one.difference.high)]
    steps = round_steps(100 * min([0.0, *ends]), 100 * max([0.0, *ends]), most=8)
    parts = groupby(sorted(results.differences, key=_group), key=_group)
    found = {group: list(part) for group, part in parts}
    order = [regime for regime in results.regimes if regime in {regime for regime, _ in found}]
    return [_differences(*group, found[group], steps) for regime in order for group in found if group[0] == regime]


def _group(one: Difference) -> tuple[str, str]:
    return one.regime, one.method


def _differences(regime: str, method: str, found: Sequence[Difference], steps: Sequence[float]) -> Plot:
    dots = [
        Dot(one.against, one.difference, f"{percent(one.difference.value, '+')} {word}", word)
        for one in sorted(found, key=lambda one: -one.difference.value)
        for word in [verdict(one.difference)]
    ]
    title = f"{plain(method)} against others, {plain(regime)}"
    axis = f"score of {plain(method)} less the other's, points"
    reading = (
        f"right of 0 {plain(method)} is better than the method of the row, left of 0 worse. Level: the 95 % interval "
        "holds 0. A point is 1 % of the oracle's score."
    )
    return Plot(title, _dots(title, axis, dots, [(0.0, "equal", "middle")], steps), reading)


def _dots(
    title: str,
    axis: str,
    dots: Sequence[Dot],
    lines: Sequence[tuple[float, str, str]],
    steps: Sequence[float],
) -> str:
    x = Axis(steps[0], steps[-1], NAME, WIDTH - VALUE)
    y = Axis(0, len(dots), TOP, TOP + ROW * len(dots))
    parts = [part for step in steps for part in _step(x.at(step), y, step)]
    for value, name, anchor in lines:
        parts.append(line(x.at(value), y.start - 4, x.at(value), y.end, "mark"))
        parts.append(words(x.at(value), y.start - 10, name, text_anchor=anchor, kind="said"))
    parts += [_dot(dot, x, y.at(row + 0.5)) for row, dot in enumerate(dots)]
    parts.append(words((x.start + x.end) / 2, y.end + 36, axis, text_anchor="middle", kind="axis"))
    return picture(WIDTH, y.end + BOTTOM, title, parts)


def _step(at: float, y: Axis, value: float) -> list[str]:
    below = words(at, y.end + 17, f"{value:g}", text_anchor="middle", kind="tick")
    return [line(at, y.start, at, y.end, "grid"), below]


def _dot(dot: Dot, x: Axis, y: float) -> str:
    low, value, high = (x.at(100 * each) for each in (dot.interval.low, dot.interval.value, dot.interval.high))
    name = shortened(plain(dot.name), LETTERS)
    return element(
        "g",
        words(x.start - 10, y + 4, name, text_anchor="end"),
        line(low, y, high, y, "whisker"),
        element("circle", cx=value, cy=y, r=4.5),
        words(x.end + 10, y + 4, dot.said),
        tip=f"{plain(dot.name)}: {with_interval(dot.interval)}",
        kind=dot.kind,
    )


# ------------------------------------------------------------------ abstaining


def abstention_plots(found: Abstention | None) -> list[Plot]:
    """How the contrasts of both kinds of texts lie about the threshold, and what another threshold would do."""
    texts = {kind: sorted(values) for kind, values in _texts(found).items() if values}
    if found is None or not texts:
        return []
    ends = [found.threshold, *(value for values in texts.values() for value in values)]
    steps = round_steps(min(ends), max(ends))
    return [_histogram(found, texts, steps), _shares(found, texts, steps)]


def _texts(found: Abstention | None) -> Mapping[str, Sequence[float]]:
    return {"in": found.in_domain, "far": found.far} if found else {}


def _left(found: Abstention, texts: Iterable[str]) -> dict[str, str]:
    shares = {"in": found.false, "far": found.right}
    return {kind: f"{KINDS[kind]}: {percent(shares[kind])} % left to the base model" for kind in texts}


def _histogram(found: Abstention, texts: Mapping[str, Sequence[float]], steps: Sequence[float]) -> Plot:
    x = Axis(steps[0], steps[-1], LEFT, WIDTH - RIGHT)
    counts = {kind: [100 * count / len(values) for count in _counts(x, values)] for kind, values in texts.items()}
    shares = round_steps(0, max(max(part) for part in counts.values()), most=3)
    parts, top, high = [], TOP, 110
    for place, (kind, heights) in enumerate(counts.items()):
        y = Axis(0, shares[-1], top + high, top)
        last = place == len(counts) - 1
        parts += frame(x, y, ("contrast of a text" if last else "", "share of texts, %"), (steps, shares))
        parts += [_bar(x, y, place, height, kind) for place, height in enumerate(heights) if height]
        top += high + 44
    title = "Which texts are left to the base model"
    parts += _threshold(found, x, TOP - 18, top - 44)
    reading = (
        f"each bar is the share of texts with such a contrast. Left of the threshold, {number(found.threshold)}, "
        "the base model answers alone; right of it adapters answer. Good: blue bars right of it, orange ones left. "
        f"The threshold was set so that {percent(found.rate)} % of the tasks' validation examples are left of it."
    )
    return Plot(title, picture(WIDTH, top + 4, title, parts), reading, swatches(_left(found, texts)))


def _counts(x: Axis, values: Sequence[float]) -> list[int]:
    places = [min(BINS - 1, int(BINS * (value - x.low) / (x.high - x.low))) for value in values]
    return [places.count(place) for place in range(BINS)]


def _bar(x: Axis, y: Axis, place: int, height: float, kind: str) -> str:
    wide = (x.end - x.start) / BINS
    low, high = (x.low + (x.high - x.low) * (place + more) / BINS for more in (0, 1))
    top = y.at(height)
    return element("rect", x=x.start + place * wide + 0.5, y=top, width=wide - 1, height=y.start - top,
                   kind=f"area {kind}", tip=f"{number(low)} to {number(high)}: {height:.1f} %")  # fmt: skip


def _threshold(found: Abstention, x: Axis, top: float, bottom: float) -> list[str]:
    at = x.at(found.threshold)
    return [
        line(at, top, at, bottom, "mark"),
        words(at - 6, top + 6, "← base model", text_anchor="end", kind="said"),
        words(at + 6, top + 6, "adapters →", kind="said"),
    ]


def _shares(found: Abstention, texts: Mapping[str, Sequence[float]], steps: Sequence[float]) -> Plot:
    x = Axis(steps[0], steps[-1], LEFT, WIDTH - RIGHT)
    y = Axis(0, 100, TOP + 264, TOP)
    parts = frame(x, y, ("threshold, as a contrast", "share of texts below it, %"), (steps, range(0, 101, 20)))
    parts += [curve(_below(values, x, y), f"curve {kind}") for kind, values in texts.items()]
    at = x.at(found.threshold)
    parts.append(line(at, y.start, at, y.end - 4, "mark"))
    parts.append(words(at, y.end - 9, "threshold", text_anchor="middle", kind="said"))
    shares = {"in": found.false, "far": found.right}
    for kind in texts:
        tip = f"{KINDS[kind]}: {percent(shares[kind])} %"
        parts.append(element("circle", cx=at, cy=y.at(100 * shares[kind]), r=4.5, kind=kind, tip=tip))
    title = "What another threshold would do"
    reading = (
        "the height of a line at a threshold is the share of such texts that would be left to the base model. The "
        "higher the orange line above the blue one, the better the two are told apart. The dots are at the threshold."
    )
    return Plot(title, picture(WIDTH, y.start + BOTTOM, title, parts), reading, swatches(_left(found, texts)))


def _below(values: Sequence[float], x: Axis, y: Axis) -> list[tuple[float, float]]:
    """Stairs: the share of the sorted values that are less, at every value."""
    steps = [(x.start, y.start)]
    for place, value in enumerate(values):
        steps += [
            (x.at(value), y.at(100 * place / len(values))),
            (x.at(value), y.at(100 * (place + 1) / len(values))),
        ]
    return [*steps, (x.end, y.end)]
