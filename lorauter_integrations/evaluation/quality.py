"""How well texts find their task, and how well the router abstains; no model that writes is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from lorauter_integrations.adapter_map import AdapterMap, AdapterScore, Ranking
from lorauter_integrations.evaluation.results import Abstention, Place, RoutingQuality, WrongRoute
from lorauter_integrations.evaluation.tested_task import TestedTask
from lorauter_integrations.routing import DEFAULT, PAPER, Abstaining, Encoder, FixedTasks, Mean, Rules, TaskRouter
from lorauter_integrations.routing.router import Look
from lorauter_integrations.routing.task_space import Places
from lorauter_integrations.task import Task

PRESETS: Mapping[str, tuple[Rules, str]] = {"paper": (PAPER, "head"), "default": (DEFAULT, "ends")}
SHOWN = 40  # wrong routes
CUT = 160  # characters of a text's beginning and of its end
SEED = 0


def router_of(tasks: Sequence[Task], encoder: Encoder, rules: Rules) -> TaskRouter:
    """A router among all the tasks, each mapped to an adapter of its own name: routing alone needs no adapters."""
    base = AdapterScore("", "", 0.0, 1)
    rankings = [
        Ranking(task.name, task.content_hash, "", "", (AdapterScore(task.name, "", 1.0, 1), base), 0)
        for task in tasks
    ]
    endings = not isinstance(rules.space, Mean)
    return TaskRouter(FixedTasks.of(encoder, tasks, AdapterMap(rankings), endings=endings), rules)


def routing_quality(tasks: Sequence[TestedTask], encoders: Mapping[str, Encoder]) -> list[RoutingQuality]:
    """How often test inputs of all tasks are routed to their own task, by each preset."""
    return [
        _quality(preset, tasks, router_of(_known(tasks), encoders[encoder], rules))
        for preset, (rules, encoder) in PRESETS.items()
    ]


def _quality(preset: str, tasks: Sequence[TestedTask], router: TaskRouter) -> RoutingQuality:
    texts, owners = _inputs(tasks)
    look = router.look(texts)
    own = np.array([look.tasks.index(owner) for owner in owners])
    rows = np.arange(len(texts))
    nearer = (look.similarities > look.similarities[rows, own][:, None]).sum(axis=1)
    first = look.similarities.argmax(axis=1)
    confusion: dict[str, Counter[str]] = {task.name: Counter() for task in tasks}
    for owner, place in zip(owners, first, strict=True):
        confusion[owner][look.tasks[place]] += 1
    return RoutingQuality(
        preset,
        len(texts),
        float((nearer == 0).mean()),
        float((nearer < 3).mean()),
        {task: dict(sorted(counts.items())) for task, counts in confusion.items()},
        _wrong(texts, owners, look, own, first),
    )


def _wrong(texts: Sequence[str], owners: Sequence[str], look: Look, own: Places, first: Places) -> list[WrongRoute]:
    found = [
        WrongRoute(
            owners[at],
            look.tasks[first[at]],
            round(float(look.similarities[at, first[at]]), 4),
            round(float(look.similarities[at, own[at]]), 4),
            text if len(text) <= 2 * CUT else f"{text[:CUT]} ... {text[-CUT:]}",
        )
        for at, text in enumerate(texts)
        if first[at] != own[at]
    ]
    return sorted(found, key=lambda one: (one.own - one.similarity, one.task, one.text))[:SHOWN]


def abstention(
    tasks: Sequence[TestedTask], encoder: Encoder, far: Sequence[str], rules: Rules = DEFAULT
) -> Abstention | None:
    """How often the router leaves test inputs, and far texts, to the base model; None without far texts."""
    if not far:
        return None
    abstaining = rules.abstaining or Abstaining()
    router = router_of(_known(tasks), encoder, replace(rules, abstaining=abstaining))
    inside, outside = router.look(_inputs(tasks)[0]), router.look(far)
    if inside.contrasts is None or outside.contrasts is None or inside.threshold is None:
        return None  # too few examples for a threshold
    contrasts = [[round(float(each), 5) for each in look.contrasts] for look in (inside, outside)]  # type: ignore[union-attr]
    return Abstention(abstaining.rate, round(inside.threshold, 5), *contrasts)


def places(tasks: Sequence[TestedTask], encoder: Encoder, query: str, rules: Rules = DEFAULT) -> list[Place]:
    """The tasks and a query in the plane: t-SNE (van der Maaten and Hinton 2008) of the task space by scikit-learn.

    A task stands at the mean of its test inputs.
    """
    from sklearn.manifold import TSNE

    router = router_of(_known(tasks), encoder, rules)
    means = [router.look([example.text for example in task.tests]).placed.mean(axis=0) for task in tasks]
    points = np.stack([*means, router.look([query]).placed[0]]).astype(np.float64)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    if len(points) < 5:
        return []  # no picture of so few
    perplexity = min(8.0, (len(points) - 1) / 3)
    plane = TSNE(perplexity=perplexity, init="pca", random_state=SEED, metric="cosine").fit_transform(points)
    route = router.route(query)
    near = {match.task: round(match.weight, 4) for match in route.matches}
    found = [Place(task.name, task.domain, *_rounded(at)) for task, at in zip(tasks, plane[:-1], strict=True)]
    return [*found, Place(query, "", *_rounded(plane[-1]), near)]


def _rounded(point: Sequence[float]) -> tuple[float, float]:
    return round(float(point[0]), 3), round(float(point[1]), 3)


def _known(tasks: Sequence[TestedTask]) -> list[Task]:
    return [task.task for task in tasks]


def _inputs(tasks: Sequence[TestedTask]) -> tuple[list[str], list[str]]:
    pairs = [(example.text, task.name) for task in tasks for example in task.tests]
    return [text for text, _ in pairs], [owner for _, owner in pairs]
