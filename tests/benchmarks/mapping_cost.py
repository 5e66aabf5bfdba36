"""What screening and successive halving save against asking every adapter every example, and what they lose.

    python tests/benchmarks/mapping_cost.py examples/demo/lorauter.toml [--out FILE.json]

All use the settings' ledger, so a mapping run that was made before is not paid again; the cost is counted in
questions (one adapter, one example), which does not depend on the machine.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lorauter_integrations import Ledger, LoRAuter, Matcher, MetricScorer, Ranking, Settings
from lorauter_integrations.cli.progress import MappingBar
from lorauter_integrations.matching import (
    SURE,
    Rules,
    Screen,
    halving_schedule,
    screened_schedule,
    uniform_schedule,
)


def row(found: dict[str, Ranking]) -> dict[str, object]:
    """One task's comparison; every score here is on the whole validation set."""
    uniform = found["uniform"]
    full = {score.adapter: score.score for score in uniform.scores}
    facts: dict[str, object] = {"task": uniform.task, "best_score": uniform.best.score, "base": uniform.base.score}
    facts["tied_with_the_best"] = sum(score.score == uniform.best.score for score in uniform.scores)
    for name, ranking in found.items():
        facts |= {name: ranking.best.adapter, f"{name}_score": full[ranking.best.adapter]}
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, help="write the table as JSON")
    args = parser.parse_args()
    settings = Settings.read(args.config)
    lorauter = LoRAuter.from_config(args.config)
    ledger = Ledger(settings.locate(settings.mapping.ledger))
    tasks, scorer = lorauter.index.tasks(), MetricScorer(lorauter.engine)
    screen = Screen(lorauter.engine, ledger)
    ways: dict[str, tuple[Rules, Screen | None]] = {
        "screened": (Rules(screened_schedule, SURE), screen),
        "halving": (Rules(halving_schedule), None),
        "uniform": (Rules(uniform_schedule), None),
    }
    maps = {}
    for name, (rules, shortlists) in ways.items():
        with MappingBar() as bar:
            matcher = Matcher(scorer, ledger, rules=rules, screen=shortlists, on_progress=bar.update)
            found = matcher.match(tasks, lorauter.engine.adapters)
            maps[name] = {ranking.task: ranking for ranking in found}
        print(f"{name}: {bar.summary()}", flush=True)
    rows = [row({name: found[task.name] for name, found in maps.items()}) for task in tasks]
    for facts in rows:
        print(json.dumps(facts))
    cost = {name: sum(ranking.questions for ranking in found.values()) for name, found in maps.items()}
    print(f"questions: {cost}; uniform / screened: {cost['uniform'] / cost['screened']:.2f} x")
    if args.out:
        args.out.write_text(json.dumps({"tasks": rows, "questions": cost}, indent=1) + "\n")


if __name__ == "__main__":
    main()
