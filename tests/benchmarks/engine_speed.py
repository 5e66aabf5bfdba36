"""The engine's speed, side by side in one run: bare transformers, our engine, PEFT.

    python tests/benchmarks/engine_speed.py MODEL POOL [--repeats 5] [--out FILE.json] [--only GROUP ...]

MODEL is a hub name, a folder, a .gguf file or package:NAME/path; POOL a folder with at least 10 adapters of rank 8
on q_proj and v_proj. The groups are 1-row, 8-rows, threads, arriving, conversation, grammar and loading; the first
two run with two kinds of adapters, on q_proj and v_proj and on all linear modules (random weights, made by PEFT).
Each repeat runs every way of a group once, in an order drawn anew; the first repeat warms up and is not counted.
Prompts have 64 tokens, the chat template included, and 24 new ones are written: no way stops at an end token. All
ways share one copy of the base weights, so that where these lie in memory favours none. Medians are shown, the
named ratios are those of medians; the JSON file keeps every number, for `engine_picture.py` too. On a quiet machine
leave OMP_WAIT_POLICY unset, so that waiting threads spin: to wake one costs about 70 microseconds an operation.
"""

from __future__ import annotations

import argparse
import copy
import gc
import itertools
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from lorauter_integrations import (
    AdapterPool,
    Completion,
    GenerationOptions,
    GenerationRequest,
    Grammar,
    Limits,
    LocalEngine,
    Message,
    Mixture,
)
from lorauter_integrations.engines.base import MIB, completion_of
from lorauter_integrations.engines.loading import load_model
from lorauter_integrations.locations import resolve_location
from lorauter_integrations.mixing import base_shapes
from lorauter_integrations.pool import CONFIG, WEIGHTS

PROMPT, NEW = 64, 24  # tokens
ADAPTERS = 10  # 8 rows, each with 3 adapters beginning at its own
ARRIVALS = 16
LOADED, COUNTED = 1500, 20
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
QV, ALL = "q,v", "all linear"
SENTENCE = "A ferry of the harbour line left the terminal in the morning with people and cars on board. "
SEED = 2601
NO_PREFIXES = Limits(prefix_bytes=0)
BASE = Mixture()

Way = Callable[[], dict[str, float]]
"""Runs once and says what it measured."""

GENERATE, OURS, MIXED = "transformers generate", "our engine, no mixture", "our engine, K=3"
DIFFERENT, ONE, THREE = "our engine, 8 different K=3", "PEFT, one adapter", "PEFT, three active"
THREE_FOR_ALL, NAMES = "PEFT, three active, the same for all", "PEFT, adapter_names, one a row"
TURNS, TOGETHER, UNMIXED = "one at a time", "together", "together, no mixtures"
READ, REUSED = "history read again", "history reused"
PLAIN, BOUND = "free text", "8 different JSON schemas"
FIRST, LAST = f"adapters 1 to {COUNTED}", f"adapters {LOADED - COUNTED + 1} to {LOADED}"


@dataclass(frozen=True, slots=True)
class Ratio:
    """Two ways' medians of one measure, divided, and what that should be."""

    name: str
    group: str
    above: str
    below: str
    target: str = ""
    measure: str = "seconds"


RATIOS = [
    Ratio("no mixture / generate, 1 row", "1-row", OURS, GENERATE, "<= 1.00"),
    Ratio("no mixture / generate, 8 rows", "8-rows", OURS, GENERATE, "<= 1.00"),
    Ratio("K=3 / no mixture, 1 row", "1-row", MIXED, OURS, "<= 1.10"),
    Ratio("8 different K=3 / no mixture, 8 rows", "8-rows", DIFFERENT, OURS, "<= 1.08"),
    Ratio("PEFT adapter_names / 8 K=3, 8 rows", "8-rows", NAMES, DIFFERENT, ">= 1.8"),
    Ratio("PEFT three active / K=3, 1 row", "1-row", THREE, MIXED, ">= 1.3"),
    Ratio("8 threads, throughput", "threads", TURNS, TOGETHER, ">= 3.5"),
    Ratio(f"loading number {LOADED:,} / number 1", "loading", LAST, FIRST, "< 1.5"),
    Ratio("one at a time / together, latency", "arriving", TURNS, TOGETHER, measure="latency"),
    Ratio("one at a time / together, latency p95", "arriving", TURNS, TOGETHER, measure="latency p95"),
    Ratio("one at a time / together, first token", "arriving", TURNS, TOGETHER, measure="first token"),
    Ratio("history read again / reused", "conversation", READ, REUSED),
    Ratio("JSON schemas / free text, 8 rows", "grammar", BOUND, PLAIN),
]


