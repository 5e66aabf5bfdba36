"""Where each task's inputs went, as one picture: own task down, nearest task across. Knows values only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from lorauter_integrations.evaluation.results import RoutingQuality
from lorauter_integrations.reports.evaluation_tables import confused, inputs_of, percent, plain
from lorauter_integrations.reports.summary import shortened
from lorauter_integrations.reports.svg import Axis, Plot, element, line, picture, words

LETTERS, DOMAIN_LETTERS = 24, 22
NAME, DOMAIN, OWN = 150, 140, 58  # pixels for tasks' names, domains' names, own shares
WIDTH = 780  # that the cells share
LARGEST, SMALLEST = 26, 13
FAINTEST = 0.35  # opacity of the least wrong share: one wrong input must be seen
DARK = 0.65  # opacity from which on a black number is read better


def confusion_plot(quality: RoutingQuality, domains: Mapping[str, str]) -> Plot | None:
    """A row a task, in the order of domains; None if nothing is known.

    Args:
        quality: a preset's.
        domains: task -> its domain.
    """
    known = {*quality.confusion, *(first for went in quality.confusion.values() for first in went)}
    if not known:
        return None
    tasks = sorted(known, key=lambda task: (domains.get(task, ""), task))
    side = min(LARGEST, max(SMALLEST, WIDTH // len(tasks)))
    left = NAME + (DOMAIN if domains else 0)
    x = Axis(0, len(tasks), left, left + side * len(tasks))
    y = Axis(0, len(tasks), NAME + 30, NAME + 30 + side * len(tasks))
    title = f"Where inputs went, {plain(quality.preset)}"
    parts = [
        *_names(tasks, x, y),
        *_domains(tasks, domains, x, y),
        *_cells(quality, tasks, x, y),
        *_own(quality, tasks, x, y),
    ]
    reading = (
        "a row's inputs belong to the task named at its left. Its blue cell is the share that found this task; an "
        "orange cell with a number is that many inputs that went to the task named above the cell. The fuller the "
        "colour, the larger the share of the row."
    )
    if domains:
        reading += " Lines part the domains: orange within a box about the diagonal is a mistake between siblings."
    return Plot(title, picture(x.end + OWN, y.end + 8, title, parts, kind="plot whole"), reading)


def _names(tasks: Sequence[str], x: Axis, y: Axis) -> list[str]:
    parts = [
        words(x.start - 8, y.start - 10, "own task ↓", text_anchor="end", kind="axis"),
        words(x.start, 14, "nearest task: where the input went", kind="axis"),
    ]
    for place, task in enumerate(tasks):
        name, across, down = shortened(plain(task), LETTERS), x.at(place + 0.5) + 4, y.at(place + 0.5) + 4
        parts.append(words(x.start - 8, down, name, text_anchor="end", kind="small"))
        turned = f"rotate(-90 {across:.1f} {y.start - 8:.1f})"
        parts.append(words(across, y.start - 8, name, transform=turned, kind="small"))
    return parts


def _domains(tasks: Sequence[str], domains: Mapping[str, str], x: Axis, y: Axis) -> Iterable[str]:
    """Lines between domains, and their names at the very left."""
    place = 0
    for domain, group in groupby(tasks, key=lambda task: domains.get(task, "")):
        many = len(list(group))
        if domains:
            name = shortened(plain(domain) or "no domain", DOMAIN_LETTERS)
            yield words(4, y.at(place + many / 2) + 4, name, kind="small axis")
            yield line(0, y.at(place), x.end, y.at(place), "part")
            yield line(x.at(place), y.start, x.at(place), y.end, "part")
        place += many
    yield element("rect", x=x.start, y=y.start, width=x.end - x.start, height=y.end - y.start, kind="box")


def _cells(quality: RoutingQuality, tasks: Sequence[str], x: Axis, y: Axis) -> Iterable[str]:
    places, inputs = {task: place for place, task in enumerate(tasks)}, inputs_of(quality)
    most = max((pair.share for pair in confused(quality)), default=1.0)
    side = x.at(1) - x.at(0)
    for task, went in quality.confusion.items():
        for first, count in went.items():
            share, own = count / max(inputs[task], 1), first == task
            full = share if own else FAINTEST + (1 - FAINTEST) * share / most
            tip = f"{plain(task)} → {plain(first)}: {count:,} of {inputs[task]:,} inputs, {percent(share)} %"
            if count:
                corner = x.at(places[first]), y.at(places[task])
                yield _cell(corner, side, full, tip, "" if own else f"{count}")


def _cell(corner: tuple[float, float], side: float, full: float, tip: str, count: str) -> str:
    square = element("rect", x=corner[0], y=corner[1], width=side, height=side, fill_opacity=f"{full:.2f}",
                     kind="wrong" if count else "right")  # fmt: skip
    kinds = f"count{' on' if full > DARK else ''}{' many' if len(count) > 2 else ''}"
    read = words(corner[0] + side / 2, corner[1] + side / 2 + 3.5, count, text_anchor="middle", kind=kinds)
    return element("g", square, read if count else "", tip=tip)


def _own(quality: RoutingQuality, tasks: Sequence[str], x: Axis, y: Axis) -> Iterable[str]:
    """Each row's share that found its own task, at the right."""
    inputs = inputs_of(quality)
    yield words(x.end + 6, y.start - 10, "own, %", kind="axis")
    for place, task in enumerate(tasks):
        if inputs.get(task):
            share = percent(quality.confusion[task].get(task, 0) / inputs[task])
            yield words(x.end + OWN - 8, y.at(place + 0.5) + 4, share, text_anchor="end", kind="small")
