"""Answers bound to a pydantic class, as LlamaIndex asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from llama_index.core.base.llms.types import ChatResponse
from llama_index.core.llms.utils import parse_partial_json
from llama_index.core.program.utils import FlexibleModel, create_flexible_model
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from lorauter_integrations.errors import InvalidAnswerError, OptionError

Model = TypeVar("Model", bound=BaseModel)


def parsed(kind: type[Model], response: ChatResponse) -> Model:
    """A whole answer as an object of the class.

    Raises:
        InvalidAnswerError: it was cut, or a validator of the class refuses it.
    """
    text, facts = response.message.content or "", response.raw or {}
    if isinstance(facts, dict) and facts.get("finish_reason") == "length":
        counted = facts["usage"]["completion_tokens"]
        raise InvalidAnswerError(
            f"the answer was cut at {counted} tokens, before it was a whole {kind.__name__}: {text[-200:]!r}",
            hint="raise max_tokens, or bound the class's strings and lists (max_length)",
        )
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise InvalidAnswerError(f"the answer is no {kind.__name__}: {error}", hint="see its validators") from error


class Growing:
    """An object of a class while its JSON is written: fields that are not there yet are None."""

    def __init__(self, kind: type[BaseModel]) -> None:
        self._flexible: type[FlexibleModel] = create_flexible_model(kind)
        self._names = {_written_as(name, field): name for name, field in kind.model_fields.items()}
        self._last: FlexibleModel | None = None

    def take(self, response: ChatResponse) -> FlexibleModel | None:
        """The object so far; None where nothing has changed or nothing can be read yet."""
        fields = partial_object(response.message.content or "")
        if fields is None:
            return None
        so_far = self._flexible(**{self._names.get(name, name): value for name, value in fields.items()})
        if so_far == self._last:
            return None
        self._last = so_far
        return so_far


def _written_as(name: str, field: FieldInfo) -> str:
    """A field's key in JSON."""
    alias = field.validation_alias if isinstance(field.validation_alias, str) else field.alias
    return alias or name


def partial_object(text: str) -> dict[str, Any] | None:
    """As much of a JSON object as is written; None when too little is."""
    try:
        found = parse_partial_json(text or "{}")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def asked(kind: type[BaseModel], llm_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """The keywords of a chat call whose answer is an object of the class.

    Args:
        kind: the class.
        llm_kwargs: the caller's; those of LlamaIndex' programs that say how an object is asked for are left out, as
            there: here a grammar sees to it.

    Raises:
        OptionError: `kind` is no pydantic class.
    """
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        raise OptionError(f"output_cls={kind!r} is no pydantic class", hint="wrap what it is in a BaseModel")
    own = {name: value for name, value in (llm_kwargs or {}).items() if name not in _PROGRAMS}
    return {"response_format": kind.model_json_schema(), **own}


_PROGRAMS = frozenset({"tool_required", "tool_choice", "allow_parallel_tool_calls"})