# ---------------------------------------------------------------------- the model, with our engine and with PEFT


def sharing(model: Any) -> Any:
    """A model of its own modules on the same weights: hooks and wrappers put on one do not reach the other."""
    weights = {id(weight): weight for weight in itertools.chain(model.parameters(), model.buffers())}
    return copy.deepcopy(model, weights)


class Bench:
    """One kind of adapters on one model, and everything that writes with them."""

    def __init__(self, model: Any, tokenizer: Any, pool: Path, targets: Sequence[str]) -> None:
        self.model, self.tokenizer, self.pool = sharing(model), tokenizer, pool
        self.bare = sharing(model)
        adapters = AdapterPool.from_folder(pool, base_shapes(model))
        fit = [name for name, one in adapters.items() if one.targets == sorted(targets) and one.ranks == [8]]
        self.names = sorted(fit, key=lambda name: (name.count("/"), name))[:ADAPTERS]
        if len(self.names) < ADAPTERS:
            raise SystemExit(f"{pool} has {len(self.names)} adapters of rank 8 on {targets}; {ADAPTERS} are needed")
        self.engine = self.new_engine(adapters, NO_PREFIXES)
        self.text = next(filter(self._fills_the_prompt, _texts()), "")
        self.ids = torch.tensor([self.engine.token_ids(self.engine.render(self.request(BASE)))])
        if self.ids.shape[1] != PROMPT:
            raise SystemExit(f"found no text that makes a prompt of {PROMPT} tokens with this chat template")

    def new_engine(self, adapters: AdapterPool, limits: Limits) -> LocalEngine:
        """An engine that never takes an answer to be at its end, so that each way writes the same number."""
        engine = LocalEngine(self.model, self.tokenizer, adapters, limits=limits)
        engine._scheduler._end_tokens = frozenset()
        return engine

    @cached_property
    def peft(self) -> Any:
        load = {"autocast_adapter_dtype": False}
        folders = [str(self.pool / name) for name in self.names]
        model = PeftModel.from_pretrained(sharing(self.bare), folders[0], adapter_name="a0", **load)
        for place, folder in enumerate(folders[1:8], 1):
            model.load_adapter(folder, f"a{place}", **load)
        return model.eval()

    def mixture(self, row: int) -> Mixture:
        chosen = [self.names[(row + step) % ADAPTERS] for step in range(3)]
        return Mixture(dict(zip(chosen, (0.5, 0.3, 0.2), strict=True)))

    def request(self, mixture: Mixture, grammar: Grammar | None = None) -> GenerationRequest:
        return GenerationRequest(
            [Message("user", self.text)], mixture, GenerationOptions(max_tokens=NEW), grammar=grammar
        )

    def requests(self, rows: int) -> list[GenerationRequest]:
        return [self.request(self.mixture(row)) for row in range(rows)]

    def complete(self, requests: Sequence[GenerationRequest]) -> None:
        for answer in self.engine.complete(requests):
            whole(answer)

    def stream(self, request: GenerationRequest) -> None:
        whole(completion_of(self.engine.stream(request)))

    def generate(self, model: Any, rows: int, **more: Any) -> None:
        ids = self.ids.expand(rows, -1)
        options = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0} | more
        with torch.inference_mode():
            written = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)
        if written.shape[1] != PROMPT + NEW:
            raise SystemExit(f"generate wrote {written.shape[1] - PROMPT} tokens, not {NEW}")

    def with_peft(self, rows: int, active: list[str], **more: Any) -> Way:
        run = partial(self.generate, self.peft, rows, **more)
        return timed(run, before=partial(self.peft.base_model.set_adapter, active))

    def _fills_the_prompt(self, text: str) -> bool:
        return self.engine.count_tokens(GenerationRequest([Message("user", text)])) == PROMPT


def _texts() -> itertools.chain[str]:
    words = (SENTENCE * 6).split()
    return itertools.chain.from_iterable(
        (" ".join(words[start:end]) for end in range(start + 1, len(words))) for start in range(18)
    )


