"""The command `lorauter`. Reads settings, prints tables; all work is done by the package."""

from __future__ import annotations

import logging
import os
import sys

from lorauter_integrations.errors import LoRAuterError


def main() -> None:
    """Run the command line; one clear error and exit code 1 when something is wrong."""
    # Set before the libraries are loaded: they read these once.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    from lorauter_integrations.cli.app import app
    from lorauter_integrations.cli.output import print_error

    try:
        app()
    except LoRAuterError as error:
        print_error(error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
