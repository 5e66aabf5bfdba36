"""A mapping run as one HTML page that needs no server, no network, and no script but to sort. Knows values only."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from itertools import chain, groupby
from pathlib import Path

from lorauter_integrations.adapter_map import AdapterScore, Ranking
from lorauter_integrations.reports.grid import Scale, adapters_by_task, best_by_task, colour
from lorauter_integrations.reports.skeleton import html_page
from lorauter_integrations.reports.summary import (
    TITLE,
    all_rounds,
    everything,
    label,
    level,
    measured,
    next_best,
    number,
    path,
    pool,
    printable,
    rounds,
    shortened,
    span,
)
from lorauter_integrations.reports.writing import writing

NAME = 28  # characters that the map's columns are high enough for
STEPS = 24  # of the colours: more could not be told apart
COLUMNS = ("task", "winner", "score ±95 %", "base model", "gain", "next", "questions")
NUMBERS = {"score ±95 %", "base model", "gain", "questions"}
NOTES = (
    "A question is one contestant answering one example of a task; the base model alone is always a contestant.",
    "± is half the width of the score's 95 % interval: the more examples, the smaller. ±0.000 only says that all "
    "examples scored the same. The winner is the highest of many scores, so expect a little less on new inputs.",
    "Level with the winner is who was asked as many examples and scored lower by no more than the standard error of "
    "the difference: the examples do not tell which of them is better.",
)


def write_page(rankings: Sequence[Ranking], file: str | Path) -> None:
    """Write `mapping_page` into a file; one that exists is replaced.

    Raises:
        MappingError: the file cannot be written.
    """
    page = mapping_page(rankings)
    with writing(file):
        Path(file).write_text(page, encoding="utf-8")


def mapping_page(rankings: Sequence[Ranking]) -> str:
    """The whole page: headline numbers, winners, a heat map of all adapters that were asked, each task by round.

    Args:
        rankings: at least one, as a mapping run returns them; an index keeps only the best 20 of each.
    """
    inside = f"""{_headline(rankings)}
<h2>The winners</h2>
{_winners(rankings)}
<h2>Every adapter that was asked</h2>
{_map(rankings)}
<h2>Each task, round by round</h2>
{_joined(map(_task, rankings))}
<footer>
{_joined(f"<p>{note}</p>" for note in NOTES)}
<p>Base model: {", ".join(sorted({_text(ranking.base_model) for ranking in rankings}))}</p>
</footer>"""
    return html_page(TITLE, _colour_classes(), inside)


def _text(text: str) -> str:
    return html.escape(printable(text))


def _joined(parts: Iterable[str]) -> str:
    return "\n".join(parts)


def _colour_classes() -> str:
    """High scores stand out on either paper: they are the dark end on white, the light end on black."""
    light = _joined(f".c{step} {{ background: {colour(step / STEPS)}; }}" for step in range(STEPS + 1))
    dark = _joined(f".c{step} {{ background: {colour(1 - step / STEPS)}; }}" for step in range(STEPS + 1))
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n"


def _headline(rankings: Sequence[Ranking]) -> str:
    asked, whole = sum(ranking.questions for ranking in rankings), everything(rankings)
    part = f"{100 * asked / whole:.1f} % of the {whole:,} that asking everything would take"
    facts = {
        "tasks": f"{len(rankings)}",
        "of them improved by an adapter": f"{sum(not ranking.best.is_base for ranking in rankings)}",
        "adapters in the pool": span([pool(ranking) for ranking in rankings]),
        "left out for each task by the screening": span([ranking.screened for ranking in rankings]),
        "adapters asked at least one question": f"{sum(map(len, adapters_by_task(rankings))):,}",
        f"questions asked, {part}": f"{asked:,}",
    }
    return f"<dl>\n{_joined(f'<div><dt>{what}</dt><dd>{value}</dd></div>' for what, value in facts.items())}\n</dl>"


def _winners(rankings: Sequence[Ranking]) -> str:
    heads = _joined(f'<th scope="col"{_number(column)}>{column}</th>' for column in COLUMNS)
    return f"""<div class="wide">
<table class="rows sortable">
<thead>
<tr>
{heads}
</tr>
</thead>
<tbody>
{_joined(map(_winner, rankings))}
</tbody>
</table>
</div>"""


def _winner(ranking: Ranking) -> str:
    values = (
        _text(label(ranking.best.adapter)),
        measured(ranking.best),
        number(ranking.base.score),
        number(ranking.gain, "+"),
        _text(next_best(ranking)),
        f"{ranking.questions:,}",
    )
    cells = (f"<td{_number(column)}>{value}</td>" for column, value in zip(COLUMNS[1:], values, strict=True))
    return f'<tr><th scope="row">{_text(ranking.task)}</th>{"".join(cells)}</tr>'


def _number(column: str) -> str:
    return ' class="number"' if column in NUMBERS else ""


def _map(rankings: Sequence[Ranking]) -> str:
    scale, groups = Scale.of(rankings), _groups(rankings)
    spans = "".join(f'<colgroup span="{len(group)}"></colgroup>' for _, group in groups)
    heads = "".join(
        f'<th scope="colgroup" colspan="{len(group)}" title="{title}">{title}</th>' for title, group in groups
    )
    columns = ["", *chain(*(group for _, group in groups))]
    return f"""{_key(scale)}
