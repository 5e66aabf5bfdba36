"""A LlamaIndex LLM whose every call is routed. Translates messages; all else is LoRAuter's."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

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
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.llm import LLM
from pydantic import Field, PrivateAttr

from lorauter_integrations.generation import Delta, GenerationOptions, Message
from lorauter_integrations.llama_index.messages import (
    chat_response,
    completion_response,
    from_llama_index,
    raw,
)
from lorauter_integrations.lorauter import CHOICE_NAMES, OPTION_NAMES, Choice, LoRAuter, refuse_unknown
from lorauter_integrations.route_text import RouteOn
from lorauter_integrations.routing import Route
from lorauter_integrations.settings import DEFAULT_FILE

Response = TypeVar("Response", ChatResponse, CompletionResponse)
Build = Callable[[str, str | None, dict[str, Any] | None], Response]


class LoRAuterLLM(LLM):
    """An LLM in which each call goes to the right mixture of adapters by itself.

    The route is in `raw["lorauter"]` of every answer (of the last piece when streaming). A call can choose
    instead of routing: `llm.chat(messages, adapters={"sql": 1.0})`, `llm.complete(text, task="text_to_sql")`.

    Example:
        ```python
        Settings.llm = LoRAuterLLM.from_config("lorauter.toml")
        ```
    """

    temperature: float | None = Field(default=None, description="0 is greedy; the settings' when None")
    max_tokens: int | None = Field(default=None, description="most new tokens; the settings' when None")
    top_p: float | None = Field(default=None)
    top_k: int | None = Field(default=None)
    min_p: float | None = Field(default=None)
    repetition_penalty: float | None = Field(default=None)
    seed: int | None = Field(default=None)
    stop: list[str] | None = Field(default=None, description="the answer ends before the first of these")
    logprobs: int | None = Field(default=None, description="likeliest tokens beside each chosen one, in raw")
    timeout: float | None = Field(default=None, description="seconds to the end of an answer")
    adapters: dict[str, float] | None = Field(default=None, description="for every call, instead of routing")
    task: str | None = Field(default=None, description="of every call, instead of routing")
    route_on: RouteOn | None = Field(default=None, description="what of a conversation is routed on")
    sticky: bool | None = Field(default=None, description="whether a follow-up stays on its conversation's task")
    _lorauter: LoRAuter = PrivateAttr()

    def __init__(self, lorauter: LoRAuter, **fields: Any) -> None:
        refuse_unknown(fields, type(self).model_fields, "field")
        super().__init__(**fields)
        self._lorauter = lorauter

    @classmethod
    def from_config(cls, path: str | Path = DEFAULT_FILE, **overrides: Any) -> LoRAuterLLM:
        """The LLM of a settings file.

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
        return cls(LoRAuter.from_config(path, settings), **overrides)

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
            num_output=self.max_tokens or self._lorauter.options.max_tokens,
            is_chat_model=True,
            is_function_calling_model=False,
            model_name=engine.name,
        )

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation."""
        return _last(self._pieces(from_llama_index(messages), kwargs, chat_response))

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer a conversation piece by piece."""
        return self._pieces(from_llama_index(messages), kwargs, chat_response)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation, off the event loop."""
        return await _alast(await self._apieces(from_llama_index(messages), kwargs, chat_response))

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Answer a conversation piece by piece, off the event loop."""
        return await self._apieces(from_llama_index(messages), kwargs, chat_response)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer one prompt as a user's message."""
        return _last(self._pieces(self._user(prompt, formatted), kwargs, completion_response))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Answer one prompt piece by piece."""
        return self._pieces(self._user(prompt, formatted), kwargs, completion_response)

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer one prompt, off the event loop."""
        return await _alast(await self._apieces(self._user(prompt, formatted), kwargs, completion_response))

    @llm_completion_callback()
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """Answer one prompt piece by piece, off the event loop."""
        return await self._apieces(self._user(prompt, formatted), kwargs, completion_response)

    def _user(self, prompt: str, formatted: bool) -> tuple[Message, ...]:
        """The conversation of a bare prompt, with the system prompt if the LLM has one."""
        messages = [ChatMessage(role=MessageRole.USER, content=prompt)]
        if self.system_prompt and not formatted:
            messages.insert(0, ChatMessage(role=MessageRole.SYSTEM, content=self.system_prompt))
        return from_llama_index(messages)

    def _pieces(
        self, messages: Sequence[Message], kwargs: dict[str, Any], build: Build[Response]
    ) -> Generator[Response, None, None]:
        options, choice = self._asked(kwargs)
        route, deltas = self._lorauter.stream(messages, options, choice=choice, grammar=kwargs.get("grammar"))
        writer = _ResponseWriter(route, self._lorauter.engine.name)
        return (build(*writer.piece(delta)) for delta in deltas)

    async def _apieces(
        self, messages: Sequence[Message], kwargs: dict[str, Any], build: Build[Response]
    ) -> AsyncGenerator[Response, None]:
        options, choice = self._asked(kwargs)
        route, deltas = await self._lorauter.astream(messages, options, choice=choice, grammar=kwargs.get("grammar"))
        writer = _ResponseWriter(route, self._lorauter.engine.name)
        return (build(*writer.piece(delta)) async for delta in deltas)

    def _asked(self, kwargs: dict[str, Any]) -> tuple[GenerationOptions, Choice]:
        """What a call asks for: its own keywords win over the fields, the fields over the settings."""
        names = (*OPTION_NAMES, *CHOICE_NAMES)
        refuse_unknown(kwargs, (*names, "grammar"), "call keyword")
        return self._lorauter.asked({name: getattr(self, name) for name in names}, kwargs)


class _ResponseWriter:
    """Deltas to the parts of LlamaIndex' responses: text so far, new text, and at the end the facts."""

    def __init__(self, route: Route, model: str) -> None:
        self._route = route
        self._model = model
        self._text = ""

    def piece(self, delta: Delta) -> tuple[str, str, dict[str, Any] | None]:
        self._text += delta.text
        done = delta.completion
        return self._text, delta.text, raw(self._route, done, self._model) if done else None


def _last(pieces: Iterator[Response]) -> Response:
    """The whole answer: the last piece, without the new text that makes it a piece."""
    for piece in pieces:
        whole = piece
    return whole.model_copy(update={"delta": None})


async def _alast(pieces: AsyncIterator[Response]) -> Response:
    async for piece in pieces:
        whole = piece
    return whole.model_copy(update={"delta": None})
