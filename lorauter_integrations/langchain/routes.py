"""Routes in LangChain's terms: an event of each call, and what a runnable returns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.callbacks.manager import ahandle_event, handle_event
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import BaseMessage, HumanMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableConfig, ensure_config

from lorauter_integrations.errors import ContentError
from lorauter_integrations.langchain.asking import understand, with_choice
from lorauter_integrations.langchain.errors import langchain_errors
from lorauter_integrations.langchain.tools import tool_schemas
from lorauter_integrations.lorauter import LoRAuter
from lorauter_integrations.routing import Route

EVENT = "lorauter_route"
"""Name of the custom event that tells a call's route, as `Route.as_dict` writes it, before its first token."""

# LangChain does not hand the callbacks of a call to `_stream`, nor close what `_stream` gave it.
_config: ContextVar[RunnableConfig | None] = ContextVar("lorauter_config", default=None)
_answers: ContextVar[list[Any] | None] = ContextVar("lorauter_answers", default=None)


@contextmanager
def called_with(config: RunnableConfig) -> Iterator[list[Any]]:
    """Calls begun in here announce their routes to the callbacks of this config.

    Yields:
        The answers that were begun in here, for whoever must close them.
    """
    answers: list[Any] = []
    tokens = _config.set(config), _answers.set(answers)
    try:
        yield answers
    finally:
        _config.reset(tokens[0])
        _answers.reset(tokens[1])


def noted(answer: Any) -> Any:
    """The same; whoever called will close it."""
    answers = _answers.get()
    if answers is not None:
        answers.append(answer)
    return answer


def announce(route: Route, run: CallbackManagerForLLMRun | None, llm: BaseChatModel) -> None:
    """Send the event to the handlers of a call, as an event of its run.

    Args:
        route: the call's.
        run: the call's, where LangChain hands it on.
        llm: has callbacks, tags and metadata of its own.
    """
    if run is not None:
        about = {"run_id": run.run_id, "tags": run.tags, "metadata": run.metadata}
        handle_event(run.handlers, "on_custom_event", "ignore_custom_event", EVENT, route.as_dict(), **about)
    elif config := _config.get():
        manager = CallbackManager.configure(**_handlers(config, llm))
        manager.on_custom_event(EVENT, route.as_dict(), config.get("run_id"))


async def aannounce(route: Route, run: AsyncCallbackManagerForLLMRun | None, llm: BaseChatModel) -> None:
    """As `announce`, for event loops."""
    if run is not None:
        about = {"run_id": run.run_id, "tags": run.tags, "metadata": run.metadata}
        await ahandle_event(run.handlers, "on_custom_event", "ignore_custom_event", EVENT, route.as_dict(), **about)
    elif config := _config.get():
        manager = AsyncCallbackManager.configure(**_handlers(config, llm))
        await manager.on_custom_event(EVENT, route.as_dict(), config.get("run_id"))


def _handlers(config: RunnableConfig, llm: BaseChatModel) -> dict[str, Any]:
    return {
        "inheritable_callbacks": config.get("callbacks"),
        "local_callbacks": llm.callbacks,
        "inheritable_tags": config.get("tags"),
        "local_tags": llm.tags,
        "inheritable_metadata": config.get("metadata"),
        "local_metadata": llm.metadata,
    }


class RouteRunnable(Runnable[LanguageModelInput, Route]):
    """A runnable from what a chat model takes to the `Route` that it would take; nothing is written.

    Args:
        lorauter: routes.
        tools: shown to the model in the call that is asked about; they are part of what routes.
    """

    name = "route"

    def __init__(self, lorauter: LoRAuter, tools: Sequence[Any] = ()) -> None:
        self._lorauter = lorauter
        self._tools = tool_schemas(tools)

    def invoke(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> Route:
        """The route of a text, messages or a prompt.

        Args:
            input: what the model would be given.
            config: may choose adapters or a task, as for the model.
            kwargs: call keywords, which may choose too.

        Raises:
            RoutingError: there is nothing to route on.
            OptionError: a keyword that is not known.
        """
        keywords = with_choice(ensure_config(config), kwargs)
        return self._call_with_config(partial(self._route, keywords), input, config)

    def _route(self, keywords: dict[str, Any], given: LanguageModelInput) -> Route:
        with langchain_errors():
            call = understand(self._lorauter, {}, messages_of(given), {"tools": self._tools, **keywords})
            return self._lorauter.choose(call.messages, call.choice, call.form.tools)


def messages_of(given: LanguageModelInput) -> list[BaseMessage]:
    """What a chat model takes, as messages.

    Raises:
        ContentError: it is none of these.
    """
    if isinstance(given, PromptValue):
        return given.to_messages()
    if isinstance(given, str):
        return [HumanMessage(given)]
    if isinstance(given, Sequence):
        return convert_to_messages(given)
    raise ContentError(
        f"a {type(given).__name__} is no text, prompt or list of messages", hint='of a state, give state["messages"]'
    )
