"""The decode loop over a batch whose rows differ in mixture, sampling, grammar, stop strings and length.

Knows tensors and token ids; nothing of messages or routing. One call of `DecodingBatch.step` is one
forward pass, so a caller decides between two steps whether to go on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cache
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from lorauter_integrations.engines.kv_cache import RowCache, RowStates
from lorauter_integrations.engines.sampling import Sampler, logprobs_of
from lorauter_integrations.engines.text_stream import TextStream
from lorauter_integrations.generation import Completion, FinishReason, TokenLogprob, Usage
from lorauter_integrations.mixing import MixtureModel
from lorauter_integrations.mixture import Mixture

WORTH_TRIMMING = 16  # tokens of padding that every row has
SMALL = 8192  # columns of all rows, up to which padding does not matter
MOST_PADDING = 3  # beyond it, columns for each one that is needed


@dataclass(slots=True, eq=False)
class Row:
    """One answer being written.

    Attributes:
        prompt: token ids of the prompt, at least one.
        mixture: its adapters.
        max_tokens: upper bound of new tokens, already cut to the room left in the context.
        text: turns ids to text.
        sampler: chooses tokens.
        keep_on: False for the text so far ends the answer.
        logprobs: how many likeliest tokens to note beside each chosen one; None notes nothing.
        timeout: seconds from now to when the answer must be whole.
        content: the exact content of the mixture; rows of equal content may share states. None shares nothing.
        produced: new tokens so far, the end token included.
        noted: a log-probability for each new token.
        finish_reason: set when the row is done.
        error: what went wrong with this row alone.
        deadline: when the answer must be whole, by `time.monotonic`.
    """

    prompt: Sequence[int]
    mixture: Mixture
    max_tokens: int
    text: TextStream
    sampler: Sampler
    keep_on: Callable[[str], bool] | None = None
    logprobs: int | None = None
    timeout: float | None = None
    content: Hashable = None
    produced: list[int] = field(default_factory=list)
    noted: list[TokenLogprob] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    error: Exception | None = None
    deadline: float = field(init=False)

    def __post_init__(self) -> None:
        self.deadline = math.inf if self.timeout is None else time.monotonic() + self.timeout

    def advance(self, logits: Tensor, likeliest: int, end_tokens: frozenset[int]) -> str:
        """Choose the next token. *Shape:* ``(vocabulary,)``. Returns the text that is certain now."""
        token = likeliest if self.sampler.takes_the_likeliest else self.sampler.choose(logits)
        if self.logprobs is not None:
            chance, top = logprobs_of(logits, token, self.logprobs)
            named = tuple((self.text.token(one), value) for one, value in top)
            self.noted.append(TokenLogprob(self.text.token(token), chance, named))
        self.produced.append(token)
        if token in end_tokens:
            self.finish_reason = "stop"
            return self.text.finish()
        piece = self.text.push(token)
        full = len(self.produced) >= self.max_tokens
        if full or self.sampler.complete:
            piece += self.text.finish()
        # Looked at last: what was held back may have completed a stop string.
        if self.text.stopped or self.sampler.complete or (self.keep_on and not self.keep_on(self.text.text)):
            self.finish_reason = "stop"
        elif full:
            self.finish_reason = "length"
        return piece

    def fail(self, error: Exception | None = None) -> str:
        """End the answer: the model gave no numbers to choose by, or an error. Returns the text held back."""
        self.finish_reason, self.error = "failed", error
        return "" if error else self.text.finish()

    @property
    def completion(self) -> Completion:
        """The finished answer."""
        usage = Usage(len(self.prompt), len(self.produced))
        return Completion(self.text.text, self.finish_reason or "failed", usage, tuple(self.noted))


class DecodingBatch:
    """Rows that go through the model together until each is done; done rows leave at once.

    Args:
        model: the base model with its adapters.
        rows: at least one.
        end_tokens: ids that end an answer.
        chunk: tokens of prompts that are read in one step, padding included.
        known: for each row, the states of the first tokens of its prompt, if they are known.

    Attributes:
        live: the rows that are not done.
    """

    def __init__(
        self,
        model: MixtureModel,
        rows: Sequence[Row],
        end_tokens: frozenset[int],
        *,
        chunk: int,
        known: Sequence[tuple[int, RowStates] | None] = (),
    ) -> None:
        self._model = model
        self._end_tokens = end_tokens
        self._chunk = chunk
        self.live = list(rows)
        self._cache = RowCache(model.model.config)
        self._cache_argument = _cache_argument(model.model)
        held = [0 if one is None else one[0] for one in known] or [0] * len(rows)
        # The rows' unread parts are made equally long by reading some of what is known again: it costs nothing,
        # since those columns would be padding, and no padding stands in the middle of a row.
        unread = max(len(row.prompt) - n for row, n in zip(rows, held, strict=True))
        held = [max(0, len(row.prompt) - unread) for row in rows]
        self._next, mask = left_padded([row.prompt[n:] for row, n in zip(rows, held, strict=True)], model.device)
        if longest := max(held):
            self._cache.start_with([one and one[1].first(n) for one, n in zip(known, held, strict=True)], longest)
            _, before = left_padded([range(n) for n in held], model.device)
            mask = torch.cat([before, mask], dim=1)
        self._mask = mask  # of all columns, also of those that are still to be read
        self._note_padding()

    @property
    def reading(self) -> bool:
        """Whether the prompts have not been read to their ends."""
        return any(not row.produced for row in self.live)

    @torch.inference_mode()
    def step(self) -> list[tuple[Row, str]]:
        """One forward pass: some more of the prompts, or a token for each live row. Returns every row's new text."""
        columns = max(1, self._chunk // len(self.live))
        now, self._next = self._next[:, :columns], self._next[:, columns:]
        logits = self._forward(now)
        if self._next.shape[1]:
            return []
        highest, likeliest = logits.max(dim=-1)
        pieces = [
            (row, self._advanced(row, *facts))
            for row, *facts in zip(self.live, logits, likeliest.tolist(), highest.isfinite().tolist(), strict=True)
        ]
        self._prepare_next()
        return pieces

    def _advanced(self, row: Row, logits: Tensor, likeliest: int, finite: bool) -> str:
        if not finite:
            return row.fail()
        try:
            return row.advance(logits, likeliest, self._end_tokens)
        except Exception as error:  # noqa: BLE001  one row's grammar or callback; its caller gets it
            ends_loops = isinstance(error, StopIteration)  # and would end its caller's, as if all were well
            return row.fail(RuntimeError("a callback raised StopIteration") if ends_loops else error)

    def _forward(self, ids: Tensor) -> Tensor:
        """Logits of each live row's next token. *Shape:* ``(rows, new tokens)`` to ``(rows, vocabulary)``."""
        read = self._mask.shape[1] - self._next.shape[1]
        mask = self._mask[:, :read]
        with self._model.rows([row.mixture for row in self.live], length=ids.shape[1]):
            output = self._model.model(
                input_ids=ids,
                attention_mask=mask if self._padded else None,  # without padding the model may skip the mask
                use_cache=True,
                logits_to_keep=1,
                **positions(self._model.model, mask, ids.shape[1]),
                **{self._cache_argument: self._cache.states},
            )
        return output.logits[:, -1]  # type: ignore[no-any-return]

    def read_of(self, row: Row) -> tuple[Sequence[int], int]:
        """What has been read of a row: its tokens, and how many bytes their states take."""
        tokens = [*row.prompt, *row.produced[:-1]]
        return tokens, len(tokens) * self._cache.bytes_a_token

    def states(self, row: Row) -> RowStates:
        """A copy of the states of what has been read of a row; for a cache that keeps every token."""
        place = self.live.index(row)
        columns = self._mask[place, : self._mask.shape[1] - self._next.shape[1]].nonzero()[:, 0]
        return self._cache.row(place, columns)

    def absorb(self, other: DecodingBatch) -> bool:
        """Take in another batch's rows; both have been read, and each row keeps its own positions.

        The shorter cache is padded on the left with entries that the mask hides.

        Returns:
            False when the model's cache is of a kind that cannot be padded (sliding windows), or when most of the
            memory would be padding; nothing is done.
        """
        longest = max(self._mask.shape[1], other._mask.shape[1])
        columns = longest * (len(self.live) + len(other.live))
        needed = int(self._mask.sum() + other._mask.sum())
        if not self._cache.plain or columns > max(SMALL, MOST_PADDING * needed):
            return False
        self._cache.absorb(other._cache, longest - 1)
        masks = [pad(batch._mask, (longest - batch._mask.shape[1], 0)) for batch in (self, other)]
        self._mask = torch.cat(masks)
        self._next = torch.cat([self._next, other._next])
        self.live += other.live
        self._note_padding()
        return True

    def drop(self, gone: Collection[Row]) -> None:
        """Let rows go, done or not."""
        stay = [place for place, row in enumerate(self.live) if row not in gone]
        if len(stay) < len(self.live):
            keep = torch.tensor(stay, device=self._model.device, dtype=torch.long)
            self.live = [self.live[place] for place in stay]
            self._next, self._mask = self._next[keep], self._mask[keep]
            if stay:
                self._cache.keep(keep)
                self._trim()
                self._note_padding()

    def _prepare_next(self) -> None:
        """The chosen tokens are what is read next; a row that is done stays until it is dropped."""
        chosen = [row.produced[-1] if row.produced else 0 for row in self.live]
        self._next = torch.tensor(chosen, device=self._model.device, dtype=torch.long)[:, None]
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self.live), 1)], dim=1)

    def _note_padding(self) -> None:
        self._padded = not bool(self._mask.all())

    def _trim(self) -> None:
        """Cut off the left padding that no row needs any more, once it is worth the copy."""
        first = int(self._mask.any(dim=0).int().argmax())
        if first >= WORTH_TRIMMING and self._cache.plain and not self.reading:
            self._mask = self._mask[:, first:]
            self._cache.cut(first)


