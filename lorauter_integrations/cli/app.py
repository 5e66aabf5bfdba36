"""The commands. Those that do not need the base model do not load it."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from lorauter_integrations._version import __version__
from lorauter_integrations.choice import Choice
from lorauter_integrations.cli.evaluate import evaluate_command
from lorauter_integrations.cli.hub import pool_app  # with the commands of cli.pool
from lorauter_integrations.cli.mapping import map_command
from lorauter_integrations.cli.options import DEFAULT_CONFIG, AsJson, Config
from lorauter_integrations.cli.output import console, print_json, print_route
from lorauter_integrations.cli.tasks import tasks_app
from lorauter_integrations.generation import Message
from lorauter_integrations.lorauter import LoRAuter
from lorauter_integrations.opening import open_index, open_router
from lorauter_integrations.settings import Settings

app = typer.Typer(
    help="Route every LLM call to the right mixture of LoRA adapters.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(pool_app, name="pool")
app.add_typer(tasks_app, name="tasks")
app.command("map")(map_command)
app.command("evaluate")(evaluate_command)


def _version(wanted: bool) -> None:
    if wanted:
        console.print(f"lorauter {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    pass


@app.command()
def route(
    text: Annotated[str, typer.Argument(help="What a user or a chain step would say.")],
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Show where a text goes, and why. The base model is not loaded."""
    settings = Settings.read(config)
    with open_index(settings) as index:
        found = open_router(settings, index).route(text)
    if as_json:
        print_json(found.as_dict())
    else:
        print_route(found)


@app.command()
def chat(
    config: Config = DEFAULT_CONFIG,
    task: Annotated[str | None, typer.Option(help="Use this task's adapter, do not route.")] = None,
    system: Annotated[str, typer.Option(help="System message.")] = "",
) -> None:
    """Talk to the routed model; every answer shows its route. An empty line ends."""
    lorauter = LoRAuter.from_config(config)
    history = [Message("system", system)] if system else []
    with lorauter.index:
        while text := _ask():
            history.append(Message("user", text))
            history.append(Message("assistant", _answer(lorauter, history, task)))


def _ask() -> str:
    try:
        return console.input("[bold]you:[/bold] ").strip()
    except EOFError:
        return ""


def _answer(lorauter: LoRAuter, history: list[Message], task: str | None) -> str:
    found, deltas = lorauter.stream(history, choice=Choice(task=task))
    console.print(Text(found.explain(), style="dim"))
    parts = []
    for delta in deltas:
        parts.append(delta.text)
        console.print(Text(delta.text), end="")
    console.print()
    return "".join(parts)


__all__ = ["app"]
