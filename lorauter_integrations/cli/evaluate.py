"""The command `lorauter evaluate`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorauter_integrations._version import __version__
from lorauter_integrations.adapter_map import AdapterMap
from lorauter_integrations.cli.options import DEFAULT_CONFIG, AsJson, Config
from lorauter_integrations.cli.output import console, print_json, table
from lorauter_integrations.cli.progress import MappingBar
from lorauter_integrations.evaluation.latency import latencies
from lorauter_integrations.evaluation.methods import contenders
from lorauter_integrations.evaluation.quality import abstention, places, routing_quality
from lorauter_integrations.evaluation.regimes import regimes_of
from lorauter_integrations.evaluation.results import Results
from lorauter_integrations.evaluation.tested_task import TestedTask, read_tested_tasks
from lorauter_integrations.mapping import open_matcher
from lorauter_integrations.opening import open_encoder, open_engine
from lorauter_integrations.reports.evaluation_files import write_evaluation
from lorauter_integrations.routing import Encoder, RememberingEncoder
from lorauter_integrations.routing.task_index import KEPT
from lorauter_integrations.settings import Settings

if TYPE_CHECKING:
    from lorauter_integrations.engines.local import LocalEngine

MAP_EXAMPLES = 50
REMEMBERED = 200_000  # texts: all of an evaluation, a few hundred MB


def evaluate_command(  # noqa: PLR0913 - a command's options
    tasks: Annotated[list[Path], typer.Option("--tasks", help="Task folders with test.jsonl, or folders of them.")],
    config: Config = DEFAULT_CONFIG,
    pool: Annotated[
        Path | None, typer.Option("--pool", help="Folder of adapters; the settings' when left out.")
    ] = None,
    methods: Annotated[list[str] | None, typer.Option("--methods", help="A method; again for more. All.")] = None,
    regime: Annotated[list[str] | None, typer.Option("--regime", help="A regime; again for more. All.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Test examples a task.")] = None,
    map_examples: Annotated[
        int, typer.Option("--map-examples", min=1, help="Validation examples a task, by which it is mapped.")
    ] = MAP_EXAMPLES,
    far: Annotated[Path | None, typer.Option("--far", help="Texts far from every task, one a line.")] = None,
    query: Annotated[str, typer.Option("--query", help="A text to show on the map of tasks.")] = "",
    out: Annotated[Path, typer.Option("--out", help="Folder of answers and report.")] = Path(".lorauter/evaluation"),
    answers: Annotated[bool, typer.Option(help="Let the model answer; else only routing is measured.")] = True,
    latency: Annotated[bool, typer.Option(help="Measure how long routing takes.")] = True,
    as_json: AsJson = False,
) -> None:
    """Measure routing against other methods on tasks with test examples. Ctrl-C loses no answer."""
    changes: dict[str, Any] = {"pool": {"path": str(pool.resolve())}} if pool else {}
    settings = Settings.read(config, changes)
    tested = read_tested_tasks(tasks, limit)
    contenders(methods or ()), regimes_of(regime or ())  # a misspelt one is an error before the tasks are mapped
    encoders = {name: _encoder(settings, name) for name in ("ends", "head")}
    results = Results({}, {}, {}, [])
    if answers:
        results = _answered(settings, tested, encoders, methods, regime, map_examples, out)
    texts = far.read_text(encoding="utf-8").splitlines() if far else []
    results = replace(
        results,
        facts={**results.facts, "encoder": settings.encoder.factory or settings.encoder.name, **_counts(tested)},
        routing=routing_quality(tested, encoders),
        abstention=abstention(tested, encoders["ends"], texts),
        places=places(tested, encoders["ends"], query or tested[0].tests[0].text),
        latency=latencies(open_encoder(settings), [task.tests[0].text for task in tested]) if latency else (),
    )
    files = write_evaluation(results, out)
    if as_json:
        print_json([str(file) for file in files])
        return
    _show(results)
    for file in files:
        console.print(f"report: {file}", highlight=False, markup=False, soft_wrap=True)


def _encoder(settings: Settings, long_texts: str) -> Encoder:
    wanted = settings.encoder.model_copy(update={"long_texts": long_texts})
    return RememberingEncoder(open_encoder(settings.model_copy(update={"encoder": wanted})), REMEMBERED)


def _counts(tested: list[TestedTask]) -> dict[str, str]:
    return {
        "tasks that are routed among": str(len(tested)),
        "their test inputs": str(sum(len(task.tests) for task in tested)),
        "version": __version__,
    }


def _answered(
    settings: Settings,
    tested: list[TestedTask],
    encoders: dict[str, Encoder],
    methods: list[str] | None,
    regimes: list[str] | None,
    map_examples: int,
    out: Path,
) -> Results:
    from lorauter_integrations.evaluation.run import Evaluation

    engine = open_engine(settings)
    evaluation = Evaluation(
        tested,
        engine,
        encoders,
        _mapped(settings, tested, engine, map_examples, out),
        out,
        partial(_over, settings),
        on_progress=lambda text: console.print(f"[dim]{text}[/]", highlight=False),
    )
    return evaluation.run(methods or (), regimes or ())


def _mapped(
    settings: Settings, tested: list[TestedTask], engine: LocalEngine, map_examples: int, out: Path
) -> AdapterMap:
    """The rankings of the tasks that are answered, by some of their validation examples."""
    from lorauter_integrations.evaluation.run import scorable

    few = [replace(one.task, examples=one.task.examples[:map_examples]) for one in scorable(tested, engine)]
    wanted = settings.mapping.model_copy(update={"shortlist": max(settings.mapping.shortlist, len(engine.adapters))})
    with MappingBar(quiet=False) as bar:
        matcher = open_matcher(engine, wanted, out / "ledger.jsonl", on_progress=bar.update)
        return AdapterMap([ranking.top(KEPT) for ranking in matcher.match(few, engine.adapters)])  # as in an index


def _over(settings: Settings, folder: Path) -> LocalEngine:
    """An engine over averaged adapters."""
    pool = settings.pool.model_copy(update={"path": str(folder), "cache": "", "pin": ()})
    return open_engine(settings.model_copy(update={"pool": pool}))


def _show(results: Results) -> None:
    if results.scores:
        rows = []
        for method in results.methods:
            found = [results.score(method, regime) for regime in results.regimes]
            rows.append((method, *(_cell(one) for one in found)))
        table("score, in per cent of the oracle, with 95 % interval", ("method", *results.regimes), rows)
    rows = [(one.preset, f"{one.top1:.3f}", f"{one.top3:.3f}") for one in results.routing]
    table("routed to their own task", ("preset", "first", "among three"), rows)
    if results.abstention:
        console.print(
            f"abstains on {results.abstention.right:.1%} of the far texts and {results.abstention.false:.1%} of the "
            "tasks' test inputs",
            highlight=False,
        )


def _cell(score: Any) -> str:
    if score is None:
        return ""
    return f"{100 * score.score.value:.1f} ({100 * score.score.low:.1f} to {100 * score.score.high:.1f})"


__all__ = ["evaluate_command"]
