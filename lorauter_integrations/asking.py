"""What one call of a framework's model asks for, from fields and keywords. Knows no framework."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import wraps
from typing import Any

from lorauter_integrations.answer_form import Form
from lorauter_integrations.choice import CHOICE_NAMES, Choice
from lorauter_integrations.errors import OptionError
from lorauter_integrations.generation import Delta, GenerationOptions, Grammar, Message
from lorauter_integrations.lorauter import OPTION_NAMES, LoRAuter
from lorauter_integrations.route_text import route_on_name
from lorauter_integrations.routing import Route

OWN_NAMES = (*OPTION_NAMES, *CHOICE_NAMES, "model")
FORM_NAMES = ("tools", "tool_choice", "parallel_tool_calls", "response_format")
CALL_NAMES = (*OWN_NAMES, *FORM_NAMES, "grammar")


@dataclass(frozen=True, slots=True)
class Call:
    """One call, understood.

    Attributes:
        messages: the conversation.
        options: how to choose tokens.
        choice: adapters or a task instead of routing, or what routes.
        form: tools and grammar.
        model: the name that the answer's metadata shows.
    """

    messages: Sequence[Message]
    options: GenerationOptions
    choice: Choice
    form: Form
    model: str

    def stream(self, lorauter: LoRAuter) -> tuple[Route, Iterator[Delta]]:
        """The route, and the answer piece by piece. Raises as `LoRAuter.stream`."""
        form = self.form
        return lorauter.stream(
            self.messages, self.options, choice=self.choice, tools=form.tools, grammar=form.grammar
        )

    async def astream(self, lorauter: LoRAuter) -> tuple[Route, AsyncGenerator[Delta, None]]:
        """As `stream`, off the event loop."""
        form = self.form
        return await lorauter.astream(
            self.messages, self.options, choice=self.choice, tools=form.tools, grammar=form.grammar
        )


def understood(
    lorauter: LoRAuter,
    own: Mapping[str, Any],
    keywords: Mapping[str, Any],
    form: Form,
    messages: Sequence[Message],
    beginning: Callable[[int], Any],
) -> Call:
    """A call: its keywords win over the fields of the model object, those over the settings.

    Args:
        lorauter: knows the settings and the pool.
        own: the model object's fields of `OWN_NAMES`; None = not set.
        keywords: the call's own.
        form: what its tools and schema make of the answer.
        messages: ours.
        beginning: the framework's messages that so many of ours come from, for a `route_on` function.

    Raises:
        OptionError: a value that is out of range, or two that exclude each other.
        UnknownAdapterError: `model` is neither the base model nor an adapter.
    """
    grammar = keywords.get("grammar") or form.grammar
    if grammar is not None and not isinstance(grammar, Grammar):
        raise OptionError(f"grammar={grammar!r} is none", hint="make one by Grammar.json_schema or Grammar.lark")
    if keywords.get("grammar") and form.grammar:
        raise OptionError(
            "a grammar excludes tools and response_format, which make one of their own",
            hint="leave one of them out of this call",
        )
    options, choice = lorauter.asked(own, {**keywords, "grammar": grammar})
    if callable(choice.route_on):
        choice = replace(choice, route_on=_of_theirs(choice.route_on, beginning))
    model = keywords.get("model") or own.get("model") or lorauter.engine.name
    return Call(messages, options, choice, replace(form, grammar=grammar), model)


def named(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The call keywords as traces and keys of caches hold them: a function by its name, a grammar by its parts."""
    told = dict(keywords)
    if told.get("route_on") is not None:
        told["route_on"] = route_on_name(told["route_on"])
    if isinstance(told.get("grammar"), Grammar):
        told["grammar"] = asdict(told["grammar"])
    return told


def _of_theirs(route_on: Callable[[Any], str], beginning: Callable[[int], Any]) -> Callable[[Sequence[Message]], str]:
    """A function of the framework's messages as one of ours, of which it is given a conversation's beginning."""

    @wraps(route_on)
    def of_ours(ours: Sequence[Message]) -> str:
        return route_on(beginning(len(ours)))

    return of_ours
