"""One picture of what `engine_speed.py` measured, for the documentation.

    python tests/benchmarks/engine_picture.py FILE.json [MORE.json ...] OUT.svg [OUT.png ...] [--model NAME]

Above, the time of each way to write, relative to transformers' generate; below, what callers see whose requests
arrive over time, when the file has that group. Needs matplotlib (`pip install matplotlib`); the endings choose the
formats.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

GREY, BLUE, ORANGE = "#8a8a8a", "#0072b2", "#e69f00"  # of Okabe and Ito's palette, told apart by every eye
PANELS = {"1-row": "1 request", "8-rows": "8 requests in one batch"}
KINDS = {"q,v": "adapters on q_proj and v_proj", "all linear": "adapters on all 7 linear modules"}
LABELS = {
    "transformers generate": "transformers generate,\nno adapter",
    "our engine, no mixture": "LoRAuter,\nno adapter in use",
    "our engine, K=3": "LoRAuter,\nmixture of 3 adapters",
    "our engine, 8 different K=3": "LoRAuter, 8 different\nmixtures of 3 adapters",
    "PEFT, one adapter": "PEFT,\n1 adapter",
    "PEFT, three active": "PEFT,\n3 active adapters",
    "PEFT, three active, the same for all": "PEFT, 3 active adapters,\nthe same for all 8",
    "PEFT, adapter_names, one a row": "PEFT adapter_names,\n1 adapter for each",
    "one at a time": "LoRAuter, one at a time,\nmixtures of 3 adapters",
    "together": "LoRAuter together,\nmixtures of 3 adapters",
    "together, no mixtures": "LoRAuter together,\nno adapter in use",
}
ARRIVING = {"latency": "whole answer, mean", "first token": "first token, mean"}


def pale(colour: str) -> tuple[float, ...]:
    """Mixed with white: a transparent bar would show the grid."""
    return tuple(1 - 0.4 * (1 - part) for part in to_rgb(colour))


def keys(names: Iterable[str]) -> list[Patch]:
    """A legend's first entries: what the full bars and the pale ones are."""
    return [Patch(color=shade, label=name) for shade, name in zip((GREY, pale(GREY)), names, strict=True)]


def colour(way: str) -> str:
    if way.startswith("PEFT"):
        return ORANGE
    return BLUE if way.startswith(("our", "together")) else GREY


def pair_of_bars(axes: Axes, place: int, values: list[float], way: str) -> list[float]:
    """A full bar above a pale one, or one alone. Returns their heights."""
    height = 0.8 / len(values)
    heights = [place + (number - (len(values) - 1) / 2) * height for number in range(len(values))]
    for number, (y, value) in enumerate(zip(heights, values, strict=True)):
        axes.barh(y, value, height * 0.92, color=pale(colour(way)) if number else colour(way))
    return heights


def write(axes: Axes, x: float, y: float, text: str) -> None:
    """A number behind its bar."""
    behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    axes.annotate(text, (x, y), (6, 0), textcoords="offset points", va="center", fontsize=9.5, bbox=behind)


def dress(axes: Axes, title: str, ways: list[str]) -> None:
    axes.set_title(title, fontsize=12, fontweight="bold", loc="left")
    axes.set_yticks(range(len(ways)), [LABELS.get(way, way) for way in ways], fontsize=10)
    axes.invert_yaxis()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_axisbelow(True)
    axes.grid(axis="x", color="#e4e4e4")


def relative(axes: Axes, kinds: dict[str, Any], title: str) -> None:
    """Each way's median as a multiple of its own kind's first way."""
    ways = list(next(iter(kinds.values())))
    for place, way in enumerate(ways):
        values = [found[way]["seconds"]["median"] / found[ways[0]]["seconds"]["median"] for found in kinds.values()]
        # Without adapters there is nothing to tell the kinds apart by.
        values = values[:1] if place == 0 else values
        for y, value in zip(pair_of_bars(axes, place, values, way), values, strict=True):
            write(axes, value, y, f"{value:.2f}×")
    dress(axes, title, ways)
    axes.axvline(1, color="#444444", linewidth=1.2, linestyle="--", zorder=0.9)
    axes.set_xlim(0, axes.get_xlim()[1] * 1.1)
    axes.set_xlabel("time, transformers generate = 1", fontsize=10)


