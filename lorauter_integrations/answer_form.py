"""What one answer must be: which tools it sees, and the grammar of its calls or of its JSON. Knows no framework."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lorauter_integrations.errors import OptionError, listing
from lorauter_integrations.generation import Grammar, ToolSchema

FORCED = frozenset({"any", "required"})
ANY_OBJECT: Mapping[str, Any] = {"type": "object", "additionalProperties": True}


@dataclass(frozen=True, slots=True)
class Form:
    """What one answer must be, as a caller asked for it.

    Attributes:
        tools: shown to the model.
        grammar: of the whole answer; None leaves it free.
        has_calls: whether the answer may hold calls.
    """

    tools: Sequence[ToolSchema]
    grammar: Grammar | None
    has_calls: bool

    @property
    def unmarked(self) -> Sequence[str]:
        """The tools whose calls are read without marks too; none where JSON may be what a schema asks for."""
        return () if self.grammar and self.grammar.otherwise else [name_of(tool) for tool in self.tools]

    @property
    def is_forced(self) -> bool:
        """Whether the answer must hold a call."""
        return bool(self.has_calls and self.grammar and not self.grammar.allows_text and not self.grammar.otherwise)


def form_of(
    tools: Sequence[ToolSchema],
    tool_choice: Any = None,
    answer: Mapping[str, Any] | None = None,
    *,
    parallel: bool = True,
) -> Form:
    """The form of an answer.

    Args:
        tools: in OpenAI's form.
        tool_choice: see `chosen`.
        answer: a JSON schema that an answer without calls must be valid for.
        parallel: whether it may hold more than one call; with a tool forced by its name it never does.

    Raises:
        OptionError: as `chosen`.
    """
    choice = chosen(tool_choice, tools)
    if choice == "none" or not tools:
        # The tools stay in sight, so that the step is routed as the one before; as with OpenAI's models.
        free = Grammar.tool_calls((), text=True) if tools else None
        return Form(tools, free if answer is None else Grammar.json_schema(answer), has_calls=False)
    if choice == "auto":
        calls = Grammar.tool_calls(tools, text=answer is None, parallel=parallel, answer=answer)
        return Form(tools, calls, has_calls=True)
    callable_ones = tools if choice in FORCED else [tool for tool in tools if name_of(tool) == choice]
    return Form(tools, Grammar.tool_calls(callable_ones, parallel=parallel and choice in FORCED), has_calls=True)


def unwrapped(response_format: Any) -> Any:
    """What OpenAI's `response_format` dictionaries hold: None for text, any object for a JSON object, or the schema.

    Anything else stays as it is.
    """
    if not isinstance(response_format, Mapping):
        return response_format
    kind = response_format.get("type")
    if kind == "text" and len(response_format) == 1:
        return None
    if kind == "json_object":
        return response_format.get("schema", ANY_OBJECT)
    inner = response_format.get("json_schema")
    return inner if kind == "json_schema" and isinstance(inner, Mapping) else response_format


def name_of(tool: ToolSchema) -> str:
    """A tool's name."""
    return str(tool["function"]["name"])


def chosen(tool_choice: Any, tools: Sequence[ToolSchema]) -> str:
    """A `tool_choice` as "auto", "none", "any", "required" or a tool's name.

    Args:
        tool_choice: one of these, None (auto), a bool (any, none), or a dictionary of OpenAI's or Anthropic's form.
        tools: what can be chosen.

    Raises:
        OptionError: it is none of these, or names a tool that is not bound.
    """
    choice = _plain(tool_choice)
    names = [name_of(tool) for tool in tools]
    if choice in names or choice in ("auto", "none") or (choice in FORCED and names):
        return choice
    if choice in FORCED:
        raise OptionError(f"tool_choice={tool_choice!r} forces a call and no tools are bound", hint="bind tools")
    raise OptionError(
        f"tool_choice={tool_choice!r} is not one of the bound tools",
        hint=f"the tools are {listing(names)}; or choose 'auto', 'any' or 'none'",
    )


def _plain(tool_choice: Any) -> str:
    if isinstance(tool_choice, Mapping):
        inner = tool_choice.get("function", tool_choice)
        named = inner.get("name") or tool_choice.get("type") if isinstance(inner, Mapping) else None
        return named if isinstance(named, str) else repr(tool_choice)
    if tool_choice is None or isinstance(tool_choice, bool):
        return {None: "auto", True: "any", False: "none"}[tool_choice]
    return str(tool_choice)
