"""What it costs to map tasks to a large, noisy pool: asking everything, the paper's schedule, and ours.

    python tests/benchmarks/wild_pool.py REAL_POOL WILD_POOL
    python tests/benchmarks/pool_mapping.py MODEL WILD_POOL TASKS [--tasks NAME ...] [--dear-adapters 200]
        [--dear-tasks 4] [--examples 100] [--test 100] [--state FOLDER] [--out FILE.json]

The cost is counted in forward passes of one example through the model, which does not depend on the machine; a
backward pass counts as two more. Ours is run on the whole pool; the two dear ways, where `--dear-adapters` says so,
on a part of it that holds all real adapters, and their cost for the whole pool is computed. Winners are scored on
test examples that no mapping has seen, as is each task's own adapter: the one of the pool with the task's name.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lorauter_integrations import Example, Ledger, LocalEngine, Matcher, MetricScorer, Ranking, Task
from lorauter_integrations.engines import Limits
from lorauter_integrations.matching import (
    SURE,
    LikelihoodScorer,
    Progress,
    Rules,
    Screen,
    halving_schedule,
    screened_schedule,
    uniform_schedule,
)
from lorauter_integrations.matching.halving import cost
from lorauter_integrations.matching.screening import EXAMPLES
from lorauter_integrations.pool import Adapter
from lorauter_integrations.task import read_examples

TASKS = (
    "ag_news", "atis_intent", "e2e_nlg", "glue_qqp", "ner_news", "snli",
    "squad_v1", "sst2", "text_to_sql", "tool_selection", "trec_question_type", "true_case",
)  # fmt: skip
BACKWARD = 3  # forward passes that a forward and a backward pass together are counted as


@dataclass
class Way:
    """How one way of mapping went.

    Attributes:
        rankings: of the tasks it was run on.
        adapters: in the pool it was run on.
        passes: forward passes of that run.
        whole: forward passes for the whole pool and all tasks.
        seconds: of that run.
    """

    rankings: list[Ranking]
    adapters: int
    passes: int
    whole: int
    seconds: float


class Bench:
    """Ways of mapping on one engine, with one ledger for all."""

    def __init__(self, engine: LocalEngine, tasks: Sequence[Task], state: Path, batch: int) -> None:
        self.engine, self.tasks, self.state, self.batch = engine, tasks, state, batch
        self.ledger = Ledger(state / "ledger.jsonl")
        self.pool = dict(engine.adapters)

    def ours(self) -> Way:
        screen = Screen(self.engine, self.ledger, self.state / "gradients")
        rules = Rules(screened_schedule, SURE, batch=self.batch)
        matcher = self._matcher(rules, screen=screen, ties=LikelihoodScorer(self.engine))
        way = self._run(matcher, self.tasks, self.pool)
        way.passes += BACKWARD * EXAMPLES * len(self.tasks)
        way.whole = way.passes
        return way

    def dear(self, rules: Rules, adapters: int, tasks: int) -> Way:
        """A way that runs every adapter, on a part of the pool and of the tasks."""
        part = some(self.pool, adapters)
        way = self._run(self._matcher(rules), self.tasks[:tasks], part)
        way.whole = sum(
            cost(rules.schedule(len(self.pool), len(task.examples)), len(self.pool)) for task in self.tasks
        )
        return way

    def _matcher(self, rules: Rules, **more: object) -> Matcher:
        return Matcher(MetricScorer(self.engine), self.ledger, rules=rules, on_progress=self._say, **more)

    def _run(self, matcher: Matcher, tasks: Sequence[Task], pool: dict[str, Adapter]) -> Way:
        started = time.monotonic()
        rankings = []
        for ranking in matcher.match(tasks, pool, known=self.tasks):
            rankings.append(ranking)
            print(f"  {ranking.task}: {ranking.best.adapter} {ranking.best.score:.3f}", flush=True)
        asked = sum(ranking.questions for ranking in rankings)
        return Way(rankings, len(pool), asked, asked, time.monotonic() - started)

    _said = 0.0

    def _say(self, state: Progress) -> None:
        if time.monotonic() - self._said > 30:
            self._said = time.monotonic()
            text = f"screening {state.screened}/{state.pool}" if state.pool else f"{state.task} rung {state.rung}"
            print(f"  {text}: {state.answered}/{state.total} in {state.seconds:.0f} s", flush=True)


def some(pool: dict[str, Adapter], adapters: int) -> dict[str, Adapter]:
    """All real adapters (their names do not end in `-0123`) and the first variants of each kind."""

    def number(name: str) -> int:
        found = re.search(r"-(\d+)$", name)
        return int(found[1]) if found else -1

    return {name: pool[name] for name in sorted(pool, key=lambda name: (number(name), name))[:adapters]}


def read_task(folder: Path, examples: int) -> Task:
    facts = json.loads((folder / "task.json").read_text())
    return Task(folder.name, facts["metric"], read_examples(folder / "validation.jsonl")[:examples])


class TestScores:
    """Mean scores on test examples, each asked once."""

    __test__ = False

    def __init__(self, engine: LocalEngine, folder: Path, examples: int) -> None:
        self.scorer, self.folder, self.examples = MetricScorer(engine), folder, examples
        self.known: dict[tuple[str, str], float] = {}

    def __call__(self, task: Task, adapter: str) -> float:
        if (task.name, adapter) not in self.known:
            examples: list[Example] = read_examples(self.folder / task.name / "test.jsonl")[: self.examples]
            scores = self.scorer.score(task, [(adapter, example) for example in examples])
            self.known[task.name, adapter] = sum(scores) / len(scores)
        return self.known[task.name, adapter]


def main() -> None:
    args = arguments()
    started = time.monotonic()
    limits = Limits(rows=args.batch, queue=4 * args.batch, adapter_bytes=4 << 30)
    engine = LocalEngine.load(args.model, args.pool, dtype=args.dtype, device=args.device, limits=limits)
    print(
        f"{len(engine.adapters)} adapters checked and the model loaded in {time.monotonic() - started:.0f} s",
        flush=True,
    )
    tasks = [read_task(args.tasks_folder / name, args.examples) for name in args.tasks]
    bench = Bench(engine, tasks, args.state, args.batch)
    ways = {"ours": bench.ours()}
    for name, rules in (("paper", Rules(halving_schedule)), ("uniform", Rules(uniform_schedule))):
        if name in args.ways:
            print(name, flush=True)
            rules = Rules(rules.schedule, batch=args.batch)
            ways[name] = bench.dear(rules, args.dear_adapters or len(bench.pool), args.dear_tasks or len(tasks))
    test = TestScores(engine, args.tasks_folder, args.test)
    report(ways, bench, test, args.out)


def report(ways: dict[str, Way], bench: Bench, test: TestScores, out: Path | None) -> None:
    rows = []
    for task in bench.tasks:
        row: dict[str, object] = {"task": task.name, "own": test(task, task.name), "base": test(task, "")}
        for name, way in ways.items():
            ranking = next((ranking for ranking in way.rankings if ranking.task == task.name), None)
            if ranking:
                row |= {f"{name}_winner": ranking.best.adapter, name: test(task, ranking.best.adapter)}
                row |= {f"{name}_validation": ranking.best.score, f"{name}_questions": ranking.questions}
        rows.append(row)
        print(json.dumps(row), flush=True)
    summary = {}
    for name, way in ways.items():
        mapped = [row for row in rows if name in row]
        summary[name] = {
            "adapters": way.adapters,
            "tasks": len(mapped),
            "passes": way.passes,
            "passes_whole_pool": way.whole,
            "seconds": way.seconds,
            "test": mean([row[name] for row in mapped]),
            "own_on_the_same_tasks": mean([row["own"] for row in mapped]),
            "ours_on_the_same_tasks": mean([row["ours"] for row in mapped]),
        }
        print(f"{name}: {json.dumps(summary[name])}", flush=True)
    for name, way in ways.items():
        print(f"forward passes for the whole pool, {name} / ours: {way.whole / ways['ours'].whole:.1f}", flush=True)
    if out:
        facts = {"pool": len(bench.pool), "examples": len(bench.tasks[0].examples), "ways": summary, "tasks": rows}
        out.write_text(json.dumps(facts, indent=1) + "\n")


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="hub name, folder or .gguf file")
    parser.add_argument("pool", type=Path)
    parser.add_argument("tasks_folder", type=Path)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--ways", nargs="*", default=["paper", "uniform"], choices=["paper", "uniform"])
    parser.add_argument("--dear-adapters", type=int, default=200, help="0 is the whole pool")
    parser.add_argument("--dear-tasks", type=int, default=4, help="0 is all")
    parser.add_argument("--examples", type=int, default=100, help="validation examples of a task")
    parser.add_argument("--test", type=int, default=100, help="test examples of a task")
    parser.add_argument("--state", type=Path, default=Path(".lorauter/pool_mapping"))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
