"""The engine that runs a transformers model in this process. The home of torch and transformers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lorauter_integrations.engines.base import Engine
from lorauter_integrations.engines.decoding import Row, Sampler, left_padded
from lorauter_integrations.engines.loading import load_model
from lorauter_integrations.engines.prompts import PromptRenderer
from lorauter_integrations.engines.scheduler import Scheduler
from lorauter_integrations.engines.text_stream import TextStream
from lorauter_integrations.errors import ContextLengthError, EngineError
from lorauter_integrations.generation import Completion, Delta, GenerationRequest
from lorauter_integrations.mixing import MixtureModel, base_shapes, fingerprint
from lorauter_integrations.mixing.weights import GIB
from lorauter_integrations.mixture import Mixture
from lorauter_integrations.pool import Adapter, AdapterPool

BATCH_ROWS = 32


class LocalEngine(Engine):
    """A transformers model and a pool of adapters.

    Requests of all threads are written together, in one forward pass a step; see `Scheduler`.

    Args:
        model: a causal language model of transformers.
        tokenizer: its tokenizer; not changed.
        adapters: the pool; empty for the base model alone.
        name: shown in response metadata.
        budget: bytes of adapter weights kept in memory.
        batch_rows: most rows of one forward pass in `complete`.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        adapters: Mapping[str, Adapter] | None = None,
        *,
        name: str = "",
        budget: int = GIB,
        batch_rows: int = BATCH_ROWS,
    ) -> None:
        # A pool names what it knows when it is asked for what it does not; a plain dictionary would not.
        pool = adapters if isinstance(adapters, AdapterPool) else AdapterPool(adapters or {})
        self._mixtures = MixtureModel(model, pool, budget=budget)
        self._tokenizer = tokenizer
        self._prompts = PromptRenderer(tokenizer)
        self._name = name or str(getattr(model.config, "_name_or_path", "") or type(model).__name__)
        self._batch_rows = batch_rows
        self._scheduler = Scheduler(self._mixtures, _end_tokens(model, tokenizer), most_rows=batch_rows)
        prompt_form = hashlib.sha256(self._prompts.identity.encode()).hexdigest()[:8]
        self._identity = f"{fingerprint(model)}-{prompt_form}"

    @classmethod
    def load(
        cls,
        model: str,
        pool: str | Path | None = None,
        *,
        dtype: str = "auto",
        device: str = "auto",
        budget: int = GIB,
        batch_rows: int = BATCH_ROWS,
    ) -> LocalEngine:
        """Load a model and check a folder of adapters against it.

        Raises:
            ModelLoadError: the model cannot be loaded.
            PoolError: the folder cannot be used.
        """
        loaded, tokenizer = load_model(model, dtype=dtype, device=device)
        adapters = AdapterPool.from_folder(pool, base_shapes(loaded)) if pool else None
        name = display_name(model)
        return cls(loaded, tokenizer, adapters, name=name, budget=budget, batch_rows=batch_rows)

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
    def mixtures(self) -> MixtureModel:
        """The model itself, for measurements and tests."""
        return self._mixtures

    @property
    def context_length(self) -> int:
        """The model's `max_position_embeddings`."""
        config = self._mixtures.model.config.get_text_config()  # type: ignore[union-attr, operator]
        return int(getattr(config, "max_position_embeddings", None) or 2048)

    def require(self, mixture: Mixture) -> None:
        """Check that every adapter of a mixture is in the pool. Raises `UnknownAdapterError`."""
        self._mixtures.require(mixture)

    def token_ids(self, text: str) -> list[int]:
        """Ids of a bare text, without special tokens."""
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)

    def count_tokens(self, request: GenerationRequest) -> int:
        """Tokens of the request's prompt, the chat template included."""
        return len(self._prompts.token_ids(request.messages, request.tools))

    def render(self, request: GenerationRequest) -> str:
        """The prompt as the model reads it."""
        return self._prompts.render(request.messages, request.tools)

    def stream(self, request: GenerationRequest) -> Iterator[Delta]:
        """Write one answer piece by piece; see `Engine.stream`."""
        return self._deltas(self._row(request))

    def complete(self, requests: Sequence[GenerationRequest]) -> list[Completion]:
        """Write whole answers, up to `batch_rows` at a time in one forward pass."""
        rows = [self._row(request) for request in requests]
        for _ in self._scheduler.write(rows):
            pass
        return [row.completion for row in rows]

    def log_likelihood(self, requests: Sequence[GenerationRequest], targets: Sequence[str]) -> list[float]:
        """Mean log-probability a token of each target; see `Engine.log_likelihood`."""
        prompts = [self._row(request).prompt for request in requests]
        end = self.token_ids(self._prompts.end_of_turn) or self._end_of_turn()
        answers = [self.token_ids(target) + end for target in targets]
        for prompt, answer in zip(prompts, answers, strict=True):
            self._room(len(prompt), at_least=len(answer))
        scores: list[float] = []
        for start in range(0, len(prompts), self._batch_rows):
            part = slice(start, start + self._batch_rows)
            mixtures = [request.mixture for request in requests[part]]
            with self._scheduler.turn:
                scores += self._batch_likelihood(prompts[part], answers[part], mixtures)
        return scores

    @torch.inference_mode()
    def _batch_likelihood(
        self, prompts: Sequence[Sequence[int]], answers: Sequence[list[int]], mixtures: Sequence[Mixture]
    ) -> list[float]:
        # Left padding puts every answer's end in the last column, so only the last logits are needed.
        ids, mask = left_padded([[*p, *a] for p, a in zip(prompts, answers, strict=True)], self._mixtures.device)
        keep = max(map(len, answers)) + 1
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        with self._mixtures.rows(mixtures):
            output = self._mixtures.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                use_cache=False,
                logits_to_keep=keep,
            )
        logits = output.logits[:, :-1].float()
        chosen = ids[:, -(keep - 1) :]
        chances = logits.gather(2, chosen[..., None])[..., 0] - logits.logsumexp(-1)
        return [float(row[-len(answer) :].mean()) for row, answer in zip(chances, answers, strict=True)]

    def _deltas(self, row: Row) -> Iterator[Delta]:
        for _, piece in self._scheduler.write([row]):
            yield Delta(piece)
        if row.finish_reason == "failed":
            raise EngineError(
                f"the model's numbers overflowed under the mixture {row.mixture}",
                hint="an adapter's weights or scaling are too large; `lorauter map` would give it a score of 0",
            )
        yield Delta("", row.completion)

    def _row(self, request: GenerationRequest) -> Row:
        self.require(request.mixture)
        prompt = self._prompts.token_ids(request.messages, request.tools)
        options = request.options
        most = min(options.max_tokens, self._room(len(prompt)))
        text = TextStream(self._tokenizer, (*options.stop, *self._prompts.stop))
        return Row(prompt, request.mixture, most, text, Sampler(options), request.keep_on)

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

    def _end_of_turn(self) -> list[int]:
        end = self._tokenizer.eos_token_id
        return [] if end is None else [int(end)]


def display_name(location: str) -> str:
    """What people call a model: the hub name, or a folder's or file's last part."""
    path = Path(location)
    return (path.stem if path.suffix == ".gguf" else path.name) if path.is_absolute() else location


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every id that ends an answer, by the model's generation settings and by its tokenizer."""
    settings = getattr(model, "generation_config", None)
    stated = getattr(settings, "eos_token_id", None)
    ends = stated if isinstance(stated, list) else [stated]
    return frozenset(int(end) for end in [*ends, tokenizer.eos_token_id] if end is not None)
