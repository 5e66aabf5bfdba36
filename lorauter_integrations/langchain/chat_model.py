"""A LangChain chat model whose every call is routed. Translates messages; all else is LoRAuter's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.chat_models import (
    BaseChatModel,
    agenerate_from_stream,
    generate_from_stream,
)
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, Field

from lorauter_integrations.errors import OptionError
from lorauter_integrations.generation import Completion, Delta, GenerationOptions, Grammar, Message, ToolSchema
from lorauter_integrations.langchain.messages import from_langchain, last_chunk, metadata, usage
from lorauter_integrations.lorauter import CHOICE_NAMES, OPTION_NAMES, Choice, LoRAuter, refuse_unknown
from lorauter_integrations.routing import Route
from lorauter_integrations.settings import DEFAULT_FILE
from lorauter_integrations.tool_calls import CallFilter, ParsedAnswer


class ChatLoRAuter(BaseChatModel):
    """A chat model in which each call goes to the right mixture of adapters by itself.

    The route is in `response_metadata["lorauter"]` of every answer. A call can choose instead of routing:
    `llm.bind(adapters={"sql": 1.0})`, `llm.bind(task="text_to_sql")`.

    Example:
        ```python
        llm = ChatLoRAuter.from_config("lorauter.toml")
        llm.invoke("Is this review positive or negative? I would buy it again.")
        ```
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", protected_namespaces=())

    lorauter: LoRAuter = Field(exclude=True, repr=False)
    """Routes and answers; shared by all copies."""
    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: list[str] | None = None
    logprobs: int | None = None
    """How many likeliest tokens to report beside each chosen one, in `response_metadata["logprobs"]`."""
    timeout: float | None = None
    """Seconds to the end of an answer."""
    adapters: dict[str, float] | None = None
    """Adapters with weights for every call, instead of routing."""
    task: str | None = None
    """The task of every call, instead of routing."""

    @classmethod
    def from_config(cls, path: str | Path = DEFAULT_FILE, **overrides: Any) -> ChatLoRAuter:
        """The chat model of a settings file.

        Args:
            path: a TOML file, see `Settings`.
            overrides: fields of this class, such as `temperature=0.7`; and `settings={...}`, tables and keys
                that win over the file.

        Raises:
            LoRAuterError: as `LoRAuter.from_config`.
            OptionError: a field that does not exist.
        """
        settings = overrides.pop("settings", None)
        refuse_unknown(overrides, cls.model_fields, "field")
        return cls(lorauter=LoRAuter.from_config(path, settings), **overrides)

    @property
    def model_name(self) -> str:
        """The base model's name."""
        return self.lorauter.engine.name

    @property
    def _llm_type(self) -> str:
        return "lorauter"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return {"model": self.model_name, "engine": self.lorauter.engine.identity, **self._own()}

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Show tools to the model, which decides whether to call one.

        Args:
            tools: anything `convert_to_openai_tool` takes.
            tool_choice: None or "auto"; "none" shows no tools.
            kwargs: call keywords to bind as well.

        Raises:
            OptionError: a call is to be forced, which this version cannot.
        """
        if tool_choice not in (None, "auto", "none", False):
            raise OptionError(
                f"tool_choice={tool_choice!r}: this version cannot force a call",
                hint="use tool_choice='auto'",
            )
        shown = [] if tool_choice in ("none", False) else [convert_to_openai_tool(tool) for tool in tools]
        return super().bind(tools=shown, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return generate_from_stream(self._stream(messages, stop, None, **kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return await agenerate_from_stream(self._astream(messages, stop, None, **kwargs))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        call = self._call(messages, stop, kwargs)
        route, deltas = self.lorauter.stream(
            call.messages, call.options, choice=call.choice, tools=call.tools, grammar=call.grammar
        )
        writer = _ChunkWriter(route, self.model_name, has_tools=bool(call.tools))
        for delta in deltas:
            for chunk in writer.chunks(delta):
                if run_manager:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        call = self._call(messages, stop, kwargs)
        route, deltas = await self.lorauter.astream(
            call.messages, call.options, choice=call.choice, tools=call.tools, grammar=call.grammar
        )
        writer = _ChunkWriter(route, self.model_name, has_tools=bool(call.tools))
        async for delta in deltas:
            for chunk in writer.chunks(delta):
                if run_manager:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    def _call(self, messages: Sequence[BaseMessage], stop: Sequence[str] | None, kwargs: dict[str, Any]) -> _Call:
        """What a call asks for: its own keywords win over the fields, the fields over the settings."""
        refuse_unknown(kwargs, (*OPTION_NAMES, *CHOICE_NAMES, "tools", "grammar"), "call keyword")
        options, choice = self.lorauter.asked(self._own(), {**kwargs, "stop": stop})
        tools = [convert_to_openai_tool(tool) for tool in kwargs.get("tools") or ()]
        return _Call(from_langchain(messages), options, choice, tools, kwargs.get("grammar"))

    def _own(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in (*OPTION_NAMES, *CHOICE_NAMES)}


@dataclass(frozen=True, slots=True)
class _Call:
    messages: Sequence[Message]
    options: GenerationOptions
    choice: Choice
    tools: Sequence[ToolSchema]
    grammar: Grammar | None


class _ChunkWriter:
    """Deltas to LangChain chunks; calls are hidden from the text and come with the last chunk."""

    def __init__(self, route: Route, model: str, *, has_tools: bool) -> None:
        self._route = route
        self._model = model
        self._filter = CallFilter() if has_tools else None

    def chunks(self, delta: Delta) -> Iterator[ChatGenerationChunk]:
        text = self._filter.push(delta.text) if self._filter else delta.text
        if delta.completion is None:
            if text:
                yield ChatGenerationChunk(message=AIMessageChunk(content=text))
            return
        yield self._last(text, delta.completion)

    def _last(self, text: str, completion: Completion) -> ChatGenerationChunk:
        rest, parsed = self._filter.finish() if self._filter else ("", ParsedAnswer(completion.text))
        facts = metadata(self._route, completion, self._model)
        message = last_chunk(parsed, text + rest, facts, usage(completion))
        return ChatGenerationChunk(message=message, generation_info={"finish_reason": completion.finish_reason})
