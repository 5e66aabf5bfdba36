"""The commands. Those that do not need the base model do not load it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from lorauter_integrations._version import __version__
from lorauter_integrations.cli.output import (
    console,
    pool_as_dict,
    print_json,
    print_pool,
    print_rankings,
    print_route,
    table,
)
from lorauter_integrations.cli.progress import MappingBar
from lorauter_integrations.generation import Message
from lorauter_integrations.lorauter import Choice, LoRAuter, build, open_index, open_router
from lorauter_integrations.pool import AdapterPool
from lorauter_integrations.settings import DEFAULT_FILE, Settings
from lorauter_integrations.task import Task, find_task_folders

app = typer.Typer(
    help="Route every LLM call to the right mixture of LoRA adapters.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
pool_app = typer.Typer(help="The folder of adapters.", no_args_is_help=True)
tasks_app = typer.Typer(help="The tasks in the index.", no_args_is_help=True)
app.add_typer(pool_app, name="pool")
app.add_typer(tasks_app, name="tasks")

Config = Annotated[Path, typer.Option("--config", "-c", help="The settings file.", envvar="LORAUTER_CONFIG")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]
DEFAULT_CONFIG = Path(DEFAULT_FILE)


def _version(wanted: bool) -> None:
    if wanted:
        console.print(f"lorauter {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    pass


@pool_app.command("check")
def pool_check(
    directory: Annotated[Path | None, typer.Argument(help="The pool; the settings' when left out.")] = None,
    config: Config = DEFAULT_CONFIG,
    model: Annotated[str, typer.Option(help="Base model to check against; the settings' if empty.")] = "",
    strict: Annotated[bool, typer.Option(help="Exit with 1 when an adapter is refused.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say which adapters can be used, and why the others cannot. No weights of the base model are read."""
    from lorauter_integrations.engines.loading import model_shapes

    needs_settings = not (model and directory)
    settings = Settings.read(config) if needs_settings else Settings(model={"name": model})
    shapes = model_shapes(settings.weights(model or settings.model.name))
    pool = AdapterPool.from_folder(directory or settings.locate(settings.pool.path), shapes)
    if as_json:
        print_json(pool_as_dict(pool))
    else:
        print_pool(pool)
    if not pool or (strict and pool.refused):
        raise typer.Exit(1)


@tasks_app.command("add")
def tasks_add(
    paths: Annotated[list[Path], typer.Argument(help="Task folders, or folders of task folders.")],
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Add tasks, or replace those of the same name."""
    tasks = [Task.from_folder(folder) for folder in find_task_folders(paths)]
    with open_index(Settings.read(config)) as index:
        index.add(tasks)
        rankings = index.adapter_map()
        for task in tasks:
            mapped = task.name in rankings
            count = f"{len(task.examples)} examples, {task.metric}"
            console.print(f"{task.name}: {count}{', still mapped' if mapped else ''}", highlight=False)
            if len(task.examples) < 20:
                console.print(f"  only {len(task.examples)} examples; 20 to 200 give a firm ranking")


@tasks_app.command("list")
def tasks_list(config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Show the tasks and what they are mapped to."""
    with open_index(Settings.read(config)) as index:
        tasks, rankings = index.tasks(), index.adapter_map()
    found = {task.name: rankings.get(task.name) for task in tasks}
    adapters = {n: (r.best.adapter or "(base model)") if r else "not mapped" for n, r in found.items()}
    if as_json:
        print_json(
            [
                {
                    "task": task.name,
                    "description": task.description,
                    "metric": task.metric,
                    "examples": len(task.examples),
                    "mapped": found[task.name] is not None,
                    "adapter": r.best.adapter if (r := found[task.name]) else None,
                }
                for task in tasks
            ]
        )
        return
    rows = [(t.name, str(len(t.examples)), str(t.metric), adapters[t.name], t.description) for t in tasks]
    columns = ("task", "examples", "metric", "adapter", "description")
    table(f"{len(tasks)} tasks", columns, rows, ("examples",))


@tasks_app.command("remove")
def tasks_remove(names: Annotated[list[str], typer.Argument()], config: Config = DEFAULT_CONFIG) -> None:
    """Forget tasks and their rankings."""
    with open_index(Settings.read(config)) as index:
        for name in names:
            index.remove(name)
            console.print(f"removed {name}", highlight=False)


@app.command("map")
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
    lorauter = build(Settings.read(config))
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