def whole(answer: Completion) -> None:
    if answer.usage.completion_tokens != NEW:
        raise SystemExit(f"an answer has {answer.usage.completion_tokens} tokens, not {NEW}: {answer.finish_reason}")


def timed(run: Callable[[], object], before: Callable[[], object] = lambda: None) -> Way:
    def way() -> dict[str, float]:
        before()
        start = time.perf_counter()
        run()
        return {"seconds": time.perf_counter() - start}

    return way


# ---------------------------------------------------------------------- groups: what to time, by way


def one_row(bench: Bench) -> dict[str, Way]:
    return {
        GENERATE: timed(partial(bench.generate, bench.bare, 1)),
        OURS: timed(partial(bench.complete, [bench.request(BASE)])),
        MIXED: timed(partial(bench.complete, bench.requests(1))),
        ONE: bench.with_peft(1, ["a0"]),
        THREE: bench.with_peft(1, ["a0", "a1", "a2"]),
    }


def eight_rows(bench: Bench) -> dict[str, Way]:
    return {
        GENERATE: timed(partial(bench.generate, bench.bare, 8)),
        OURS: timed(partial(bench.complete, [bench.request(BASE)] * 8)),
        DIFFERENT: timed(partial(bench.complete, bench.requests(8))),
        THREE_FOR_ALL: bench.with_peft(8, ["a0", "a1", "a2"]),
        NAMES: bench.with_peft(8, ["a0"], adapter_names=[f"a{row}" for row in range(8)]),
    }


def threads(bench: Bench) -> dict[str, Way]:
    def run(workers: int) -> None:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(bench.stream, bench.requests(8)))

    return {TURNS: timed(partial(run, 1)), TOGETHER: timed(partial(run, 8))}


def arriving(bench: Bench) -> dict[str, Way]:
    """Requests of a Poisson process, two in the time that one takes alone; one worker is a lock with a queue."""
    alone = min(timed(partial(bench.stream, bench.requests(1)[0]))()["seconds"] for _ in range(4))
    chance = random.Random(SEED)
    gaps = [chance.expovariate(2 / alone) for _ in range(ARRIVALS)]
    times = list(itertools.accumulate(gaps))
    mixed, unmixed = bench.requests(ARRIVALS), [bench.request(BASE)] * ARRIVALS
    return {
        TURNS: partial(served, bench, mixed, times, 1),
        TOGETHER: partial(served, bench, mixed, times, ARRIVALS),
        UNMIXED: partial(served, bench, unmixed, times, ARRIVALS),
    }


def served(
    bench: Bench, requests: Sequence[GenerationRequest], times: Sequence[float], workers: int
) -> dict[str, float]:
    """What callers see whose requests come at these times, each from its arrival on."""

    def serve(request: GenerationRequest, arrival: float) -> tuple[float, float]:
        first = 0.0
        for delta in bench.engine.stream(request):
            first = first or time.perf_counter()
            if delta.completion:
                whole(delta.completion)
        return first - arrival, time.perf_counter() - arrival

    begin = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        waiting = []
        for request, arrival in zip(requests, times, strict=True):
            time.sleep(max(0.0, begin + arrival - time.perf_counter()))
            waiting.append(pool.submit(serve, request, begin + arrival))
        firsts, ends = zip(*(one.result() for one in waiting), strict=True)
    total = time.perf_counter() - begin
    return {
        "total": total,
        "latency": statistics.mean(ends),
        "latency p95": float(np.percentile(ends, 95)),
        "first token": statistics.mean(firsts),
        "last arrival": times[-1],
    }


def conversation(bench: Bench) -> dict[str, Way]:
    """Time to the first token of a second turn; each repeat has a conversation of its own."""
    keeping = bench.new_engine(bench.engine.adapters, Limits())
    number = itertools.count(1)
    options = GenerationOptions(max_tokens=NEW)

    def second_turn(engine: LocalEngine) -> dict[str, float]:
        talk = [Message("user", f"Log {next(number)}. {SENTENCE * 29}")]
        answer = completion_of(engine.stream(GenerationRequest(talk, bench.mixture(0), options)))
        talk += [Message("assistant", answer.text), Message("user", "And what came after that?")]
        start = time.perf_counter()
        deltas = engine.stream(GenerationRequest(talk, bench.mixture(0), options))
        next(deltas)
        first = time.perf_counter() - start
        deltas.close()
        return {"seconds": first}

    return {READ: partial(second_turn, bench.engine), REUSED: partial(second_turn, keeping)}


