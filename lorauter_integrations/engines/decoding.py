"""The decode loop over a batch whose rows differ in mixture, sampling, stop strings and length.

Knows tensors and token ids; nothing of messages or routing. One call of `DecodingBatch.step` is one
forward pass, so a caller decides between two steps whether to go on.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from lorauter_integrations.engines.text_stream import TextStream
from lorauter_integrations.generation import Completion, FinishReason, GenerationOptions, Usage
from lorauter_integrations.mixing import MixtureModel
from lorauter_integrations.mixture import Mixture

WORTH_TRIMMING = 16  # tokens of padding that every row has


class Sampler:
    """Chooses one row's next token, with a random generator of its own."""

    def __init__(self, options: GenerationOptions) -> None:
        self._options = options
        self._generator = torch.Generator()  # on the CPU: one seed, one text, on every device
        self._generator.manual_seed(secrets.randbits(62) if options.seed is None else options.seed)

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken each time."""
        return self._options.temperature == 0

    def choose(self, logits: Tensor) -> int:
        """Draw the next token. *Shape:* ``(vocabulary,)``."""
        scores = logits.double().cpu()
        scores = (scores - scores.max()) / self._options.temperature  # at most 0: no temperature overflows
        values, order = scores.sort(descending=True)
        if self._options.top_k:
            values, order = values[: self._options.top_k], order[: self._options.top_k]
        probabilities = values.softmax(0)
        # A token stays while the sum before it is below top_p, so the likeliest always stays.
        before = probabilities.cumsum(0) - probabilities
        probabilities = probabilities.where(before < self._options.top_p, torch.zeros((), dtype=torch.double))
        return int(order[torch.multinomial(probabilities, 1, generator=self._generator)])


@dataclass(slots=True)
class Row:
    """One answer being written.

    Attributes:
        prompt: token ids of the prompt, at least one.
        mixture: its adapters.
        max_tokens: upper bound of new tokens, already cut to the room left in the context.
        text: turns ids to text.
        sampler: chooses tokens.
        keep_on: False for the text so far ends the answer.
        produced: new tokens so far, the end token included.
        finish_reason: set when the row is done.
    """

    prompt: Sequence[int]
    mixture: Mixture
    max_tokens: int
    text: TextStream
    sampler: Sampler
    keep_on: Callable[[str], bool] | None = None
    produced: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None

    def take(self, token: int, end_tokens: frozenset[int]) -> str:
        """Add the chosen token; returns the text that is certain now."""
        self.produced.append(token)
        if token in end_tokens:
            self.finish_reason = "stop"
            return self.text.finish()
        piece = self.text.push(token)
        full = len(self.produced) >= self.max_tokens
        if full:
            piece += self.text.finish()
        # Looked at last: what was held back may have completed a stop string.
        if self.text.stopped or (self.keep_on and not self.keep_on(self.text.text)):
            self.finish_reason = "stop"
        elif full:
            self.finish_reason = "length"
        return piece

    def fail(self) -> str:
        """End the answer: the model gave no numbers to choose by. Returns the text held back."""
        self.finish_reason = "failed"
        return self.text.finish()

    @property
    def completion(self) -> Completion:
        """The finished answer."""
        usage = Usage(len(self.prompt), len(self.produced))
        return Completion(self.text.text, self.finish_reason or "stop", usage)


class DecodingBatch:
    """Rows that go through the model together until each is done; done rows leave at once.

    Args:
        model: the base model with its adapters.
        rows: at least one.
        end_tokens: ids that end an answer.
    """

    def __init__(self, model: MixtureModel, rows: Sequence[Row], end_tokens: frozenset[int]) -> None:
        self._model = model
        self._end_tokens = end_tokens
        self.live = list(rows)
        self._cache = DynamicCache(config=model.model.config)
        self._cache_argument = _cache_argument(model.model)
        self._next, self._mask = left_padded([row.prompt for row in rows], model.device)
        self._padded = bool((self._mask == 0).any())  # without padding the model may skip the mask

    @torch.inference_mode()
    def step(self) -> list[tuple[Row, str]]:
        """One forward pass: each live row gets a token. Returns every row's new text."""
        logits = self._forward()
        highest, likeliest = logits.max(dim=-1)
        greedy, finite = likeliest.tolist(), highest.isfinite().tolist()
        pieces, chosen = [], []
        for place, row in enumerate(self.live):
            if not finite[place]:
                chosen.append(0)
                pieces.append((row, row.fail()))
                continue
            token = greedy[place] if row.sampler.greedy else row.sampler.choose(logits[place])
            chosen.append(token)
            pieces.append((row, row.take(token, self._end_tokens)))
        self._advance(chosen)
        return pieces

    def _forward(self) -> Tensor:
        """Logits of each live row's next token. *Shape:* ``(rows, vocabulary)``."""
        length = self._next.shape[1]
        positions = (self._mask.cumsum(1) - 1).clamp(min=0)[:, -length:]
        with self._model.rows([row.mixture for row in self.live]):
            output = self._model.model(
                input_ids=self._next,
                attention_mask=self._mask if self._padded else None,
                position_ids=positions,
                use_cache=True,
                logits_to_keep=1,
                **{self._cache_argument: self._cache},
            )
        return output.logits[:, -1]  # type: ignore[no-any-return]

    def absorb(self, other: DecodingBatch) -> bool:
        """Take in another batch's rows; both have been read, and each row keeps its own positions.

        The shorter cache is padded on the left with entries that the mask hides.

        Returns:
            False when the model's cache is of a kind that cannot be padded (sliding windows); nothing is done.
        """
        if not (_is_plain(self._cache) and _is_plain(other._cache)):
            return False
        longest = max(self._mask.shape[1], other._mask.shape[1])
        for ours, theirs in zip(self._cache.layers, other._cache.layers, strict=True):
            ours.keys = torch.cat([_on_the_left(ours.keys, longest - 1), _on_the_left(theirs.keys, longest - 1)])
            ours.values = torch.cat(
                [_on_the_left(ours.values, longest - 1), _on_the_left(theirs.values, longest - 1)]
            )
        masks = [pad(batch._mask, (longest - batch._mask.shape[1], 0)) for batch in (self, other)]
        self._mask = torch.cat(masks)
        self._next = torch.cat([self._next, other._next])
        self._padded = bool((self._mask == 0).any())
        self.live += other.live
        return True

    def drop(self, gone: Collection[int]) -> None:
        """Let rows go before they are done, by the `id` of the row."""
        stay = [place for place, row in enumerate(self.live) if id(row) not in gone]
        if len(stay) < len(self.live):
            self._next = self._next[stay]
            self._keep(stay)

    def _advance(self, chosen: list[int]) -> None:
        """Append the chosen tokens and let finished rows leave."""
        stay = [place for place, row in enumerate(self.live) if row.finish_reason is None]
        self._next = torch.tensor([[chosen[place]] for place in stay], device=self._model.device, dtype=torch.long)
        if len(stay) < len(self.live):
            self._keep(stay)
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(stay), 1)], dim=1)

    def _keep(self, stay: list[int]) -> None:
        """Keep the rows in these places, in mask and cache."""
        self.live = [self.live[place] for place in stay]
        keep = torch.tensor(stay, device=self._model.device, dtype=torch.long)
        self._mask = self._mask[keep]
        if stay:
            self._cache.batch_select_indices(keep)
            self._trim()

    def _trim(self) -> None:
        """Cut off the left padding that no row needs any more, once it is worth the copy."""
        first = int(self._mask.any(dim=0).int().argmax())
        if first >= WORTH_TRIMMING and _is_plain(self._cache):
            self._mask = self._mask[:, first:]
            for layer in self._cache.layers:
                layer.keys, layer.values = layer.keys[:, :, first:], layer.values[:, :, first:]
        self._padded = bool((self._mask == 0).any())


def _is_plain(cache: Any) -> bool:
    return all(type(layer) is DynamicLayer for layer in cache.layers)


def _on_the_left(states: Tensor, length: int) -> Tensor:
    """Zeros before the states. *Shape:* ``(rows, heads, length, size)``."""
    return pad(states, (0, 0, length - states.shape[2], 0))


def _cache_argument(model: Any) -> str:
    """transformers renamed it: `past_key_values` is deprecated since 5.2x and goes with 5.40."""
    return "cache" if "cache" in signature(model.forward).parameters else "past_key_values"


def left_padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and mask with every prompt's end in the last column. *Shape:* ``(rows, longest)`` each."""
    longest = max(map(len, prompts))
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    return ids.to(device), mask.to(device)
