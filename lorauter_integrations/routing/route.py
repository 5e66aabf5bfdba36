"""The answer of a router: which adapters, why, and in words. A value; knows nothing of engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lorauter_integrations.mixture import Mixture


@dataclass(frozen=True, slots=True)
class TaskMatch:
    """One task a text came near to.

    Attributes:
        task: its name.
        similarity: cosine of the text and the task in the router's space, in [-1, 1].
        weight: its share of the text; the shares of a route add up to 1, or are 0 when it abstained. The adapters'
            weights are in the mixture.
        adapter: the task's best adapter; empty when no adapter improves on the base model.
    """

    task: str
    similarity: float
    weight: float
    adapter: str

    def __str__(self) -> str:
        return (
            f"{self.task} (similarity {self.similarity:.3f}, weight {self.weight:.2f})"
            f" -> {self.adapter or 'base model'}"
        )


@dataclass(frozen=True, slots=True)
class Route:
    """Where a text goes.

    Attributes:
        mixture: the adapters and their weights; empty = the base model.
        matches: the tasks that share the text, and the very nearest, nearest first; empty when the caller chose.
        reason: why the route is what it is, in a sentence.
        abstained: the router found nothing near enough and left the base model alone.
    """

    mixture: Mixture
    matches: Sequence[TaskMatch] = ()
    reason: str = ""
    abstained: bool = False

    def explain(self) -> str:
        """The route in words, one line a task."""
        return "\n".join([f"{self.mixture}: {self.reason}", *(f"  {match}" for match in self.matches)])

    def as_dict(self) -> dict[str, Any]:
        """The route as JSON-able values, as it goes into a response's metadata."""
        return {
            "tasks": [asdict(match) for match in self.matches],
            "adapters": dict(self.mixture.by_weight()),
            "abstained": self.abstained,
            "reason": self.reason,
        }

    def __str__(self) -> str:
        return self.explain()
