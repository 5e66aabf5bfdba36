"""The text by which a conversation is routed. Knows messages; knows nothing of tasks or routers."""

from __future__ import annotations

import hashlib
import marshal
import uuid
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias, get_args
from weakref import WeakKeyDictionary

from lorauter_integrations.errors import OptionError, RoutingError, listing
from lorauter_integrations.generation import Message, ToolSchema
from lorauter_integrations.task import routing_text
from lorauter_integrations.tool_calls import system_with_tools

RouteOnName: TypeAlias = Literal["system_and_last_user", "last_user", "conversation"]
RouteOn: TypeAlias = RouteOnName | Callable[[Sequence[Message]], str]
"""What of a conversation is routed on: a name, see `route_text`, or a function from the messages to the text."""

DEFAULT_ROUTE_ON: RouteOnName = "system_and_last_user"


def route_text(
    messages: Sequence[Message], tools: Sequence[ToolSchema] = (), route_on: RouteOn = DEFAULT_ROUTE_ON
) -> str:
    """The text that routes a conversation.

    Args:
        messages: the conversation.
        tools: part of the text as the model reads them, so that a call with tools routes as one; not with
            "last_user", nor with a function.
        route_on: "system_and_last_user": the system messages, the tools, the last user message. "last_user": that
            message alone. "conversation": the system messages, the tools, all user messages, the newest first,
            so that an encoder with a limit cuts the oldest. Or a function of the messages.

    Raises:
        RoutingError: there is no such text, or the function gave none.
    """
    if callable(route_on):
        return _given(route_on, messages)
    users = [message.content for message in reversed(messages) if message.role == "user"]
    if route_on != "conversation":
        users = users[:1]
    system = "\n\n".join(message.content for message in messages if message.role == "system")
    head = "" if route_on == "last_user" else system_with_tools(system, tools)
    text = routing_text(head, "\n\n".join(users))
    if not text:
        roles = ", ".join(message.role for message in messages) or "none"
        raise RoutingError(
            f"the conversation (turns: {roles}) has no {'' if route_on == 'last_user' else 'system or '}user text "
            "to route on",
            hint="send a user message, or choose adapters=... or task=...",
        )
    return text


def checked_route_on(route_on: RouteOn) -> RouteOn:
    """The same, when it is a name that exists or a function.

    Raises:
        OptionError: neither.
    """
    names = get_args(RouteOnName)
    if not callable(route_on) and route_on not in names:
        raise OptionError(
            f"unknown route_on {route_on!r}", hint=f"use {listing(names)}, or a function of the messages"
        )
    return route_on


def route_on_name(route_on: RouteOn) -> str:
    """A name for the key of a cache: itself, or of a function its place and a hash of its code.

    What holds values (a closure, defaults, a partial, an object) cannot be told by its code. It gets a name of its
    own, which no other process gives it.
    """
    if not callable(route_on):
        return route_on
    kind = route_on if hasattr(route_on, "__qualname__") else type(route_on)
    holds = any(
        getattr(route_on, name, None) for name in ("__closure__", "__defaults__", "__kwdefaults__", "__self__")
    )
    code = None if holds else getattr(route_on, "__code__", None)
    told = hashlib.sha256(marshal.dumps(code)).hexdigest()[:16] if code else _own_name(route_on)
    return f"{kind.__module__}:{kind.__qualname__}:{told}"


def _own_name(thing: object) -> str:
    try:
        return _own_names.setdefault(thing, uuid.uuid4().hex)
    except TypeError:  # it cannot be a key: a new name each time, so that nothing is found under it
        return uuid.uuid4().hex


_own_names: WeakKeyDictionary[object, str] = WeakKeyDictionary()


def _given(route_on: Callable[[Sequence[Message]], str], messages: Sequence[Message]) -> str:
    text = route_on(messages)
    if not isinstance(text, str) or not text.strip():
        raise RoutingError(
            f"route_on={route_on_name(route_on)} gave {text!r} for a conversation of {len(messages)} turns",
            hint="it must return the text to route on",
        )
    return text
