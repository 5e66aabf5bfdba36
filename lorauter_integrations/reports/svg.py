"""Inline SVG by hand: elements, axes, and a frame with grid lines. Knows numbers and texts only."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lorauter_integrations.reports.summary import printable

CHARACTER = 0.6  # of the font's size: about as wide as a character of a sans-serif font
WIDTH = 470  # pixels of a plot that fits a phone, and two of them a page
LEFT, RIGHT, TOP, BOTTOM = 54, 16, 30, 46  # margins
LARGER = 1.15  # that a plot is at most drawn
ROOM = 40  # pixels that a tick's text needs


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture that explains itself.

    Attributes:
        title: what is shown.
        picture: the SVG.
        reading: how to read it, in a sentence or two.
        legend: HTML list of what the colours mean.
    """

    title: str
    picture: str
    reading: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Axis:
    """Where a value stands in the picture.

    Attributes:
        low: the value at `start`.
        high: the value at `end`.
        start: pixel.
        end: pixel; smaller than `start` for an axis that goes up.
        log: the values' logarithms are at even steps.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value."""
        low, high, here = (math.log10(each) if self.log else each for each in (self.low, self.high, value))
        return self.start + (self.end - self.start) * ((here - low) / (high - low) if high > low else 0.5)

    def apart(self, values: Iterable[float]) -> list[float]:
        """The values whose texts do not meet, from the first on."""
        kept: list[float] = []
        for value in sorted(set(values)):
            if not kept or abs(self.at(value) - self.at(kept[-1])) >= ROOM:
                kept.append(value)
        return kept


_NAMES = {"kind": "class", "view_box": "viewBox"}


def element(name: str, *inside: str, tip: str = "", **attributes: str | float) -> str:
    """An element; `kind` is its class, an underscore in a name is a hyphen, `tip` is shown when pointed at."""
    written = "".join(f' {_NAMES.get(key, key.replace("_", "-"))}="{_value(of)}"' for key, of in attributes.items())
    body = (f"<title>{escaped(tip)}</title>" if tip else "") + "".join(inside)
    return f"<{name}{written}>{body}</{name}>" if body else f"<{name}{written}/>"


def _value(value: str | float) -> str:
    return escaped(value) if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")


def escaped(text: str) -> str:
    """Any text as HTML and SVG take it."""
    return html.escape(printable(text))


def words(x: float, y: float, text: str, **attributes: str) -> str:
    """A text whose base line begins at the point; `text_anchor` "end" or "middle" moves it."""
    return element("text", escaped(text), x=x, y=y, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, kind: str, **attributes: str) -> str:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, kind=kind, **attributes)


def curve(points: Sequence[tuple[float, float]], kind: str) -> str:
    """Straight lines through the points."""
    return element("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), kind=kind)


def picture(width: float, height: float, title: str, parts: Iterable[str], kind: str = "plot") -> str:
    """The whole SVG; it is shown at most a little larger than it is."""
    size = f"max-width:{LARGER * width:.0f}px"
    view = f"0 0 {width:.0f} {height:.0f}"
    return element("svg", *parts, view_box=view, kind=kind, style=size, role="img", aria_label=title)


def round_steps(low: float, high: float, most: int = 6) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten: at most about `most` of them, around the two ends."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(times * power for times in (1, 2, 5, 10) if span / (times * power) <= most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 12) for place in range(first, max(last, first + 1) + 1)]


def frame(x: Axis, y: Axis, names: tuple[str, str], ticks: tuple[Sequence[float], Sequence[float]]) -> list[str]:
    """Grid lines, the numbers at them, and the axes' names: x below, y at the left edge."""
    parts = []
    for value in ticks[0]:
        parts.append(line(x.at(value), y.start, x.at(value), y.end, "grid"))
        parts.append(words(x.at(value), y.start + 17, short(value), text_anchor="middle", kind="tick"))
    for value in ticks[1]:
        parts.append(line(x.start, y.at(value), x.end, y.at(value), "grid"))
        parts.append(words(x.start - 7, y.at(value) + 4, short(value), text_anchor="end", kind="tick"))
    parts.append(words((x.start + x.end) / 2, y.start + 38, names[0], text_anchor="middle", kind="axis"))
    middle = (y.start + y.end) / 2
    turned = f"rotate(-90 14 {middle:.1f})"
    parts.append(words(14, middle, names[1], text_anchor="middle", transform=turned, kind="axis"))
    return parts


def short(value: float) -> str:
    """A number at an axis: no more decimals than it has."""
    return f"{value:,.6f}".rstrip("0").rstrip(".")


def swatches(entries: Mapping[str, str]) -> str:
    """An HTML list of what colours mean: class -> meaning."""
    items = "".join(f'<li><span class="swatch {kind}"></span>{escaped(what)}</li>' for kind, what in entries.items())
    return f'<ul class="key">{items}</ul>'
