"""An evaluation as Markdown, as GitHub shows it. Knows values only."""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence

from lorauter_integrations.evaluation.results import Results, RoutingQuality
from lorauter_integrations.reports import evaluation_tables as tables
from lorauter_integrations.reports.evaluation_tables import Table, confused, plain
from lorauter_integrations.reports.summary import number, shortened

MOST = 10  # of long lists
TEXT = 100  # characters of a wrong route's text
WIDTH = 118
WRONG = "Own task → where it went (similarity to it, to the own task): the text's beginning and end."
LATENCY = "Time to route one text."
_SPECIAL = re.compile(r"[\\`*\[\]<>|~$&#]|(?<!\w)_|_(?!\w)")


def evaluation_markdown(results: Results) -> str:
    """All that was found, in tables."""
    parts = (_facts, _scores, _differences, _regimes, _routing, _abstention, _latency, _notes)
    return _joined(f"# {tables.TITLE}", *(part(results) for part in parts)) + "\n"


def _joined(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH)


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\g<0>", plain(text))


def _table(table: Table) -> str:
    """Columns as wide as their widest cell, so that the source reads as a table too."""
    rows = [
        [
            f"**{_escaped(cell)}**" if (row, column) in table.strong else _escaped(cell)
            for column, cell in enumerate(cells)
        ]
        for row, cells in enumerate(table.rows)
    ]
    heads = [_escaped(name) for name in table.columns]
    widths = [max(3, *map(len, column)) for column in zip(heads, *rows, strict=True)]
    right = [place in table.numbers for place in range(len(heads))]
    rule = [f"{'-' * (width - 1)}{':' if ends else '-'}" for width, ends in zip(widths, right, strict=True)]
    lines = [heads, rule, *rows]
    return "\n".join(_line(cells, widths, right) for cells in lines)


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    filled = (
        cell.rjust(width) if ends else cell.ljust(width)
        for cell, width, ends in zip(cells, widths, right, strict=True)
    )
    return f"| {' | '.join(filled)} |"


def _folded(title: str, inside: str) -> str:
    return _joined(f"<details>\n<summary>{title}</summary>", inside, "</details>")


def _listed(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _facts(results: Results) -> str:
    return _listed(f"{_escaped(name)}: {_escaped(value)}" for name, value in results.facts.items())


def _scores(results: Results) -> str:
    if not results.scores:
        return ""
    told = _wrapped(f"{tables.SCORES} {tables.HIGHEST_OF_COLUMN}")
    return _joined("## Score by method", told, _table(tables.scores(results)), _meanings(results))


def _meanings(results: Results) -> str:
    kinds = (("method", "what it does", results.methods), ("regime", "what is held out", results.regimes))
    return _joined(*(_table(tables.sentences(*kind)) for kind in kinds))


def _differences(results: Results) -> str:
    if not results.differences:
        return ""
    return _joined("## Ours against others", _wrapped(tables.DIFFERENCES), _table(tables.differences(results)))


def _regimes(results: Results) -> str:
    regimes = tables.regimes_run(results)
    if not regimes:
        return ""
    parts: tuple[tuple[str, Callable[[Results, str], Table]], ...] = (
        ("By domain", tables.by_domain),
        ("By task", tables.by_task),
    )
    folded = [
        _folded(f"{title}, {html.escape(plain(regime))}", _table(table(results, regime)))
        for title, table in parts
        for regime in regimes
    ]
    return _joined("## By domain and by task", f"{tables.PARTS} {tables.HIGHEST_OF_ROW}", *folded)


def _routing(results: Results) -> str:
    if not results.routing:
        return ""
    return _joined("## Routing", _table(tables.routing(results)), *map(_preset, results.routing))


def _preset(quality: RoutingQuality) -> str:
    name = _escaped(quality.preset)
    parts = [f"### Most confused, {name}", _table(tables.most_confused(quality, MOST))] if confused(quality) else []
    if quality.wrong:
        wrong = (
            f"{_escaped(one.task)} → {_escaped(one.first)} ({number(one.similarity)}, own {number(one.own)}): "
            f"{_escaped(shortened(plain(one.text), TEXT))}"
            for one in quality.wrong[:MOST]
        )
        parts += [f"### Wrong routes, {name}", WRONG, _listed(wrong)]
    return _joined(*parts)


def _abstention(results: Results) -> str:
    table, found = tables.abstention(results), results.abstention
    if not found or not table.rows:
        return ""
    told = f"A text whose contrast is below the threshold, {number(found.threshold)}, is left to the base model."
    return _joined("## Abstaining", told, _table(table))


def _latency(results: Results) -> str:
    return _joined("## Latency", LATENCY, _table(tables.latency(results))) if results.latency else ""


def _notes(results: Results) -> str:
    return _joined("## Notes", _listed(map(_escaped, results.notes))) if results.notes else ""
