"""The whole evaluation: methods times regimes times tasks. Joins mapping, routing and engines."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from lorauter_integrations.adapter_map import AdapterMap
from lorauter_integrations.digests import digest
from lorauter_integrations.engines.local import LocalEngine
from lorauter_integrations.errors import TaskError, listing
from lorauter_integrations.evaluation.answering import Answerer, Question, most_tokens
from lorauter_integrations.evaluation.lorahub import lorahub_mixture
from lorauter_integrations.evaluation.methods import Contender, World, contenders
from lorauter_integrations.evaluation.predictions import Predictions
from lorauter_integrations.evaluation.regimes import REGIMES, Remainder, regimes_of, remainder
from lorauter_integrations.evaluation.results import Results
from lorauter_integrations.evaluation.scores import Scale, Scores
from lorauter_integrations.evaluation.tested_task import TestedTask
from lorauter_integrations.matching.scoring import measured
from lorauter_integrations.mixing.averaging import write_averaged
from lorauter_integrations.mixture import Mixture
from lorauter_integrations.routing import Encoder, FixedTasks, Route

LEAST_TESTS = 30  # of a task whose answers are scored
OURS = "lorauter"


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated, and with what.

    Attributes:
        tasks: with their test examples.
        engine: the base model, and the pool with the tasks' own adapters under the tasks' names.
        encoders: "ends" and "head", by which the default preset and the older methods read long texts.
        rankings: task -> all adapters that were scored on its validation examples.
        folder: of predictions and averaged adapters; a run that is stopped goes on from it.
        open_averaged: an engine over a folder of averaged adapters.
        seed: of what is drawn.
        on_progress: called with a text, before each part.
    """

    tasks: Sequence[TestedTask]
    engine: LocalEngine
    encoders: Mapping[str, Encoder]
    rankings: AdapterMap
    folder: Path
    open_averaged: Callable[[Path], LocalEngine]
    seed: int = 0
    on_progress: Callable[[str], None] = lambda _: None

    def run(self, methods: Sequence[str] = (), regimes: Sequence[str] = ()) -> Results:
        """The scores of methods in regimes, all when none is named. The base and the oracle always take part.

        Raises:
            OptionError: there is no such method or regime.
            TaskError: no task can be scored.
        """
        regimes = regimes_of(regimes)
        wanted = contenders([*methods, "base", "oracle", OURS] if methods else ())
        scored = scorable(self.tasks, self.engine)
        scores = _Run(self, scored).scores(wanted, regimes)
        scale = Scale({task.name: task.domain for task in scored}, scores["oracle", regimes[0]], self.seed)
        if scale.left_out == {task.domain for task in scored}:
            raise TaskError(
                f"the adapters of {len(scored)} tasks have next to no answer right, so they can measure nothing",
                hint="are they for this base model, and the tasks' metrics the right ones?",
            )
        return Results(
            facts={
                "base model": self.engine.name,
                "encoder": self.encoders["ends"].name,
                "tasks": str(len(scored)),
                "adapters": str(len(self.engine.adapters)),
                "test examples": str(sum(len(task.tests) for task in scored)),
                "seed": str(self.seed),
                **({"domains the oracle fails in, not counted": listing(scale.left_out)} if scale.left_out else {}),
            },
            methods={name: contender.says for name, contender in wanted.items()},
            regimes={regime: REGIMES[regime] for regime in regimes},
            scores=[scale.score(method, regime, found) for (method, regime), found in scores.items()],
            differences=[
                scale.difference(regime, OURS, scores[OURS, regime], method, found)
                for (method, regime), found in scores.items()
                if method != OURS
            ],
        )


def scorable(tasks: Sequence[TestedTask], engine: LocalEngine) -> list[TestedTask]:
    """The tasks with an adapter of their own in the pool and at least 30 test examples.

    Raises:
        TaskError: there is none.
    """
    found = [task for task in tasks if task.name in engine.adapters and len(task.tests) >= LEAST_TESTS]
    if not found:
        raise TaskError(
            f"none of the {len(tasks)} tasks has an adapter of its own among {len(engine.adapters)} and at least "
            f"{LEAST_TESTS} test examples",
            hint="a task's own adapter is the pool's adapter of the same name",
        )
    return found