def takes(model: Any, argument: str) -> bool:
    """Whether a model's forward has an argument of this name."""
    kind: type = type(model)
    return argument in _arguments(kind)


@cache
def _arguments(model: type) -> frozenset[str]:
    """Asked in every step, and slow to find out."""
    return frozenset(signature(model.forward).parameters)  # type: ignore[attr-defined]


def positions(model: Any, mask: Tensor, length: int) -> dict[str, Tensor]:
    """The argument that places the last `length` columns; none for models (ALiBi, recurrent ones) that take none."""
    if not takes(model, "position_ids"):
        return {}
    return {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)[:, -length:]}


def _cache_argument(model: Any) -> str:
    """transformers renamed it: `past_key_values` is deprecated since 5.2x and goes with 5.40."""
    return "cache" if takes(model, "cache") else "past_key_values"


def can_be_padded(model: Any) -> bool:
    """Whether rows of different lengths may stand in one batch, padded on the left.

    Not for models that take no positions, and not for those with recurrent layers, whose states padding changes.
    """
    layers = DynamicCache(config=model.config).layers
    return takes(model, "position_ids") and all(isinstance(layer, DynamicLayer) for layer in layers)


def left_padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and mask with every prompt's end in the last column. *Shape:* ``(rows, longest)`` each."""
    longest = max(map(len, prompts))
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    return ids.to(device), mask.to(device)
