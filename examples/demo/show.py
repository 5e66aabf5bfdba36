"""How the demo's steps are printed: the step, its route, the answer, and the base model's answer."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

console = Console()


def in_words(route: dict[str, Any]) -> str:
    """A route from a response's metadata as one line."""
    tasks = ", ".join(f"{match['task']} {match['weight']:.2f}" for match in route["tasks"])
    adapters = " + ".join(f"{weight:.2f} {name}" for name, weight in route["adapters"].items())
    return f"{tasks}  ->  {adapters or 'base model'}"


def show_step(step: str, route: dict[str, Any], answer: str, base: str) -> None:
    """One step of a chain."""
    console.print(Text(f"\n{step}", style="bold"))
    for label, text, style in (
        ("route", in_words(route), "dim"),
        ("routed answer", answer, "green"),
        ("base model", base, "red"),
    ):
        console.print(Text(f"  {label:>13}: ", style="dim") + Text(" ".join(text.split())[:300], style=style))
