"""The commands `lorauter pool add` and `lorauter pool search`."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from lorauter_integrations.cli.options import DEFAULT_CONFIG, AsJson, Config
from lorauter_integrations.cli.output import errors, print_json, table
from lorauter_integrations.cli.pool import pool_app
from lorauter_integrations.errors import PoolError
from lorauter_integrations.settings import Settings

if TYPE_CHECKING:
    from lorauter_integrations.pool import BaseShapes
    from lorauter_integrations.pool.hub import Criteria, Found, HubLocation, Outcome

Pool = Annotated[Path | None, typer.Option("--pool", help="The pool's folder; the settings' when left out.")]
AllowBin = Annotated[
    bool, typer.Option("--allow-bin", help="Take adapter_model.bin (a pickle) where there is nothing else.")
]
StrictBase = Annotated[bool, typer.Option("--strict-base", help="Refuse adapters that do not name this base model.")]


@pool_app.command("add")
def pool_add(
    locations: Annotated[
        list[str], typer.Argument(help="hub:ORG/NAME[@REVISION][/FOLDER], a file of such lines, or - to read them.")
    ],
    pool: Pool = None,
    config: Config = DEFAULT_CONFIG,
    strict_base: StrictBase = False,
    allow_bin: AllowBin = False,
    offline: Annotated[bool, typer.Option("--offline", help="Make no call; use what is on this machine.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fetch adapters from the Hugging Face Hub. Configurations are judged first; stopped, it goes on from there."""
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported, which reads it then
    from lorauter_integrations.pool.hub import HubLocation

    wanted = [HubLocation.parse(line) for line in dict.fromkeys(_lines(locations))]
    _add(wanted, pool, config, strict_base=strict_base, allow_bin=allow_bin, as_json=as_json)


@pool_app.command("search")
def pool_search(
    base: Annotated[str, typer.Option("--base", help="The base model's name on the Hub.")],
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    add: Annotated[bool, typer.Option("--add", help="Add them all to the pool.")] = False,
    pool: Pool = None,
    config: Config = DEFAULT_CONFIG,
    strict_base: StrictBase = False,
    allow_bin: AllowBin = False,
    as_json: AsJson = False,
) -> None:
    """List the Hub's adapters of a base model, those with most downloads first."""
    from lorauter_integrations.pool.hub import Hub, HubLocation

    found = Hub().search(base, limit)
    if add:
        wanted = [HubLocation(model.repo) for model in found]
        _add(wanted, pool, config, strict_base=strict_base, allow_bin=allow_bin, as_json=as_json)
    elif as_json:
        print_json([asdict(model) for model in found])
    else:
        _print_found(found, base)


def _lines(arguments: Iterable[str]) -> Iterable[str]:
    """Each location: as it is, or from the lines of a file or of the standard input."""
    for argument in arguments:
        if argument.startswith("hub:"):
            yield argument
            continue
        lines = sys.stdin.read().splitlines() if argument == "-" else _read_lines(Path(argument))
        yield from (line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))


def _read_lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PoolError(
            f"{str(file)!r} is neither a location on the Hub nor a file of them: {error}",
            hint="write hub:ORG/NAME, hub:ORG/NAME@REVISION or hub:ORG/NAME@REVISION/FOLDER",
        ) from error


def _add(
    wanted: Sequence[HubLocation],
    pool: Path | None,
    config: Path,
    *,
    strict_base: bool,
    allow_bin: bool,
    as_json: bool,
) -> None:
    from lorauter_integrations.pool.hub import Hub, Intake

    folder, criteria = _criteria(pool, config)
    criteria = replace(criteria, strict_base=strict_base, allow_bin=allow_bin)
    with DownloadBar() as bar:
        intake = Intake(folder, Hub(on_bytes=bar.update), criteria)
        outcomes = [outcome for location in wanted for outcome in intake.add(location)]
    if as_json:
        print_json([asdict(outcome) for outcome in outcomes])
    else:
        _print_outcomes(outcomes)
    if any(outcome.state == "failed" for outcome in outcomes):
        raise typer.Exit(1)


def _criteria(pool: Path | None, config: Path) -> tuple[Path, Criteria]:
    """The pool's folder, and the settings' base model; a named pool does without settings."""
    from lorauter_integrations.pool.hub import Criteria

    if pool and config == DEFAULT_CONFIG and not config.exists():
        return pool, Criteria()
    settings = Settings.read(config)
    model = settings.weights(settings.model.name)
    criteria = Criteria(base=settings.model.name, shapes=lambda: _shapes(model))
    return pool or settings.locate(settings.pool.path), criteria


@cache
def _shapes(model: str) -> BaseShapes:
    from lorauter_integrations.engines.loading import model_shapes

    return model_shapes(model)


def _print_outcomes(outcomes: Sequence[Outcome]) -> None:
    counts = Counter(outcome.state for outcome in outcomes)
    rows = [
        (it.adapter, it.state, f"{it.size / 1e6:.1f}" if it.size else "", it.commit[:8], it.reason) for it in outcomes
    ]
    title = ", ".join(f"{count} {state}" for state, count in counts.items())
    table(title or "nothing to add", ("adapter", "", "MB", "commit", "reason"), rows, ("MB",))


def _print_found(found: Sequence[Found], base: str) -> None:
    rows = [
        (it.repo, str(it.downloads), str(it.likes), it.changed, f"{it.size / 1e6:.1f}" if it.size else "")
        for it in found
    ]
    columns = ("adapter", "downloads", "likes", "changed", "MB")
    table(f"{len(found)} adapters of {base}", columns, rows, ("downloads", "likes", "MB"))


class DownloadBar:
    """Shows the file that arrives while the block is open; nothing when the error output is no terminal."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(20),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=errors,
            transient=True,
            disable=not errors.is_terminal,
        )
        self._task = self._bar.add_task("", total=None)
        self._file = ""

    def __enter__(self) -> DownloadBar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, file: str, arrived: int, size: int) -> None:
        """As `Hub` calls it."""
        if file != self._file:
            self._file = file
            self._bar.reset(self._task, description=file, total=size)
        self._bar.update(self._task, completed=arrived)


__all__ = ["pool_app"]
