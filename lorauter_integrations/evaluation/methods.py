"""The methods that are compared; each makes a router for the inputs of one task. Knows tasks and routers; no engines.

Sources: LORAUTER (arXiv 2601.21795), LoraRetriever (arXiv 2402.09997), LoRAHub (arXiv 2307.13269), Arrow (arXiv
2405.11157), SpectR (arXiv 2504.03454).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from lorauter_integrations.adapter_map import AdapterMap
from lorauter_integrations.errors import OptionError, listing
from lorauter_integrations.evaluation.regimes import Remainder
from lorauter_integrations.evaluation.tested_task import TestedTask
from lorauter_integrations.mixture import Mixture
from lorauter_integrations.routing import DEFAULT, PAPER, Encoder, FixedTasks, Route, Rules, TaskRouter
from lorauter_integrations.routing.encoder import Vectors
from lorauter_integrations.routing.known_tasks import nearest_places

RETRIEVED = 3  # adapters that LoraRetriever takes


class BatchRouter(Protocol):
    """A router of many texts."""

    def route_all(self, texts: Sequence[str]) -> Sequence[Route]:
        """The routes of the texts, in their order."""
        ...


@dataclass(frozen=True)
class World:
    """What methods may look at.

    Attributes:
        tasks: those that are tested.
        rankings: task -> all adapters that were scored on its validation examples.
        adapters: of the pool.
        sources: the name of a way to encode -> the mapped tasks, encoded by it.
        seed: of what is drawn.
    """

    tasks: Sequence[TestedTask]
    rankings: AdapterMap
    adapters: Sequence[str]
    sources: Mapping[str, FixedTasks]
    seed: int = 0
    _vectors: dict[str, Vectors] = field(default_factory=dict)
    _routers: dict[tuple[Rules, str, Remainder], TaskRouter] = field(default_factory=dict)

    def training_vector(self, adapter: str) -> Vectors:
        """The mean vector of an adapter's training inputs, as LoraRetriever makes it."""
        if adapter not in self._vectors:
            task = next(task for task in self.tasks if task.name == adapter)
            self._vectors[adapter] = self.encoder("head").encode(task.training).mean(axis=0)
        return self._vectors[adapter]

    def encoder(self, name: str) -> Encoder:
        """An encoder by the name of its way."""
        return self.sources[name].encoder

    def router(self, rules: Rules, encoder: str, left: Remainder) -> TaskRouter:
        """A router among the tasks that are left; where the same are left for many tasks, it is fitted once."""
        key, source = (rules, encoder, left), self.sources[encoder]
        if key not in self._routers:
            self._routers[key] = TaskRouter(FixedTasks(source.encoder, left.known(source.known())), rules)
        return self._routers[key]


Method = Callable[[World, TestedTask, Remainder], BatchRouter]


@dataclass(frozen=True, slots=True)
class Always:
    """The same mixture for every text."""

    mixture: Mixture

    def route_all(self, texts: Sequence[str]) -> Sequence[Route]:
        """The routes of the texts."""
        return [Route(self.mixture, (), "always the same")] * len(texts)


@dataclass(frozen=True, slots=True)
class AtRandom:
    """One adapter for each text, drawn by the text itself."""

    adapters: Sequence[str]
    seed: int

    def route_all(self, texts: Sequence[str]) -> Sequence[Route]:
        """The routes of the texts."""
        drawn = [random.Random(f"{self.seed} {text}").choice(self.adapters) for text in texts]
        return [Route(Mixture({adapter: 1.0}), (), "drawn") for adapter in drawn]


@dataclass(frozen=True, slots=True)
class Retriever:
    """LoraRetriever: the adapters whose training inputs are nearest, by the inner product of mean vectors.

    Attributes:
        encoder: of the texts.
        adapters: the adapters.
        vectors: theirs. *Shape:* ``(adapters, dimension)``.
        k: how many are taken, with equal weights.
    """

    encoder: Encoder
    adapters: Sequence[str]
    vectors: Vectors
    k: int

    def route_all(self, texts: Sequence[str]) -> Sequence[Route]:
        """The routes of the texts."""
        found = [nearest_places(row, self.k) for row in self.encoder.encode(texts) @ self.vectors.T]
        chosen = [{self.adapters[place]: 1 / len(places) for place in places} for places in found]
        return [Route(Mixture(weights), (), "nearest training inputs") for weights in chosen]


