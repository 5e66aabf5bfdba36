"""The command `lorauter map`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Annotated, Any

import typer

from lorauter_integrations.adapter_map import AdapterMap, Ranking
from lorauter_integrations.cli.options import DEFAULT_CONFIG, AsJson, Config
from lorauter_integrations.cli.output import console, print_json, print_rankings, table
from lorauter_integrations.cli.progress import MappingBar
from lorauter_integrations.errors import MissingExtraError
from lorauter_integrations.mapping import map_tasks, open_workers, task_states
from lorauter_integrations.opening import build
from lorauter_integrations.reports import write_page
from lorauter_integrations.reports.summary import label, number
from lorauter_integrations.reports.writing import write_whole, writing
from lorauter_integrations.settings import Settings

CURRENT = "up to date"
States = dict[str, tuple[Ranking | None, str]]


def map_command(
    tasks: Annotated[list[str] | None, typer.Argument(help="Tasks to map; all that need it when left out.")] = None,
    config: Config = DEFAULT_CONFIG,
    status: Annotated[bool, typer.Option("--status", help="Only show what would be mapped, and why.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Also tasks whose map is up to date.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find the best adapters of each task. Ctrl-C loses nothing: start it again and it goes on."""
    settings = Settings.read(config)
    with MappingBar(quiet=as_json) as bar, ExitStack() as stack:
        lorauter = build(settings)
        stack.enter_context(lorauter.index)
        for name in tasks or ():
            lorauter.index.get(name)  # an unknown one is an error, before workers are started
        ledger = settings.locate(settings.mapping.ledger)
        states = task_states(lorauter.index, lorauter.engine, settings.mapping, ledger)
        wanted = tasks or [name for name, (_, reason) in states.items() if again or reason]
        rankings: list[Ranking] = []
        if not status and (wanted or not states):
            if workers := open_workers(settings, lorauter.engine):
                stack.enter_context(workers)
            run = map_tasks(
                lorauter.index,
                lorauter.engine,
                settings.mapping,
                ledger,
                names=wanted,
                workers=workers,
                on_progress=bar.update,
            )
            rankings.extend(run)
    report = _report(settings, states, rankings) if rankings else []
    states |= {ranking.task: (ranking, "mapped now") for ranking in rankings}
    shown = {name: state for name, state in states.items() if name in (tasks or states)}
    if as_json:
        print_json([_facts(name, *state) for name, state in shown.items()])
    elif not rankings:
        _show(shown)
    else:
        print_rankings(rankings, f"{len(rankings)} tasks mapped")
        _show_the_rest([reason for name, (_, reason) in states.items() if name not in wanted])
        console.print(bar.summary(), highlight=False)
        for line in report:
            console.print(f"report: {line}", highlight=False, markup=False, soft_wrap=True)


def _show_the_rest(reasons: Sequence[str]) -> None:
    """How many tasks were not mapped now, and how many of them should be."""
    if reasons:
        stale = sum(map(bool, reasons))
        console.print(f"of {len(reasons)} others {stale} are to be mapped, see --status", highlight=False)


def _report(settings: Settings, states: States, rankings: Sequence[Ranking]) -> list[str]:
    """Write the page and the picture of all mapped tasks; the picture only where matplotlib is installed.

    The index keeps the best of each ranking only, so whole rankings are kept beside the report.
    """
    if not settings.mapping.report:
        return []
    folder = settings.locate(settings.mapping.report)
    page, picture, kept = folder / "mapping.html", folder / "mapping.png", folder / "mapping.json"
    whole = AdapterMap.from_json(kept.read_text(encoding="utf-8")) if kept.exists() else AdapterMap()
    found = {name: _whole(ranking, whole.get(name)) for name, (ranking, _) in states.items() if ranking}
    found |= {ranking.task: ranking for ranking in rankings}
    write_page(list(found.values()), page)
    with writing(kept):
        write_whole(kept, AdapterMap(list(found.values())).to_json())
    try:
        from lorauter_integrations.reports.heat_map import draw_heat_map
    except MissingExtraError as error:
        return [str(page), f"no picture: {error.message} ({error.hint})"]
    draw_heat_map(list(found.values()), picture)
    return [str(page), str(picture)]


def _whole(ranking: Ranking, kept: Ranking | None) -> Ranking:
    """The ranking with all its contestants, if that is what was kept."""
    if kept is None:
        return ranking
    facts = [(r.task_hash, r.pool_hash, r.rules, r.questions, r.best) for r in (ranking, kept)]
    return kept if facts[0] == facts[1] else ranking


def _show(states: States) -> None:
    table(
        f"{sum(bool(reason) for _, reason in states.values())} of {len(states)} tasks to map",
        ("task", "state", "adapter", "score"),
        [
            (name, reason or CURRENT, label(ranking.best.adapter), number(ranking.best.score))
            if ranking
            else (name, reason, "", "")
            for name, (ranking, reason) in states.items()
        ],
        ("score",),
    )


def _facts(task: str, ranking: Ranking | None, reason: str) -> dict[str, Any]:
    facts: dict[str, Any] = {"task": task, "state": reason or CURRENT}
    if ranking is None:
        return facts
    best = ranking.best
    return {
        **facts,
        "adapter": best.adapter,
        "score": best.score,
        "error": best.error,
        "base": ranking.base.score,
        "questions": ranking.questions,
        "pool": ranking.pool,
        "screened": ranking.screened,
    }


__all__ = ["map_command"]