class _Run:
    """The scores of one evaluation."""

    def __init__(self, evaluation: Evaluation, tasks: Sequence[TestedTask]) -> None:
        self._of = evaluation
        self._tasks = tasks
        self._tokens = {task.name: most_tokens(evaluation.engine, task) for task in tasks}
        self._predictions = Predictions(evaluation.folder / "predictions.jsonl")
        self._answerer = Answerer(evaluation.engine, self._predictions)
        self._world = World(
            tasks,
            evaluation.rankings,
            sorted(evaluation.engine.adapters),
            {
                name: FixedTasks.of(
                    encoder, [task.task for task in tasks], evaluation.rankings, endings=name == "ends"
                )
                for name, encoder in evaluation.encoders.items()
            },
            evaluation.seed,
        )

    def scores(self, wanted: Mapping[str, Contender], regimes: Sequence[str]) -> dict[tuple[str, str], Scores]:
        """(method, regime) -> the scores."""
        found: dict[tuple[str, str], Scores] = {}
        for name, contender in wanted.items():
            for regime in regimes:
                self._of.on_progress(f"{name}, {regime}")
                known = found.get((name, regimes[0])) if contender.fixed else None
                found[name, regime] = known or self._scores(name, contender, regime)
        return found

    def _scores(self, name: str, contender: Contender, regime: str) -> Scores:
        lefts = {task.name: remainder(regime, task, self._tasks) for task in self._tasks}
        if contender.way == "token_level":
            answers = {task.name: self._by_token(name, task, lefts[task.name]) for task in self._tasks}
        else:
            routes = {task.name: self._routes(contender, task, lefts[task.name]) for task in self._tasks}
            answers = self._written(routes, averaged=contender.way == "averaged")
        return {task.name: _scored(task, answers[task.name]) for task in self._tasks}

    def _routes(self, contender: Contender, task: TestedTask, left: Remainder) -> Sequence[Route]:
        texts = [example.text for example in task.tests]
        if contender.method is None:
            return [Route(self._searched(task, left))] * len(texts)
        return contender.method(self._world, task, left).route_all(texts)

    def _searched(self, task: TestedTask, left: Remainder) -> Mixture:
        """LoRAHub's weights for a task; kept with the answers, since they take long to find."""
        names = left.adapters(self._of.engine.adapters)
        key = "lorahub " + digest([self._of.engine.identity, task.task.content_hash, names, self._of.seed])
        if key not in self._predictions:
            found = lorahub_mixture(self._of.engine, names, task.task.examples, self._of.seed)
            self._predictions.keep({key: json.dumps(dict(found))})
        return Mixture(json.loads(self._predictions[key]))

    def _by_token(self, rule: str, task: TestedTask, left: Remainder) -> Sequence[str]:
        questions = self._questions(task, [Route(Mixture())] * len(task.tests))
        return self._answerer.token_level(questions, rule, left.adapters(self._of.engine.adapters))

    def _written(self, routes: Mapping[str, Sequence[Route]], *, averaged: bool) -> dict[str, Sequence[str]]:
        """Task -> answers; all tasks' questions share the engine's batches."""
        if averaged:
            folder = self._of.folder / "averaged"
            routes = {task: [self._averaged(route, folder) for route in given] for task, given in routes.items()}
            with closing(self._of.open_averaged(folder)) as engine:
                return self._asked(Answerer(engine, self._predictions), routes)
        return self._asked(self._answerer, routes)

    def _asked(self, answerer: Answerer, routes: Mapping[str, Sequence[Route]]) -> dict[str, Sequence[str]]:
        questions = {task.name: self._questions(task, routes[task.name]) for task in self._tasks}
        answers = iter(answerer.answers([one for asked in questions.values() for one in asked]))
        return {task: [next(answers) for _ in asked] for task, asked in questions.items()}

    def _averaged(self, route: Route, folder: Path) -> Route:
        adapters = [self._of.engine.adapters[name] for name in sorted(route.mixture)]
        name = f"averaged-{digest([adapter.content_hash for adapter in adapters])}"
        write_averaged(adapters, folder / name)
        return replace(route, mixture=Mixture({name: 1.0}))

    def _questions(self, task: TestedTask, routes: Sequence[Route]) -> list[Question]:
        most = self._tokens[task.name]
        return [Question(example, route.mixture, most) for example, route in zip(task.tests, routes, strict=True)]


def _scored(task: TestedTask, answers: Sequence[str]) -> list[float]:
    return [measured(task.task, answer, example.target) for answer, example in zip(answers, task.tests, strict=True)]
