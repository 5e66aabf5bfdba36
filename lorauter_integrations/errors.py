"""Every error a user can meet, in one tree. Knows nothing of the rest of the package.

LoRAuterError
├── ConfigError             the TOML file or an environment override
├── MissingExtraError       a framework that is not installed (also an ImportError)
├── TaskError               a task's files, metric or examples
│   └── UnknownTaskError    a name that no task has (also a KeyError)
├── PoolError               the folder of adapters
│   ├── AdapterRefusedError one adapter that must not be used, with the reason
│   └── UnknownAdapterError a name that no adapter has (also a KeyError)
├── TaskIndexError          the Chroma collection
│   ├── IndexLockedError    a second process on an embedded index
│   └── EncoderMismatchError the vectors were made by another encoder
├── RoutingError            a text that cannot be routed
├── MappingError            a mapping run that cannot be done or resumed
└── EngineError             the language model
    ├── ModelLoadError      weights that cannot be loaded
    ├── OptionError         a generation option out of range or unknown
    ├── ContentError        a message part the model cannot read
    ├── ContextLengthError  prompt and answer do not fit the context window
    ├── QueueFullError      too many requests wait already
    ├── InvalidAnswerError  an answer that is not what its schema asks for
    ├── GenerationTimeoutError an answer that was not whole in time (also a TimeoutError)
    └── EngineClosedError   used after it was closed

None is a ValueError: LlamaIndex' query engines take those for an empty response, and pydantic for its own.
"""

from __future__ import annotations

from collections.abc import Iterable


class LoRAuterError(Exception):
    """Parent of all errors of this package: what happened, with the numbers, and a hint what to do."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nHint: {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[object, ...]:
        # `hint` is keyword-only, so the default pickling of exceptions would lose it.
        return (_rebuild, (type(self), self.message, self.hint))


def _rebuild(kind: type[LoRAuterError], message: str, hint: str) -> LoRAuterError:
    return kind(message, hint=hint)


class ConfigError(LoRAuterError):
    """The settings cannot be read or do not make sense."""


class MissingExtraError(LoRAuterError, ImportError):
    """A framework is asked for whose extra is not installed."""


class TaskError(LoRAuterError):
    """A task's files, metric or examples cannot be used."""


class UnknownTaskError(TaskError, KeyError):
    """A task is named that the index does not hold."""


class PoolError(LoRAuterError):
    """The folder of adapters cannot be used."""


class AdapterRefusedError(PoolError):
    """One adapter must not be used; the message is the reason."""


class UnknownAdapterError(PoolError, KeyError):
    """An adapter is named that the pool does not hold."""


class TaskIndexError(LoRAuterError):
    """The Chroma collection cannot be reached or does not hold what it should."""


class IndexLockedError(TaskIndexError):
    """Another process has the embedded index open."""


class EncoderMismatchError(TaskIndexError):
    """The stored vectors were made by another encoder."""


class RoutingError(LoRAuterError):
    """A text cannot be routed."""


class MappingError(LoRAuterError):
    """A mapping run cannot be done or resumed."""


class EngineError(LoRAuterError):
    """The language model cannot do what is asked."""


class ModelLoadError(EngineError):
    """The base model's weights or tokenizer cannot be loaded."""


class OptionError(EngineError):
    """A generation option is out of range, or unknown."""


class ContentError(EngineError):
    """A message holds something the model cannot read, such as an image."""


class ContextLengthError(EngineError):
    """Prompt and answer together are longer than the model's context window."""


class QueueFullError(EngineError):
    """Too many requests wait already; the same one may be sent again later."""


class GenerationTimeoutError(EngineError, TimeoutError):
    """An answer was not whole within its time."""


class InvalidAnswerError(EngineError):
    """An answer is not what its schema asks for: it was cut at max_tokens, or a validator refuses it."""


class EngineClosedError(EngineError):
    """The engine was closed while it was asked, or before."""


def listing(names: Iterable[str], limit: int = 12) -> str:
    """Names for an error message: sorted, quoted, cut after `limit`."""
    ordered = sorted(names)
    text = ", ".join(repr(name) for name in ordered[:limit]) or "none"
    return text if len(ordered) <= limit else f"{text} and {len(ordered) - limit} more"
