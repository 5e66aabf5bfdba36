"""A mapping run: the tasks of an index meet the adapters of an engine. Joins matching and routing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from lorauter_integrations.adapter_map import Ranking
from lorauter_integrations.engines import Engine
from lorauter_integrations.errors import MappingError
from lorauter_integrations.matching import (
    Ledger,
    LikelihoodScorer,
    Matcher,
    MetricScorer,
    Progress,
    Scorer,
    halving_schedule,
    uniform_schedule,
)
from lorauter_integrations.routing import TaskIndex
from lorauter_integrations.settings import MappingSettings

SCORERS: Mapping[str, Callable[[Engine], Scorer]] = {
    "metric": MetricScorer,
    "log_likelihood": LikelihoodScorer,
}
SCHEDULES = {"halving": halving_schedule, "uniform": uniform_schedule}


def map_tasks(
    index: TaskIndex,
    engine: Engine,
    settings: MappingSettings,
    ledger: str | Path,
    *,
    names: Sequence[str] = (),
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Iterator[Ranking]:
    """Rank the pool for each task; every ranking is stored in the index as soon as it is known.

    A run that is stopped at any point goes on from the ledger when it is started again, with the same result.

    Args:
        index: holds the tasks.
        engine: holds the pool.
        settings: what is scored, the schedule, the seed.
        ledger: file of all scores.
        names: the tasks to map; all when empty.
        on_progress: called after every batch.

    Raises:
        MappingError: there are no tasks, or no adapters.
        UnknownTaskError: a name that no task has.
    """
    tasks = [index.get(name) for name in names] or index.tasks()
    if not tasks:
        raise MappingError("the task index is empty", hint="run `lorauter tasks add FOLDER` first")
    matcher = Matcher(
        SCORERS[settings.score](engine),
        Ledger(ledger),
        schedule=SCHEDULES[settings.schedule],
        seed=settings.seed,
        batch=settings.batch,
        on_progress=on_progress,
    )
    for ranking in matcher.match(tasks, engine.adapters):
        index.set_ranking(ranking)
        yield ranking
