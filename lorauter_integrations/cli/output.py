"""How the command line shows things: tables for people, JSON for scripts. Knows rich only."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorauter_integrations.adapter_map import Ranking
from lorauter_integrations.errors import LoRAuterError
from lorauter_integrations.pool import AdapterPool
from lorauter_integrations.routing import Route

console = Console()
errors = Console(stderr=True)


def print_json(value: Any) -> None:
    """One JSON document, as it is, for a script."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_error(error: LoRAuterError) -> None:
    """What happened, and the hint."""
    errors.print(Text("Error: ", style="bold red") + Text(error.message))
    if error.hint:
        errors.print(Text("Hint: ", style="bold") + Text(error.hint))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """A table; the columns named in `right` hold numbers."""
    drawn = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        drawn.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*map(Text, row))  # Text: a name may hold square brackets
    console.print(drawn)


def print_pool(pool: AdapterPool) -> None:
    """The adapters that may be used, and those refused with the reason."""
    rows = [
        (a.name, ",".join(map(str, a.ranks)), _short(a.targets), f"{a.size / 1e6:.1f}", a.content_hash[:8])
        for a in pool.values()
    ]
    table(
        f"{len(pool)} adapters can be used",
        ("adapter", "rank", "targets", "MB", "hash"),
        rows,
        ("rank", "MB"),
    )
    if pool.refused:
        table(f"{len(pool.refused)} refused", ("adapter", "reason"), sorted(pool.refused.items()))


def _short(targets: Sequence[str]) -> str:
    return " ".join(target.removesuffix("_proj") for target in targets)


def pool_as_dict(pool: AdapterPool) -> dict[str, Any]:
    """The same for a script."""
    facts = {
        a.name: {"ranks": a.ranks, "targets": a.targets, "bytes": a.size, "hash": a.content_hash}
        for a in pool.values()
    }
    return {"adapters": facts, "refused": dict(pool.refused)}


def print_rankings(rankings: Sequence[Ranking], title: str) -> None:
    """Task, winner, score, the base's score, gain, cost."""
    rows = [
        (
            r.task,
            r.best.adapter or "(base model)",
            f"{r.best.score:.3f}",
            f"{r.base.score:.3f}",
            f"{r.gain:+.3f}",
            str(r.questions),
        )
        for r in rankings
    ]
    columns = ("task", "adapter", "score", "base", "gain", "questions")
    table(title, columns, rows, columns[2:])


def print_route(route: Route) -> None:
    """Task, similarity, weight, adapter; then the mixture."""
    rows = [(m.task, f"{m.similarity:.3f}", f"{m.weight:.3f}", m.adapter or "(base model)") for m in route.matches]
    table(route.reason, ("task", "similarity", "weight", "adapter"), rows, ("similarity", "weight"))
    console.print(Text("mixture: ", style="bold") + Text(str(route.mixture)))
