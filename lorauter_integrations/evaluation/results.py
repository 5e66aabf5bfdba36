"""What an evaluation has found, as values: everything that a report shows. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Interval:
    """A number and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class MethodScore:
    """How well a method does in a regime.

    Attributes:
        method: its name.
        regime: the regime's name.
        score: mean over the domains of the domain's score divided by the oracle's; 1 is the oracle.
        raw: mean over the tasks of their metric, in [0, 1].
        domains: mean of the metric over each domain's tasks.
        tasks: mean of the metric over each task's test examples.
    """

    method: str
    regime: str
    score: Interval
    raw: float
    domains: Mapping[str, float]
    tasks: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Difference:
    """How much higher a method's score is than another's in one regime, on the same examples."""

    regime: str
    method: str
    against: str
    difference: Interval


@dataclass(frozen=True, slots=True)
class WrongRoute:
    """A test input that went to another task first.

    Attributes:
        task: its own.
        first: where it went.
        similarity: to that task.
        own: to its own task.
        text: its beginning and end.
    """

    task: str
    first: str
    similarity: float
    own: float
    text: str


@dataclass(frozen=True, slots=True)
class RoutingQuality:
    """How often the tasks' test inputs are routed to their own task.

    Attributes:
        preset: of the router.
        inputs: how many there were.
        top1: share whose own task is the nearest.
        top3: share whose own task is among the three nearest.
        confusion: task -> nearest task -> number of inputs.
        wrong: examples of wrong routes, worst first.
    """

    preset: str
    inputs: int
    top1: float
    top3: float
    confusion: Mapping[str, Mapping[str, int]]
    wrong: Sequence[WrongRoute] = ()


@dataclass(frozen=True, slots=True)
class Abstention:
    """How often the router abstains.

    Attributes:
        rate: share of the tasks' own validation examples below the threshold, as it was asked for.
        threshold: the least contrast of a text that is routed.
        in_domain: contrasts of the tasks' test inputs.
        far: contrasts of texts that are far from every task.
    """

    rate: float
    threshold: float
    in_domain: Sequence[float]
    far: Sequence[float]

    @property
    def false(self) -> float:
        """Share of the tasks' test inputs that are left to the base model."""
        return sum(each < self.threshold for each in self.in_domain) / max(len(self.in_domain), 1)

    @property
    def right(self) -> float:
        """Share of the far texts that are left to the base model."""
        return sum(each < self.threshold for each in self.far) / max(len(self.far), 1)


@dataclass(frozen=True, slots=True)
class Place:
    """A task, or a query, on the two-dimensional map of the task space.

    Attributes:
        name: the task's name, or the query's text.
        domain: the task's; empty for a query.
        x: first coordinate.
        y: second coordinate.
        near: for a query, the tasks that it is routed to with their weights.
    """

    name: str
    domain: str
    x: float
    y: float
    near: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Latency:
    """How long it takes to route one text, in milliseconds.

    Attributes:
        tasks: mapped tasks in the index.
        adapters: in the pool.
        k: tasks that share a text.
        p50: median of whole routes.
        p95: of whole routes.
        encoder: median of the encoder alone on the same texts.
    """

    tasks: int
    adapters: int
    k: int
    p50: float
    p95: float
    encoder: float


@dataclass(frozen=True)
class Results:
    """One evaluation.

    Attributes:
        facts: what was evaluated: model, encoder, numbers of tasks, adapters and test examples, seed, version.
        methods: a method's name -> what it does, in a sentence; in the order of tables.
        regimes: a regime's name -> what is held out, in a sentence; in the order of tables.
        scores: one for each method in each regime that it was run in.
        differences: ours against others.
        routing: of the presets.
        abstention: None when no far texts were given.
        places: of the tasks and a query on a map.
        latency: empty when it was not measured.
        notes: what a reader must know, in sentences.
    """

    facts: Mapping[str, str]
    methods: Mapping[str, str]
    regimes: Mapping[str, str]
    scores: Sequence[MethodScore]
    differences: Sequence[Difference] = ()
    routing: Sequence[RoutingQuality] = ()
    abstention: Abstention | None = None
    places: Sequence[Place] = ()
    latency: Sequence[Latency] = ()
    notes: Sequence[str] = ()

    def score(self, method: str, regime: str) -> MethodScore | None:
        """The score of a method in a regime, if it was run there."""
        return next((one for one in self.scores if (one.method, one.regime) == (method, regime)), None)

    def to_json(self) -> str:
        """One JSON text, for `from_json`."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Results:
        """Read what `to_json` wrote."""
        facts: dict[str, Any] = json.loads(text)
        abstention = facts["abstention"]
        return cls(
            facts["facts"],
            facts["methods"],
            facts["regimes"],
            [MethodScore(**{**one, "score": Interval(**one["score"])}) for one in facts["scores"]],
            [Difference(**{**one, "difference": Interval(**one["difference"])}) for one in facts["differences"]],
            [
                RoutingQuality(**{**one, "wrong": [WrongRoute(**wrong) for wrong in one["wrong"]]})
                for one in facts["routing"]
            ],
            Abstention(**abstention) if abstention else None,
            [Place(**one) for one in facts["places"]],
            [Latency(**one) for one in facts["latency"]],
            facts["notes"],
        )
