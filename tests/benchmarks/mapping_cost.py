"""What successive halving saves against asking every adapter every example, and what it loses.

    python tests/benchmarks/mapping_cost.py examples/demo/lorauter.toml [--out FILE.json]

Both use the settings' ledger, so a mapping run that was made before is not paid again; the cost is counted in
questions (one adapter, one example), which does not depend on the machine.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lorauter_integrations import Ledger, LoRAuter, Matcher, MetricScorer, Ranking, Settings
from lorauter_integrations.cli.progress import MappingBar
from lorauter_integrations.matching import halving_schedule, uniform_schedule


def row(halving: Ranking, uniform: Ranking, tied_with_the_best: int) -> dict[str, object]:
    """One task's comparison; every score here is on the whole validation set."""
    full = {score.adapter: score.score for score in uniform.scores}
    return {
        "task": halving.task,
        "halving_winner": halving.best.adapter,
        "halving_winner_score": full[halving.best.adapter],
        "best": uniform.best.adapter,
        "best_score": uniform.best.score,
        "tied_with_the_best": tied_with_the_best,
        "base_score": uniform.base.score,
        "halving_questions": halving.questions,
        "uniform_questions": uniform.questions,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, help="write the table as JSON")
    args = parser.parse_args()
    settings = Settings.read(args.config)
    lorauter = LoRAuter.from_config(args.config)
    ledger = Ledger(settings.locate(settings.mapping.ledger))
    tasks, scorer = lorauter.index.tasks(), MetricScorer(lorauter.engine)
    maps = {}
    for name, schedule in (("halving", halving_schedule), ("uniform", uniform_schedule)):
        with MappingBar() as bar:
            matcher = Matcher(scorer, ledger, schedule=schedule, on_progress=bar.update)
            maps[name] = list(matcher.match(tasks, lorauter.engine.adapters))
        print(f"{name}: {bar.summary()}", flush=True)
    rows = []
    for halving, uniform in zip(maps["halving"], maps["uniform"], strict=True):
        tied = sum(score.score == uniform.best.score for score in uniform.scores)
        rows.append(row(halving, uniform, tied))
        print(
            f"{halving.task:18} halving {rows[-1]['halving_winner']:24} {rows[-1]['halving_winner_score']:.3f}"
            f" | best {uniform.best.adapter:24} {uniform.best.score:.3f} ({tied} tied)"
            f" | base {uniform.base.score:.3f}"
        )
    cost = {name: sum(ranking.questions for ranking in found) for name, found in maps.items()}
    print(
        f"questions: halving {cost['halving']}, uniform {cost['uniform']}: {cost['uniform'] / cost['halving']:.2f} x"
    )
    if args.out:
        args.out.write_text(json.dumps({"tasks": rows, "questions": cost}, indent=1) + "\n")


if __name__ == "__main__":
    main()
