"""The front door: a router and an engine behind one object. Knows no framework."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorauter_integrations.adapter_map import AdapterMap, Ranking
from lorauter_integrations.engines.base import Engine, completion_of
from lorauter_integrations.engines.threads import closed_at_the_end, in_threads, step_threads
from lorauter_integrations.errors import OptionError, RoutingError, UnknownAdapterError, listing
from lorauter_integrations.generation import (
    Completion,
    Delta,
    GenerationOptions,
    GenerationRequest,
    Grammar,
    Message,
    ToolSchema,
    refuse_unsupported,
)
from lorauter_integrations.mixture import Mixture
from lorauter_integrations.routing import Route, Router, TaskIndex, TaskRouter, route_to_task
from lorauter_integrations.routing.servable import servable
from lorauter_integrations.settings import DEFAULT_FILE, Settings
from lorauter_integrations.task import routing_text
from lorauter_integrations.tool_calls import system_with_tools

if TYPE_CHECKING:
    pass

logger = logging.getLogger(__name__)
OPTION_NAMES = tuple(field.name for field in fields(GenerationOptions))
CHOICE_NAMES = ("adapters", "task")


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer and the route it took."""

    completion: Completion
    route: Route

    @property
    def text(self) -> str:
        """The answer's text."""
        return self.completion.text


@dataclass(frozen=True, slots=True)
class Choice:
    """What a caller may choose instead of routing: adapters with weights, or a task by name; not both."""

    adapters: Mapping[str, float] | None = None
    task: str | None = None

    def __post_init__(self) -> None:
        if self.adapters is not None and self.task is not None:
            raise OptionError("adapters and task exclude each other", hint="give one of them, or none to route")


ROUTED = Choice()


class LoRAuter:
    """Routes each conversation to a mixture of adapters and lets the base model answer under it.

    Safe to use from many threads. `LoRAuter.from_config` is the usual way to one.

    Args:
        index: the tasks and their rankings.
        engine: the base model and the pool.
        router: text to route, anything with that one method; the paper's preset when None.
        options: defaults of every answer.
    """

    def __init__(
        self,
        index: TaskIndex,
        engine: Engine,
        *,
        router: Router | None = None,
        options: GenerationOptions | None = None,
    ) -> None:
        self.index = index
        self.engine = engine
        self.router = router or TaskRouter(index)
        self.options = options or GenerationOptions()

    @classmethod
    def from_config(cls, file: str | Path = DEFAULT_FILE, overrides: Mapping[str, Any] | None = None) -> LoRAuter:
        """The LoRAuter of a settings file.

        A process that asks again shares the model, the pool and the index of the settings that name the same.

        Args:
            file: a TOML file, see `Settings`.
            overrides: tables and keys that win over the file.

        Raises:
            ConfigError: the settings are wrong.
            ModelLoadError: the base model or the encoder cannot be loaded.
            PoolError: the pool cannot be used.
            TaskIndexError: the index cannot be opened.
        """
        from lorauter_integrations.opening import build

        lorauter = build(Settings.read(file, overrides))
        lorauter.warn_of_stale_map()
        return lorauter

    def __deepcopy__(self, _: object) -> LoRAuter:
        """Itself: frameworks copy their models freely, and a second copy of the weights helps nobody."""
        return self

    # ------------------------------------------------------------------ routing

    def route(self, conversation: str | Sequence[Message], tools: Sequence[ToolSchema] = ()) -> Route:
        """Where a text or conversation goes.

        Raises:
            RoutingError: nothing to route on, or no task has been mapped.
        """
        text = conversation if isinstance(conversation, str) else text_of(conversation, tools)
        return self.router.route(text)

    def choose(self, messages: Sequence[Message], choice: Choice = ROUTED, tools: Sequence[ToolSchema] = ()) -> Route:
        """The route of a conversation, unless the caller chose; a route is made one that can be served.

        Raises:
            UnknownAdapterError: chosen adapters are not in the pool.
            OptionError: a chosen adapter can only be used alone.
            UnknownTaskError: the chosen task is not in the index.
            RoutingError: as `route` and `servable`.
        """
        if choice.adapters is not None:
            mixture = Mixture(choice.adapters)
            self.engine.require(mixture)
            return Route(mixture, (), "the adapters were chosen by the caller")
        if choice.task is not None:
            return route_to_task(self.index, choice.task)
        route, pool = self.route(messages, tools), self.engine.adapters
        route = servable(route, {name: pool[name].alone for name in route.mixture if name in pool})
        try:
            self.engine.require(route.mixture)
        except UnknownAdapterError as error:
            raise UnknownAdapterError(
                f"the text was routed to {route.mixture}, but {error.message}",
                hint="the pool has changed since the tasks were mapped; run `lorauter map`",
            ) from error
        return route

    # ------------------------------------------------------------------ answering

    def stream(
        self,
        messages: Sequence[Message],
        options: GenerationOptions | None = None,
        *,
        choice: Choice = ROUTED,
        tools: Sequence[ToolSchema] = (),
        grammar: Grammar | None = None,
    ) -> tuple[Route, Iterator[Delta]]:
        """The route, and the answer piece by piece. Closing the iterator ends the work.

        Args:
            messages: the conversation.
            options: how to choose tokens; the settings' when None.
            choice: adapters or a task, instead of routing.
            tools: shown to the model.
            grammar: what the answer must be.

        Raises:
            As `choose` and `Engine.stream`.
        """
        route = self.choose(messages, choice, tools)
        request = GenerationRequest(messages, route.mixture, options or self.options, tools, grammar)
        return route, self.engine.stream(request)

    def generate(
        self,
        messages: Sequence[Message],
        options: GenerationOptions | None = None,
        *,
        choice: Choice = ROUTED,
        tools: Sequence[ToolSchema] = (),
        grammar: Grammar | None = None,
    ) -> Answer:
        """The whole answer. Raises as `stream`."""
        route, deltas = self.stream(messages, options, choice=choice, tools=tools, grammar=grammar)
        return Answer(completion_of(deltas), route)

    async def astream(
        self,
        messages: Sequence[Message],
        options: GenerationOptions | None = None,
        *,
        choice: Choice = ROUTED,
        tools: Sequence[ToolSchema] = (),
        grammar: Grammar | None = None,
    ) -> tuple[Route, AsyncIterator[Delta]]:
        """As `stream`, off the event loop; a cancelled task stops the work within a step."""
        ask = partial(self.stream, messages, options, choice=choice, tools=tools, grammar=grammar)
        route, deltas = await asyncio.get_running_loop().run_in_executor(step_threads(), ask)
        return route, closed_at_the_end(deltas) if isinstance(deltas, AsyncIterator) else in_threads(deltas)

    def asked(self, given: Mapping[str, Any], keywords: Mapping[str, Any]) -> tuple[GenerationOptions, Choice]:
        """What one call of a framework's model asks for.

        Args:
            given: the model object's own `OPTION_NAMES`, `adapters` and `task`; None = not set. They win
                over the settings.
            keywords: the call's, of the same names; they win over the fields.

        Raises:
            OptionError: a value is out of range, or adapters and task are both given.
        """
        if keywords.get("grammar") is not None and not keywords.get("stop"):
            keywords = {**keywords, "stop": ()}  # they exclude each other, and the call's own word is the grammar
        options = self.options
        for source in (given, keywords):
            options = options.override({name: source.get(name) for name in OPTION_NAMES})
        own = keywords.get("adapters") is not None or keywords.get("task") is not None
        source = keywords if own else given
        return options, Choice(source.get("adapters"), source.get("task"))

    # ------------------------------------------------------------------ the map

    @property
    def adapter_map(self) -> AdapterMap:
        """The rankings of all mapped tasks."""
        return self.index.adapter_map()

    def warn_of_stale_map(self) -> None:
        """Log what a person should know before serving: unmapped tasks, another base, changed adapters."""
        rankings = self.adapter_map
        if unmapped := [name for name in self.index.names() if name not in rankings]:
            logger.warning("not mapped yet, so nothing is routed to: %s; run `lorauter map`", ", ".join(unmapped))
        for task, ranking in rankings.items():
            if state := staleness(ranking, self.engine):
                logger.warning("task %s: %s; run `lorauter map`", task, state)


