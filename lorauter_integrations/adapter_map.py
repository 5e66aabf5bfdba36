"""Which adapters are best for each task, as values: what a mapping run leaves behind. Knows no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from lorauter_integrations.errors import TaskError


@dataclass(frozen=True, slots=True)
class AdapterScore:
    """What one contestant scored on a task.

    Attributes:
        adapter: its name in the pool; empty for the base model without any adapter.
        content_hash: the adapter's, so that a changed file is noticed; empty for the base model.
        score: mean of the task's metric over the examples it was asked.
        examples: how many examples that were.
        error: standard error of the mean; 0 for fewer than two examples.
        path: its mean after each round it took part in, over all examples it had seen by then.
    """

    adapter: str
    content_hash: str
    score: float
    examples: int
    error: float = 0.0
    path: tuple[float, ...] = ()

    @property
    def is_base(self) -> bool:
        """Whether this is the base model."""
        return not self.adapter


@dataclass(frozen=True, slots=True)
class Ranking:
    """The result of one task's mapping.

    Attributes:
        task: the task's name.
        task_hash: the task's content hash when it was mapped.
        base_model: the engine's identity when it was mapped.
        scorer: what was scored and how (see `Scorer.identity`).
        scores: all contestants, best first; the first is the winner.
        questions: adapter-example pairs that were scored, the base model's included.
        pool: adapters that the pool had.
        screened: how many of them were left out before the first round.
        pool_hash: of the contents of the pool.
        rules: how the contest was held, in words.
    """

    task: str
    task_hash: str
    base_model: str
    scorer: str
    scores: Sequence[AdapterScore]
    questions: int
    pool: int = 0
    screened: int = 0
    pool_hash: str = ""
    rules: str = ""

    @property
    def best(self) -> AdapterScore:
        """The winner; the base model when no adapter improves on it."""
        return self.scores[0]

    @property
    def base(self) -> AdapterScore:
        """What the base model scored."""
        return next(score for score in self.scores if score.is_base)

    @property
    def gain(self) -> float:
        """Score of the winner less the base model's."""
        return self.best.score - self.base.score

    def top(self, count: int) -> Ranking:
        """This ranking with the best `count` contestants and the base model only."""
        kept = tuple(score for place, score in enumerate(self.scores) if place < count or score.is_base)
        return replace(self, scores=kept)

    def to_json(self) -> str:
        """One JSON text, for `from_json`."""
        return json.dumps({**asdict(self), "scores": [asdict(score) for score in self.scores]})

    @classmethod
    def from_json(cls, text: str) -> Ranking:
        """Read what `to_json` wrote."""
        facts = json.loads(text)
        return cls(**{**facts, "scores": tuple(map(_score, facts["scores"]))})


def _score(facts: Mapping[str, Any]) -> AdapterScore:
    return AdapterScore(**{**facts, "path": tuple(facts.get("path", ()))})


class AdapterMap(Mapping[str, Ranking]):
    """Task name -> ranking."""

    def __init__(self, rankings: Sequence[Ranking] = ()) -> None:
        self._rankings = {ranking.task: ranking for ranking in rankings}

    def __getitem__(self, task: str) -> Ranking:
        return self._rankings[task]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._rankings))

    def __len__(self) -> int:
        return len(self._rankings)

    def __repr__(self) -> str:
        pairs = ", ".join(f"{name}: {self[name].best.adapter or 'base model'}" for name in self)
        return f"AdapterMap({pairs})"

    @property
    def questions(self) -> int:
        """Adapter-example pairs scored in all."""
        return sum(ranking.questions for ranking in self._rankings.values())

    def to_json(self) -> str:
        """One JSON text, for `from_json`."""
        return json.dumps([json.loads(ranking.to_json()) for ranking in self.values()], indent=1)

    @classmethod
    def from_json(cls, text: str) -> AdapterMap:
        """Read what `to_json` wrote.

        Raises:
            TaskError: the text is not such a map.
        """
        try:
            return cls([Ranking.from_json(json.dumps(ranking)) for ranking in json.loads(text)])
        except (ValueError, TypeError, KeyError) as error:
            raise TaskError(f"this is not an adapter map: {error}") from error
