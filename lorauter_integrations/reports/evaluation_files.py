"""An evaluation's three files: values, text and page. Knows values and files only."""

from __future__ import annotations

from pathlib import Path

from lorauter_integrations.errors import LoRAuterError
from lorauter_integrations.evaluation.results import Results
from lorauter_integrations.reports.evaluation_markdown import evaluation_markdown
from lorauter_integrations.reports.evaluation_page import evaluation_page
from lorauter_integrations.reports.writing import write_whole, writing

HINT = "name a folder that may be written to"


def write_evaluation_page(results: Results, file: str | Path) -> None:
    """Write `evaluation_page` into a file; one that exists is replaced.

    Raises:
        LoRAuterError: the file cannot be written.
    """
    _write(Path(file), evaluation_page(results))


def write_evaluation(results: Results, folder: str | Path) -> list[Path]:
    """Write `results.json`, `evaluation.md` and `evaluation.html` into a folder, which is made; return their paths.

    Raises:
        LoRAuterError: a file cannot be written; those before it are.
    """
    texts = {
        "results.json": results.to_json() + "\n",
        "evaluation.md": evaluation_markdown(results),
        "evaluation.html": evaluation_page(results),
    }
    for name, text in texts.items():
        _write(Path(folder) / name, text)
    return [Path(folder) / name for name in texts]


def _write(file: Path, text: str) -> None:
    with writing(file, LoRAuterError, HINT):
        write_whole(file, text)
