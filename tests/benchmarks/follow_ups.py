"""How often a turn is told rightly to be a follow-up, by several rules, for docs/routing.md.

    python tests/benchmarks/follow_ups.py ENCODER FOLDER [FOLDER ...]

Each folder holds tasks. The requests are drawn from a task's test.jsonl; where there is none, from every other
validation example, which then is left out of the task. The turns written by hand are in tests/routing/turns.py.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from routing.turns import LONG_FOLLOW_UPS, SHORT_FOLLOW_UPS, SHORT_REQUESTS, TINY_REQUESTS

from lorauter_integrations import Example, SentenceTransformerEncoder
from lorauter_integrations.locations import resolve_location
from lorauter_integrations.routing.encoder import Vectors, mean_vector
from lorauter_integrations.routing.sticky import FOLLOW_UPS, MOST_CHARACTERS
from lorauter_integrations.task import find_task_folders, read_examples

EACH = 6  # requests of a task
FOLLOWING = {"short follow-ups": SHORT_FOLLOW_UPS, "long ones": LONG_FOLLOW_UPS}

# A turn's best cosine, its length, its cosine to the nearest example of a follow-up, the earlier turn's best cosine.
Rule = Callable[[Vectors, Vectors, Vectors, Vectors], Vectors]
RULES: dict[str, Rule] = {
    **{f"best < {most}": lambda best, *_, most=most: best < most for most in (0.25, 0.3, 0.35, 0.4)},
    **{
        f"best < {share} of the earlier": lambda best, _, __, earlier, share=share: best < share * earlier
        for share in (0.5, 0.6, 0.7, 0.8)
    },
    **{f"{most} characters": lambda _, length, *__, most=most: length <= most for most in (20, 30, 40)},
    "nearer to a follow-up": lambda best, length, follow, _: (follow > best) & (length <= MOST_CHARACTERS),
}


def read(folder: Path) -> tuple[list[Example], list[Example]]:
    """A task's examples and its requests."""
    known = read_examples(folder / "validation.jsonl")
    tests = folder / "test.jsonl"
    known, left = (known[:200], read_examples(tests)) if tests.exists() else (known[0::2], known[1::2])
    return known, random.Random(0).sample(left, min(EACH, len(left)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("encoder")
    parser.add_argument("folders", nargs="+")
    given = parser.parse_args()
    encode = SentenceTransformerEncoder(resolve_location(given.encoder), device="cpu").encode
    tasks = [read(folder) for folder in find_task_folders(given.folders)]
    means = np.stack([mean_vector(encode([example.text for example in known])) for known, _ in tasks])
    requests = [request for _, left in tasks for request in left]
    earlier = (encode([request.text for request in requests]) @ means.T).max(axis=1)
    texts = {**FOLLOWING, "requests": [request.input for request in requests]}
    texts |= {"short requests": SHORT_REQUESTS, "tiny requests": TINY_REQUESTS}
    examples = encode(FOLLOW_UPS)
    print(f"{len(tasks)} tasks; right, of " + ", ".join(f"{len(turns)} {kind}" for kind, turns in texts.items()))
    facts = {}
    for kind, turns in texts.items():
        vectors, lengths = encode(turns), np.array([len(turn) for turn in turns])
        facts[kind] = (
            (vectors @ means.T).max(axis=1)[:, None],
            lengths[:, None],
            (vectors @ examples.T).max(1)[:, None],
        )
    for name, rule in RULES.items():
        stays = {kind: float(rule(*fact, earlier[None]).mean()) for kind, fact in facts.items()}
        print(f"{name:28}", *(f"{stay if kind in FOLLOWING else 1 - stay:.3f}" for kind, stay in stays.items()))


if __name__ == "__main__":
    main()
