"""One row's choice of its next token. Knows logits and options; nothing of batches or models."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from lorauter_integrations.generation import GenerationOptions

ENOUGH = 1024  # tokens that nearly always hold all that top_p and min_p leave


class Constraint(Protocol):
    """What may come next; see `grammar.TokenMatcher`."""

    @property
    def complete(self) -> bool:
        """Whether nothing may follow but the end."""

    def allowed(self, scores: Tensor | None = None) -> Tensor:
        """The tokens that may come next, where the model likes them so. *Shape:* ``(vocabulary,)``, bool."""

    def take(self, token: int) -> None:
        """The token that was chosen."""


class Sampler:
    """Chooses one row's tokens, with a random generator of its own.

    Args:
        options: of the request.
        prompt: token ids; the repetition penalty counts them.
        constraint: what may come next, or None.
    """

    def __init__(
        self, options: GenerationOptions, prompt: Sequence[int] = (), constraint: Constraint | None = None
    ) -> None:
        self._options = options
        self._constraint = constraint
        self._seen = set(prompt) if options.repetition_penalty != 1 else set()
        self._generator = torch.Generator()  # on the CPU: one seed, one text, on every device
        self._generator.manual_seed(secrets.randbits(62) if options.seed is None else options.seed)

    @property
    def takes_the_likeliest(self) -> bool:
        """Whether the choice is the highest logit, so that a whole batch's can be found at once."""
        return self._options.temperature == 0 and self._constraint is None and self._options.repetition_penalty == 1

    @property
    def complete(self) -> bool:
        """Whether the answer so far is whole and nothing may follow."""
        return self._constraint is not None and self._constraint.complete

    def choose(self, logits: Tensor) -> int:
        """The next token. *Shape:* ``(vocabulary,)``."""
        scores = logits.double().cpu()
        if self._constraint:
            scores = scores.masked_fill(~self._constraint.allowed(scores), -math.inf)
        scores = self._penalised(scores)
        token = int(scores.argmax()) if self._options.temperature == 0 else self._drawn(scores)
        if self._constraint:
            self._constraint.take(token)
        if self._options.repetition_penalty != 1:
            self._seen.add(token)
        return token

    def _penalised(self, scores: Tensor) -> Tensor:
        if not self._seen:
            return scores
        seen = torch.tensor(sorted(self._seen))
        penalty = self._options.repetition_penalty
        chosen = scores[seen]
        return scores.index_copy(0, seen, torch.where(chosen > 0, chosen / penalty, chosen * penalty))

    def _drawn(self, scores: Tensor) -> int:
        scores = (scores - scores.max()) / self._options.temperature  # at most 0: no temperature overflows
        chances, order = self._candidates(scores)
        # A token stays while the sum before it is below top_p, so the likeliest always stays.
        before = chances.cumsum(0) - chances
        stays = (before < self._options.top_p) & (chances >= self._options.min_p * chances[0])
        return int(order[torch.multinomial(chances * stays, 1, generator=self._generator)])

    def _candidates(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities and tokens that may be drawn, likeliest first; sorting a whole vocabulary takes long."""
        options = self._options
        if options.top_k:
            values, order = scores.topk(min(options.top_k, len(scores)))
            return values.softmax(0), order
        chances = scores.softmax(0)
        if options.top_p < 1 or options.min_p > 0:
            values, order = chances.topk(min(ENOUGH, len(chances)))
            if values.sum() >= options.top_p or values[-1] < options.min_p * values[0]:
                return values, order
            return chances.sort(descending=True, stable=True)
        return chances, torch.arange(len(chances))


def logprobs_of(logits: Tensor, token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
    """The chosen token's log-probability and the likeliest tokens with theirs. *Shape:* ``(vocabulary,)``."""
    chances = logits.float().log_softmax(-1)
    values, order = chances.topk(top)
    return float(chances[token]), list(zip(order.tolist(), values.tolist(), strict=True))
