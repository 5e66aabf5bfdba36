"""What every engine can do: conversations with mixtures and options in, text out. Knows nothing of tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence

from lorauter_integrations.errors import EngineError
from lorauter_integrations.generation import Completion, Delta, GenerationRequest
from lorauter_integrations.mixture import Mixture
from lorauter_integrations.pool import Adapter


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

    @abstractmethod
    def stream(self, request: GenerationRequest) -> Iterator[Delta]:
        """Write one answer piece by piece; the last `Delta` carries the completion.

        The checks below are made before this returns. Closing the iterator ends the work.

        Raises:
            UnknownAdapterError: the mixture names an adapter that is not in the pool.
            ContextLengthError: the prompt leaves no room for an answer.
            ContentError: the chat template refuses the conversation.
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
        """

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
