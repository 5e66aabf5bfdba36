"""How long routing takes, as plots against what may make it slow. Knows values only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lorauter_integrations.evaluation.results import Latency
from lorauter_integrations.reports.summary import span
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
    picture,
    round_steps,
    swatches,
)

LINES: Mapping[str, tuple[str, Callable[[Latency], float]]] = {
    "p95": ("whole route, 95th percentile", lambda one: one.p95),
    "p50": ("whole route, median", lambda one: one.p50),
    "encoder": ("encoder alone, median", lambda one: one.encoder),
}


@dataclass(frozen=True, slots=True)
class Count:
    """What latency is plotted against.

    Attributes:
        title: after "latency against".
        axis: its name at the axis.
        more: how a larger one is called.
        value: of a measurement.
        held: what was the same in all measurements that may be joined by a line; a measurement can be in two lines.
    """

    title: str
    axis: str
    more: str
    value: Callable[[Latency], int]
    held: Callable[[Latency], Sequence[str]]


def _held_for_tasks(one: Latency) -> Sequence[str]:
    each = ["an adapter for each task"] if one.tasks == one.adapters else []
    return [f"{one.adapters:,} adapters in the pool", *each]


COUNTS = (
    Count("the number of tasks", "mapped tasks", "more tasks take", lambda one: one.tasks, _held_for_tasks),
    Count(
        "the number of adapters", "adapters in the pool", "more adapters take", lambda one: one.adapters,
        lambda one: [f"{one.tasks:,} tasks"],
    ),
    Count(
        "K", "K, tasks that share a text", "a larger K takes", lambda one: one.k,
        lambda one: [f"{one.tasks:,} tasks, {one.adapters:,} adapters"],
    ),
)  # fmt: skip


def latency_plots(found: Sequence[Latency]) -> list[Plot]:
    """Against the numbers of tasks and of adapters, and K; a plot is left out if its number never changed alone."""
    parts = [(count, *_longest(found, count)) for count in COUNTS]
    steps = round_steps(0, max((one.p95 for *_, part in parts for one in part), default=0.0), most=5)
    return [_latency(count, held, part, steps) for count, held, part in parts if len(part) > 1]


def _longest(found: Sequence[Latency], count: Count) -> tuple[str, list[Latency]]:
    """What was held, and the measurements: the longest line, and of equal counts the one measured first."""
    lines: dict[str, dict[int, Latency]] = {}
    for one in found:
        for held in count.held(one):
            lines.setdefault(held, {}).setdefault(count.value(one), one)
    held, longest = max(lines.items(), key=lambda item: len(item[1]), default=("", {}))
    return held, [longest[key] for key in sorted(longest)]


def _latency(count: Count, held: str, found: Sequence[Latency], steps: Sequence[float]) -> Plot:
    x = Axis(count.value(found[0]), count.value(found[-1]), LEFT + 8, WIDTH - RIGHT - 14, log=True)
    y = Axis(0, steps[-1], TOP + 210, TOP - 16)
    numbers = x.apart(map(count.value, found))
    parts = frame(x, y, (f"{count.axis}, logarithmic", "time for one text, ms"), (numbers, steps))
    for kind, (what, time) in LINES.items():
        places = [(x.at(count.value(one)), y.at(time(one))) for one in found]
        tips = [f"{_case(one)}: {what} {time(one):.2f} ms" for one in found]
        parts.append(curve(places, f"curve {kind}"))
        parts += [
            element("circle", cx=at, cy=high, r=3.5, kind=kind, tip=tip)
            for (at, high), tip in zip(places, tips, strict=True)
        ]
    title = f"Latency against {count.title}"
    reading = (
        f"a flat line means that {count.more} no more time. What lies between the encoder's line and the median of "
        f"whole routes is the search. Here: {held}; K is {span([one.k for one in found])}."
    )
    legend = swatches({kind: what for kind, (what, _) in LINES.items()})
    return Plot(title, picture(WIDTH, y.start + BOTTOM, title, parts), reading, legend)


def _case(one: Latency) -> str:
    return f"{one.tasks:,} tasks, {one.adapters:,} adapters, K {one.k}"
