"""A LlamaIndex LLM whose every call is routed. Translates calls; all else is LoRAuter's."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.llm import (
    LLMStructuredPredictEndEvent,
    LLMStructuredPredictStartEvent,
)
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools.types import BaseTool
from pydantic import BaseModel, Field, PrivateAttr, SerializerFunctionWrapHandler, model_serializer

from lorauter_integrations.asking import OWN_NAMES, Call, named
from lorauter_integrations.choice import refuse_unknown
from lorauter_integrations.engines.base import acompletion_of, completion_of
from lorauter_integrations.errors import InvalidAnswerError, OptionError
from lorauter_integrations.llama_index.answers import (
    Response,
    ResponseWriter,
    Write,
    awritten,
    selections,
    whole,
    written,
)
from lorauter_integrations.llama_index.asking import conversation, understand
from lorauter_integrations.llama_index.closing import acloses, closes, opened
from lorauter_integrations.llama_index.events import LoRAuterRouteEvent
from lorauter_integrations.llama_index.messages import BROKEN
from lorauter_integrations.llama_index.structured import Growing, Model, asked, parsed
from lorauter_integrations.lorauter import LoRAuter
from lorauter_integrations.route_text import RouteOn
from lorauter_integrations.routing import Route
from lorauter_integrations.settings import DEFAULT_FILE

dispatcher = get_dispatcher(__name__)


class LoRAuterLLM(FunctionCallingLLM):
    """An LLM in which each call goes to the right mixture of adapters by itself.

    The route is in `raw["lorauter"]` of every answer (of the last piece when streaming), and a `LoRAuterRouteEvent`
    tells it before the first token. A call can choose instead: `llm.chat(messages, adapters={"sql": 1.0})`,
    `llm.complete(text, task="text_to_sql")`, `llm.complete(text, model="sql")`.

    Example:
        ```python
        Settings.llm = llm = LoRAuterLLM.from_config("lorauter.toml")
        Settings.tokenizer = llm.lorauter.engine.token_ids  # LlamaIndex fills prompts by it, else by OpenAI's
        ```
    """

    temperature: float | None = Field(default=None, description="0 is greedy; the settings' when None")
    max_tokens: int | None = Field(default=None, description="most new tokens; the settings' when None")
    top_p: float | None = Field(default=None)
    top_k: int | None = Field(default=None)
    min_p: float | None = Field(default=None)
    repetition_penalty: float | None = Field(default=None)
    seed: int | None = Field(default=None)
    stop: str | list[str] | None = Field(default=None, description="the answer ends before the first of these")
    logprobs: int | None = Field(default=None, description="likeliest tokens beside each chosen one, in raw")
    timeout: float | None = Field(default=None, description="seconds to the end of an answer")
    adapters: dict[str, float] | None = Field(default=None, description="for every call, instead of routing")
    task: str | None = Field(default=None, description="of every call, instead of routing")
    route_on: RouteOn | None = Field(default=None, description="what of a conversation is routed on")
    sticky: bool | None = Field(default=None, description="whether a follow-up stays on its conversation's task")
    model: str | None = Field(default=None, description="an adapter's name uses it alone; the base model's routes")
    _lorauter: LoRAuter = PrivateAttr()

    def __init__(self, lorauter: LoRAuter, **fields: Any) -> None:
        refuse_unknown(fields, {*type(self).model_fields, "class_name"}, "field")
        if not isinstance(lorauter, LoRAuter):
            raise OptionError(
                f"lorauter={lorauter!r} is no LoRAuter",
                hint="write LoRAuterLLM.from_config(FILE), or LoRAuterLLM.from_dict(data, lorauter=...)",
            )
        super().__init__(**fields)
        self._lorauter = lorauter
        lorauter.asked(self._own(), {})  # query engines would take an error of a call's for an empty response

    def __getstate__(self) -> dict[str, Any]:
        # LlamaIndex' own drops what cannot be pickled, and from this object too.
        return BaseModel.__getstate__(self)

    @model_serializer(mode="wrap")
    def custom_model_dump(self, handler: SerializerFunctionWrapHandler, info: Any) -> dict[str, Any]:
        """The fields and what else decides an answer; caches of LlamaIndex' pipelines know two LLMs apart by it."""
        return {**named(handler(self)), "class_name": self.class_name(), "lorauter": self._lorauter.identity}

    @classmethod
    def from_config(cls, path: str | Path = DEFAULT_FILE, **overrides: Any) -> LoRAuterLLM:
        """The LLM of a settings file.

        Args:
            path: a TOML file, see `Settings`.
            overrides: fields of this class, such as `temperature=0.7`; `settings={...}`, tables and keys that win
                over the file; and `encoder=...`, instead of the file's, such as a LlamaIndex `BaseEmbedding`.

        Raises:
            LoRAuterError: as `LoRAuter.from_config`.
            OptionError: a field that does not exist.
        """
        settings, encoder = overrides.pop("settings", None), overrides.pop("encoder", None)
        refuse_unknown(overrides, cls.model_fields, "field")
        return cls(LoRAuter.from_config(path, settings, encoder), **overrides)

    @classmethod
    def class_name(cls) -> str:
        """LlamaIndex' name of the class."""
        return "LoRAuterLLM"

    @property
    def lorauter(self) -> LoRAuter:
        """Routes and answers; shared by all copies."""
        return self._lorauter

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex plans prompts with: the true context length and length of answers."""
        engine = self._lorauter.engine
        return LLMMetadata(
            context_window=engine.context_length,
            num_output=min(self.max_tokens or self._lorauter.options.max_tokens, engine.context_length // 2),
            is_chat_model=True,
            is_function_calling_model=True,
            model_name=self.model or engine.name,
        )

    # ------------------------------------------------------------------ the eight methods, through one builder

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation."""
        return self._whole(self._call(messages, kwargs), ResponseWriter.chat)

    @closes
    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer a conversation piece by piece."""
        return self._pieces(self._call(messages, kwargs), ResponseWriter.chat)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation, off the event loop."""
        return await self._awhole(self._call(messages, kwargs), ResponseWriter.chat)

    @acloses
    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Answer a conversation piece by piece, off the event loop."""
        return await self._apieces(self._call(messages, kwargs), ResponseWriter.chat)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer one prompt as a user's message; the model's chat template is always used."""
        return self._whole(self._call(self._user(prompt, formatted), kwargs), ResponseWriter.complete)

    @closes
    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Answer one prompt piece by piece."""
        return self._pieces(self._call(self._user(prompt, formatted), kwargs), ResponseWriter.complete)

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer one prompt, off the event loop."""
        return await self._awhole(self._call(self._user(prompt, formatted), kwargs), ResponseWriter.complete)

    @acloses
    @llm_completion_callback()
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """Answer one prompt piece by piece, off the event loop."""
        return await self._apieces(self._call(self._user(prompt, formatted), kwargs), ResponseWriter.complete)

    # ------------------------------------------------------------------ tools

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        choice = kwargs.pop("tool_choice", None)
        return {
            "messages": conversation(user_msg, chat_history),
            "tools": [tool.metadata.to_openai_tool(skip_length_check=True) for tool in tools],
            "tool_choice": choice or ("required" if tool_required else "auto"),
            "parallel_tool_calls": allow_parallel_tool_calls,
            **kwargs,
        }

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The calls of a response, also of one that is still being written.

        Raises:
            InvalidAnswerError: there is none, and one is wanted.
        """
        found = selections(response)
        if not found and error_on_no_tool_call:
            broken = response.message.additional_kwargs.get(BROKEN)
            why = f"a call that cannot be read: {broken[0]}" if broken else repr(response.message.content)
            raise InvalidAnswerError(f"the answer calls no tool, but holds {why}", hint="set tool_required=True")
        return found

    # ------------------------------------------------------------------ objects of a class

    def structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """An object of a pydantic class; the answer is decoded under its schema.

        Raises:
            InvalidAnswerError: the answer was cut at max_tokens, or a validator of the class refuses it.
        """
        keywords = asked(output_cls, llm_kwargs)
        _started(output_cls, prompt, prompt_args)
        messages = self._get_messages(prompt, **prompt_args)
        return _ended(parsed(output_cls, self.chat(messages, **keywords)))

    async def astructured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """As `structured_predict`, off the event loop."""
        keywords = asked(output_cls, llm_kwargs)
        _started(output_cls, prompt, prompt_args)
        messages = self._get_messages(prompt, **prompt_args)
        return _ended(parsed(output_cls, await self.achat(messages, **keywords)))

    def _structured_stream_call(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Any, None, None]:
        messages, growing = self._get_messages(prompt, **prompt_args), Growing(output_cls)
        for response in self.stream_chat(messages, **asked(output_cls, llm_kwargs)):
            if (so_far := growing.take(response)) is not None:
                yield so_far
        yield parsed(output_cls, response)

    async def _structured_astream_call(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Any, None]:
        messages, growing = self._get_messages(prompt, **prompt_args), Growing(output_cls)
        responses = await self.astream_chat(messages, **asked(output_cls, llm_kwargs))

        async def objects() -> AsyncGenerator[Any, None]:
            async for response in responses:
                if (so_far := growing.take(response)) is not None:
                    yield so_far
            yield parsed(output_cls, response)

        return objects()

    # ------------------------------------------------------------------ parts of these

    def _user(self, prompt: str, formatted: bool) -> list[ChatMessage]:
        """The conversation of a bare prompt, with the system prompt if the LLM has one."""
        text = self.completion_to_prompt(prompt) if self.completion_to_prompt and not formatted else prompt
        messages = [ChatMessage(role=MessageRole.USER, content=text)]
        return messages if formatted else self._extend_messages(messages)

    def _own(self) -> Mapping[str, Any]:
        return {name: getattr(self, name) for name in OWN_NAMES}

    def _call(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> Call:
        return understand(self._lorauter, self._own(), messages, kwargs)

    def _whole(self, call: Call, write: Write[Response]) -> Response:
        route, deltas = call.stream(self._lorauter)
        return whole(self._writer(call, route), completion_of(deltas), write)

    async def _awhole(self, call: Call, write: Write[Response]) -> Response:
        route, deltas = await call.astream(self._lorauter)
        return whole(self._writer(call, route), await acompletion_of(deltas), write)

    def _pieces(self, call: Call, write: Write[Response]) -> Generator[Response, None, None]:
        route, deltas = call.stream(self._lorauter)
        return opened(written(self._writer(call, route), deltas, write))

    async def _apieces(self, call: Call, write: Write[Response]) -> AsyncGenerator[Response, None]:
        route, deltas = await call.astream(self._lorauter)
        return opened(awritten(self._writer(call, route), deltas, write))

    def _writer(self, call: Call, route: Route) -> ResponseWriter:
        dispatcher.event(LoRAuterRouteEvent(route=route.as_dict(), model=call.model))
        form = self._lorauter.engine.call_form if call.form.has_calls else None
        return ResponseWriter(route, call.model, form, call.form)


def _started(kind: type[BaseModel], prompt: PromptTemplate, arguments: dict[str, Any]) -> None:
    dispatcher.event(LLMStructuredPredictStartEvent(output_cls=kind, template=prompt, template_args=arguments))


def _ended(found: Model) -> Model:
    dispatcher.event(LLMStructuredPredictEndEvent(output=found))
    return found
