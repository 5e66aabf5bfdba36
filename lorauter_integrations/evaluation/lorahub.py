"""LoRAHub's search for weights (Huang et al., arXiv 2307.13269). Knows engines; nothing of routing."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence

from lorauter_integrations.engines import Engine
from lorauter_integrations.errors import MissingExtraError
from lorauter_integrations.generation import GenerationRequest
from lorauter_integrations.mixture import Mixture
from lorauter_integrations.task import Example

CANDIDATES = 20  # adapters, drawn at random; the paper's number
SHOTS = 5  # examples, the paper's number
STEPS = 40  # the paper's
BOUND = 1.5  # of a weight's size, the paper's
PENALTY = 0.05  # on the mean size of the weights, the paper's


def lorahub_mixture(engine: Engine, adapters: Sequence[str], examples: Sequence[Example], seed: int = 0) -> Mixture:
    """The weights under which a task's examples are likeliest, found without gradients.

    The paper merges the factors; here outputs are mixed, as everywhere in this package. The candidates, the number of
    examples and steps, the bounds, the penalty and the optimiser (nevergrad's NGOpt) are the paper's.

    Args:
        engine: reads the answers.
        adapters: to draw from.
        examples: of the task; the first five are used.
        seed: of the draw and the search.

    Raises:
        MissingExtraError: nevergrad is not installed.
    """
    try:
        import nevergrad
    except ImportError as error:
        raise MissingExtraError(
            "LoRAHub's search needs nevergrad", hint="pip install lorauter-integrations[evaluation]"
        ) from error
    drawn = sorted(random.Random(seed).sample(list(adapters), min(CANDIDATES, len(adapters))))
    shots = examples[:SHOTS]

    def loss(weights: Sequence[float]) -> float:
        mixture = _mixture(drawn, weights)
        requests = [GenerationRequest(example.messages, mixture) for example in shots]
        means = engine.log_likelihood(requests, [example.target for example in shots])
        size = sum(map(abs, weights)) / len(weights)
        return -sum(means) / len(means) + PENALTY * float(size)

    weights = nevergrad.p.Array(init=[0.0] * len(drawn), lower=-BOUND, upper=BOUND)
    weights.random_state.seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nevergrad warns of its own choices
        search = nevergrad.optimizers.NGOpt(parametrization=weights, budget=STEPS)
        best = search.minimize(loss)
    return _mixture(drawn, best.value)


def _mixture(names: Sequence[str], weights: Sequence[float]) -> Mixture:
    pairs = zip(names, weights, strict=True)
    return Mixture({name: float(weight) for name, weight in pairs if weight})
