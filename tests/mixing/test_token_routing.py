"""Routing of tokens: against the formulas with a dense SVD (numpy, float64), and against PEFT's own Arrow."""

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from by_hand import make_alone, pool_of
from conftest import make_adapter, pico_model
from peft import ArrowConfig, create_arrow_model
from safetensors.torch import load_file, save_file
from test_laws import all_weights_hash, logits, mixed

from lorauter_integrations import AdapterPool, Mixture, MixtureModel
from lorauter_integrations.errors import OptionError, UnknownAdapterError
from lorauter_integrations.mixing import base_shapes
from lorauter_integrations.mixing.low_rank import Factors
from lorauter_integrations.mixing.token_routing import Arrow, Choice, SpectR, Spectrum, TokenRouter

NAMES = ["plain", "rslora", "wide", "ranks", "alphas", "mlp"]
RULES = [Arrow(2, 0.3), SpectR(2, 0.3)]
by_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)


@pytest.fixture(scope="module")
def pool(pico_pool_folder):
    return AdapterPool.from_folder(pico_pool_folder, base_shapes(pico_model()))


@pytest.fixture
def exact_model(pool):
    """In float64, where only a wrong formula can make a difference."""
    return MixtureModel(pico_model().double(), pool)


def routed(mixture_model, rule, names, **ids):
    with TokenRouter(mixture_model, NAMES, rule).among(names):
        return logits(mixture_model.model, **ids)


def random_factors(ranks, inputs=12, outputs=9, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return [Factors(normal(rank, inputs), normal(outputs, rank), 2 / rank) for rank in ranks]


def by_dense_svd(rule, factors, x):
    """Each adapter's weight for one token, as the papers' formulas say."""
    scores = []
    for one in factors:
        _, s, v = np.linalg.svd(one.scaling * (one.b @ one.a).numpy(), full_matrices=False)
        scores.append(abs(v[0] @ x) if isinstance(rule, Arrow) else np.linalg.norm(s * (v @ x)))
    chosen = np.argsort(scores)[-rule.k :]
    shares = np.exp([(scores[place] - max(scores)) / rule.temperature for place in chosen])
    gates = np.zeros(len(factors))
    gates[chosen] = shares / shares.sum()
    return gates


# ------------------------------------------------------------------ gates


@pytest.mark.parametrize("k", [1, 3, 9])
@pytest.mark.parametrize("kind", [Arrow, SpectR])
def test_gates_are_the_formulas(kind, k):
    factors = random_factors([1, 4, 2, 9, 3])
    rule = kind(k, temperature=1.7)
    choice = Choice.among([Spectrum.of(one) for one in factors], rule)
    x = torch.randn(2, 7, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gates = choice.gates(x)
    assert gates.shape == (2, 7, 5)
    expected = [[by_dense_svd(rule, factors, token.numpy()) for token in row] for row in x]
    np.testing.assert_allclose(gates.numpy(), expected, atol=1e-12)
    chosen = {tuple(gate > 0) for row in expected for gate in row}
    assert (len(chosen) > 1) == (k < len(factors))  # tokens differ in what they choose


@pytest.mark.parametrize("rank", [2, 12], ids=["low", "above the outputs"])
def test_a_spectrum_is_the_adapters_change(rank):
    [factors] = random_factors([rank])
    spectrum = Spectrum.of(factors)
    u, s, v = np.linalg.svd(factors.scaling * (factors.b @ factors.a).numpy(), full_matrices=False)
    kept = min(rank, 9)
    np.testing.assert_allclose(spectrum.values, s[:kept], atol=1e-12)
    np.testing.assert_allclose(spectrum.outputs @ spectrum.directions, (u * s) @ v, atol=1e-12)
    np.testing.assert_allclose(spectrum.directions @ spectrum.directions.T, np.eye(kept), atol=1e-12)


def test_an_infinite_temperature_shares_equally():
    gates = SpectR(2, math.inf).gates(torch.tensor([[3.0, 1.0, 2.0], [0.1, 0.3, 0.2]]))
    assert gates.tolist() == [[0.5, 0.0, 0.5], [0.0, 0.5, 0.5]]


def test_an_adapter_that_changes_nothing_has_score_zero():
    one, nothing = random_factors([3, 4])
    nothing.b.zero_()
    choice = Choice.among([Spectrum.of(one), Spectrum.of(nothing)], Arrow(1))
    gates = choice.gates(torch.randn(50, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64))
    assert gates[:, 0].tolist() == [1.0] * 50


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"k": 0}, "k must be at least 1, not 0"),
        ({"temperature": 0.0}, "temperature must be above 0, not 0.0"),
        ({"temperature": math.nan}, "temperature must be above 0, not nan"),
    ],
    ids=str,
)
def test_a_rule_out_of_range_is_refused(values, message):
    with pytest.raises(OptionError, match=message):
        Arrow(**values)


