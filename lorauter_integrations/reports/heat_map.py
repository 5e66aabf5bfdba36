"""A mapping run as one picture: tasks down, adapters across. matplotlib's only home (extra `plots`)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from lorauter_integrations.adapter_map import Ranking
from lorauter_integrations.extras import needs_extra
from lorauter_integrations.reports.grid import COLOURS, Scale, adapters_by_task, best_by_task, colour
from lorauter_integrations.reports.summary import TITLE, all_rounds, label, pool, printable, rounds, shortened, span
from lorauter_integrations.reports.writing import writing

with needs_extra("plots", "matplotlib"):
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import PatchCollection
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.figure import Figure
    from matplotlib.legend_handler import HandlerPatch
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch, Rectangle

LEAST = 15  # columns that there is room for: a small map's cells keep their shape
NAME = 30  # characters of a name
DPI = 120
LEFT_OUT = "#e3e3e3"
STAR: dict[str, Any] = {
    "marker": "*",
    "linestyle": "none",
    "color": "white",
    "markersize": 13,
    "markeredgecolor": "black",
}
BAR, TALL = 0.9, 0.84  # a cell's bar, as parts of the cell
GAP = 0.5  # between the base model's column and the adapters'


def draw_heat_map(rankings: Sequence[Ranking], file: str | Path) -> None:
    """Write a PNG: one row a task, one column an adapter, the base model's first.

    A cell's bar is as high as the part of the task's rounds in which the adapter was asked; its colour is the score
    that it reached; a star marks the winner. Of many adapters the best of every task are shown, about 60 in all.

    Args:
        rankings: at least one, as a mapping run returns them; an index keeps only the best 20 of each.
        file: the picture; one that exists is replaced.

    Raises:
        MappingError: the file cannot be written.
    """
    asked = list(chain(*adapters_by_task(rankings)))
    columns = list(chain(*best_by_task(rankings)))
    names = [shortened(label(adapter), NAME) for adapter in ("", *columns)]
    places = {"": 0.0} | {adapter: GAP + 1 + place for place, adapter in enumerate(columns)}
    width = 4.4 + 0.27 * max(LEAST, len(columns))
    height = 2.4 + 0.085 * max(map(len, names)) + 0.42 * len(rankings)
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    figure.suptitle(TITLE, fontsize=15, fontweight="bold", x=0.01, ha="left")
    axes = figure.subplots()
    axes.set_title(_which(len(columns), len(asked), rankings), fontsize=11, loc="left", color="#444444")
    scale = Scale.of(rankings)
    _draw_cells(axes, rankings, places, scale)
    _name_rows_and_columns(axes, rankings, places, names)
    colours = ScalarMappable(Normalize(scale.lowest, scale.highest), LinearSegmentedColormap.from_list("", COLOURS))
    figure.colorbar(colours, ax=axes, fraction=0.03, pad=0.01, anchor=(0.0, 1.0)).ax.set_title("score", fontsize=11)
    _explain(figure, ncols=5 if width > 10 else 2)
    with writing(file):
        figure.savefig(file, format="png")


def _which(shown: int, asked: int, rankings: Sequence[Ranking]) -> str:
    some = f"{shown} of {asked:,}" if shown < asked else f"{asked:,}"
    return f"{some} adapters asked, of {span([pool(ranking) for ranking in rankings])} in the pool"


def _draw_cells(axes: Axes, rankings: Sequence[Ranking], places: dict[str, float], scale: Scale) -> None:
    bars: list[Rectangle] = []
    paint: list[str] = []
    for row, ranking in enumerate(rankings):
        last = all_rounds(ranking)
        for score in ranking.scores:
            if score.adapter in places:
                bars += _bar(places[score.adapter], row, rounds(score) / last)
                paint += [LEFT_OUT, colour(scale.place(score.score))]
        axes.plot([places[ranking.best.adapter]], [row], **STAR)
    axes.add_collection(PatchCollection(bars, facecolors=paint, edgecolors="none"))


def _bar(x: float, y: float, share: float) -> list[Rectangle]:
    """A whole bar around the point, and the lower part of it."""
    left, bottom = x - BAR / 2, y + TALL / 2  # rows are counted downwards
    return [Rectangle((left, bottom), BAR, -TALL), Rectangle((left, bottom), BAR, -TALL * share)]


def _name_rows_and_columns(
    axes: Axes, rankings: Sequence[Ranking], places: dict[str, float], names: Sequence[str]
) -> None:
    plain = {"parse_math": False}  # a dollar sign in a name is no formula
    tasks = [shortened(printable(ranking.task), NAME) for ranking in rankings]
    axes.set_xticks(list(places.values()), names, rotation=90, fontsize=9, **plain)
    axes.set_yticks(range(len(tasks)), tasks, fontsize=11, **plain)
    axes.get_xticklabels()[0].set_fontweight("bold")
    axes.set_xlabel("adapters, by the task they came furthest in", fontsize=11, loc="left")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlim(-0.7, max(LEAST, len(places)) + GAP - 0.3)
    axes.set_ylim(len(tasks) - 0.5, -0.5)
    lines = [row - 0.5 for row in range(len(tasks) + 1)]
    axes.hlines(lines, -0.7, len(places) + GAP - 0.3, color="#d0d0d0", linewidth=0.6)


class _Bars(HandlerPatch):
    """Draws the legend's example of a bar like the bars of the map."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self._share = share

    def create_artists(self, legend: Any, orig_handle: Any, *box: Any) -> list[Any]:
        xdescent, ydescent, width, height, _, transform = box
        left, bottom, side = -xdescent, -ydescent - height / 2, 2 * height
        whole = Rectangle((left, bottom), width, side, facecolor=LEFT_OUT, transform=transform)
        part = Rectangle((left, bottom), width, side * self._share, facecolor=COLOURS[-2], transform=transform)
        return [whole, part]


def _explain(figure: Figure, ncols: int) -> None:
    shares = {
        Patch(label="asked in every round"): 1.0,
        Patch(label="left out half-way"): 0.5,
        Patch(label="left out early"): 0.25,
    }
    handles = [Line2D([], [], label="the winner", **STAR), *shares, Patch(alpha=0, label="blank: never asked")]
    examples = {handle: _Bars(share) for handle, share in shares.items()}
    figure.legend(handles=handles, handler_map=examples, loc="outside lower left", ncols=ncols, frameon=False,
                  fontsize=10.5, handlelength=1.4)  # fmt: skip
