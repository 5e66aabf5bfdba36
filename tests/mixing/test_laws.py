"""The laws of exact mixing, against PEFT (float32) and against the sum written out (float64)."""

import hashlib
import json

import pytest
import torch
from conftest import make_adapter, pico_model
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import load_file

from lorauter_integrations import AdapterPool, Mixture, MixtureModel, write_fused
from lorauter_integrations.mixing import base_shapes

IDS = torch.arange(40).reshape(2, 20) * 7 % 250
NAMES = ["plain", "rslora", "wide", "ranks", "alphas", "mlp"]
weights = st.floats(-2, 2, allow_nan=False).filter(lambda w: abs(w) > 1e-3)
mixtures = st.dictionaries(st.sampled_from(NAMES), weights, max_size=4).map(Mixture)


def logits(model, ids=IDS):
    with torch.inference_mode():
        return model(input_ids=ids).logits


def mixed(mixture_model, rows, ids=IDS):
    with mixture_model.rows(rows):
        return logits(mixture_model.model, ids)


def all_weights_hash(model):
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def pool(pico_pool_folder):
    return AdapterPool.from_folder(pico_pool_folder, base_shapes(pico_model()))


@pytest.fixture(scope="module")
def mixture_model(pool):
    return MixtureModel(pico_model(), pool)


@pytest.fixture(scope="module")
def exact_model(pool):
    """In float64, where only a wrong formula can make a difference."""
    return MixtureModel(pico_model().double(), pool)


def with_deltas_written_out(pool, folder, mixture):
    """The base model with `w_i s_i B_i A_i` added to its weights, from the files and configs alone (float64)."""
    model = pico_model().double()
    for name, weight in mixture.items():
        config = json.loads((folder / name / "adapter_config.json").read_text())
        tensors = load_file(folder / name / "adapter_model.safetensors")
        for key, a in tensors.items():
            if ".lora_A." not in key:
                continue
            module = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            b = tensors[key.replace(".lora_A.", ".lora_B.")]
            matching = [v for k, v in config["alpha_pattern"].items() if module.endswith(k)]
            alpha = (matching or [config["lora_alpha"]])[0]
            scaling = alpha / (a.shape[0] ** 0.5 if config["use_rslora"] else a.shape[0])
            model.get_submodule(module).weight.data += weight * scaling * (b.double() @ a.double())
    return model


@pytest.mark.parametrize("name", NAMES)
def test_weight_one_on_one_adapter_is_what_peft_computes(mixture_model, pico_pool_folder, name):
    reference = PeftModel.from_pretrained(pico_model(), str(pico_pool_folder / name)).eval()
    ours = mixed(mixture_model, [Mixture({name: 1.0})])
    expected = logits(reference)
    assert (expected - logits(pico_model())).abs().max() > 1e-2  # the adapter does something
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


@settings(max_examples=40, deadline=None)
@given(mixture=mixtures)
def test_a_mixture_is_the_base_plus_the_sum_written_out(exact_model, pool, pico_pool_folder, mixture):
    expected = logits(with_deltas_written_out(pool, pico_pool_folder, mixture))
    torch.testing.assert_close(mixed(exact_model, [mixture]), expected, atol=1e-9, rtol=1e-9)


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(mixtures, min_size=2, max_size=5), seed=st.integers(0, 1000))
def test_a_batch_is_each_row_alone_in_any_order(exact_model, rows, seed):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 250, (len(rows), 12), generator=generator)
    together = mixed(exact_model, rows, ids)
    for place, mixture in enumerate(rows):
        alone = mixed(exact_model, [mixture], ids[place : place + 1])
        torch.testing.assert_close(together[place : place + 1], alone, atol=1e-9, rtol=1e-9)
    order = torch.randperm(len(rows), generator=generator)
    permuted = mixed(exact_model, [rows[i] for i in order], ids[order])
    torch.testing.assert_close(permuted, together[order], atol=1e-9, rtol=1e-9)


def test_the_empty_mixture_is_the_base_model_bit_for_bit(mixture_model):
    mixed(mixture_model, [Mixture({"wide": 1.0})])  # hooks are in place now
    expected = logits(pico_model())
    assert torch.equal(mixed(mixture_model, [Mixture()]), expected)
    assert torch.equal(logits(mixture_model.model), expected)
    beside = mixed(mixture_model, [Mixture(), Mixture({"wide": 1.0})])
    torch.testing.assert_close(beside[0], expected[0], atol=1e-6, rtol=0)


def test_base_weights_stay_byte_identical(pool):
    model = pico_model()
    before, names = all_weights_hash(model), list(model.state_dict())
    mixture_model = MixtureModel(model, pool)
    mixed(mixture_model, [Mixture(dict.fromkeys(NAMES, 0.7))])
    with pytest.raises(KeyError, match="there is no adapter 'nobody'"):
        mixed(mixture_model, [Mixture({"nobody": 1.0})])
    assert list(model.state_dict()) == names
    assert all_weights_hash(model) == before
    mixture_model.close()
    assert torch.equal(logits(model), logits(pico_model()))


@settings(max_examples=10, deadline=None)
@given(mixture=mixtures.filter(len))
def test_a_fused_file_in_peft_is_the_mixture(exact_model, pool, tmp_path_factory, mixture):
    folder = write_fused(mixture, pool, tmp_path_factory.mktemp("fused"))
    reference = PeftModel.from_pretrained(pico_model().double(), str(folder), autocast_adapter_dtype=False).eval()
    # The file holds float32, so its B is rounded once.
    torch.testing.assert_close(logits(reference), mixed(exact_model, [mixture]), atol=1e-5, rtol=1e-5)


def test_a_fused_file_passes_the_pool_check(mixture_model, pool, tmp_path):
    mixture = Mixture({"plain": 0.6, "ranks": -0.5})
    write_fused(mixture, pool, tmp_path / "pool" / "fused")
    fused = AdapterPool.from_folder(tmp_path / "pool", base_shapes(pico_model()))
    again = MixtureModel(pico_model(), fused)
    torch.testing.assert_close(
        mixed(again, [Mixture({"fused": 1.0})]), mixed(mixture_model, [mixture]), atol=1e-5, rtol=1e-5
    )


def test_a_model_with_transposed_weights_mixes_too(tmp_path):
    """GPT-2's Conv1D keeps its weight as (inputs, outputs)."""
    from transformers import GPT2Config, GPT2LMHeadModel

    def gpt2():
        torch.manual_seed(0)
        return GPT2LMHeadModel(GPT2Config(vocab_size=258, n_embd=32, n_layer=2, n_head=4, n_positions=64)).eval()

    make_adapter(tmp_path / "pool" / "gpt", model=gpt2(), target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)
    pool = AdapterPool.from_folder(tmp_path / "pool", base_shapes(gpt2()))
    reference = PeftModel.from_pretrained(gpt2(), str(tmp_path / "pool" / "gpt")).eval()
    ours = mixed(MixtureModel(gpt2(), pool), [Mixture({"gpt": 1.0})])
    torch.testing.assert_close(ours, logits(reference), atol=1e-5, rtol=0)