def grammar(bench: Bench) -> dict[str, Way]:
    """Arrays that are longer than an answer, so that rows with a schema take as many steps as those without."""
    items = [{"type": "string"}, {"type": "integer"}, {"enum": ["red", "green"]}, {"type": "boolean"}]
    bound = []
    for row in range(8):
        array = {"type": "array", "items": items[row % 4], "minItems": 2 * NEW}
        schema = {"type": "object", "properties": {f"list_{row}": array}, "required": [f"list_{row}"]}
        bound.append(bench.request(bench.mixture(row), Grammar.json_schema(schema)))

    def run(requests: Sequence[GenerationRequest]) -> dict[str, float]:
        found = timed(partial(bench.complete, requests))()
        return found | {"ms a token": 1000 * found["seconds"] / (len(requests) * NEW)}

    return {PLAIN: partial(run, bench.requests(8)), BOUND: partial(run, bound)}


GROUPS = {
    "1-row": one_row,
    "8-rows": eight_rows,
    "threads": threads,
    "arriving": arriving,
    "conversation": conversation,
    "grammar": grammar,
}
BOTH_KINDS = ("1-row", "8-rows")


def measured(ways: dict[str, Way], repeats: int) -> dict[str, list[dict[str, float]]]:
    """Every way once a repeat, in an order drawn anew, so that none always follows the same other."""
    chance = random.Random(SEED)
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    gc.collect()
    gc.freeze()  # what is here stays; the collector would look at all of it in the middle of some way
    for repeat in range(repeats + 1):
        for way in chance.sample(list(ways), len(ways)):
            one = ways[way]()
            if repeat:  # the first warms up
                found[way].append(one)
    gc.unfreeze()
    return found


def loading(bench: Bench) -> dict[str, list[dict[str, float]]]:
    """Many small adapters, each read and mixed once within a small budget; the first and the last are counted.

    Their weights are one file under many names: what is looked for is work that grows with the pool.
    """
    with tempfile.TemporaryDirectory() as folder:
        copies(bench.pool / bench.names[0], Path(folder))
        pool = AdapterPool.from_folder(folder, base_shapes(bench.model))
        engine = bench.new_engine(pool, Limits(prefix_bytes=0, adapter_bytes=64 * MIB))
        found = [load(engine, name) for name in pool]
        engine.close()
    most = max(one["resident MiB"] for one in found)
    allowed = engine.stats().adapters.budget / MIB
    print(f"\nloading: {len(found):,} adapters, at most {most:.1f} MiB of them in memory; {allowed:.1f} allowed")
    return {FIRST: found[:COUNTED], LAST: found[-COUNTED:]}


def copies(adapter: Path, folder: Path) -> None:
    config = json.loads((adapter / CONFIG).read_text())
    weights = folder / "weights"
    weights.write_bytes((adapter / WEIGHTS).read_bytes())
    for number in range(LOADED):
        place = folder / f"{number:04}"
        place.mkdir()
        os.link(weights, place / WEIGHTS)
        (place / CONFIG).write_text(json.dumps(config | {"lora_alpha": 1 + number / 100}))


def load(engine: LocalEngine, name: str) -> dict[str, float]:
    read = engine.stats().adapters.misses
    start = time.perf_counter()
    with engine.mixtures.rows([Mixture({name: 1.0})]):
        taken = time.perf_counter() - start
    now = engine.stats().adapters
    if now.misses != read + 1:
        raise SystemExit(f"adapter {name} was in memory already")
    return {"seconds": taken, "resident MiB": now.bytes / MIB}


# ---------------------------------------------------------------------- one run


def all_linear_adapters(model: Any, folder: Path) -> None:
    """Adapters on every linear module, with random weights: values do not matter for speed."""
    config = LoraConfig(r=8, lora_alpha=16, target_modules=LINEAR, init_lora_weights=False, task_type="CAUSAL_LM")
    torch.manual_seed(SEED)
    peft = get_peft_model(sharing(model), config, adapter_name="all_0", autocast_adapter_dtype=False)
    for number in range(1, ADAPTERS):
        peft.add_adapter(f"all_{number}", config, autocast_adapter_dtype=False)
    peft.save_pretrained(str(folder))


