"""A LangChain chat model whose every call is routed. Translates calls; all else is LoRAuter's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput, ModelProfile
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from typing_extensions import Self

from lorauter_integrations._version import __version__
from lorauter_integrations.answer_form import chosen
from lorauter_integrations.asking import OWN_NAMES, Call, named
from lorauter_integrations.choice import refuse_unknown
from lorauter_integrations.engines.base import acompletion_of, completion_of
from lorauter_integrations.engines.tool_grammar import checked
from lorauter_integrations.generation import GenerationRequest
from lorauter_integrations.langchain.answering import abegun, begun
from lorauter_integrations.langchain.answers import PROVIDER, AnswerWriter
from lorauter_integrations.langchain.asking import CALL_NAMES, understand
from lorauter_integrations.langchain.conversation import from_langchain
from lorauter_integrations.langchain.entrances import Entrances
from lorauter_integrations.langchain.errors import langchain_errors
from lorauter_integrations.langchain.routes import aannounce, announce
from lorauter_integrations.langchain.structured import Method, structured
from lorauter_integrations.langchain.tools import tool_schemas
from lorauter_integrations.lorauter import LoRAuter
from lorauter_integrations.route_text import RouteOn
from lorauter_integrations.routing import Route
from lorauter_integrations.settings import DEFAULT_FILE


class ChatLoRAuter(Entrances):
    """A chat model in which each call goes to the right mixture of adapters by itself.

    The route is in `response_metadata["lorauter"]` of every answer, and the custom event `lorauter_route` tells it
    before the first token. A call can choose instead of routing: `llm.bind(adapters={"sql": 1.0})`,
    `llm.bind(task="text_to_sql")`, `llm.bind(model="sql")`, and the first two by
    `llm.with_config(configurable={"task": "text_to_sql"})`.

    Example:
        ```python
        llm = ChatLoRAuter.from_config("lorauter.toml")
        llm.invoke("Is this review positive or negative? I would buy it again.")
        ```
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", protected_namespaces=())

    lorauter: LoRAuter = Field(default_factory=LoRAuter.from_config, exclude=True, repr=False)
    """Routes and answers; shared by all copies. Made from `lorauter.toml` when it is not given."""
    model: str | None = None
    """The base model's name (or None) routes each call; an adapter's name uses this adapter alone."""
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
    route_on: RouteOn | Callable[[list[BaseMessage]], str] | None = None
    """Which text routes; a function is given LangChain's messages."""
    sticky: bool | None = None
    """Whether a follow-up ("shorter, please") stays on the task of the conversation."""
    streaming: bool = False
    """Whether `invoke` writes token by token too, for callbacks."""
    max_retries: int = 0
    """How often to ask again when the engine's queue is full, with growing pauses."""
    api_key: SecretStr | None = None
    """Not used: there is nobody to show it to. Here so that code written for a hosted model runs."""

    @classmethod
    def from_config(cls, path: str | Path = DEFAULT_FILE, **overrides: Any) -> ChatLoRAuter:
        """The chat model of a settings file.

        Args:
            path: a TOML file, see `Settings`.
            overrides: fields of this class, such as `temperature=0.7`; `settings={...}`, tables and keys
                that win over the file; and `encoder=...`, instead of the file's, such as a LangChain `Embeddings`.

        Raises:
            LoRAuterError: as `LoRAuter.from_config`.
            OptionError: a field that does not exist.
        """
        settings, encoder = overrides.pop("settings", None), overrides.pop("encoder", None)
        refuse_unknown(overrides, cls.model_fields, "field")
        return cls(lorauter=LoRAuter.from_config(path, settings, encoder), **overrides)

    @model_validator(mode="after")
    def _set_lorauter_version(self) -> Self:
        self._add_version(PROVIDER, __version__)
        return self

    @model_validator(mode="after")
    def _check_lorauter_fields(self) -> Self:
        self.lorauter.asked(self._own(), {})
        return self

    # ------------------------------------------------------------------ what LangChain asks about the model

    @property
    def model_name(self) -> str:
        """The base model's name."""
        return self.lorauter.engine.name

    @property
    def _llm_type(self) -> str:
        return PROVIDER

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        """All that decides an answer beside the call itself: LangChain's caches know two models apart by it."""
        own = {name: value for name, value in named(self._own()).items() if value is not None}
        return {"model": self.model_name, "lorauter": self.lorauter.identity, **own}

    def _get_invocation_params(self, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        return super()._get_invocation_params(stop, **named(kwargs))

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        return super()._get_llm_string(stop, **named(kwargs))

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        options = self.lorauter.options
        params = super()._get_ls_params(stop, **kwargs)
        params.setdefault("ls_temperature", options.temperature)
        params.setdefault("ls_max_tokens", options.max_tokens)
        return params

    def _resolve_model_profile(self) -> ModelProfile:
        return ModelProfile(
            name=self.model_name,
            open_weights=True,
            max_input_tokens=self.lorauter.engine.context_length,
            max_output_tokens=self.lorauter.engine.context_length,
            text_inputs=True,
            text_outputs=True,
            image_inputs=False,
            audio_inputs=False,
            video_inputs=False,
            pdf_inputs=False,
            tool_calling=True,
            tool_choice=True,
            tool_call_streaming=True,
            structured_output=True,
            temperature=True,
        )

    def get_token_ids(self, text: str) -> list[int]:
        """Ids of a bare text by the model's own tokenizer, without special tokens."""
        return self.custom_get_token_ids(text) if self.custom_get_token_ids else self.lorauter.engine.token_ids(text)

    def get_num_tokens_from_messages(
        self, messages: Sequence[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Tokens of a conversation as the model reads it, the chat template and the tools included.

        Args:
            messages: also a part of a conversation, as `trim_messages` counts it.
            tools: shown with it; anything `bind_tools` takes.

        Raises:
            ContentError: a message holds what the model cannot read.
        """
        with langchain_errors():
            request = GenerationRequest(from_langchain(messages), tools=tool_schemas(tools or ()))
            if all(message.role == "system" and not message.content for message in request.messages):
                return 0  # the template would refuse it
            return self.lorauter.engine.count_tokens(request)

    # ------------------------------------------------------------------ tools and schemas

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        strict: bool | None = None,
        parallel_tool_calls: bool | None = None,
        response_format: Any = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Show tools to the model. A grammar sees to it that its calls name these tools, with valid arguments.

        Args:
            tools: anything `convert_to_openai_tool` takes.
            tool_choice: None or "auto" leaves it to the model; "any", "required" or True force a call; a tool's name
                forces one call of it; "none" or False forbids calls. OpenAI's and Anthropic's dictionaries too.
            strict: for `convert_to_openai_tool`; arguments are valid for their schema in any case.
            parallel_tool_calls: False allows one call an answer.
            response_format: OpenAI's dictionary or a schema: an answer that is no call is JSON that is valid for it.
            kwargs: call keywords to bind as well.

        Raises:
            OptionError: a choice that no tool has, a tool that cannot be run here, or an unknown keyword.
        """
        with langchain_errors():
            refuse_unknown(kwargs, (*CALL_NAMES, "ls_structured_output_format"), "call keyword")
            schemas = checked(tool_schemas(tools, strict=strict))
            chosen(tool_choice, schemas)
        given = {
            "tool_choice": tool_choice,
            "parallel_tool_calls": parallel_tool_calls,
            "response_format": response_format,
        }
        return self.bind(tools=schemas, **{name: it for name, it in given.items() if it is not None}, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type | None = None,
        *,
        method: Method = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """A runnable whose answers are of a schema: by a grammar, so that they are valid or an error says why not.

        Streaming yields the object as far as it is written.

        Args:
            schema: a pydantic class (v2 or v1; answers are its instances), a TypedDict, a dataclass, a JSON schema or
                an OpenAI tool (answers are dictionaries). None is any JSON object, with "json_mode".
            method: "json_schema" binds the answer; "function_calling" shows the schema as a tool that must be called,
                so that the model reads its names and descriptions; "json_mode" as the first.
            include_raw: return {"raw": message, "parsed": object or None, "parsing_error": error or None} instead.
            strict: for "function_calling", as in `bind_tools`.
            kwargs: call keywords to bind as well, such as `max_tokens`; `tools` with the first method.

        Raises:
            OptionError: an unknown method or keyword, or no schema where one is needed.
            OutputParserException: when run: the answer was cut at max_tokens, or a validator of the class refuses it.
        """
        with langchain_errors():
            return structured(self, schema, method, include_raw=include_raw, strict=strict, keywords=kwargs)

    # ------------------------------------------------------------------ the four ways to an answer

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with langchain_errors():
            call = self._understood(messages, stop, kwargs)
            route, deltas = begun(self.lorauter, call, self.max_retries, run_manager)
            announce(route, run_manager, self)
            return _result(self._writer(call, route).message(completion_of(deltas)))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with langchain_errors():
            call = self._understood(messages, stop, kwargs)
            route, deltas = await abegun(self.lorauter, call, self.max_retries, run_manager)
            await aannounce(route, run_manager, self)
            return _result(self._writer(call, route).message(await acompletion_of(deltas)))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        with langchain_errors():
            call = self._understood(messages, stop, kwargs)
            route, deltas = begun(self.lorauter, call, self.max_retries, run_manager)
            announce(route, run_manager, self)
            writer = self._writer(call, route)
            for delta in deltas:
                for message in writer.chunks(delta):
                    chunk = ChatGenerationChunk(message=message)
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
        with langchain_errors():
            call = self._understood(messages, stop, kwargs)
            route, deltas = await abegun(self.lorauter, call, self.max_retries, run_manager)
            await aannounce(route, run_manager, self)
            writer = self._writer(call, route)
            async for delta in deltas:
                for message in writer.chunks(delta):
                    chunk = ChatGenerationChunk(message=message)
                    if run_manager:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    # ------------------------------------------------------------------ parts of these

    def _own(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in OWN_NAMES}

    def _understood(
        self, messages: Sequence[BaseMessage], stop: Sequence[str] | None, kwargs: dict[str, Any]
    ) -> Call:
        return understand(self.lorauter, self._own(), messages, {**kwargs, "stop": stop})

    def _writer(self, call: Call, route: Route) -> AnswerWriter:
        form = self.lorauter.engine.call_form if call.form.has_calls else None
        return AnswerWriter(route, call.model, form, call.form.unmarked)


def _result(message: AIMessage) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=message)])
