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
from lorauter_integrations.pool import Adapter, AdapterPool
from lorauter_integrations.reports.summary import label, measured, next_best, number, printable, shortened
from lorauter_integrations.routing import Route

console = Console()
errors = Console(stderr=True)
ROWS = 20  # of a long table, before --all is asked for
COLUMNS = ("adapter", "rank", "targets", "MB", "hash", "note")


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


def print_pool(pool: AdapterPool, *, everything: bool = False) -> None:
    """How many adapters may be used, which, and why not the others.

    Args:
        pool: checked.
        everything: show every adapter; else at most `ROWS` of a kind, and many refused ones by their reason.
    """
    counts = pool_as_dict(pool)["summary"]
    console.print(
        f"{counts['usable']:,} usable, {counts['alone']:,} alone only, {counts['refused']:,} refused", highlight=False
    )
    for title, adapters in (
        ("adapters can be used", [a for a in pool.values() if not a.alone]),
        ("can be used alone only, with weight 1", [a for a in pool.values() if a.alone]),
    ):
        _long_table(f"{len(adapters):,} {title}", COLUMNS, [*map(_row, adapters)], everything)
    title = f"{len(pool.refused):,} refused"
    if everything or len(pool.refused) <= ROWS:
        _long_table(title, ("adapter", "reason"), sorted(pool.refused.items()), everything)
        return
    groups = [(f"{len(names):,}", reason, _some(names)) for reason, names in pool.refused_by_reason().items()]
    _long_table(title, ("count", "reason (of the first)", "adapters"), groups, everything)


def _long_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], everything: bool) -> None:
    if not rows:
        return
    shown = rows if everything else rows[:ROWS]
    table(title, columns, shown, ("rank", "MB", "count"))
    if len(shown) < len(rows):
        console.print(f"and {len(rows) - len(shown):,} more; --all shows them", highlight=False)


def _row(adapter: Adapter) -> Sequence[str]:
    ranks, targets = ",".join(map(str, adapter.ranks)), _short(adapter.targets)
    note = "; ".join(filter(None, [adapter.alone, *adapter.warnings]))
    return adapter.name, ranks, targets, f"{adapter.size / 1e6:.1f}", adapter.content_hash[:8], note


def _short(targets: Sequence[str]) -> str:
    return " ".join(target.removesuffix("_proj") for target in targets)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def pool_as_dict(pool: AdapterPool) -> dict[str, Any]:
    """The same for a script, with every adapter."""
    facts = {
        a.name: {
            "ranks": a.ranks,
            "targets": a.targets,
            "bytes": a.size,
            "hash": a.content_hash,
            "alone": a.alone,
            "warnings": list(a.warnings),
        }
        for a in pool.values()
    }
    alone = sum(bool(a.alone) for a in pool.values())
    summary = {"usable": len(pool) - alone, "alone": alone, "refused": len(pool.refused)}
    return {"summary": summary, "adapters": facts, "refused": dict(pool.refused)}


def print_rankings(rankings: Sequence[Ranking], title: str) -> None:
    """Task, winner, score and half its 95 % interval, the base's score, gain, who is level or next, cost.

    Names share what the numbers leave of the console's width; what is too much is left out of their middle.
    """
    room = max(21, (console.width - 54) // 3)
    rows = [
        (
            shortened(printable(r.task), room),
            shortened(label(r.best.adapter), room),
            measured(r.best),
            number(r.base.score),
            number(r.gain, "+"),
            shortened(next_best(r), room),
            f"{r.questions:,}",
        )
        for r in rankings
    ]
    columns = ("task", "winner", "score ±95 %", "base", "gain", "next", "questions")
    table(title, columns, rows, ("score ±95 %", "base", "gain", "questions"))


def print_route(route: Route) -> None:
    """Task, similarity, weight, adapter; then the mixture."""
    rows = [(m.task, f"{m.similarity:.3f}", f"{m.weight:.3f}", m.adapter or "(base model)") for m in route.matches]
    table(route.reason, ("task", "similarity", "weight", "adapter"), rows, ("similarity", "weight"))
    console.print(Text("mixture: ", style="bold") + Text(str(route.mixture)))
