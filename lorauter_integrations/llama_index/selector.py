"""A LlamaIndex selector that chooses by the tasks a query is near to. Knows the task index; nothing of engines."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core.base.base_selector import BaseSelector, SelectorResult, SingleSelection
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.schema import QueryBundle
from llama_index.core.tools.types import ToolMetadata

from lorauter_integrations.choice import refuse_unknown
from lorauter_integrations.errors import RoutingError
from lorauter_integrations.lorauter import LoRAuter
from lorauter_integrations.routing import TaskIndex


@dataclass(frozen=True, slots=True)
class _Match:
    """How near a choice is, and by what."""

    choice: int
    similarity: float
    by: str


class LoRAuterSelector(BaseSelector):
    """Selects the choice whose task, or else whose description, is nearest to the query; asks no language model.

    A choice stands for the tasks that `tasks` gives it, or for the task of its name, with their examples' vectors
    as in routing; any other choice for its description. All are compared with the query by cosine. Descriptions are
    one vector of a sentence, tasks a mean of many examples: give tasks to all choices or to none where you can.

    Args:
        index: the tasks and the encoder; a `LoRAuter` for its own.
        tasks: for a choice's name, the names of its tasks.

    Example:
        ```python
        selector = LoRAuterSelector(llm.lorauter, tasks={"bookings": ["text_to_sql"], "manual": ["passage_qa"]})
        engine = RouterQueryEngine(selector=selector, query_engine_tools=[bookings, manual])
        ```
    """

    def __init__(self, index: LoRAuter | TaskIndex, tasks: Mapping[str, Sequence[str]] | None = None) -> None:
        self._index = index.index if isinstance(index, LoRAuter) else index
        self._tasks = {name: tuple(given) for name, given in (tasks or {}).items()}

    def _get_prompts(self) -> dict[str, Any]:
        return {}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        """There are none."""

    def _select(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        """The nearest choice, and why.

        Raises:
            RoutingError: there are no choices, the query is empty, or a choice's task has not been mapped.
            UnknownTaskError: a choice's task is not in the index.
            OptionError: `tasks` names a choice that there is not.
        """
        if not choices:
            raise RoutingError("there are no choices to select from", hint="give the query engine its tools")
        if not query.query_str.strip():
            raise RoutingError("an empty query cannot select one of the choices", hint="ask something")
        refuse_unknown(self._tasks, [choice.name for choice in choices if choice.name], "choice")
        matches = sorted(self._matches(choices, query.query_str), key=lambda match: -match.similarity)
        best = matches[0]
        reason = f"nearest by {best.by} (similarity {best.similarity:.3f})"
        if len(matches) > 1:
            reason += f"; next is {matches[1].by} (similarity {matches[1].similarity:.3f})"
        return SelectorResult(selections=[SingleSelection(index=best.choice, reason=reason)])

    async def _aselect(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        """As `_select`, off the event loop."""
        return await asyncio.to_thread(self._select, choices, query)

    def _matches(self, choices: Sequence[ToolMetadata], query: str) -> list[_Match]:
        names = self._index.names()
        described = [at for at, choice in enumerate(choices) if not self._tasks_of(choice, names)]
        query_vector, *vectors = self._index.encoder.encode([query, *(choices[at].description for at in described)])
        matches = [
            _Match(at, float(vector @ query_vector), f"the description of {choices[at].name or f'choice {at + 1}'!r}")
            for at, vector in zip(described, vectors, strict=True)
        ]
        near = {match.task: match.similarity for match in self._index.nearest(query_vector, max(len(names), 1))}
        for at, choice in enumerate(choices):
            for task in self._tasks_of(choice, names):
                matches.append(_Match(at, self._similarity(near, task), f"task {task!r} of {choice.name!r}"))
        return matches

    def _tasks_of(self, choice: ToolMetadata, names: Sequence[str]) -> Sequence[str]:
        name = choice.name or ""
        return self._tasks.get(name, (name,) if name in names else ())

    def _similarity(self, near: Mapping[str, float], task: str) -> float:
        if task not in near:
            self._index.ranking(task)  # an unknown task is an error of its own
            raise RoutingError(
                f"task {task!r} has not been mapped, so nothing is near to it", hint="run `lorauter map`"
            )
        return near[task]
