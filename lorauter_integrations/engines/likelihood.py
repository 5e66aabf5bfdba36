"""How likely a model finds given answers. Knows tensors and token ids."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from lorauter_integrations.engines.decoding import left_padded, positions
from lorauter_integrations.mixing import MixtureModel
from lorauter_integrations.mixing.first_order import Descent, Slope
from lorauter_integrations.mixture import Mixture

Tokens = Sequence[int]


@torch.inference_mode()
def mean_logprobs(
    model: MixtureModel, prompts: Sequence[Tokens], answers: Sequence[Tokens], mixtures: Sequence[Mixture]
) -> list[float]:
    """Mean log-probability a token of each answer after its prompt, under its mixture; one pass."""
    return [float(row.mean()) for row in _logprobs(model, prompts, answers, mixtures)]


def descent(
    model: MixtureModel, prompts: Sequence[Tokens], answers: Sequence[Tokens], modules: Collection[str]
) -> Descent:
    """The direction in which the base model's loss falls: of the mean log-probability a token, each answer alike.

    One answer a pass: attention at padding, which has nothing to attend to, has no gradient on some devices (NaN).

    Args:
        model: the base is used.
        prompts: token ids.
        answers: token ids, the end of turn included.
        modules: whose weights are meant.

    Raises:
        EngineError: a gradient is not finite.
    """
    slope = Slope(model.model, sorted(modules))
    with torch.enable_grad(), slope.watching():
        for prompt, answer in zip(prompts, answers, strict=True):
            [row] = _logprobs(model, [prompt], [answer], [Mixture()])
            (-row.mean() / len(prompts)).backward()  # type: ignore[no-untyped-call]
    return slope.descent()


def _logprobs(
    model: MixtureModel, prompts: Sequence[Tokens], answers: Sequence[Tokens], mixtures: Sequence[Mixture]
) -> list[Tensor]:
    """The log-probability of each token of each answer."""
    # Left padding puts every answer's end in the last column, so only the last logits are needed.
    ids, mask = left_padded([[*p, *a] for p, a in zip(prompts, answers, strict=True)], model.device)
    keep = max(map(len, answers)) + 1
    with model.rows(mixtures, length=ids.shape[1]):
        output = model.model(
            input_ids=ids,
            attention_mask=mask,
            use_cache=False,
            logits_to_keep=keep,
            **positions(model.model, mask, ids.shape[1]),
        )
    logits = output.logits[:, :-1].float()
    chosen = ids[:, -(keep - 1) :].to(logits.device)
    chances = logits.gather(2, chosen[..., None])[..., 0] - logits.logsumexp(-1)
    return [row[-len(answer) :] for row, answer in zip(chances, answers, strict=True)]
