"""What each option does to the choice of a token, on distributions small enough to check by hand."""

import math
from collections import Counter

import pytest
import torch

from lorauter_integrations import GenerationOptions
from lorauter_integrations.engines.sampling import Sampler, logprobs_of

CHANCES = torch.tensor([0.5, 0.25, 0.15, 0.1])
LOGITS = CHANCES.log()


def drawn(sampler, logits=LOGITS, times=400):
    return Counter(sampler.choose(logits) for _ in range(times))


@pytest.mark.parametrize(
    ("options", "possible"),
    [
        ({}, {0, 1, 2, 3}),
        ({"top_k": 2}, {0, 1}),
        ({"top_p": 0.499}, {0}),
        ({"top_p": 0.51}, {0, 1}),
        ({"min_p": 0.299}, {0, 1, 2}),  # 0.15 is 0.3 of 0.5
        ({"min_p": 0.301}, {0, 1}),
        ({"min_p": 1.0}, {0}),
        ({"top_k": 3, "min_p": 0.2, "top_p": 0.7}, {0, 1}),
    ],
    ids=str,
)
def test_the_cuts_leave_just_these_tokens(options, possible):
    assert set(drawn(Sampler(GenerationOptions(temperature=1.0, seed=3, **options)))) == possible


def test_temperature_sharpens_the_distribution():
    shares = {t: drawn(Sampler(GenerationOptions(temperature=t, seed=1)), times=4000)[0] / 4000 for t in (0.5, 1.0)}
    assert shares[1.0] == pytest.approx(0.5, abs=0.03)
    assert shares[0.5] == pytest.approx(0.25 / (0.25 + 0.0625 + 0.0225 + 0.01), abs=0.03)


def test_a_repetition_penalty_divides_positive_logits_and_multiplies_negative_ones():
    sampler = Sampler(GenerationOptions(repetition_penalty=2.0), prompt=[0, 3])
    logits = torch.tensor([4.0, 2.5, -1.0, 3.0])
    assert sampler.choose(logits) == 1  # 0 and 3 stand in the prompt: 2.0 and 1.5
    assert sampler.choose(logits) == 0  # and now 1 stands in the answer: 1.25
    negative = Sampler(GenerationOptions(repetition_penalty=2.0), prompt=[0])
    assert negative.choose(torch.tensor([-1.0, -1.5])) == 1


def test_the_penalty_is_transformers():
    from transformers import RepetitionPenaltyLogitsProcessor

    torch.manual_seed(4)
    logits, prompt = torch.randn(1, 50, dtype=torch.double), torch.randint(0, 50, (1, 20))
    theirs = RepetitionPenaltyLogitsProcessor(1.3)(prompt, logits)[0]
    ours = Sampler(GenerationOptions(repetition_penalty=1.3), prompt[0].tolist())._penalised(logits[0])
    assert torch.equal(ours, theirs)


def test_one_seed_gives_one_text_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    texts = [
        [s.choose(LOGITS) for _ in range(50)]
        for s in (Sampler(GenerationOptions(temperature=1.0, seed=s)) for s in (7, 7, 8))
    ]
    assert texts[0] == texts[1] != texts[2]
    assert torch.equal(torch.get_rng_state(), state)


class OnlyOdd:
    """A constraint: token 1 or 3, and the end after two of them."""

    def __init__(self):
        self.taken = []

    def allowed(self, scores=None):
        return torch.tensor([False, True, False, True])

    def take(self, token):
        self.taken.append(token)

    @property
    def complete(self):
        return len(self.taken) == 2


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 1}, {"temperature": 2.0, "top_k": 1}], ids=str)
def test_a_constraint_comes_before_every_cut(options):
    constraint = OnlyOdd()
    sampler = Sampler(GenerationOptions(**options), constraint=constraint)
    assert not sampler.takes_the_likeliest
    chosen = [sampler.choose(LOGITS), sampler.choose(LOGITS)]
    assert set(chosen) <= {1, 3}
    assert constraint.taken == chosen
    assert sampler.complete


def test_logprobs_are_of_the_models_own_distribution():
    chance, top = logprobs_of(LOGITS, 2, 2)
    assert chance == pytest.approx(math.log(0.15))
    assert [token for token, _ in top] == [0, 1]
    assert [value for _, value in top] == pytest.approx([math.log(0.5), math.log(0.25)])
    assert logprobs_of(LOGITS, 2, 0)[1] == []
