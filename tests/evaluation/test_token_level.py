"""Answers under token-level routing, by the engine's own prompts, batches and decoding."""

import pytest
import torch
from conftest import pico_model

from lorauter_integrations import GenerationOptions, Mixture, MixtureModel
from lorauter_integrations.errors import OptionError, UnknownAdapterError
from lorauter_integrations.evaluation.token_level import TokenLevel
from lorauter_integrations.generation import GenerationRequest, Message
from lorauter_integrations.mixing.token_routing import Arrow, SpectR, TokenRouter

NAMES = ["plain", "rslora", "wide", "ranks", "alphas", "mlp"]
TEXTS = ["name a colour", "add 1 and 2", "why is the sky blue, and why is it red in the evening?"]


def requests(texts=TEXTS, **options):
    options = GenerationOptions(**({"max_tokens": 12} | options))
    return [GenerationRequest([Message("user", text)], options=options) for text in texts]


def texts(completions):
    return [completion.text for completion in completions]


def by_steps(pico_pool, engine, rule, among, request):
    """Greedy decoding without a cache: the whole text is read anew for each token."""
    model = MixtureModel(pico_model(), pico_pool)
    ids = engine.token_ids(engine.render(request))
    start, steps = len(ids), request.options.max_tokens
    with TokenRouter(model, among, rule).among(among), torch.inference_mode():
        while len(ids) < start + steps:
            ids.append(int(model.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == model.model.config.eos_token_id:
                return engine._tokenizer.decode(ids[start:-1])
    return engine._tokenizer.decode(ids[start:])


@pytest.mark.parametrize("rule", [Arrow(2), SpectR(2)], ids=lambda rule: type(rule).__name__)
def test_prompts_and_answers_are_routed_in_batches_as_alone(pico_engine, pico_pool, rule):
    token_level = TokenLevel(pico_engine, NAMES, rule)
    some = ["wide", "ranks", "mlp"]
    base = texts(pico_engine.complete(requests()))
    found = texts(token_level.complete(requests(), NAMES))
    among_some = texts(token_level.complete(requests(), some))
    assert found == [by_steps(pico_pool, pico_engine, rule, NAMES, request) for request in requests()]
    assert among_some == [by_steps(pico_pool, pico_engine, rule, some, request) for request in requests()]
    assert len({tuple(found), tuple(among_some), tuple(base)}) == 3


def test_afterwards_the_engine_is_as_before(pico_engine):
    mixture = Mixture({"plain": 0.7, "wide": 0.4})
    mixed = [GenerationRequest(request.messages, mixture, request.options) for request in requests()]
    before = texts(pico_engine.complete(requests() + mixed))
    conversation = [*pico_engine.stream(requests()[0])][-1].completion.text
    token_level = TokenLevel(pico_engine, NAMES, Arrow())
    assert texts(token_level.complete(requests(), NAMES)) != before[:3]
    with pytest.raises(ZeroDivisionError):
        token_level.complete([GenerationRequest([Message("user", "x")], keep_on=lambda _: 1 / 0)], NAMES)
    assert texts(pico_engine.complete(requests() + mixed)) == before
    assert [*pico_engine.stream(requests()[0])][-1].completion.text == conversation


def test_among_nothing_is_the_base_model(pico_engine):
    token_level = TokenLevel(pico_engine, NAMES, SpectR())
    assert texts(token_level.complete(requests(), [])) == texts(pico_engine.complete(requests()))


def test_among_one_is_its_mixture(pico_engine):
    alone = [GenerationRequest(request.messages, Mixture({"wide": 1.0}), request.options) for request in requests()]
    found = TokenLevel(pico_engine, NAMES, Arrow()).complete(requests(), ["wide"])
    assert texts(found) == texts(pico_engine.complete(alone))


def test_a_request_with_a_mixture_is_refused(pico_engine):
    request = GenerationRequest([Message("user", "x")], Mixture({"plain": 1.0}))
    with pytest.raises(OptionError, match=r"a request has the mixture 1\.00 plain, and its tokens choose their own"):
        TokenLevel(pico_engine, NAMES, Arrow()).complete([request], NAMES)


def test_an_adapter_that_was_not_given_is_refused(pico_engine):
    with pytest.raises(UnknownAdapterError, match="adapter 'wide' was not given to the token router"):
        TokenLevel(pico_engine, ["plain"], Arrow()).complete(requests(), ["plain", "wide"])
