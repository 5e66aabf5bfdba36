"""How long it takes to route one text, against the numbers of tasks and adapters. Knows routers and clocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice

import numpy as np

from lorauter_integrations.adapter_map import AdapterScore, Ranking
from lorauter_integrations.evaluation.results import Latency
from lorauter_integrations.routing import DEFAULT, SHARES, Encoder, FixedTasks, KnownTasks, Rules, TaskRouter
from lorauter_integrations.routing.encoder import Vectors, mean_vector
from lorauter_integrations.routing.views import Embedded, embed

MANY = 1_000
TASKS = (10, 100, MANY, 10_000)
KS = (1, 10, 100)
ADAPTERS = (10, 100, 1_000, 10_000)
EXAMPLES = 4  # of a made-up task
TEXTS = 60  # that are routed for one row
SEED = 0


def latencies(encoder: Encoder, texts: Sequence[str], rules: Rules = DEFAULT) -> list[Latency]:
    """Times of single routes: by the number of tasks, by K, and by the number of adapters.

    The tasks are made up: directions at random, some examples about each. Encoding and routing the same texts are
    timed in turn, so that what else the machine does falls on both.

    Args:
        encoder: without a memory of texts, since each is encoded twice.
        texts: to route, at least one.
        rules: of the router.
    """
    dimension = encoder.encode([texts[0]]).shape[1]
    given = list(islice(cycle(texts), TEXTS))
    cases: list[tuple[int, int, int | None]] = [(count, count, None) for count in TASKS]
    cases += [(MANY, MANY, k) for k in KS]
    cases += [(MANY, count, None) for count in ADAPTERS if count != MANY]
    return [_latency(encoder, given, rules, Case(*case), dimension) for case in cases]


@dataclass(frozen=True, slots=True)
class Case:
    """How many tasks and adapters there are, and how many tasks share; the rules' own number when None."""

    tasks: int
    adapters: int
    k: int | None


def _latency(encoder: Encoder, texts: Sequence[str], rules: Rules, case: Case, dimension: int) -> Latency:
    used = replace(rules, weighting=replace(SHARES["default"], k=case.k)) if case.k else rules
    router = TaskRouter(FixedTasks(encoder, _made(case, dimension)), used)
    router.route(texts[0])  # fits
    routing, encoding = [], []
    for text in texts:
        encoding.append(_seconds(partial(embed, encoder, [text])))
        routing.append(_seconds(partial(router.route, text)))
    p50, p95 = (1000 * float(np.percentile(routing, each)) for each in (50, 95))
    share = len(router.route(texts[0]).matches)
    return Latency(case.tasks, case.adapters, share, p50, p95, 1000 * float(np.median(encoding)))


def _seconds(do: Callable[[], object]) -> float:
    begun = time.perf_counter()
    do()
    return time.perf_counter() - begun


def _made(case: Case, dimension: int) -> KnownTasks:
    """Made-up tasks that were mapped to so many adapters, each task to its part of them."""
    rng = np.random.default_rng(SEED)
    examples = [_about(rng, dimension) for _ in range(case.tasks)]
    rankings = []
    for at in range(case.tasks):
        own = range(at, case.adapters, case.tasks) if case.adapters > at else [at % case.adapters]
        scores = tuple(AdapterScore(f"adapter-{number}", "", 1.0, 1) for number in own)
        rankings.append(Ranking(f"task-{at:05d}", "", "", "", (*scores, AdapterScore("", "", 0.0, 1)), 1))
    vectors = np.stack([mean_vector(one.whole) for one in examples])
    return KnownTasks(rankings, vectors, lambda: examples, case.tasks, repr(case))


def _about(rng: np.random.Generator, dimension: int) -> Embedded:
    vectors = rng.normal(size=dimension) + 0.7 * rng.normal(size=(EXAMPLES, dimension))
    whole: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return Embedded(whole, whole[:0], np.array([], dtype=np.int64))
