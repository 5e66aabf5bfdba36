"""Our errors as LangChain's code expects them: each is of both trees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from langchain_core.exceptions import (
    ContextOverflowError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelRateLimitError,
    ModelTimeoutError,
    OutputParserException,
)

from lorauter_integrations.errors import (
    ContentError,
    ContextLengthError,
    GenerationTimeoutError,
    InvalidAnswerError,
    LoRAuterError,
    OptionError,
    QueueFullError,
    UnknownAdapterError,
)


class PromptTooLongError(ContextLengthError, ContextOverflowError):
    """Prompt and answer are longer than the context window; summarising middleware tries again on it."""


class AnswerTimeoutError(GenerationTimeoutError, ModelTimeoutError):
    """An answer was not whole within its time."""


class BusyError(QueueFullError, ModelRateLimitError):
    """Too many requests wait already."""


class InvalidOptionError(OptionError, ModelInvalidRequestError):
    """An option or call keyword is out of range, or unknown."""


class UnreadableContentError(ContentError, ModelInvalidRequestError):
    """A message holds something the model cannot read."""


class NoSuchModelError(UnknownAdapterError, ModelNotFoundError):
    """An adapter, or a model by its name, that the pool does not hold."""


class UnparsedAnswerError(InvalidAnswerError, OutputParserException):
    """An answer that is not what its schema asks for: it was cut, or a validator refuses it."""


_TWINS: dict[type[LoRAuterError], type[LoRAuterError]] = {
    ContextLengthError: PromptTooLongError,
    GenerationTimeoutError: AnswerTimeoutError,
    QueueFullError: BusyError,
    OptionError: InvalidOptionError,
    ContentError: UnreadableContentError,
    UnknownAdapterError: NoSuchModelError,
    InvalidAnswerError: UnparsedAnswerError,
}


@contextmanager
def langchain_errors() -> Iterator[None]:
    """Raise the twin of an error that has one."""
    try:
        yield
    except LoRAuterError as error:
        twin = _TWINS.get(type(error))
        if twin is None:
            raise
        raise twin(error.message, hint=error.hint) from error