# ------------------------------------------------------------------ models


def with_a_clear_first_direction(folder):
    """PEFT's power iteration stops after 15 rounds; it is there when one singular value towers above the rest."""
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    for name, tensor in tensors.items():
        if "lora_B" in name:
            tensor[:, 1:] *= 0.05
    save_file(tensors, file)
    return folder


@pytest.mark.parametrize(("k", "temperature"), [(1, 1.0), (2, 0.5), (3, 1.0), (5, 2.0)])
def test_arrow_is_what_peft_computes(tmp_path, k, temperature):
    targets = ["q_proj", "v_proj", "down_proj"]
    folders = [
        with_a_clear_first_direction(
            make_adapter(tmp_path / f"a{place}", seed=place, lora_alpha=4 + place, target_modules=targets)
        )
        for place in range(5)
    ]
    config = ArrowConfig(top_k=k, router_temperature=temperature, rng_seed=0)
    reference = create_arrow_model(pico_model(), [str(folder) for folder in folders], config).eval()
    ours = MixtureModel(pico_model(), AdapterPool.from_folder(tmp_path, base_shapes(pico_model())))
    with TokenRouter(ours, ours.adapters, Arrow(k, temperature)).among(ours.adapters):
        found = logits(ours.model)
    assert (found - logits(pico_model())).abs().max() > 1e-2  # the adapters do something
    torch.testing.assert_close(found, logits(reference), atol=1e-5, rtol=0)


@by_rule
def test_a_module_adds_the_gates_weighted_sum_written_out(exact_model, pool, rule):
    """Ranks, scalings and coverage differ; the gates of each module come from its own input."""
    seen = {}

    def watch(name):
        return lambda _, args, output: seen.update({name: (args[0], output)})

    covered = {module for name in NAMES for module in pool[name].parts}
    handles = []
    with TokenRouter(exact_model, NAMES, rule).among(NAMES):
        for module in covered:
            handles.append(exact_model.model.get_submodule(module).register_forward_hook(watch(module)))
        logits(exact_model.model)
    for handle in handles:
        handle.remove()
    assert seen.keys() == covered
    for module, (x, y) in seen.items():
        factors = [exact_model.weights[name].factors[module] for name in NAMES if module in pool[name].parts]
        gates = np.array([[by_dense_svd(rule, factors, token.numpy()) for token in row] for row in x])
        with torch.inference_mode():
            expected = exact_model.model.get_submodule(module)(x)
            for gate, one in zip(torch.tensor(gates).unbind(-1), factors, strict=True):
                expected += gate[..., None] * one.scaling * (x @ one.a.T @ one.b.T)
        torch.testing.assert_close(y, expected, atol=1e-10, rtol=1e-10)


@by_rule
def test_one_adapter_alone_is_its_mixture(exact_model, rule):
    found = routed(exact_model, rule, ["wide"])
    torch.testing.assert_close(found, mixed(exact_model, [Mixture({"wide": 1.0})]), atol=1e-9, rtol=1e-9)


def test_the_best_of_identical_adapters_is_that_adapter(tmp_path):
    for name in "abc":
        make_adapter(tmp_path / name, seed=7)
    model = MixtureModel(pico_model().double(), AdapterPool.from_folder(tmp_path, base_shapes(pico_model())))
    with TokenRouter(model, "abc", Arrow(1)).among("abc"):
        found = logits(model.model)
    torch.testing.assert_close(found, mixed(model, [Mixture({"a": 1.0})]), atol=1e-9, rtol=1e-9)


