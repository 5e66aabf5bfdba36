"""Commands on the tasks in the index."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lorauter_integrations.cli.options import DEFAULT_CONFIG, AsJson, Config
from lorauter_integrations.cli.output import console, print_json, table
from lorauter_integrations.opening import open_index
from lorauter_integrations.settings import Settings
from lorauter_integrations.task import Task, find_task_folders

tasks_app = typer.Typer(help="The tasks in the index.", no_args_is_help=True)


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
