"""The front door: a router and an engine behind one object. Knows no framework."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorauter_integrations._version import __version__
from lorauter_integrations.adapter_map import AdapterMap, Ranking
from lorauter_integrations.choice import ROUTED, Choice, with_model
from lorauter_integrations.digests import digest
from lorauter_integrations.engines.base import Engine, completion_of
from lorauter_integrations.engines.threads import closed_at_the_end, in_threads, step_threads
from lorauter_integrations.errors import UnknownAdapterError
from lorauter_integrations.generation import (
    Completion,
    Delta,
    GenerationOptions,
    GenerationRequest,
    Grammar,
    Message,
    ToolSchema,
)
from lorauter_integrations.mixture import Mixture
from lorauter_integrations.route_text import DEFAULT_ROUTE_ON, RouteOn, checked_route_on, route_on_name, route_text
from lorauter_integrations.routing import Route, Router, TaskIndex, TaskRouter, route_to_task
from lorauter_integrations.routing.servable import servable
from lorauter_integrations.routing.sticky import FollowUps
from lorauter_integrations.settings import DEFAULT_FILE, Settings

if TYPE_CHECKING:
    from lorauter_integrations.langchain import RouteRunnable

logger = logging.getLogger(__name__)
OPTION_NAMES = tuple(field.name for field in fields(GenerationOptions))


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer and the route it took."""

    completion: Completion
    route: Route

    @property
    def text(self) -> str:
        """The answer's text."""
        return self.completion.text


