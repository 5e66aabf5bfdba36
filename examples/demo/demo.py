"""The main job on real weights: pool check, tasks, mapping, then a routed chain, query engine and agent.

    python examples/demo/demo.py

The second run reuses the index and the ledger and starts in seconds.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # every weight comes from an installed package

from chain import run_chain
from fill_pool import fill
from rich.console import Console

from lorauter_integrations import LoRAuter, Settings, Task
from lorauter_integrations.cli.output import print_pool, print_rankings
from lorauter_integrations.cli.progress import MappingBar
from lorauter_integrations.mapping import map_tasks
from lorauter_integrations.reports import write_page
from lorauter_integrations.reports.heat_map import draw_heat_map
from lorauter_integrations.task import find_task_folders

HERE = Path(__file__).parent
CONFIG = HERE / "lorauter.toml"
console = Console()


def heading(text: str) -> None:
    console.print(f"\n[bold cyan]== {text}")


def main() -> None:
    logging.basicConfig(level=logging.ERROR)
    started = time.monotonic()
    settings = Settings.read(CONFIG)
    heading("1. The pool: 48 contestants, and some that must not be used")
    fill(settings.locate(settings.pool.path), 48)
    lorauter = LoRAuter.from_config(CONFIG)
    print_pool(lorauter.engine.adapters)
    console.print(f"model, encoder and pool ready after {time.monotonic() - started:.0f} s")

    heading("2. The tasks go into Chroma, as vectors of their validation examples")
    lorauter.index.add([Task.from_folder(folder) for folder in find_task_folders([HERE / "tasks"])])
    console.print(", ".join(lorauter.index.names()))

    heading("3. Each task finds its best adapter by screening and successive halving (minutes, the first time)")
    ledger = settings.locate(settings.mapping.ledger)
    with MappingBar() as bar:
        run = map_tasks(lorauter.index, lorauter.engine, settings.mapping, ledger, on_progress=bar.update)
        rankings = list(run)
    print_rankings(rankings, "the map")
    console.print(bar.summary(), highlight=False)
    report = ledger.parent / "report"
    write_page(rankings, report / "mapping.html")
    draw_heat_map(rankings, report / "mapping.png")
    console.print(f"report: {report}/mapping.html and mapping.png", highlight=False, soft_wrap=True)

    heading("4. A LangChain chain: every step routes by itself")
    run_chain(CONFIG)
    from query_engine import run_query_engine

    heading("5. A LlamaIndex query engine over a ferry company's documents")
    run_query_engine(CONFIG, HERE / "documents", HERE / "questions.jsonl")
    from agent import run_agent

    heading("6. A LangChain agent that calls tools")
    run_agent(CONFIG)
    console.print(f"\nall done after {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
