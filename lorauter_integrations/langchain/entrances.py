"""LangChain's ways into a chat model, each with what this package adds to a call's config."""

from __future__ import annotations

import asyncio
from abc import ABC
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, closing
from typing import Any
from uuid import uuid4

from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import RunnableConfig, ensure_config
from langchain_core.runnables.config import get_config_list

from lorauter_integrations.langchain.asking import with_choice
from lorauter_integrations.langchain.routes import called_with

AT_ONCE = 64  # threads of one `batch`; LangChain's default, 6 on two cores, would keep the engine's batches small


class Entrances(BaseChatModel, ABC):
    """Reads adapters or a task from `config["configurable"]`, and lets the prompts of a batch meet in the engine."""

    def invoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """One answer."""
        config = _known(config)
        with called_with(config):
            return super().invoke(input, config, stop=stop, **with_choice(config, kwargs))

    async def ainvoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """As `invoke`; a cancelled task stops the model within a step."""
        config = _known(config)
        with called_with(config):
            return await super().ainvoke(input, config, stop=stop, **with_choice(config, kwargs))

    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """One answer in pieces; closing the iterator stops the model within a step."""
        config = _known(config)
        with closing(super().stream(input, config, stop=stop, **with_choice(config, kwargs))) as chunks:  # type: ignore[type-var]
            answers: list[Any] = []
            try:
                with called_with(config) as answers:  # not when the caller has the turn: they share a context
                    first = _as_chunk(next(chunks))
                yield first
                yield from chunks
            finally:
                for answer in answers:
                    answer.close()

    async def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """As `stream`, for event loops."""
        config = _known(config)
        async with aclosing(super().astream(input, config, stop=stop, **with_choice(config, kwargs))) as chunks:  # type: ignore[type-var]
            answers: list[Any] = []
            try:
                with called_with(config) as answers:
                    first = _as_chunk(await anext(chunks))
                yield first
                async for chunk in chunks:
                    yield chunk
            finally:
                for answer in answers:
                    await answer.aclose()

    def stream_events(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """As LangChain's; other versions than "v3" come back to `stream`."""
        if kwargs.get("version") == "v3":
            kwargs = with_choice(ensure_config(config), kwargs)
        return super().stream_events(input, config, **kwargs)

    def astream_events(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """As LangChain's; other versions than "v3" come back to `astream`."""
        if kwargs.get("version") == "v3":
            kwargs = with_choice(ensure_config(config), kwargs)
        return super().astream_events(input, config, **kwargs)

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Answers to several prompts, written in shared forward passes; `max_concurrency` limits how many at once."""
        configs = _side_by_side(config, len(inputs))
        return super().batch(inputs, configs, return_exceptions=return_exceptions, **kwargs)

    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """As `batch`, for event loops; no more at once either, so that the engine's queue is not overrun."""
        configs = _side_by_side(config, len(inputs))
        return await super().abatch(inputs, configs, return_exceptions=return_exceptions, **kwargs)

    async def abatch_as_completed(
        self,
        inputs: Sequence[LanguageModelInput],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> Any:
        """As `batch_as_completed`, for event loops; whoever leaves it ends what is still written."""
        configs = _side_by_side(config, len(inputs))
        places = asyncio.Semaphore(configs[0]["max_concurrency"] or 1) if configs else None

        async def numbered(number: int) -> tuple[int, Any]:
            async with places:  # type: ignore[union-attr]  # there is a number
                call = self.ainvoke(inputs[number], configs[number], **kwargs)
                [answer] = await asyncio.gather(call, return_exceptions=return_exceptions)
            return number, answer

        tasks = [asyncio.ensure_future(numbered(number)) for number in range(len(inputs))]
        try:
            for done in asyncio.as_completed(tasks):
                yield await done
        finally:
            for task in tasks:
                task.cancel()

    def batch_as_completed(self, inputs: Sequence[LanguageModelInput], config: Any = None, **kwargs: Any) -> Any:
        """As `batch`, each answer with its number as soon as it is there."""
        return super().batch_as_completed(inputs, _side_by_side(config, len(inputs)), **kwargs)


def _as_chunk(message: AIMessage) -> AIMessageChunk:
    """What LangChain gives for a stream where streaming is disabled is a whole message; its parsers want a chunk."""
    if isinstance(message, AIMessageChunk):
        return message
    return AIMessageChunk(**{**message.model_dump(exclude={"type"}), "chunk_position": "last"})


def _known(config: RunnableConfig | None) -> RunnableConfig:
    """The config with the id of the run that will be, for the event that tells its route."""
    config = ensure_config(config)
    return {**config, "run_id": config.get("run_id") or uuid4()}


def _side_by_side(config: Any, count: int) -> list[RunnableConfig]:
    """A config for each prompt, with as many threads as there are prompts unless the caller limits them."""
    configs = get_config_list(config, count)
    return [{**one, "max_concurrency": one.get("max_concurrency") or min(count, AT_ONCE)} for one in configs]
