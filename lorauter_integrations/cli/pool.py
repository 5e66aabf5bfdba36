"""Commands on the folder of adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lorauter_integrations.cli.options import DEFAULT_CONFIG, AsJson, Config
from lorauter_integrations.cli.output import pool_as_dict, print_json, print_pool
from lorauter_integrations.pool import AdapterPool
from lorauter_integrations.settings import Settings

pool_app = typer.Typer(help="The folder of adapters.", no_args_is_help=True)


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
