"""The engine's speed, side by side in one run, alternating: bare transformers, our engine, PEFT.

    python tests/benchmarks/engine_speed.py MODEL POOL [--repeats 5] [--out FILE.json]

MODEL is a folder, a .gguf file or package:NAME/path, POOL a folder of adapters on q_proj and v_proj. Each way writes
the same number of new tokens from prompts of 64 tokens; the table shows medians and the ratio to the bare model.
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from peft import PeftModel

from lorauter_integrations import GenerationOptions, GenerationRequest, LocalEngine, Message, Mixture
from lorauter_integrations.engines.base import completion_of
from lorauter_integrations.engines.loading import load_model
from lorauter_integrations.locations import resolve_location

NEW = 24
TEXT = "A ferry of the harbour line left the terminal in the morning with people and cars on board. " * 3


class Ways:
    """One model in memory, and every way to write with it."""

    def __init__(self, model: str, pool: Path) -> None:
        self.engine = LocalEngine.load(model, pool, dtype="bfloat16")
        self.bare, self.tokenizer = load_model(model, dtype="bfloat16")
        self.names = [n for n, a in self.engine.adapters.items() if a.targets == ["q_proj", "v_proj"]][:12]
        if len(self.names) < 10:
            raise SystemExit(f"{pool} has only {len(self.names)} adapters on q_proj and v_proj; 10 are needed")
        ids = self.tokenizer(TEXT, add_special_tokens=False).input_ids
        self.ids = torch.tensor([ids[:64]])
        peft_model, _ = load_model(model, dtype="bfloat16")
        self.peft = PeftModel.from_pretrained(
            peft_model, str(pool / self.names[0]), adapter_name="a0", autocast_adapter_dtype=False
        )
        for place, name in enumerate(self.names[1:8], 1):
            self.peft.load_adapter(str(pool / name), f"a{place}", autocast_adapter_dtype=False)

    def generate(self, model: torch.nn.Module, rows: int, **extra: object) -> None:
        ids = self.ids.expand(rows, -1)
        with torch.inference_mode():
            model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=NEW,
                min_new_tokens=NEW,
                do_sample=False,
                pad_token_id=0,
                **extra,
            )

    def active(self, adapters: list[str]) -> None:
        self.peft.base_model.set_adapter(adapters)

    def mixture(self, row: int) -> Mixture:
        chosen = [self.names[(row + step) % len(self.names)] for step in range(3)]
        return Mixture(dict(zip(chosen, (0.5, 0.3, 0.2), strict=True)))

    def requests(self, mixtures: list[Mixture]) -> list[GenerationRequest]:
        text = self.tokenizer.decode(self.ids[0, :40])
        # An answer is never at its end, so that each way writes the same number of tokens.
        options = GenerationOptions(max_tokens=NEW)
        return [GenerationRequest([Message("user", text)], mixture, options) for mixture in mixtures]

    def threads(self, mixtures: list[Mixture]) -> None:
        work = [
            threading.Thread(target=lambda one=one: completion_of(self.engine.stream(one)))
            for one in self.requests(mixtures)
        ]
        for thread in work:
            thread.start()
        for thread in work:
            thread.join()

    def one_by_one(self, mixtures: list[Mixture]) -> None:
        for one in self.requests(mixtures):
            completion_of(self.engine.stream(one))


def cases(ways: Ways) -> dict[str, dict[str, Callable[[], None]]]:
    """Group -> way -> what to time; the first way of a group is what the others are compared with."""
    ways.engine._scheduler._end_tokens = frozenset()
    none = Mixture()
    eight = [ways.mixture(row) for row in range(8)]

    def peft(rows: int, adapters: list[str], **extra: object) -> Callable[[], None]:
        def run() -> None:
            ways.active(adapters)
            ways.generate(ways.peft, rows, **extra)

        return run

    engine = ways.engine.complete
    return {
        "1 row": {
            "transformers generate": lambda: ways.generate(ways.bare, 1),
            "our engine, no mixture": lambda: engine(ways.requests([none])),
            "our engine, K=3": lambda: engine(ways.requests(eight[:1])),
            "PEFT, one adapter": peft(1, ["a0"]),
            "PEFT, three active": peft(1, ["a0", "a1", "a2"]),
        },
        "8 rows": {
            "transformers generate": lambda: ways.generate(ways.bare, 8),
            "our engine, no mixture": lambda: engine(ways.requests([none] * 8)),
            "our engine, 8 different K=3": lambda: engine(ways.requests(eight)),
            "PEFT, three active, same for all": peft(8, ["a0", "a1", "a2"]),
            "PEFT, adapter_names, one a row": peft(8, ["a0"], adapter_names=[f"a{row}" for row in range(8)]),
        },
        "8 requests of 8 threads": {
            "one after the other": lambda: ways.one_by_one(eight),
            "together": lambda: ways.threads(eight),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("pool", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    for group, ways in cases(Ways(resolve_location(args.model), args.pool)).items():
        times: dict[str, list[float]] = {way: [] for way in ways}
        for repeat in range(args.repeats + 1):
            for way, run in ways.items():
                start = time.perf_counter()
                run()
                if repeat:  # the first round warms up
                    times[way].append(time.perf_counter() - start)
        found[group] = {way: statistics.median(taken) for way, taken in times.items()}
        first = next(iter(found[group].values()))
        print(f"\n{group}, {NEW} new tokens each")
        for way, taken in found[group].items():
            print(f"  {way:36} {taken:7.3f} s  {taken / first:5.2f}", flush=True)
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