class LoRAuter:
    """Routes each conversation to a mixture of adapters and lets the base model answer under it.

    Safe to use from many threads. `LoRAuter.from_config` is the usual way to one.

    Copies are the object itself, and so is what is unpickled in the process that pickled it. In another process one
    that `travels` is opened anew from its settings; any other is refused there with a ConfigError.

    Args:
        index: the tasks and their rankings.
        engine: the base model and the pool.
        router: text to route, anything with that one method; the default preset when None.
        options: defaults of every answer.
        route_on: what of a conversation is routed on, see `route_text`.
        sticky: whether a follow-up such as "shorter please" stays on its conversation's task, see `FollowUps`.
        settings: what the parts were opened from; None when they were made otherwise.

    Attributes:
        travels: whether another process can open the same from the settings.

    Raises:
        OptionError: there is no such `route_on`.
    """

    def __init__(
        self,
        index: TaskIndex,
        engine: Engine,
        *,
        router: Router | None = None,
        options: GenerationOptions | None = None,
        route_on: RouteOn = DEFAULT_ROUTE_ON,
        sticky: bool = False,
        settings: Settings | None = None,
    ) -> None:
        self.index = index
        self.engine = engine
        self.router = router or TaskRouter(index)
        self.options = options or GenerationOptions()
        self.route_on = checked_route_on(route_on)
        self.sticky = sticky
        self.settings = settings
        self.travels = settings is not None
        self.key = uuid.uuid4().hex  # of its pickles
        self._follow_ups = FollowUps(index)
        self._hashed_pool: tuple[object, str] = (None, "")

    @classmethod
    def from_config(
        cls, file: str | Path = DEFAULT_FILE, overrides: Mapping[str, Any] | None = None, encoder: Any = None
    ) -> LoRAuter:
        """The LoRAuter of a settings file.

        A process that asks again shares the model, the pool and the index of the settings that name the same.

        Args:
            file: a TOML file, see `Settings`.
            overrides: tables and keys that win over the file.
            encoder: instead of the settings' `[encoder]`: a LangChain `Embeddings`, a LlamaIndex embedding or an
                `Encoder`, see `as_encoder`.

        Raises:
            ConfigError: the settings are wrong, or `encoder` is none.
            ModelLoadError: the base model or the encoder cannot be loaded.
            PoolError: the pool cannot be used.
            TaskIndexError: the index cannot be opened.
        """
        from lorauter_integrations.opening import build

        lorauter = build(Settings.read(file, overrides), encoder)
        lorauter.warn_of_stale_map()
        return lorauter

    def __deepcopy__(self, _: object) -> LoRAuter:
        """Itself: frameworks copy their models freely, and a second copy of the weights helps nobody."""
        return self

    def __reduce__(self) -> tuple[object, ...]:
        from lorauter_integrations.opening import keep, reopen

        keep(self)
        return reopen, (self.key, self.settings if self.travels else None)

    # ------------------------------------------------------------------ routing

    def route(
        self, conversation: str | Sequence[Message], tools: Sequence[ToolSchema] = (), choice: Choice = ROUTED
    ) -> Route:
        """Where a text or conversation goes.

        Raises:
            RoutingError: nothing to route on, or no task has been mapped.
            UnknownTaskError: the chosen task is not in the index.
        """
        if choice.adapters is not None:
            return Route(Mixture(choice.adapters), (), "the adapters were chosen by the caller")
        if choice.task is not None:
            return route_to_task(self.index, choice.task)
        if choice.text is not None:
            return self.router.route(choice.text)
        if isinstance(conversation, str):
            return self.router.route(conversation)
        text_of = partial(route_text, tools=tools, route_on=choice.route_on or self.route_on)
        if self.sticky if choice.sticky is None else choice.sticky:
            return self._follow_ups.route(self.router, conversation, text_of)
        return self.router.route(text_of(conversation))

    def choose(self, messages: Sequence[Message], choice: Choice = ROUTED, tools: Sequence[ToolSchema] = ()) -> Route:
        """The route of a conversation, unless the caller chose; a route is made one that can be served.

        Raises:
            UnknownAdapterError: chosen adapters are not in the pool.
            OptionError: a chosen adapter can only be used alone.
            UnknownTaskError: the chosen task is not in the index.
            RoutingError: as `route` and `servable`.
        """
        route, pool = self.route(messages, tools, choice), self.engine.adapters
        if choice.adapters is not None:
            self.engine.require(route.mixture)
        if choice.adapters is not None or choice.task is not None:
            return route
        route = servable(route, {name: pool[name].alone for name in route.mixture if name in pool})
        try:
            self.engine.require(route.mixture)
        except UnknownAdapterError as error:
            raise UnknownAdapterError(
                f"the text was routed to {route.mixture}, but {error.message}",
                hint="the pool has changed since the tasks were mapped; run `lorauter map`",
            ) from error
        return route

    def as_runnable(self, tools: Sequence[Any] = ()) -> RouteRunnable:
        """A LangChain runnable from a text, messages or a prompt to its `Route`; nothing is written.

        Args:
            tools: shown to the model in the call that is asked about; anything `ChatLoRAuter.bind_tools` takes.

        Raises:
            MissingExtraError: LangChain is not installed.
        """
        from lorauter_integrations.langchain import RouteRunnable

        return RouteRunnable(self, tools)

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
            choice: adapters or a task instead of routing, or what is routed on.
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
    ) -> tuple[Route, AsyncGenerator[Delta, None]]:
        """As `stream`, off the event loop; a cancelled task stops the work within a step."""
        ask = partial(self.stream, messages, options, choice=choice, tools=tools, grammar=grammar)
        route, deltas = await asyncio.get_running_loop().run_in_executor(step_threads(), ask)
        return route, closed_at_the_end(deltas) if isinstance(deltas, AsyncIterator) else in_threads(deltas)

    def asked(self, given: Mapping[str, Any], keywords: Mapping[str, Any]) -> tuple[GenerationOptions, Choice]:
        """What one call of a framework's model asks for.

        Args:
            given: the model object's own `OPTION_NAMES`, `CHOICE_NAMES` and `model`; None = not set. They win over
                the settings.
            keywords: the call's, of the same names; they win over the fields, adapters and task as a pair. A `model`
                that is an adapter's name stands for this adapter.

        Raises:
            OptionError: a value is out of range, or adapters, task and model exclude each other.
            UnknownAdapterError: `model` is neither the base model nor an adapter.
        """
        if keywords.get("model") is not None:
            given = {**given, "model": None}
        given, keywords = (with_model(one, self.model_names, self.engine.adapters) for one in (given, keywords))
        grammar = keywords.get("grammar")
        if grammar is not None and not grammar.allows_text and not keywords.get("stop"):
            keywords = {**keywords, "stop": ()}  # they exclude each other, and the call's own word is the grammar
        options = self.options
        for source in (given, keywords):
            options = options.override({name: source.get(name) for name in OPTION_NAMES})
        return options, Choice.asked(given, keywords)

    # ------------------------------------------------------------------ what it is

    @property
    def model_names(self) -> set[str]:
        """What callers may call the base model: the engine's name, and the settings' as it is written there."""
        return {self.engine.name} | ({self.settings.model.name} if self.settings else set())

    @property
    def identity(self) -> str:
        """A short hash that changes whenever the same call could be answered otherwise; the key of a cache.

        It tells the package's version, the base model, the pool, the index (see `TaskIndex.identity`), the router,
        `route_on`, `sticky` and the default options. A router of your own is told by its `identity`, or else by its
        repr; a `route_on` function by its module and name, not by what it does. Cheap enough for every call.
        """
        parts = [
            __version__,
            self.engine.identity,
            self._pool_hash(),
            self.index.identity,
            getattr(self.router, "identity", None) or repr(self.router),
            route_on_name(self.route_on),
            self.sticky,
            repr(self.options),
        ]
        return digest(parts)

    def _pool_hash(self) -> str:
        pool = self.engine.adapters
        if self._hashed_pool[0] is not pool:
            self._hashed_pool = pool, digest([[name, pool[name].content_hash] for name in sorted(pool)])
        return self._hashed_pool[1]

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
    """What is wrong with a task's ranked adapters, any of which may answer, in words; empty when nothing is."""
    pool = engine.adapters
    if ranking.base_model != engine.identity:
        return "it was mapped with another base model or chat template"
    for one in ranking.scores:
        if one.is_base:
            continue
        if one.adapter not in pool:
            return f"its adapter {one.adapter!r} is not in the pool any more"
        if pool[one.adapter].content_hash != one.content_hash:
            return f"its adapter {one.adapter!r} has changed since it was mapped"
    return ""