def _base(world: World, task: TestedTask, left: Remainder) -> BatchRouter:
    return Always(Mixture())


def _oracle(world: World, task: TestedTask, left: Remainder) -> BatchRouter:
    return Always(Mixture({task.name: 1.0}))


def _random(world: World, task: TestedTask, left: Remainder) -> BatchRouter:
    return AtRandom(left.adapters(world.adapters), world.seed)


def _uniform(world: World, task: TestedTask, left: Remainder) -> BatchRouter:
    names = left.adapters(world.adapters)
    return Always(Mixture({name: 1 / len(names) for name in names}))


def _best_single(world: World, task: TestedTask, left: Remainder) -> BatchRouter:
    """Its mean over the known tasks' validation scores is the highest; who was not asked there counts as the base."""
    rankings = left.known(world.sources["head"].known()).rankings

    def mean(adapter: str) -> float:
        scores = [{one.adapter: one.score for one in ranking.scores} for ranking in rankings]
        return float(np.mean([found.get(adapter, found[""]) for found in scores]))

    return Always(Mixture({max(left.adapters(world.adapters), key=mean): 1.0}))


def _retriever(k: int) -> Method:
    def method(world: World, task: TestedTask, left: Remainder) -> BatchRouter:
        trained = {one.name for one in world.tasks}
        names = [name for name in left.adapters(world.adapters) if name in trained]
        vectors = np.stack([world.training_vector(name) for name in names])
        return Retriever(world.encoder("head"), names, vectors, k)

    return method


def lorauter(rules: Rules, encoder: str = "ends") -> Method:
    """LORAUTER by some rules."""

    def method(world: World, task: TestedTask, left: Remainder) -> BatchRouter:
        return world.router(rules, encoder, left)

    return method


Way = Literal["mixed", "averaged", "searched", "token_level"]


@dataclass(frozen=True, slots=True)
class Contender:
    """A method with its description.

    Attributes:
        says: what it does, in a sentence.
        method: makes its routers; None where none is asked.
        way: how it is answered: by mixtures in output space, by adapters averaged factor by factor, by weights that
            are searched, or by each token's own choice.
        fixed: whether it is the same in every regime.
    """

    says: str
    method: Method | None
    way: Way = "mixed"
    fixed: bool = False


METHODS: Mapping[str, Contender] = {
    "base": Contender("the base model alone", _base, fixed=True),
    "oracle": Contender("the adapter that was trained for the task", _oracle, fixed=True),
    "random": Contender("one adapter for each text, drawn at random", _random),
    "uniform": Contender("all adapters, with equal weights", _uniform),
    "best_single": Contender("the one adapter that is best over all known tasks", _best_single),
    "retriever_selection": Contender("LoraRetriever: the adapter of the nearest training inputs", _retriever(1)),
    "retriever_fusion": Contender(
        "LoraRetriever: the three nearest, averaged factor by factor", _retriever(RETRIEVED), "averaged"
    ),
    "retriever_mixture": Contender("LoraRetriever: the three nearest, with equal weights", _retriever(RETRIEVED)),
    "lorahub": Contender("LoRAHub: weights of 20 adapters, searched on five examples of the task", None, "searched"),
    "arrow": Contender("Arrow: three adapters a token and layer, by their main direction", None, "token_level"),
    "spectr": Contender("SpectR: three adapters a token and layer, by all their directions", None, "token_level"),
    "lorauter_paper": Contender("LORAUTER as published: preset `paper`", lorauter(PAPER, "head")),
    "lorauter": Contender("LORAUTER by our default preset", lorauter(DEFAULT)),
}


def contenders(names: Sequence[str]) -> dict[str, Contender]:
    """The methods of some names, in the order of `METHODS`; all when there are none.

    Raises:
        OptionError: a name that no method has.
    """
    if unknown := set(names) - set(METHODS):
        raise OptionError(f"unknown method {listing(unknown)}", hint=f"the methods are {listing(METHODS, limit=20)}")
    return {name: contender for name, contender in METHODS.items() if not names or name in names}
