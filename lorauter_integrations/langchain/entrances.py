"""LangChain's ways into a chat model, each with what this package adds to a call's config."""

from __future__ import annotations

from abc import ABC
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from typing import Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import RunnableConfig, ensure_config
from langchain_core.runnables.config import get_config_list

from lorauter_integrations.langchain.routes import called_with

AT_ONCE = 64  # threads of one `batch`; LangChain's default, 6 on two cores, would keep the engine's batches small
CONFIGURABLE = ("adapters", "task")
CHOOSING = frozenset({*CONFIGURABLE, "model"})


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
        config = ensure_config(config)
        with called_with(config):
            return super().invoke(input, config, stop=stop, **_with_choice(config, kwargs))

    async def ainvoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """As `invoke`; a cancelled task stops the model within a step."""
        config = ensure_config(config)
        with called_with(config):
            return await super().ainvoke(input, config, stop=stop, **_with_choice(config, kwargs))

    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """One answer in pieces; closing the iterator stops the model within a step."""
        config = ensure_config(config)
        with closing(super().stream(input, config, stop=stop, **_with_choice(config, kwargs))) as chunks:  # type: ignore[type-var]
            answers: list[Any] = []
            try:
                with called_with(config) as answers:  # not when the caller has the turn: they share a context
                    first = next(chunks)
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
        config = ensure_config(config)
        async with aclosing(super().astream(input, config, stop=stop, **_with_choice(config, kwargs))) as chunks:  # type: ignore[type-var]
            answers: list[Any] = []
            try:
                with called_with(config) as answers:
                    first = await anext(chunks)
                yield first
                async for chunk in chunks:
                    yield chunk
            finally:
                for answer in answers:
                    await answer.aclose()

    def stream_events(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """As LangChain's; other versions than "v3" come back to `stream`."""
        if kwargs.get("version") == "v3":
            kwargs = _with_choice(ensure_config(config), kwargs)
        return super().stream_events(input, config, **kwargs)

    def astream_events(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """As LangChain's; other versions than "v3" come back to `astream`."""
        if kwargs.get("version") == "v3":
            kwargs = _with_choice(ensure_config(config), kwargs)
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

    def batch_as_completed(self, inputs: Sequence[LanguageModelInput], config: Any = None, **kwargs: Any) -> Any:
        """As `batch`, each answer with its number as soon as it is there."""
        return super().batch_as_completed(inputs, _side_by_side(config, len(inputs)), **kwargs)


def _with_choice(config: RunnableConfig, keywords: dict[str, Any]) -> dict[str, Any]:
    """The call keywords, with what the config chooses where they choose nothing."""
    if any(keywords.get(name) is not None for name in CHOOSING):
        return keywords
    configurable: Mapping[str, Any] = config.get("configurable") or {}
    return {**{name: configurable[name] for name in CONFIGURABLE if name in configurable}, **keywords}


def _side_by_side(config: Any, count: int) -> list[RunnableConfig]:
    """A config for each prompt, with as many threads as there are prompts unless the caller limits them."""
    configs = get_config_list(config, count)
    return [{**one, "max_concurrency": one.get("max_concurrency") or min(count, AT_ONCE)} for one in configs]
