"""Tasks, and where a query went among them, on a map of two dimensions. Knows values only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lorauter_integrations.evaluation.results import Place
from lorauter_integrations.reports.evaluation_tables import plain
from lorauter_integrations.reports.summary import number, shortened
from lorauter_integrations.reports.svg import CHARACTER, Axis, Plot, element, escaped, line, picture, words

WIDTH, LEAST, MOST = 1000, 420, 720  # pixels: width; least and most height
MARGIN, FRAME = 70, 30
SIZE = 11  # of the names' letters, in pixels
LETTERS, QUERY_LETTERS, LEGEND_LETTERS = 26, 48, 300
COLOURS, SHAPES = 8, 5  # no divisor in common: so many domains as their product look different
NEAR, AWAY = 9, 17  # pixels from a point to its name, and more if there is no room
Box = tuple[float, float, float, float]


def map_plot(places: Sequence[Place]) -> Plot | None:
    """Tasks coloured by their domains, and lines from each query to the tasks that it is routed to."""
    if not places:
        return None
    drawn = _Map.of(places)
    looks = {domain: place for place, domain in enumerate(sorted({task.domain for task in drawn.tasks}))}
    title = "Map of the tasks"
    queries = [part for query in drawn.queries for part in drawn.query(query)]
    names = [drawn.named(task, f"k{looks[task.domain] % COLOURS}") for task in drawn.tasks]
    points = [drawn.point(task, looks[task.domain]) for task in drawn.tasks]
    edge = element("rect", x=FRAME, y=8, width=WIDTH - 2 * FRAME, height=drawn.height - 38, kind="box")
    axes = [
        words(WIDTH / 2, drawn.height - 8, "first coordinate (no unit)", text_anchor="middle", kind="axis"),
        words(20, drawn.height / 2, "second coordinate (no unit)", text_anchor="middle", kind="axis",
              transform=f"rotate(-90 20 {drawn.height / 2:.1f})"),
    ]  # fmt: skip
    reading = (
        "tasks that lie close ask for much the same; colour and shape are the domain. Two dimensions cannot show all "
        "distances: trust what is close, not how far apart the distant are."
    )
    if drawn.queries:
        reading += " A star is a query; its lines lead to the tasks that it is routed to, with their weights."
    parts = [edge, *axes, *queries, *points, *names]
    return Plot(
        title,
        picture(WIDTH, drawn.height, title, parts, kind="plot wide-map"),
        reading,
        _legend(looks, drawn.queries),
    )


@dataclass
class _Map:
    """Where everything is, and the room that is taken already."""

    tasks: list[Place]
    queries: list[Place]
    x: Axis
    y: Axis
    height: float
    taken: list[Box] = field(default_factory=list)

    @classmethod
    def of(cls, places: Sequence[Place]) -> _Map:
        tasks = sorted((place for place in places if place.domain), key=lambda task: (task.y, task.x, task.name))
        xs, ys = [place.x for place in places], [place.y for place in places]
        wide, high = (max(xs) - min(xs)) or 1.0, (max(ys) - min(ys)) or 1.0
        height = min(MOST, max(LEAST, (WIDTH - 2 * MARGIN) * high / wide + 2 * MARGIN))
        pixels = min((WIDTH - 2 * MARGIN) / wide, (height - 2 * MARGIN) / high)  # one scale: distances are compared
        x = Axis(min(xs), min(xs) + wide, (WIDTH - wide * pixels) / 2, (WIDTH + wide * pixels) / 2)
        y = Axis(min(ys), min(ys) + high, (height + high * pixels) / 2, (height - high * pixels) / 2)
        drawn = cls(tasks, [place for place in places if not place.domain], x, y, height)
        drawn.taken += [_around(drawn.at(place)) for place in places]
        return drawn

    def at(self, place: Place) -> tuple[float, float]:
        return self.x.at(place.x), self.y.at(place.y)

    def point(self, task: Place, look: int) -> str:
        tip = f"{plain(task.name)}, {plain(task.domain)}"
        return element("path", d=_shape(look, *self.at(task)), kind=f"point k{look % COLOURS}", tip=tip)

    def query(self, query: Place) -> Iterable[str]:
        """The star, its name, and a line to each task with its weight."""
        here = self.at(query)
        for task in self.tasks:
            if weight := query.near.get(task.name):
                there = self.at(task)
                tip = f"{plain(query.name)} → {plain(task.name)}: weight {number(weight)}"
                yield line(*here, *there, "route", stroke_width=f"{1 + 5 * weight:.1f}", tip=tip)
                middle = ((here[0] + 2 * there[0]) / 3, (here[1] + 2 * there[1]) / 3)
                self.taken += [_around(_between(here, there, part / 8)) for part in range(1, 8)]
                yield self._written(f"{weight:.2f}", middle, "said", (4,))
        yield element("path", d=_star(*here), kind="query", tip=plain(query.name))
        yield self._written(shortened(plain(query.name), QUERY_LETTERS), here, "said", (12, 12 + AWAY))

    def named(self, task: Place, kind: str) -> str:
        return self._written(
            shortened(plain(task.name), LETTERS), self.at(task), f"small {kind}", (NEAR, NEAR + AWAY, NEAR + 2 * AWAY)
        )

    def _written(self, text: str, at: tuple[float, float], kind: str, reach: Sequence[float]) -> str:
        """The text where it covers least of what is there; a thin line leads to it if that is not beside the point.

        Args:
            text: to be written.
            at: the point it belongs to.
            kind: its class.
            reach: pixels that it may be away from the point, nearest first.
        """
        spots = [(spot, away) for away in reach for spot in _spots(text, at, away)]
        best, away = min(spots, key=lambda found: self._covers(found[0]))
        self.taken.append(best)
        written = words(best[0], best[3] - 3, text, kind=kind)
        return written if away == reach[0] else _lead(at, best) + written

    def _covers(self, box: Box) -> float:
        outside = box[0] < FRAME or box[1] < 10 or box[2] > WIDTH - FRAME or box[3] > self.height - FRAME
        return sum(_overlap(box, other) for other in self.taken) + 1e6 * outside


def _around(at: tuple[float, float], reach: float = 5.0) -> Box:
    return at[0] - reach, at[1] - reach, at[0] + reach, at[1] + reach


def _between(here: tuple[float, float], there: tuple[float, float], part: float) -> tuple[float, float]:
    return here[0] + (there[0] - here[0]) * part, here[1] + (there[1] - here[1]) * part


def _spots(text: str, at: tuple[float, float], away: float) -> Iterable[Box]:
    """Boxes of the text's size around a point: right and left first, as these read best."""
    wide, high = CHARACTER * SIZE * len(text) + 2, SIZE + 3.0
    slant = 0.7 * away
    for left, top in (
        (at[0] + away, at[1] - high / 2),
        (at[0] - away - wide, at[1] - high / 2),
        (at[0] - wide / 2, at[1] - away - high),
        (at[0] - wide / 2, at[1] + away),
        (at[0] + slant, at[1] - slant - high / 2),
        (at[0] + slant, at[1] + slant - high / 2),
        (at[0] - slant - wide, at[1] - slant - high / 2),
        (at[0] - slant - wide, at[1] + slant - high / 2),
    ):
        yield left, top, left + wide, top + high


