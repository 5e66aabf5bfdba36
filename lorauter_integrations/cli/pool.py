"""Commands on the folder of adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lorauter_integrations.cli.options import DEFAULT_CONFIG, AsJson, Config
from lorauter_integrations.cli.output import errors, pool_as_dict, print_json, print_pool
from lorauter_integrations.opening import open_pool
from lorauter_integrations.settings import Settings

pool_app = typer.Typer(help="The folder of adapters.", no_args_is_help=True)


@pool_app.command("check")
def pool_check(
    directory: Annotated[Path | None, typer.Argument(help="The pool; the settings' when left out.")] = None,
    config: Config = DEFAULT_CONFIG,
    model: Annotated[str, typer.Option(help="Base model to check against; the settings' if empty.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Show every adapter, however many.")] = False,
    allow_bin: Annotated[
        bool, typer.Option("--allow-bin", help="Take adapter_model.bin (a pickle) where there is nothing else.")
    ] = False,
    strict_base: Annotated[
        bool, typer.Option("--strict-base", help="Refuse adapters that do not name this base model.")
    ] = False,
    strict: Annotated[bool, typer.Option(help="Exit with 1 when an adapter is refused.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say which adapters can be used, and why the others cannot. No weights of the base model are read."""
    from lorauter_integrations.engines.loading import model_shapes

    pool_options: dict[str, Any] = {"path": str(directory.absolute())} if directory else {}
    pool_options |= {name: True for name, given in (("allow_bin", allow_bin), ("strict_base", strict_base)) if given}
    if model and directory:  # then no settings are needed, and nothing is kept
        settings = Settings(model={"name": model}, pool={**pool_options, "cache": ""})
    else:
        settings = Settings.read(config, {"pool": pool_options} | ({"model": {"name": model}} if model else {}))
    shapes = model_shapes(settings.weights(settings.model.name))
    with errors.status("looking for adapters") as status:
        pool = open_pool(
            settings,
            shapes,
            on_progress=lambda done, total: status.update(f"{done:,} of {total:,} adapters checked"),
        )
    if as_json:
        print_json(pool_as_dict(pool))
    else:
        print_pool(pool, everything=everything)
    if not pool or (strict and pool.refused):
        raise typer.Exit(1)
