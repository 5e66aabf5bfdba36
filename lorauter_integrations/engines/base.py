"""What every engine can do: conversations with mixtures and options in, text out. Knows nothing of tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lorauter_integrations.errors import EngineError, OptionError
from lorauter_integrations.generation import Completion, Delta, GenerationRequest
from lorauter_integrations.mixture import Mixture
from lorauter_integrations.pool import Adapter
from lorauter_integrations.tool_calls import HERMES, CallForm

if TYPE_CHECKING:
    from lorauter_integrations.mixing.first_order import Descent

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What an engine in this process may do at once and keep in memory.

    Attributes:
        rows: requests that are read and written at once.
        queue: requests that may wait for a place; one more gets `QueueFullError`.
        chunk: tokens of prompts that are read between two steps of writing.
        adapter_bytes: adapter weights kept in memory.
        prefix_bytes: states of earlier conversations kept in memory; 0 keeps none.

    Raises:
        OptionError: a number is too small.
    """

    rows: int = 32
    queue: int = 256
    chunk: int = 512
    adapter_bytes: int = 1024 * MIB
    prefix_bytes: int = 256 * MIB

    def __post_init__(self) -> None:
        for name, least in (("rows", 1), ("queue", 1), ("chunk", 1), ("adapter_bytes", 1), ("prefix_bytes", 0)):
            if getattr(self, name) < least:
                raise OptionError(f"{name} must be at least {least}, not {getattr(self, name)}")


class Engine(ABC):
    """A language model that takes a mixture with every request. Safe to use from many threads."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The base model's name, for people and for response metadata."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """Changes when the base model or its prompt form does; part of the key of stored scores."""

    @property
    @abstractmethod
    def context_length(self) -> int:
        """Most tokens of prompt and answer together."""

    @property
    @abstractmethod
    def adapters(self) -> Mapping[str, Adapter]:
        """The pool."""

    @property
    def call_form(self) -> CallForm:
        """How the model writes tool calls."""
        return HERMES

    @abstractmethod
    def stream(self, request: GenerationRequest) -> Iterator[Delta]:
        """Write one answer piece by piece; the last `Delta` carries the completion.

        The first four checks below are made before this returns. Closing the iterator ends the work; a `close`
        that may be called from another thread, in the middle of a step, ends it sooner.

        Raises:
            UnknownAdapterError: the mixture names an adapter that is not in the pool.
            ContextLengthError: the prompt leaves no room for an answer.
            ContentError: the chat template refuses the conversation.
            OptionError: the grammar cannot be compiled, or an adapter that can only be used alone is mixed.
            QueueFullError: too many requests wait already.
            GenerationTimeoutError: the answer is not whole in time.
            EngineError: while writing: the model's numbers overflow under this mixture.
        """

    @abstractmethod
    def log_likelihood(self, requests: Sequence[GenerationRequest], targets: Sequence[str]) -> list[float]:
        """Mean log-probability a token of each target as the answer to its request, end of turn included.

        Raises:
            UnknownAdapterError: a mixture names an adapter that is not in the pool.
            ContextLengthError: prompt and target do not fit the context.
        """

    @abstractmethod
    def count_tokens(self, request: GenerationRequest) -> int:
        """Tokens of the request's prompt, the chat template included."""

    @abstractmethod
    def token_ids(self, text: str) -> list[int]:
        """Ids of a bare text, without special tokens."""

    @abstractmethod
    def require(self, mixture: Mixture) -> None:
        """Check that a mixture can be served.

        Raises:
            UnknownAdapterError: it names an adapter that is not in the pool.
            OptionError: it mixes or weights an adapter that can only be used alone.
        """

    def descent(
        self, requests: Sequence[GenerationRequest], targets: Sequence[str], modules: Collection[str]
    ) -> Descent:
        """The direction, over the weights of some modules, in which the loss of the targets falls fastest.

        By a backward pass of the base model for each target; mixtures are not used.

        Raises:
            ContextLengthError: a prompt and its target do not fit the context.
            EngineError: this engine has no gradients, or one is not finite.
        """
        raise self._cannot_screen()

    def slopes(self, adapters: Sequence[str], descents: Sequence[Descent]) -> list[list[float]]:
        """How fast each loss falls in each adapter's direction, per unit of change; a list an adapter.

        The cosine between both directions, times the gradient's length. No adapter is run for it, and no more than
        one is in memory, beside those that are kept.

        Raises:
            UnknownAdapterError: one is not in the pool.
            EngineError: this engine has no gradients.
        """
        raise self._cannot_screen()

    def likeness(self, adapter: str, others: Sequence[str]) -> list[float]:
        """How alike an adapter's change of the weights is to others': 1 for equal, less for another direction.

        Raises:
            UnknownAdapterError: one is not in the pool.
            EngineError: this engine does not read weights.
        """
        raise self._cannot_screen()

    def _cannot_screen(self) -> EngineError:
        return EngineError(
            f"the engine {type(self).__name__} cannot screen adapters",
            hint='set [mapping] schedule = "halving", which runs every adapter',
        )

    def complete(self, requests: Sequence[GenerationRequest]) -> list[Completion]:
        """Write whole answers, in the order of the requests.

        An answer under whose mixture the model's numbers overflow has the finish reason "failed".

        Raises:
            As `stream`, before anything is written.
        """
        return [completion_of(self.stream(request)) for request in requests]


def completion_of(deltas: Iterator[Delta]) -> Completion:
    """Read a stream to its end.

    Raises:
        EngineError: the stream ended without a completion.
    """
    for delta in deltas:
        if delta.completion:
            return delta.completion
    raise EngineError("the engine's stream ended without a completion")


async def acompletion_of(deltas: AsyncGenerator[Delta, None]) -> Completion:
    """As `completion_of`, for event loops."""
    async with aclosing(deltas):
        async for delta in deltas:
            if delta.completion:
                return delta.completion
    raise EngineError("the engine's stream ended without a completion")
