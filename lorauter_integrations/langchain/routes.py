"""Routes in LangChain's terms: an event of each call, and what a runnable returns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.callbacks.manager import ahandle_event, handle_event
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import BaseMessage, HumanMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableConfig

from lorauter_integrations.langchain.conversation import from_langchain
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


def announce(route: Route, run: CallbackManagerForLLMRun | None, own: Any) -> None:
    """Send the event to the handlers of this call.

    Args:
        route: the call's.
        run: the call's, where LangChain hands it on.
        own: the model's own callbacks.
    """
    if run is not None:
        ids = {"run_id": run.parent_run_id or run.run_id, "tags": run.tags, "metadata": run.metadata}
        handle_event(run.handlers, "on_custom_event", "ignore_custom_event", EVENT, route.as_dict(), **ids)
    elif config := _config.get():
        manager = CallbackManager.configure(config.get("callbacks"), own)
        manager.on_custom_event(EVENT, route.as_dict(), manager.parent_run_id)


async def aannounce(route: Route, run: AsyncCallbackManagerForLLMRun | None, own: Any) -> None:
    """As `announce`, for event loops."""
    if run is not None:
        ids = {"run_id": run.parent_run_id or run.run_id, "tags": run.tags, "metadata": run.metadata}
        await ahandle_event(run.handlers, "on_custom_event", "ignore_custom_event", EVENT, route.as_dict(), **ids)
    elif config := _config.get():
        manager = AsyncCallbackManager.configure(config.get("callbacks"), own)
        await manager.on_custom_event(EVENT, route.as_dict(), manager.parent_run_id)


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

    def invoke(self, input: LanguageModelInput, config: RunnableConfig | None = None, **_: Any) -> Route:
        """The route of a text, messages or a prompt.

        Raises:
            RoutingError: there is nothing to route on.
        """
        return self._call_with_config(self._route, input, config)

    def _route(self, given: LanguageModelInput) -> Route:
        with langchain_errors():
            return self._lorauter.route(from_langchain(messages_of(given)), self._tools)


def messages_of(given: LanguageModelInput) -> list[BaseMessage]:
    """What a chat model takes, as messages."""
    if isinstance(given, PromptValue):
        return given.to_messages()
    return [HumanMessage(given)] if isinstance(given, str) else convert_to_messages(given)
