"""The engine that runs a transformers model in this process. The home of torch and transformers."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from lorauter_integrations.engines.base import Engine, Limits
from lorauter_integrations.engines.decoding import Row, can_be_padded
from lorauter_integrations.engines.grammar import GrammarCompiler
from lorauter_integrations.engines.kv_cache import RowCache
from lorauter_integrations.engines.likelihood import descent, mean_logprobs
from lorauter_integrations.engines.loading import load_model, require_causal
from lorauter_integrations.engines.prefixes import PrefixCache, PrefixStats
from lorauter_integrations.engines.prompts import PromptRenderer
from lorauter_integrations.engines.sampling import Sampler
from lorauter_integrations.engines.scheduler import Scheduler
from lorauter_integrations.engines.text_stream import TextStream
from lorauter_integrations.engines.writing import Writing
from lorauter_integrations.errors import ContextLengthError, EngineError
from lorauter_integrations.generation import Completion, Delta, GenerationRequest
from lorauter_integrations.mixing import MixtureModel, base_shapes, fingerprint
from lorauter_integrations.mixing.first_order import Descent, likeness, slopes
from lorauter_integrations.mixing.weights import CacheStats
from lorauter_integrations.mixture import Mixture
from lorauter_integrations.pool import Adapter, AdapterPool, BaseShapes
from lorauter_integrations.tool_calls import CallForm

PoolOf: TypeAlias = Callable[[BaseShapes], AdapterPool]


class LocalEngine(Engine):
    """A transformers model and a pool of adapters.

    Requests of all threads are written together, in one forward pass a step; see `Scheduler`.

    Args:
        model: a causal language model of transformers.
        tokenizer: its tokenizer; not changed.
        adapters: the pool; empty for the base model alone.
        name: shown in response metadata.
        limits: how much it may do at once and keep.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        adapters: Mapping[str, Adapter] | None = None,
        *,
        name: str = "",
        limits: Limits | None = None,
    ) -> None:
        # A pool names what it knows when it is asked for what it does not; a plain dictionary would not.
        pool = adapters if isinstance(adapters, AdapterPool) else AdapterPool(adapters or {})
        require_causal(model)
        self._limits = limits or Limits()
        self._mixtures = MixtureModel(model, pool, budget=self._limits.adapter_bytes)
        self._tokenizer = tokenizer
        self._prompts = PromptRenderer(tokenizer)
        self._name = name or str(getattr(model.config, "_name_or_path", "") or type(model).__name__)
        ends = _end_tokens(model, tokenizer)
        vocabulary = int(model.config.get_text_config().vocab_size)
        self._grammars = GrammarCompiler(tokenizer, vocabulary, ends, self._prompts.call_form)
        self._prefixes = PrefixCache(self._limits.prefix_bytes)
        self._padding = can_be_padded(model)
        self._scheduler = Scheduler(
            self._mixtures,
            ends,
            self._prefixes,
            most_rows=self._limits.rows,
            most_waiting=self._limits.queue,
            chunk=self._limits.chunk,
            padding=self._padding,
        )
        self._shares_states = self._limits.prefix_bytes > 0 and self._padding and RowCache(model.config).plain
        prompt_form = hashlib.sha256(self._prompts.identity.encode()).hexdigest()[:8]
        self._identity = f"{fingerprint(model)}-{prompt_form}"

    @classmethod
    def load(
        cls,
        model: str,
        pool: str | Path | PoolOf | None = None,
        *,
        dtype: str = "auto",
        device: str = "auto",
        device_map: str = "",
        quantization: str = "",
        limits: Limits | None = None,
    ) -> LocalEngine:
        """Load a model and check adapters against it.

        Args:
            model: as the others below, see `load_model`.
            pool: a folder of adapters, or what makes a pool for the shapes of the model's modules.
            dtype: of the weights.
            device: where the model is.
            device_map: how it is spread over devices.
            quantization: of its weights while they are loaded.
            limits: how much the engine may do at once and keep.

        Raises:
            ModelLoadError: the model cannot be loaded.
            MissingExtraError: accelerate or bitsandbytes is asked for and not installed.
            PoolError: the folder cannot be used.
        """
        loaded, tokenizer = load_model(
            model, dtype=dtype, device=device, device_map=device_map, quantization=quantization
        )
        if isinstance(pool, str | Path):
            pool = partial(AdapterPool.from_folder, pool, base=model)
        adapters = pool(base_shapes(loaded)) if pool else None
        return cls(loaded, tokenizer, adapters, name=display_name(model), limits=limits)

    @property
    def name(self) -> str:
        """The base model's name."""
        return self._name

    @property
    def identity(self) -> str:
        """A hash of the base weights' samples and of the chat template."""
        return self._identity

    @property
    def adapters(self) -> Mapping[str, Adapter]:
        """The pool."""
        return self._mixtures.adapters

    @property
    def call_form(self) -> CallForm:
        """The chat template's own way to write tool calls, or Hermes'."""
        return self._prompts.call_form

    @property
    def mixtures(self) -> MixtureModel:
        """The model itself, for measurements and tests."""
        return self._mixtures

    @property
    def context_length(self) -> int:
        """The model's `max_position_embeddings`."""
        config = self._mixtures.model.config.get_text_config()  # type: ignore[union-attr, operator]
        return int(getattr(config, "max_position_embeddings", None) or 2048)

    def require(self, mixture: Mixture) -> None:
        """Check that a mixture can be served; raises as `MixtureModel.require`."""
        self._mixtures.require(mixture)

    def pin(self, adapters: Iterable[str]) -> None:
        """Read adapters that stay in memory.

        Raises:
            UnknownAdapterError: one is not in the pool.
            PoolError: together they exceed the budget.
        """
        self._mixtures.weights.pin(adapters)

    def stats(self) -> EngineStats:
        """What is in memory, and how often it served."""
        return EngineStats(self._mixtures.weights.stats, self._prefixes.stats)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._scheduler.closed

    def close(self) -> None:
        """End: callers in the middle of an answer get `EngineClosedError`, and so does every later one."""
        self._scheduler.close()
        self._mixtures.close()

    def token_ids(self, text: str) -> list[int]:
        """Ids of a bare text, without special tokens."""
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)

    def count_tokens(self, request: GenerationRequest) -> int:
        """Tokens of the request's prompt, the chat template included."""
        return len(self._prompts.token_ids(request.messages, request.tools))

    def render(self, request: GenerationRequest) -> str:
        """The prompt as the model reads it."""
        return self._prompts.render(request.messages, request.tools)

    def stream(self, request: GenerationRequest) -> Deltas:
        """Write one answer piece by piece; see `Engine.stream`."""
        row = self._row(request)
        row.content = self._content(request.mixture) if self._shares_states else None
        return Deltas(row, Writing(self._scheduler, [row]))

    def complete(self, requests: Sequence[GenerationRequest]) -> list[Completion]:
        """Write whole answers, `Limits.rows` at a time; earlier conversations are neither looked up nor kept."""
        rows = [self._row(request) for request in requests]
        for _ in Writing(self._scheduler, rows):
            pass
        return [row.completion for row in rows]

    def log_likelihood(self, requests: Sequence[GenerationRequest], targets: Sequence[str]) -> list[float]:
        """Mean log-probability a token of each target; see `Engine.log_likelihood`."""
        prompts, answers = self._with_answers(requests, targets)
        scores: list[float] = []
        rows = self._limits.rows if self._padding else 1
        for start in range(0, len(prompts), rows):
            part = slice(start, start + rows)
            mixtures = [request.mixture for request in requests[part]]
            with self._scheduler.lead():
                scores += mean_logprobs(self._mixtures, prompts[part], answers[part], mixtures)
        return scores

    def descent(
        self, requests: Sequence[GenerationRequest], targets: Sequence[str], modules: Collection[str]
    ) -> Descent:
        """Which way the loss of these answers falls; see `Engine.descent`."""
        prompts, answers = self._with_answers(requests, targets)
        with self._scheduler.lead():
            return descent(self._mixtures, prompts, answers, modules)

    def slopes(self, adapters: Sequence[str], descents: Sequence[Descent]) -> list[list[float]]:
        """How adapters point; see `Engine.slopes`."""
        return slopes((self._mixtures.weights[name].factors for name in adapters), descents)

    def likeness(self, adapter: str, others: Sequence[str]) -> list[float]:
        """How alike adapters are; see `Engine.likeness`."""
        weights = self._mixtures.weights
        return likeness(weights[adapter].factors, (weights[other].factors for other in others))

    def _with_answers(
        self, requests: Sequence[GenerationRequest], targets: Sequence[str]
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Token ids of prompts and answers that fit the context together."""
        prompts = [self._prompt(request) for request in requests]
        eos = self._tokenizer.eos_token_id
        end = self.token_ids(self._prompts.end_of_turn) or ([] if eos is None else [int(eos)])
        answers = [self.token_ids(target) + end for target in targets]
        for prompt, answer in zip(prompts, answers, strict=True):
            self._room(len(prompt), at_least=len(answer))
        return prompts, answers

    def _prompt(self, request: GenerationRequest) -> list[int]:
        self.require(request.mixture)
        return self._prompts.token_ids(request.messages, request.tools)

    def _row(self, request: GenerationRequest) -> Row:
        prompt = self._prompt(request)
        options = request.options
        constraint = self._grammars.matcher(request.grammar) if request.grammar else None
        return Row(
            prompt,
            request.mixture,
            min(options.max_tokens, self._room(len(prompt))),
            TextStream(self._tokenizer, self._stop(request)),
            Sampler(options, prompt, constraint),
            request.keep_on,
            options.logprobs,
            options.timeout,
        )

    def _stop(self, request: GenerationRequest) -> tuple[str, ...]:
        """What ends the answer; a grammar ends by itself, unless it allows text."""
        bound = request.grammar is not None and not request.grammar.allows_text
        return () if bound else (*request.options.stop, *self._prompts.stop)

    def _content(self, mixture: Mixture) -> tuple[tuple[str, float], ...]:
        """What decides a token's states beside the base model: the adapters' contents and their weights."""
        return tuple(sorted((self.adapters[name].content_hash, weight) for name, weight in mixture.items()))

    def _room(self, prompt: int, *, at_least: int = 1) -> int:
        """Tokens that an answer to a prompt of this many tokens may have."""
        room = self.context_length - prompt
        if room < at_least:
            raise ContextLengthError(
                f"the prompt has {prompt} tokens; the model's context holds {self.context_length}, "
                f"the answer of at least {at_least} included",
                hint="shorten the conversation or the documents put into it",
            )
        return room


class Deltas(Iterator[Delta], AsyncIterator[Delta]):
    """An answer being written, for threads and event loops. `close` may be called from any thread, at any time."""

    def __init__(self, row: Row, writing: Writing) -> None:
        self._row = row
        self._writing = writing
        self._done = False

    def __next__(self) -> Delta:
        delta = self._delta(None if self._done else next(self._writing, None))
        if delta is None:
            raise StopIteration
        return delta

    async def __anext__(self) -> Delta:
        delta = self._delta(None if self._done else await anext(self._writing, None))
        if delta is None:
            raise StopAsyncIteration
        return delta

    def _delta(self, written: tuple[Row, str] | None) -> Delta | None:
        if written:
            return Delta(written[1])
        if self._done or self._row.finish_reason is None:  # or it was closed before it was whole
            return None
        self._done = True
        if self._row.finish_reason == "failed":
            raise EngineError(
                f"the model's numbers overflowed under the mixture {self._row.mixture}",
                hint="an adapter's weights or scaling are too large; `lorauter map` would give it a score of 0",
            )
        return Delta("", self._row.completion)

    def close(self) -> None:
        """Free the row; whoever waits for its next piece finds the iterator at its end."""
        self._done = True
        self._writing.close()


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What a `LocalEngine` keeps in memory."""

    adapters: CacheStats
    prefixes: PrefixStats


def display_name(location: str) -> str:
    """What people call a model: the hub name, or a folder's or file's last part."""
    path = Path(location)
    return (path.stem if path.suffix == ".gguf" else path.name) if path.is_absolute() else location


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every id that ends an answer, by the model's generation settings and by its tokenizer."""
    stated = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends = stated if isinstance(stated, list) else [stated]
    return frozenset(int(end) for end in [*ends, tokenizer.eos_token_id] if end is not None)
