"""Answers bound to a pydantic class, as LlamaIndex asks for them."""

from __future__ import annotations

from typing import Any, TypeVar

from llama_index.core.base.llms.types import ChatResponse
from llama_index.core.llms.utils import parse_partial_json
from llama_index.core.program.utils import FlexibleModel, create_flexible_model
from pydantic import BaseModel, ValidationError

from lorauter_integrations.errors import InvalidAnswerError

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
        self._last: Any = None

    def take(self, response: ChatResponse) -> FlexibleModel | None:
        """The object so far; None where nothing has changed or nothing can be read yet."""
        try:
            fields = parse_partial_json(response.message.content or "")
        except ValueError:
            return None
        if not isinstance(fields, dict) or fields == self._last:
            return None
        self._last = fields
        return self._flexible(**fields)