@by_rule
def test_rows_do_not_depend_on_each_other_or_on_padding(exact_model, rule):
    ids = torch.tensor([[5, 9, 1, 7, 7, 30], [0, 0, 0, 8, 200, 3]])
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1]])
    with TokenRouter(exact_model, NAMES, rule).among(NAMES), torch.inference_mode():
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        together = exact_model.model(input_ids=ids, attention_mask=mask, position_ids=positions).logits
        first = exact_model.model(input_ids=ids[:1]).logits
        second = exact_model.model(input_ids=ids[1:, 3:]).logits
    torch.testing.assert_close(together[:1], first, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(together[1:, 3:], second, atol=1e-9, rtol=1e-9)


@by_rule
def test_among_some_is_a_model_of_these_alone(exact_model, pool, rule):
    some = ["wide", "alphas", "mlp"]
    alone = MixtureModel(pico_model().double(), AdapterPool({name: pool[name] for name in some}))
    with TokenRouter(alone, some, rule).among(some):
        expected = logits(alone.model)
    found = routed(exact_model, rule, some)
    assert torch.equal(found, expected)
    assert (found - routed(exact_model, rule, NAMES)).abs().max() > 1e-3


def test_leaving_the_block_leaves_the_base_model(exact_model):
    model, before = exact_model.model, all_weights_hash(exact_model.model)
    base = logits(model)
    router = TokenRouter(exact_model, NAMES, Arrow())
    with router.among(NAMES):
        assert not torch.equal(logits(model), base)
    with pytest.raises(RuntimeError, match="boom"), router.among(NAMES):
        raise RuntimeError("boom")
    assert torch.equal(logits(model), base)
    assert not any(module._forward_hooks for module in model.modules())
    assert all_weights_hash(model) == before
    with router.among([]):
        assert torch.equal(logits(model), base)


@by_rule
def test_16_bit_factors_and_states_are_routed_in_float32(rule):
    factors = [Factors(one.a.bfloat16(), one.b.bfloat16(), one.scaling) for one in random_factors([4, 8, 3])]
    choice = Choice.among([Spectrum.of(one) for one in factors], rule)
    x, y = torch.randn(40, 12, generator=torch.Generator().manual_seed(3)).bfloat16(), torch.zeros(40, 9).bfloat16()
    wide = [Factors(one.a.double(), one.b.double(), one.scaling) for one in factors]
    expected = np.array([by_dense_svd(rule, wide, token.double().numpy()) for token in x])
    np.testing.assert_allclose(choice.gates(x), expected, atol=1e-4)
    assert choice.output(x, y).dtype == torch.bfloat16


def test_modules_that_see_all_tokens_as_one_list_are_routed_alike(tmp_path):
    """OPT's fully connected layers are given (rows * length, inputs)."""
    from transformers import OPTConfig, OPTForCausalLM

    torch.manual_seed(0)
    facts = {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    opt = OPTForCausalLM(OPTConfig(vocab_size=258, word_embed_proj_dim=32, **facts)).double().eval()
    for seed, name in enumerate("abcd"):
        make_adapter(tmp_path / name, model=deepcopy(opt), seed=seed, target_modules=["fc1", "fc2"])
    model = MixtureModel(opt, AdapterPool.from_folder(tmp_path, base_shapes(opt)))
    ids = torch.arange(14).reshape(2, 7)
    with TokenRouter(model, "abcd", SpectR(2)).among("abcd"):
        together, alone = logits(opt, ids), [logits(opt, row[None]) for row in ids]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-9, rtol=1e-9)


# ------------------------------------------------------------------ refused


def test_an_adapter_that_was_not_given_is_named(exact_model):
    router = TokenRouter(exact_model, ["plain", "wide"], Arrow())
    message = "adapter 'mlp' was not given to the token router\nHint: it has 'plain', 'wide'"
    with pytest.raises(UnknownAdapterError, match=message), router.among(["plain", "mlp"]):
        pass
    assert not any(module._forward_hooks for module in exact_model.model.modules())


def test_an_adapter_of_no_pool_is_named(exact_model):
    with pytest.raises(UnknownAdapterError, match="there is no adapter 'nobody'"):
        TokenRouter(exact_model, ["plain", "nobody"], Arrow())


def test_an_adapter_that_can_only_be_used_alone_is_refused(tmp_path):
    make_alone(tmp_path / "dora", pico_model(), use_dora=True)
    model = MixtureModel(pico_model(), pool_of(tmp_path))
    with pytest.raises(OptionError, match="adapter 'dora' can only be used alone: it uses DoRA"):
        TokenRouter(model, ["dora"], Arrow())
