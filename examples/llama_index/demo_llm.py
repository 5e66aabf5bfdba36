"""The LLM of these examples: that of the demo, whose tasks `make demo` has mapped."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # every weight comes from an installed package

from rich.console import Console

from lorauter_integrations.llama_index import LoRAuterLLM

CONFIG = Path(__file__).parents[1] / "demo" / "lorauter.toml"
console = Console()


def demo_llm(**fields: Any) -> LoRAuterLLM:
    """The routed LLM; in an application this is `LoRAuterLLM.from_config("lorauter.toml")` alone.

    Args:
        fields: of `LoRAuterLLM`, such as `max_tokens=32`.
    """
    logging.basicConfig(level=logging.ERROR)
    llm = LoRAuterLLM.from_config(CONFIG, **fields)
    if not llm.lorauter.adapter_map:
        raise SystemExit("The demo's index holds no mapped task, so nothing can be routed. Run `make demo` first.")
    return llm


def nearest_task(route: dict[str, Any]) -> str:
    """The first task of a route, as `raw["lorauter"]` and `LoRAuterRouteEvent` hold it."""
    return route["tasks"][0]["task"]