def arriving(axes: Axes, found: dict[str, Any]) -> None:
    for place, (way, measures) in enumerate(found.items()):
        mean, first, p95 = (measures[name]["median"] for name in (*ARRIVING, "latency p95"))
        above, below = pair_of_bars(axes, place, [mean, first], way)
        axes.plot([mean, p95], [above, above], color="black", linewidth=1)
        axes.plot([p95], [above], marker="D", color="black", markersize=5)
        write(axes, p95, above, f"{mean:.2f} s, 95th percentile {p95:.2f} s")
        write(axes, first, below, f"{first:.2f} s")
    dress(axes, "16 requests that arrive over time, twice as fast as one at a time can be answered", list(found))
    axes.set_xlim(0, axes.get_xlim()[1] * 1.2)
    axes.set_xlabel("seconds from a request's arrival", fontsize=10)
    p95_key = Line2D(
        [], [], marker="D", color="black", linewidth=1, markersize=5, label="whole answer, 95th percentile"
    )
    axes.legend(handles=[*keys(ARRIVING.values()), p95_key], loc="lower right", frameon=False, fontsize=10)


def caption(facts: dict[str, Any]) -> str:
    machine = facts["machine"]
    return (
        f"{facts['model']}, {machine['dtype']}; {machine['cpu']}, {machine['cores']} cores; "
        f"torch {machine['torch']}, transformers {machine['transformers']}, PEFT {machine['peft']}; "
        f"medians of {facts['repeats']} runs, ways alternating"
    )


def picture(facts: dict[str, Any]) -> Figure:
    groups = facts["groups"]
    both = "arriving" in groups
    figure = plt.figure(figsize=(11.5, 9.2 if both else 6.2), layout="constrained", facecolor="white")
    figure.suptitle(
        "What a mixture of adapters for every request costs", fontsize=16, fontweight="bold", x=0.01, ha="left"
    )
    top = figure.subfigures(2 if both else 1, 1, height_ratios=[1.75, 1] if both else None, squeeze=False)[:, 0]
    axes = top[0].subplots(1, len(PANELS))
    for one, (group, title) in zip(axes, PANELS.items(), strict=True):
        relative(one, groups[group], title)
    top[0].legend(handles=keys(KINDS.values()), loc="outside lower center", ncols=2, frameon=False, fontsize=10)
    top[0].suptitle(
        f"Time to read {facts['prompt_tokens']} tokens and write {facts['new_tokens']}. Shorter bars are better.",
        fontsize=11.5, x=0.01, ha="left",
    )  # fmt: skip
    if both:
        arriving(top[1].subplots(), groups["arriving"]["q,v"])
    figure.supxlabel(caption(facts), fontsize=8.5, color="#555555", x=0.01, ha="left")
    return figure


def merged(files: list[Path]) -> dict[str, Any]:
    """The first file's facts with the groups of all: a long measurement may be made in parts."""
    parts = [json.loads(path.read_text()) for path in files]
    if not parts:
        raise SystemExit("give the JSON file of a measurement first")
    if len({str([part["model"], part["machine"] | {"load_average": None}]) for part in parts}) > 1:
        raise SystemExit("these files are of different models, machines or settings")
    counts = sorted({part["repeats"] for part in parts})
    return parts[0] | {
        "repeats": " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1]))),
        "groups": {name: group for part in parts for name, group in part["groups"].items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="measurements (.json), then pictures")
    parser.add_argument(
        "--model", help="the model's name in the caption; the measured file's or folder's if left out"
    )
    args = parser.parse_args()
    plt.rcParams["svg.hashsalt"] = "lorauter"  # the same numbers, the same file
    facts = merged([path for path in args.files if path.suffix == ".json"])
    figure = picture(facts | {"model": args.model or Path(facts["model"]).stem})
    for path in (path for path in args.files if path.suffix != ".json"):
        figure.savefig(
            path,
            dpi=130,
            bbox_inches="tight",
            pad_inches=0.2,
            metadata={"Date": None} if path.suffix == ".svg" else None,
        )


if __name__ == "__main__":
    main()