<div class="scroll" tabindex="0" role="region" aria-label="Heat map of scores">
<table class="map">
<colgroup></colgroup><colgroup></colgroup>{spans}
<thead>
<tr><th scope="row">came furthest in</th><td class="base"></td>{heads}</tr>
<tr><td></td>{"".join(map(_column, columns))}</tr>
</thead>
<tbody>
{_joined(_row(ranking, columns, scale) for ranking in rankings)}
</tbody>
</table>
</div>"""


def _groups(rankings: Sequence[Ranking]) -> list[tuple[str, list[str]]]:
    """The best of each task, so that the first view shows what is what; then all others."""
    best = best_by_task(rankings)
    shown = set(chain(*best))
    others = [adapter for adapter in chain(*adapters_by_task(rankings)) if adapter not in shown]
    groups = [*zip((_text(ranking.task) for ranking in rankings), best, strict=True), ("all others", others)]
    return [(title, group) for title, group in groups if group]


def _column(adapter: str) -> str:
    whole, kind = label(adapter), "name" if adapter else "name base"
    name = html.escape(shortened(whole, NAME))
    return f'<th scope="col" class="{kind}" title="{html.escape(whole)}"><span>{name}</span></th>'


def _key(scale: Scale) -> str:
    ramp = "".join(f'<i class="c{step}"></i>' for step in range(STEPS + 1))
    bars = {
        f'<span class="bar win">{_bar(1.0, 1.0)}</span>': "the winner",
        f'<span class="bar">{_bar(1.0, 1.0)}</span>': "asked in every round",
        f'<span class="bar">{_bar(0.5, 1.0)}</span>': "left out half-way",
        f'<span class="bar">{_bar(0.25, 1.0)}</span>': "left out early",
        '<span class="bar never"></span>': "never asked",
    }
    items = _joined(f"<li>{bar} {what}</li>" for bar, what in bars.items())
    return f"""<ul class="key">
{items}
<li>score {number(scale.lowest)} <span class="ramp">{ramp}</span> {number(scale.highest)}</li>
</ul>"""


def _row(ranking: Ranking, columns: Sequence[str], scale: Scale) -> str:
    last = all_rounds(ranking)
    cells = {score.adapter: _cell(score, ranking, last, scale) for score in ranking.scores}
    task, filled = _text(ranking.task), "".join(cells.get(name, "<td></td>") for name in columns)
    return f'<tr><th scope="row" title="{task}">{task}</th>{filled}</tr>'


def _cell(score: AdapterScore, ranking: Ranking, last: int, scale: Scale) -> str:
    won = score is ranking.best
    told = _text(f"{label(score.adapter)}, {ranking.task}: {path(score)}{', the winner' if won else ''}")
    bar = _bar(rounds(score) / last, scale.place(score.score))
    kind = ' class="base"' if score.is_base else ""
    return f'<td{kind} title="{told}"><div class="bar{" win" if won else ""}">{bar}</div></td>'


def _bar(share: float, place: float) -> str:
    return f'<i class="c{round(place * STEPS)}" style="height:{share:.0%}"></i>'


def _task(ranking: Ranking) -> str:
    last, equals = all_rounds(ranking), [ranking.best, *level(ranking)]
    parts = groupby(ranking.scores, key=rounds)
    return f"""<details>
<summary><strong>{_text(ranking.task)}</strong>
<span class="faint">{_text(label(ranking.best.adapter))} {measured(ranking.best)}</span></summary>
<div class="wide">
<table class="rows">
<thead>
<tr><th scope="col">contestant</th><th scope="col" class="number">{COLUMNS[2]}</th>
<th scope="col">mean after each round</th></tr>
</thead>
{_joined(_round(count, last, list(scores), equals) for count, scores in parts)}
</table>
</div>
</details>"""


def _round(count: int, last: int, scores: Sequence[AdapterScore], equals: Sequence[AdapterScore]) -> str:
    title = f"asked in every round ({last})" if count == last else f"left out after round {count} of {last}"
    return f"""<tbody>
<tr><th scope="rowgroup" colspan="3">{title}: {len(scores)}</th></tr>
{_joined(_contestant(score, equals) for score in scores)}
</tbody>"""


def _contestant(score: AdapterScore, equals: Sequence[AdapterScore]) -> str:
    place = "winner" if score is equals[0] else "level with the winner" if score in equals else ""
    return (
        f'<tr><th scope="row">{_text(label(score.adapter))} <small>{place}</small></th>'
        f'<td class="number">{measured(score)}</td><td>{path(score)}</td></tr>'
    )
