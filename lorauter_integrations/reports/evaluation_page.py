"""An evaluation as one HTML page that needs no server, no network, and no script but to sort. Knows values only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from lorauter_integrations.evaluation.results import Results, RoutingQuality
from lorauter_integrations.reports import evaluation_tables as tables
from lorauter_integrations.reports.confusion_plot import confusion_plot
from lorauter_integrations.reports.evaluation_plots import (
    abstention_plots,
    difference_plots,
    score_plots,
)
from lorauter_integrations.reports.evaluation_tables import Table, plain
from lorauter_integrations.reports.latency_plots import latency_plots
from lorauter_integrations.reports.map_plot import map_plot
from lorauter_integrations.reports.skeleton import html_page, own_file
from lorauter_integrations.reports.svg import Plot, escaped

MOST = 15  # pairs of confused tasks


def evaluation_page(results: Results) -> str:
    """The whole page: facts, then each part that the results have, as plots and tables."""
    parts = (_facts, _scores, _differences, _parts, _routing, _map, _abstention, _latency, _notes)
    return html_page(tables.TITLE, own_file("evaluation.css"), _joined(part(results) for part in parts))


def _joined(parts: Iterable[str]) -> str:
    return "\n".join(part for part in parts if part)


def _section(title: str, *parts: str) -> str:
    """Nothing when nothing is in it."""
    inside = _joined(parts)
    return f"<section>\n<h2>{title}</h2>\n{inside}\n</section>" if inside else ""


def _figure(plot: Plot, reading: str) -> str:
    return f"<figure>\n{_joined((f'<h3>{escaped(plot.title)}</h3>', plot.legend, plot.picture, reading))}\n</figure>"


def _reading(plot: Plot) -> str:
    return f'<p class="read"><b>Read:</b> {escaped(plot.reading)}</p>'


def _wide_figure(plot: Plot | None) -> str:
    """A plot that a narrow screen scrolls to the side."""
    if plot is None:
        return ""
    label = f'tabindex="0" role="region" aria-label="{escaped(plot.title)}"'
    return _figure(replace(plot, picture=f'<div class="wide" {label}>{plot.picture}</div>'), _reading(plot))


def _figures(plots: Sequence[Plot]) -> str:
    """Side by side where there is room; what all are read by stands once below them."""
    readings = [_reading(plot) for plot in plots]
    same = len(set(readings)) == 1
    drawn = _joined(_figure(plot, "" if same else reading) for plot, reading in zip(plots, readings, strict=True))
    return _joined([f'<div class="plots">\n{drawn}\n</div>', readings[0] if same else ""]) if plots else ""


def _table(table: Table) -> str:
    kinds = [' class="number"' if place in table.numbers else "" for place in range(len(table.columns))]
    heads = (f'<th scope="col"{kind}>{_breaking(name)}</th>' for kind, name in zip(kinds, table.columns, strict=True))
    return f"""<div class="wide">
<table class="rows compact sortable">
<thead>
<tr>{"".join(heads)}</tr>
</thead>
<tbody>
{_joined(_row(table, row, kinds) for row in range(len(table.rows)))}
</tbody>
</table>
</div>"""


def _row(table: Table, row: int, kinds: Sequence[str]) -> str:
    name, *values = table.rows[row]
    cells = (
        f"<td{kinds[place]}>{_strong(_breaking(value), (row, place) in table.strong)}</td>"
        for place, value in enumerate(values, start=1)
    )
    return f'<tr><th scope="row"{kinds[0]}>{_breaking(name)}</th>{"".join(cells)}</tr>'


def _strong(text: str, strong: bool) -> str:
    return f"<b>{text}</b>" if strong else text


def _breaking(name: str) -> str:
    """A name that may be broken at its underscores."""
    return escaped(name).replace("_", "_<wbr>")


def _folded(title: str, *inside: str) -> str:
    return f"<details>\n<summary>{escaped(title)}</summary>\n{_joined(inside)}\n</details>"


def _facts(results: Results) -> str:
    facts = _joined(
        f"<div><dt>{escaped(plain(name))}</dt><dd>{escaped(plain(value))}</dd></div>"
        for name, value in results.facts.items()
    )
    return f"<dl>\n{facts}\n</dl>" if facts else ""


def _scores(results: Results) -> str:
    if not results.scores:
        return ""
    return _section(
        "Score by method",
        _figures(score_plots(results)),
        f"<p>{tables.SCORES} {tables.HIGHEST_OF_COLUMN}</p>",
        _table(tables.scores(results)),
        _folded("What the methods do", _table(tables.sentences("method", "what it does", results.methods))),
        _folded("What the regimes hold out", _table(tables.sentences("regime", "what is held out", results.regimes))),
    )


def _differences(results: Results) -> str:
    if not results.differences:
        return ""
    return _section(
        "Ours against others",
        _figures(difference_plots(results)),
        _folded("The same in numbers", f"<p>{tables.DIFFERENCES}</p>", _table(tables.differences(results))),
    )


def _parts(results: Results) -> str:
    if not results.scores:
        return ""
    kinds: tuple[tuple[str, Callable[[Results, str], Table]], ...] = (
        ("By domain", tables.by_domain),
        ("By task", tables.by_task),
    )
    folded = (
        _folded(f"{title}, {plain(regime)}", _table(table(results, regime)))
        for title, table in kinds
        for regime in tables.regimes_run(results)
    )
    return _section("Score by domain and by task", f"<p>{tables.PARTS} {tables.HIGHEST_OF_ROW}</p>", *folded)


def _routing(results: Results) -> str:
    if not results.routing:
        return ""
    domains = tables.domains_of(results)
    presets = (part for quality in results.routing for part in _preset(quality, domains))
    return _section("Which task inputs go to", _table(tables.routing(results)), *presets)


def _preset(quality: RoutingQuality, domains: dict[str, str]) -> Iterable[str]:
    yield _wide_figure(confusion_plot(quality, domains))
    if tables.confused(quality):
        table = tables.most_confused(quality, MOST)
        yield _folded(f"Most confused tasks, {plain(quality.preset)}", _table(table))
    if quality.wrong:
        table = tables.wrong_routes(quality, len(quality.wrong))
        yield _folded(f"Examples of wrong routes, {plain(quality.preset)}", _table(table))


def _map(results: Results) -> str:
    return _section("Tasks and a query", _wide_figure(map_plot(results.places)))


def _abstention(results: Results) -> str:
    plots = abstention_plots(results.abstention)
    return _section("Abstaining", _figures(plots), _table(tables.abstention(results))) if plots else ""


def _latency(results: Results) -> str:
    if not results.latency:
        return ""
    folded = _folded("The same in numbers", _table(tables.latency(results)))
    return _section("Latency of routing", _figures(latency_plots(results.latency)), folded)


def _notes(results: Results) -> str:
    notes = _joined(f"<p>{escaped(plain(note))}</p>" for note in results.notes)
    return f"<footer>\n{notes}\n</footer>" if notes else ""