def machine() -> dict[str, Any]:
    names = [line for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "cpu": names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "unset"),
        "load_average": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else [],
        "python": platform.python_version(),
        "dtype": "bfloat16",
    } | {package: version(package) for package in ("torch", "transformers", "peft")}


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def summary(found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Way -> measure -> all of its numbers and their median."""
    ways: dict[str, Any] = {}
    for way, runs in found.items():
        columns = {measure: [run[measure] for run in runs] for measure in runs[0]}
        ways[way] = {name: {"median": statistics.median(all_), "all": all_} for name, all_ in columns.items()}
    return ways


def show(title: str, ways: dict[str, Any]) -> None:
    measures = list(next(iter(ways.values())))
    print(f"\n{title:38}" + "".join(f"{name:>13}" for name in measures) + "   ratio")
    first = next(iter(ways.values()))[measures[0]]["median"]
    for way, numbers in ways.items():
        columns = "".join(f"{numbers[name]['median']:13.4f}" for name in measures)
        print(f"  {way:36}{columns}{numbers[measures[0]]['median'] / first:8.2f}", flush=True)


def ratios(groups: dict[str, Any]) -> list[dict[str, Any]]:
    """The named ratios that this run can give, for each kind of adapters; of the fastest runs too."""
    found = []
    for ratio in RATIOS:
        for kind, ways in groups.get(ratio.group, {}).items():
            above, below = (ways[way][ratio.measure] for way in (ratio.above, ratio.below))
            values = {
                "value": above["median"] / below["median"],
                "of_fastest": min(above["all"]) / min(below["all"]),
            }
            found.append({"name": ratio.name, "kind": kind, **values, "target": ratio.target})
    return found


def overhead(groups: dict[str, Any]) -> dict[str, float]:
    """What a JSON schema adds to each token, in milliseconds."""
    if "grammar" not in groups:
        return {}
    ways = groups["grammar"][QV]
    return {"schema_ms_a_token": ways[BOUND]["ms a token"]["median"] - ways[PLAIN]["ms a token"]["median"]}


def report(groups: dict[str, Any]) -> dict[str, Any]:
    """Print the named ratios; returns them for the file."""
    named, more = ratios(groups), overhead(groups)
    print(f"\n{'ratio':40}{'adapters':>10}{'of medians':>12}{'of fastest':>12}   target (medians)")
    for one in named:
        print(f"{one['name']:40}{one['kind']:>10}{one['value']:12.3f}{one['of_fastest']:12.3f}   {one['target']}")
    for name, value in more.items():
        print(f"{name:50}{value:12.3f}")
    return {"ratios": named} | more


def run(args: argparse.Namespace, linear: Path) -> dict[str, Any]:
    """Every group that was asked for: group -> kind of adapters -> way -> measure."""
    model, tokenizer = load_model(resolve_location(args.model), dtype="bfloat16", device="cpu")
    model.generation_config.eos_token_id = None
    groups: dict[str, Any] = {}

    def note(name: str, kind: str, found: dict[str, list[dict[str, float]]]) -> None:
        ways = groups.setdefault(name, {})[kind] = summary(found)
        show(f"{name}, {kind}", ways)

    bench = Bench(model, tokenizer, args.pool, ["q_proj", "v_proj"])
    for name in filter(args.only.__contains__, GROUPS):
        note(name, QV, measured(GROUPS[name](bench), args.repeats))
    if "loading" in args.only:
        note("loading", QV, loading(bench))
    if both := [name for name in BOTH_KINDS if name in args.only]:
        all_linear_adapters(model, linear)
        bench = Bench(model, tokenizer, linear, LINEAR)
        for name in both:
            note(name, ALL, measured(GROUPS[name](bench), args.repeats))
    return groups


def main() -> None:
    names = [*GROUPS, "loading"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("pool", type=Path)
    parser.add_argument("--repeats", type=int, default=5, help="counted ones; one more warms up")
    parser.add_argument("--out", type=Path, help="write every number as JSON")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="GROUP", help=", ".join(names))
    args = parser.parse_args()
    facts = {"machine": machine(), "model": args.model, "prompt_tokens": PROMPT, "new_tokens": NEW}
    print(", ".join(f"{name} {value}" for name, value in facts["machine"].items()), flush=True)
    with tempfile.TemporaryDirectory() as linear:
        groups = run(args, Path(linear))
    facts |= {"repeats": args.repeats, "groups": groups} | report(groups)
    if args.out:
        args.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
