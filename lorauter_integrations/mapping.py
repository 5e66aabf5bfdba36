"""A mapping run: the tasks of an index meet the adapters of an engine. Joins matching and routing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from lorauter_integrations.adapter_map import Ranking
from lorauter_integrations.engines import Engine
from lorauter_integrations.errors import MappingError, listing
from lorauter_integrations.lorauter import staleness
from lorauter_integrations.matching import (
    METRIC,
    SURE,
    TIES,
    Ledger,
    LikelihoodScorer,
    LocalProcesses,
    Matcher,
    MetricScorer,
    Progress,
    Rules,
    Scorer,
    Screen,
    Workers,
    copies_apart,
    halving_schedule,
    pool_hash,
    screened_schedule,
    uniform_schedule,
)
from lorauter_integrations.opening import open_engine
from lorauter_integrations.routing import TaskIndex
from lorauter_integrations.settings import MappingSettings, Settings
from lorauter_integrations.task import Task

SCORERS: Mapping[str, Callable[[Engine], Scorer]] = {
    "metric": MetricScorer,
    "log_likelihood": LikelihoodScorer,
}
SCHEDULES = {"screened": screened_schedule, "halving": halving_schedule, "uniform": uniform_schedule}
GRADIENTS = "gradients"  # folder beside the ledger


def map_tasks(
    index: TaskIndex,
    engine: Engine,
    settings: MappingSettings,
    ledger: str | Path,
    *,
    names: Sequence[str] = (),
    workers: Workers | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Iterator[Ranking]:
    """Rank the pool for each task; every ranking is stored in the index as soon as it is known.

    A run that is stopped at any point goes on from the ledger when it is started again, with the same result.

    Args:
        index: holds the tasks.
        engine: holds the pool.
        settings: what is scored, the schedule, the seed.
        ledger: file of all scores; tasks' gradients are kept in a folder beside it.
        names: the tasks to map; all when empty.
        workers: where adapters are measured, see `open_workers`; None is this process.
        on_progress: called after every batch.

    Raises:
        MappingError: there are no tasks, or no adapters.
        UnknownTaskError: a name that no task has.
    """
    known = index.tasks()
    tasks = [index.get(name) for name in names] or known
    if not tasks:
        raise MappingError("the task index is empty", hint="run `lorauter tasks add FOLDER` first")
    matcher = open_matcher(engine, settings, ledger, workers=workers, on_progress=on_progress)
    for ranking in matcher.match(tasks, engine.adapters, known=known):
        index.set_ranking(ranking)
        yield ranking


def open_matcher(
    engine: Engine,
    settings: MappingSettings,
    ledger: str | Path,
    *,
    workers: Workers | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Matcher:
    """The matcher of the settings.

    Args:
        engine: holds the pool.
        settings: what is scored, the schedule, the seed.
        ledger: file of all scores; tasks' gradients are kept in a folder beside it.
        workers: where adapters are measured; None is this process.
        on_progress: called after every batch.

    Raises:
        MappingError: the ledger cannot be read.
    """
    scores = Ledger(ledger)
    scorers = scorers_of(engine, settings)
    screen = None
    if settings.schedule == "screened":
        screen = Screen(engine, scores, Path(ledger).parent / GRADIENTS, size=settings.shortlist)
    return Matcher(
        scorers[METRIC],
        scores,
        rules=_rules(settings),
        screen=screen,
        ties=scorers.get(TIES),
        workers=workers,
        on_progress=on_progress,
    )


def _rules(settings: MappingSettings) -> Rules:
    sure = SURE if settings.schedule == "screened" else float("inf")
    return Rules(SCHEDULES[settings.schedule], sure, settings.seed, settings.batch, rules_text(settings))


def rules_text(settings: MappingSettings) -> str:
    """What decides a map beside scores, in words."""
    shortlist = f", shortlist {settings.shortlist}" if settings.schedule == "screened" else ""
    return f"schedule {settings.schedule}{shortlist}, seed {settings.seed}"


def scorers_of(engine: Engine, settings: MappingSettings) -> Mapping[str, Scorer]:
    """The scorer that decides, and the one that tells apart whom it cannot."""
    deciding = SCORERS[settings.score](engine)
    ties = settings.schedule == "screened" and settings.score != "log_likelihood"
    return {METRIC: deciding, TIES: LikelihoodScorer(engine)} if ties else {METRIC: deciding}


def worker_scorers(settings: Settings, identity: str, contents: Mapping[str, str]) -> Mapping[str, Scorer]:
    """The scorers of a worker process, with a model of its own.

    Args:
        settings: name model and pool.
        identity: the engine's of the run.
        contents: adapter -> content hash, of the run.

    Raises:
        MappingError: this worker's model or pool is another one; its scores would be taken for those of the run.
    """
    engine = open_engine(settings)
    own = _contents(engine)
    different = [name for name, content in contents.items() if own.get(name) != content]
    if engine.identity != identity or different:
        what = f"{len(different)} adapters, such as {different[0]!r}" if different else "the base model"
        raise MappingError(
            f"a worker finds other files than the mapping run: {what}",
            hint="they changed meanwhile (start again), or this machine has others at the same paths",
        )
    return scorers_of(engine, settings.mapping)


def _contents(engine: Engine) -> dict[str, str]:
    return {name: adapter.content_hash for name, adapter in engine.adapters.items()}


def open_workers(settings: Settings, engine: Engine) -> Workers | None:
    """The worker processes or machines that the settings ask for; None for this process alone.

    Args:
        settings: say how many, and where.
        engine: of the run; workers must find the same model and pool.

    Raises:
        MissingExtraError: Ray is asked for and not installed.
        MappingError: the workers cannot be started.
    """
    wanted = settings.mapping
    factory = partial(worker_scorers, settings, engine.identity, _contents(engine))
    if wanted.ray:
        from lorauter_integrations.matching.ray_workers import RayWorkers

        address = None if wanted.ray == "local" else wanted.ray
        return RayWorkers(factory, wanted.workers or 1, address=address, num_gpus=wanted.gpus_per_worker)
    return LocalProcesses(factory, wanted.workers) if wanted.workers else None


def task_states(
    index: TaskIndex, engine: Engine, settings: MappingSettings, ledger: str | Path
) -> dict[str, tuple[Ranking | None, str]]:
    """Each task's ranking, and why it must be mapped again; an empty text where it need not.

    Args:
        index: holds the tasks and their rankings.
        engine: holds the pool.
        settings: what would be scored now.
        ledger: tells which adapters have never been looked at.
    """
    rankings = index.adapter_map()
    scorer = scorers_of(engine, settings)[METRIC]
    looked_at = Ledger(ledger).adapters
    new = [name for name, adapter in copies_apart(engine.adapters).items() if adapter.content_hash not in looked_at]
    rules = rules_text(settings)
    states = {}
    for task in index.tasks():
        ranking = rankings.get(task.name)
        states[task.name] = ranking, _state(task, ranking, engine, scorer.identity(task), rules, new)
    return states


def _state(task: Task, ranking: Ranking | None, engine: Engine, identity: str, rules: str, new: Sequence[str]) -> str:
    if ranking is None:
        return "not mapped yet"
    if ranking.task_hash != task.content_hash:
        return "its examples or metric have changed"
    if wrong := staleness(ranking, engine):
        return wrong
    if ranking.scorer != identity:
        return "it was mapped by another metric or way of scoring"
    if ranking.rules != rules:
        return f"it was mapped with {ranking.rules or 'an earlier version'}, the settings say {rules}"
    if ranking.pool_hash != pool_hash(engine.adapters):
        added = f"; new or changed: {listing(new, limit=3)}" if new else ""
        return f"the pool has changed: it had {ranking.pool} adapters and has {len(engine.adapters)}{added}"
    return ""