def _overlap(one: Box, other: Box) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, wide) * max(0.0, high)


def _lead(at: tuple[float, float], box: Box) -> str:
    """From the point to the nearest place of the box."""
    return line(*at, min(max(at[0], box[0]), box[2]), min(max(at[1], box[1]), box[3]), "lead")


def _shape(look: int, x: float, y: float) -> str:
    """Circle, square, triangle, diamond, triangle upside down."""
    outlines: tuple[tuple[tuple[float, float], ...], ...] = (
        ((-4.6, -4.6), (4.6, -4.6), (4.6, 4.6), (-4.6, 4.6)),
        ((0, -6), (5.6, 4.4), (-5.6, 4.4)),
        ((0, -6.4), (6.4, 0), (0, 6.4), (-6.4, 0)),
        ((0, 6), (5.6, -4.4), (-5.6, -4.4)),
    )
    if kind := look % SHAPES:
        return _closed(outlines[kind - 1], x, y)
    return f"M{x - 5:.1f} {y:.1f}a5 5 0 1 0 10 0a5 5 0 1 0 -10 0Z"


def _star(x: float, y: float) -> str:
    reaches = [(10.0 if corner % 2 == 0 else 4.2, math.pi * (corner / 5 - 0.5)) for corner in range(10)]
    return _closed([(reach * math.cos(angle), reach * math.sin(angle)) for reach, angle in reaches], x, y)


def _closed(outline: Sequence[tuple[float, float]], x: float, y: float) -> str:
    return "M" + "L".join(f"{x + dx:.1f} {y + dy:.1f}" for dx, dy in outline) + "Z"


def _legend(looks: Mapping[str, int], queries: Sequence[Place]) -> str:
    """What the colours mean; and in words where each query went."""
    marks = [(_shape(look, 10, 10), f"point k{look % COLOURS}", domain) for domain, look in looks.items()]
    items = "".join(f"<li>{_mark(outline, kind)}{escaped(plain(name))}</li>" for outline, kind, name in marks)
    went = "".join(f"<li>{_mark(_star(10, 10), 'query')}<span>{_went(query)}</span></li>" for query in queries)
    return f'<ul class="key">{items}</ul>' + (f'<ul class="queries">{went}</ul>' if went else "")


def _mark(outline: str, kind: str) -> str:
    return element("svg", element("path", d=outline, kind=kind), view_box="0 0 20 20", width=16, height=16,
                   aria_hidden="true")  # fmt: skip


def _went(query: Place) -> str:
    tasks = ", ".join(f"{plain(task)} ({number(weight)})" for task, weight in query.near.items() if weight)
    went = f"routed to {tasks}" if tasks else "left to the base model"
    return escaped(f"“{shortened(plain(query.name), LEGEND_LETTERS)}” is {went}")
