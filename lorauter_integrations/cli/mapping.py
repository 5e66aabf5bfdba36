"""The command `lorauter map`."""

from __future__ import annotations

from typing import Annotated

import typer

from lorauter_integrations.cli.options import DEFAULT_CONFIG, AsJson, Config
from lorauter_integrations.cli.output import console, print_json, print_rankings
from lorauter_integrations.cli.progress import MappingBar
from lorauter_integrations.lorauter import build
from lorauter_integrations.settings import Settings


def map_command(
    tasks: Annotated[list[str] | None, typer.Argument(help="Tasks to map; all when left out.")] = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Find the best adapters of each task. Ctrl-C loses nothing: start it again and it goes on."""
    from lorauter_integrations.mapping import map_tasks

    settings = Settings.read(config)
    lorauter = build(settings)
    ledger = settings.locate(settings.mapping.ledger)
    with MappingBar(quiet=as_json) as bar, lorauter.index:
        rankings = list(
            map_tasks(
                lorauter.index,
                lorauter.engine,
                settings.mapping,
                ledger,
                names=tasks or (),
                on_progress=bar.update,
            )
        )
    if as_json:
        print_json([{"task": r.task, "adapter": r.best.adapter, "score": r.best.score, "base": r.base.score,
                     "questions": r.questions} for r in rankings])  # fmt: skip
        return
    print_rankings(rankings, f"{len(rankings)} tasks mapped")
    console.print(bar.summary(), highlight=False)
