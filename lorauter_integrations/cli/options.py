"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lorauter_integrations.settings import DEFAULT_FILE

DEFAULT_CONFIG = Path(DEFAULT_FILE)
Config = Annotated[Path, typer.Option("--config", "-c", help="The settings file.", envvar="LORAUTER_CONFIG")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]