def staleness(ranking: Ranking, engine: Engine) -> str:
    """What is wrong with a task's winner, in words; empty when nothing is."""
    best, pool = ranking.best, engine.adapters
    if ranking.base_model != engine.identity:
        return "it was mapped with another base model or chat template"
    if best.is_base:
        return ""
    if best.adapter not in pool:
        return f"its adapter {best.adapter!r} is not in the pool any more"
    changed = pool[best.adapter].content_hash != best.content_hash
    return f"its adapter {best.adapter!r} has changed since it was mapped" if changed else ""


def refuse_unknown(names: Iterable[str], known: Iterable[str], what: str) -> None:
    """Nothing a caller writes is dropped in silence.

    Raises:
        OptionError: a name that is not known.
    """
    names = set(names)
    refuse_unsupported(sorted(names - set(known)))
    if unknown := names - set(known):
        raise OptionError(f"unknown {what} {listing(unknown)}", hint=f"known are {listing(known, limit=20)}")


def text_of(messages: Sequence[Message], tools: Sequence[ToolSchema] = ()) -> str:
    """The text that routes a conversation: system message, tools, and the last user message.

    The tools are part of it as the model reads them, so that a call with tools routes as one.

    Raises:
        RoutingError: there is no such text.
    """
    system = "\n\n".join(m.content for m in messages if m.role == "system")
    user = next((m.content for m in reversed(messages) if m.role == "user"), "")
    text = routing_text(system_with_tools(system, tools), user)
    if not text:
        roles = ", ".join(message.role for message in messages) or "none"
        raise RoutingError(
            f"the conversation (turns: {roles}) has no system or user text to route on",
            hint="send a user message, or choose adapters=... or task=...",
        )
    return text
