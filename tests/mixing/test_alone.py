"""Adapters that can only be used alone: DoRA and whole modules, against PEFT and against the formulas written out."""

import hashlib
import json
from dataclasses import replace

import pytest
import torch
from by_hand import make_alone, pool_of
from conftest import make_adapter, pico_model, pico_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from peft.utils.integrations import dequantize_module_weight
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM

from lorauter_integrations import (
    AdapterPool,
    GenerationOptions,
    LocalEngine,
    Message,
    Mixture,
    MixtureModel,
    write_fused,
)
from lorauter_integrations.errors import EngineError, OptionError, PoolError
from lorauter_integrations.generation import GenerationRequest
from lorauter_integrations.mixing import WeightCache, reading
from lorauter_integrations.mixing.alone import AT_ONCE, rescaled
from lorauter_integrations.mixing.base_model import columns, placements
from lorauter_integrations.mixing.low_rank import Factors

pytestmark = pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")

IDS = torch.arange(40).reshape(2, 20) * 7 % 250
EVERY = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Q = "model.layers.0.self_attn.q_proj"
ALONE = ["dora", "wide", "rslora", "head", "both"]
PLAIN = ["one", "two"]


def biased(**changes):
    """A pico model whose attention has biases, as Qwen's does."""
    return with_biases(pico_model(attention_bias=True, **changes))


def with_biases(model):
    generator = torch.Generator().manual_seed(5)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            weight.data = torch.randn(weight.shape, generator=generator) * 0.1
    return model


def gpt2():
    torch.manual_seed(0)
    facts = {"vocab_size": 258, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
    return with_biases(GPT2LMHeadModel(GPT2Config(**facts, bos_token_id=0, eos_token_id=0)).eval())


def opt():
    torch.manual_seed(0)
    facts = {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return with_biases(OPTForCausalLM(OPTConfig(vocab_size=258, word_embed_proj_dim=32, **facts)).eval())


def logits(model, ids=IDS, **options):
    with torch.inference_mode():
        return model(input_ids=ids, **options).logits


def mixed(mixture_model, rows, ids=IDS, **options):
    with mixture_model.rows(rows, ids.shape[1]):
        return logits(mixture_model.model, ids, **options)


def alone(name):
    return Mixture({name: 1.0})


def fill(folder, model):
    """Two adapters that mix and five that do not."""
    make_adapter(folder / "one", model=model(), seed=1)
    make_adapter(folder / "two", model=model(), seed=2, r=2, target_modules=EVERY)
    make_alone(folder / "dora", model(), seed=3, use_dora=True)
    make_alone(folder / "wide", model(), seed=4, use_dora=True, r=2, target_modules=EVERY)
    make_alone(folder / "rslora", model(), seed=5, use_dora=True, use_rslora=True, r=6, lora_alpha=3)
    make_alone(folder / "head", model(), seed=6, modules_to_save=["lm_head"])
    make_alone(
        folder / "both", model(), seed=7, use_dora=True, target_modules=["up_proj"], modules_to_save=["lm_head"]
    )
    return folder


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def models(request, tmp_path_factory):
    """How to make a base model, and a folder of adapters for it."""

    def model():
        return biased(tie_word_embeddings=request.param)

    return model, fill(tmp_path_factory.mktemp("pool"), model)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("pool"), biased)


@pytest.fixture(scope="module")
def pool(folder):
    return pool_of(folder)


@pytest.fixture(scope="module")
def exact_model(pool):
    """In float64, where only a wrong formula can make a difference."""
    return MixtureModel(biased().double(), pool)


# --- one adapter is what PEFT computes


@pytest.mark.parametrize("name", ALONE)
def test_an_adapter_alone_is_what_peft_computes(models, name):
    make, folder = models
    reference = logits(PeftModel.from_pretrained(make(), str(folder / name)).eval())
    assert (reference - logits(make())).abs().max() > 1e-2  # the adapter does something
    mixture_model = MixtureModel(make(), pool_of(folder))
    torch.testing.assert_close(mixed(mixture_model, [alone(name)]), reference, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_an_adapter_alone_in_16_bits_is_near_to_what_peft_computes(folder, pool, name, dtype):
    reference = logits(PeftModel.from_pretrained(biased().to(dtype), str(folder / name)).eval()).double()
    ours = mixed(MixtureModel(biased().to(dtype), pool), [alone(name)])
    assert ours.dtype == dtype
    near = (ours.double() - reference).std()
    assert near < 0.03 * (logits(biased().to(dtype)).double() - reference).std()


@pytest.mark.parametrize("name", ["dora", "whole"])
def test_an_adapter_alone_is_what_peft_computes_where_weights_are_transposed(tmp_path, name):
    """GPT-2's Conv1D keeps its weight as (inputs, outputs)."""
    make_alone(
        tmp_path / "dora",
        gpt2(),
        use_dora=True,
        target_modules=["c_attn", "c_fc"],
        fan_in_fan_out=True,
        modules_to_save=["lm_head"],
    )
    make_alone(tmp_path / "whole", gpt2(), target_modules=["c_attn"], fan_in_fan_out=True, modules_to_save=["c_proj"])
    reference = PeftModel.from_pretrained(gpt2(), str(tmp_path / name)).eval()
    ours = mixed(MixtureModel(gpt2(), pool_of(tmp_path)), [alone(name)])
    torch.testing.assert_close(ours, logits(reference), atol=1e-5, rtol=1e-5)


def with_weights_written_out(folder, name):
    """The base model with ``m (W + s B A) / ||W + s B A||`` for W, from the file and the config alone (float64)."""
    model = biased(tie_word_embeddings=True).double()
    config = json.loads((folder / name / "adapter_config.json").read_text())
    tensors = {key: value.double() for key, value in load_file(folder / name / "adapter_model.safetensors").items()}
    for key, a in tensors.items():
        module, found, _ = key.removeprefix("base_model.model.").partition(".lora_A.")
        if found:
            scaling = config["lora_alpha"] / (a.shape[0] ** 0.5 if config["use_rslora"] else a.shape[0])
            weight = model.get_submodule(module).weight
            weight.data += scaling * tensors[key.replace("lora_A", "lora_B")] @ a
            m = tensors.get(key.replace("lora_A.weight", "lora_magnitude_vector"))
            if m is not None:
                weight.data *= (m / weight.norm(dim=1))[:, None]
    if (head := tensors.get("base_model.model.lm_head.weight")) is not None:
        model.lm_head.weight = nn.Parameter(head)  # the embeddings keep their own
    return model


@pytest.mark.parametrize("name", ALONE)
def test_an_adapter_alone_is_its_formula_written_out(exact_model, folder, name):
    expected = logits(with_weights_written_out(folder, name))
    torch.testing.assert_close(mixed(exact_model, [alone(name)]), expected, atol=1e-9, rtol=1e-9)


# --- rows


plain_mixtures = st.dictionaries(st.sampled_from(PLAIN), st.sampled_from([0.5, -1.0, 2.0]), max_size=2).map(Mixture)
any_row = st.one_of(plain_mixtures, st.sampled_from(ALONE).map(alone))


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(any_row, min_size=2, max_size=6), seed=st.integers(0, 1000), keep=st.integers(0, 3))
def test_a_batch_is_each_row_alone_in_any_order(exact_model, rows, seed, keep):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 250, (len(rows), 12), generator=generator)
    together = mixed(exact_model, rows, ids, logits_to_keep=keep)  # 0 keeps all
    assert together.shape[1] == (keep or 12)
    for place, mixture in enumerate(rows):
        by_itself = mixed(exact_model, [mixture], ids[place : place + 1], logits_to_keep=keep)
        torch.testing.assert_close(together[place : place + 1], by_itself, atol=1e-9, rtol=1e-9)
    order = torch.randperm(len(rows), generator=generator)
    permuted = mixed(exact_model, [rows[i] for i in order], ids[order], logits_to_keep=keep)
    torch.testing.assert_close(permuted, together[order], atol=1e-9, rtol=1e-9)


def test_all_kinds_of_rows_in_one_batch_are_what_peft_computes(folder, pool):
    rows = [Mixture(), *map(alone, ["one", "dora", "head", "dora", "both"])]
    ids = torch.arange(60).reshape(6, 10) * 3 % 250
    ours = mixed(MixtureModel(biased(), pool), rows, ids)
    for place, mixture in enumerate(rows):
        name = next(iter(mixture), None)
        reference = PeftModel.from_pretrained(biased(), str(folder / name)).eval() if name else biased()
        torch.testing.assert_close(ours[[place]], logits(reference, ids[[place]]), atol=1e-5, rtol=1e-5)


def test_modules_that_see_all_rows_tokens_as_one_list_know_their_rows(tmp_path):
    """OPT's fully connected layers are given (rows * length, inputs)."""
    make_adapter(tmp_path / "plain", model=opt(), target_modules=["fc1", "q_proj"])
    make_alone(tmp_path / "dora", opt(), seed=1, use_dora=True, target_modules=["fc1", "fc2", "q_proj"])
    make_alone(tmp_path / "whole", opt(), seed=2, target_modules=["q_proj"], modules_to_save=["fc2"])
    mixture_model = MixtureModel(opt(), pool_of(tmp_path))
    names = ["dora", "plain", "whole"]
    ids = torch.arange(21).reshape(3, 7)
    ours = mixed(mixture_model, [alone(name) for name in names], ids)
    for row, name in enumerate(names):
        reference = PeftModel.from_pretrained(opt(), str(tmp_path / name)).eval()
        torch.testing.assert_close(ours[[row]], logits(reference, ids[[row]]), atol=1e-5, rtol=1e-5)
    rows = [alone("dora"), Mixture()]
    with (
        pytest.raises(EngineError, match=r"2 mixtures for an input of shape \(21, 32\) at .*fc1"),
        mixture_model.rows(rows, 7),
        torch.inference_mode(),
    ):
        mixture_model.model.model.decoder.layers[0].fc1(torch.zeros(21, 32))


def test_the_engine_writes_rows_together_as_it_writes_them_alone(folder, pool):
    engine = LocalEngine(biased(), pico_tokenizer(), pool)
    mixtures = [Mixture(), *map(alone, ["wide", "head", "two", "both"]), Mixture({"one": 0.5, "two": 0.7})]
    talks = [[Message("user", "x" * (3 * i + 1))] for i in range(len(mixtures))]
    options = GenerationOptions(max_tokens=12)
    requests = [GenerationRequest(t, m, options) for t, m in zip(talks, mixtures, strict=True)]
    together = [completion.text for completion in engine.complete(requests)]
    assert together == [engine.complete([request])[0].text for request in requests]
    assert len(set(together[:4])) == 4
    likelihoods = engine.log_likelihood(requests, ["a target"] * len(requests))
    assert likelihoods == pytest.approx([engine.log_likelihood([r], ["a target"])[0] for r in requests], abs=1e-4)
    peft = PeftModel.from_pretrained(biased(), str(folder / "wide")).eval()
    ids = torch.tensor(
        [
            pico_tokenizer().apply_chat_template(
                [{"role": "user", "content": "xxxx"}], add_generation_prompt=True, return_dict=False
            )
        ]
    )
    written = peft.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
    assert together[1] == pico_tokenizer().decode(written[0, ids.shape[1] :], skip_special_tokens=True)
    engine.close()


# --- the base stays as it is


def test_base_weights_stay_byte_identical_and_plain_modules_get_no_second_hook(pool):
    def weights_hash():
        digest = hashlib.sha256()
        for name, value in model.state_dict().items():
            digest.update(name.encode() + value.numpy().tobytes())
        return digest.hexdigest()

    model = biased(tie_word_embeddings=False)
    before, base = weights_hash(), logits(model)
    mixture_model = MixtureModel(model, pool)
    mixed(mixture_model, [Mixture({"one": 0.4, "two": 0.5})])
    assert {len(module._forward_hooks) for module in model.modules()} == {0, 1}
    mixed(mixture_model, [alone("both"), alone("wide")])
    assert torch.equal(mixed(mixture_model, [Mixture()]), base)
    assert weights_hash() == before
    mixture_model.close()
    assert {len(module._forward_hooks) for module in model.modules()} == {0}
    assert torch.equal(logits(model), base)
    mixture_model.close()
    again = mixed(mixture_model, [alone("both")])
    torch.testing.assert_close(again, mixed(MixtureModel(biased(tie_word_embeddings=False), pool), [alone("both")]))


# --- weights of any class


class Packed(nn.Module):
    """A quantised layer: whole numbers in a buffer, a scale and a bias, as GPTQ and AWQ keep them."""

    def __init__(self, outputs, inputs):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.in_features, self.out_features = inputs, outputs
        numbers = torch.randint(-8, 8, (inputs, outputs), generator=generator, dtype=torch.int8)
        self.register_buffer("qweight", numbers)
        self.register_buffer("bias", torch.randn(outputs, generator=generator) * 1000)

    def forward(self, x):
        y = x @ (self.qweight.to(x.dtype) / 512)
        return y if self.bias is None else y + self.bias.to(x.dtype)


def conv1d(outputs, inputs):
    from transformers.pytorch_utils import Conv1D

    return Conv1D(outputs, inputs)


def linear_of_another_class(outputs, inputs):
    class Checked(nn.Linear):
        def forward(self, x):
            return super().forward(x)

    return Checked(inputs, outputs)


LAYERS = {
    "linear": (lambda o, i: nn.Linear(i, o), lambda layer: layer.weight),
    "conv1d": (conv1d, lambda layer: layer.weight.T),
    "another": (linear_of_another_class, lambda layer: layer.weight),
    "packed": (Packed, lambda layer: layer.qweight.T.float() / 512),
}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_weight_of_a_layer_is_seen_whatever_its_class(kind, dtype):
    make, weight_of = LAYERS[kind]
    layer = make(5, 9).to(dtype)
    layer.register_forward_hook(lambda *_: pytest.fail("hooks take no part"))
    bias = layer.bias.clone()
    with torch.no_grad():
        seen = columns(layer, 2, 7, torch.empty(0, dtype=dtype))
        assert torch.equal(seen.float(), weight_of(layer)[:, 2:7].float())
    assert torch.equal(layer.bias, bias)  # it is still there


@pytest.mark.parametrize("kind", LAYERS)
def test_lengths_are_measured_over_all_inputs(kind):
    make, weight_of = LAYERS[kind]
    inputs = 2 * AT_ONCE + 37
    layer, generator = make(6, inputs), torch.Generator().manual_seed(1)
    a, b, m = (torch.randn(shape, generator=generator).double() for shape in [(3, inputs), (6, 3), (6,)])
    found, own = rescaled(layer, Factors(a.float(), b.float(), 0.5), m.float(), torch.float32)
    c = m / (weight_of(layer).detach().double() + 0.5 * b @ a).norm(dim=1)
    torch.testing.assert_close(own.growth.double(), c - 1, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.b.double(), b * c[:, None], atol=1e-6, rtol=1e-5)
    assert torch.equal(found.a.double(), a.float().double())


@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
def test_dora_on_a_quantised_model_is_its_formula_for_the_quantised_weights(tmp_path, quantization):
    pytest.importorskip("bitsandbytes")
    from lorauter_integrations.engines.loading import load_model

    # bitsandbytes quantises blocks of 64 numbers.
    base = biased(hidden_size=64, intermediate_size=128, tie_word_embeddings=False)
    base.save_pretrained(tmp_path / "base")
    pico_tokenizer().save_pretrained(tmp_path / "base")
    make_alone(tmp_path / "pool" / "dora", base, use_dora=True, modules_to_save=["lm_head"])
    pool = pool_of(tmp_path / "pool")
    tensors = load_file(pool["dora"].weights_file)

    def quantised():
        return load_model(str(tmp_path / "base"), quantization=quantization, dtype="float32", device="cpu")[0]

    def written_out(layer, weight, part):
        """What the layer puts out, and its formula."""
        a, b = (tensors[name] for name in part.tensors)
        c = tensors[part.magnitude] / (weight + part.scaling * b @ a).norm(dim=1)
        layer.register_forward_hook(
            lambda _, x, y: y + (c - 1) * (y - layer.bias) + c * part.scaling * (x[0] @ a.T @ b.T)
        )

    model, reference, unused = quantised(), quantised(), quantised()
    original = logits(model)
    ours = mixed(MixtureModel(model, pool), [alone("dora")])
    assert torch.equal(logits(model), original)
    for name, part in pool["dora"].parts.items():
        # Of a model that was never called: a call changes how bitsandbytes lays out weights on a CPU.
        written_out(reference.get_submodule(name), dequantize_module_weight(unused.get_submodule(name)), part)
    reference.lm_head.weight.data = tensors["base_model.model.lm_head.weight"]
    expected = logits(reference)
    assert (ours - expected).std() < 2e-3 * (original - expected).std()


# --- read once, counted, refused


def test_lengths_are_measured_once(pool, monkeypatch):
    measured = []
    real = reading.rescaled
    monkeypatch.setattr(reading, "rescaled", lambda base, *rest: measured.append(base) or real(base, *rest))
    mixture_model = MixtureModel(biased(), pool)
    for rows in ([alone("dora")], [alone("dora"), Mixture()], [alone("one"), alone("dora")], [alone("dora")]):
        mixed(mixture_model, rows)
    assert len(measured) == len(set(map(id, measured))) == len(pool["dora"].parts) == 4


@pytest.mark.parametrize("name", ["one", *ALONE])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_byte_of_an_adapter_is_counted(pool, name, dtype):
    model = biased().to(dtype)
    cache = WeightCache(pool, placements(model), model=model)
    weights = cache[name]
    item = dtype.itemsize
    parts, replaced = pool[name].parts.values(), pool[name].replaced
    low_rank = sum(part.rank * (part.inputs + part.outputs) for part in parts) * item
    lengths = sum(part.outputs for part in parts if part.magnitude) * 4
    assert cache.size == weights.nbytes == low_rank + lengths + len(replaced) * 258 * 32 * item
    kept = [tensor for f in weights.factors.values() for tensor in (f.a, f.b)] + [
        o.tensor for o in weights.own.values()
    ]
    blocks = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in kept}
    assert sum(blocks.values()) == cache.size  # nothing that was read stays beside it
    tight = WeightCache(pool, placements(model), model=model, budget=cache.size)
    tight.pin([name])
    with pytest.raises(PoolError, match=f"1 pinned adapters take {cache.size:,} bytes; {cache.size - 1:,} may be"):
        WeightCache(pool, placements(model), model=model, budget=cache.size - 1).pin([name])


def test_whole_modules_count_in_what_is_kept_of_batches(pool):
    mixture_model = MixtureModel(biased(), pool)
    mixed(mixture_model, [alone("head"), Mixture()])
    mixed(mixture_model, [alone("one"), Mixture()])
    sizes = [size for _, size in mixture_model._plans._held.values()]
    assert sizes[0] - sizes[-1] == 258 * 32 * 4  # one and head have the same low-rank parts
    tight = MixtureModel(biased(), pool, budget=8 * 258 * 32)
    for name in ("head", "both", "one"):
        mixed(tight, [alone(name), Mixture()])
        assert len(tight._plans._held) == 1


def test_dora_on_an_offloaded_model_is_refused(pool):
    accelerate = pytest.importorskip("accelerate")
    mixture_model = MixtureModel(accelerate.cpu_offload(biased(), execution_device=torch.device("cpu")), pool)
    for name in ("dora", "head"):
        with pytest.raises(
            PoolError,
            match=rf"'{name}' cannot be used here: it .*, and .* is offloaded\nHint: load the model without",
        ):
            mixed(mixture_model, [alone(name)])
    torch.testing.assert_close(
        mixed(mixture_model, [alone("one")]), mixed(MixtureModel(biased(), pool), [alone("one")])
    )


def test_a_row_without_length_is_nothing_whatever_length_it_is_given(tmp_path, folder):
    tensors = load_file(folder / "dora" / "adapter_model.safetensors")
    model = biased()
    model.get_submodule(Q).weight.data[3:5] = 0
    for name, length in (("one", 1.0), ("other", 7.0)):
        (tmp_path / name).mkdir()
        changed = {key: torch.zeros_like(value) if "lora_B" in key else value for key, value in tensors.items()}
        for key in changed:
            if "magnitude" in key and Q in key:
                changed[key] = changed[key].clone()
                changed[key][3:5] = length
        save_file(changed, tmp_path / name / "adapter_model.safetensors")
        config = (folder / "dora" / "adapter_config.json").read_bytes()
        (tmp_path / name / "adapter_config.json").write_bytes(config)
    mixture_model = MixtureModel(model, pool_of(tmp_path))
    outputs = [mixed(mixture_model, [alone(name)]) for name in ("one", "other")]
    assert outputs[0].isfinite().all()
    assert torch.equal(*outputs)


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        (
            {"dora": 1.0, "one": 0.5, "two": 0.1},
            "'dora' can only be used alone: it uses DoRA; the mixture has 3 adapters",
        ),
        ({"dora": 0.5}, "'dora' can only be used alone: it uses DoRA; its weight is 0.5"),
        ({"dora": -1.0}, "'dora' can only be used alone: it uses DoRA; its weight is -1"),
        ({"head": 1.0, "one": 1.0}, "'head' can only be used alone: it has whole .*; the mixture has 2 adapters"),
    ],
)
def test_an_adapter_that_can_only_be_used_alone_is_refused_in_company(pool, mixture, message):
    mixture_model = MixtureModel(biased(), pool)
    hint = rf'{message}\nHint: choose {{"(dora|head)": 1.0}}'
    with pytest.raises(OptionError, match=hint):
        mixture_model.require(Mixture(mixture))
    with pytest.raises(OptionError, match=message):
        mixed(mixture_model, [alone("one"), Mixture(mixture)])
    engine = LocalEngine(biased(), pico_tokenizer(), pool)
    with pytest.raises(OptionError, match=message):
        engine.require(Mixture(mixture))
    with pytest.raises(OptionError, match=message):
        engine.stream(GenerationRequest([Message("user", "x")], Mixture(mixture), GenerationOptions()))
    engine.close()


def test_an_adapter_that_can_only_be_used_alone_may_be_used_alone(pool):
    for name in ALONE:
        MixtureModel(biased(), pool).require(alone(name))


def test_an_adapter_that_can_only_be_used_alone_is_not_written_into_a_sum(pool, tmp_path):
    for mixture in (alone("dora"), Mixture({"dora": 0.5, "one": 0.5})):
        with pytest.raises(OptionError, match=r"'dora' cannot be written into a sum: it uses DoRA\nHint: it is one"):
            write_fused(mixture, pool, tmp_path / "fused")
    assert not (tmp_path / "fused").exists()


def test_a_file_that_lacks_a_length_is_refused(pool):
    parts = {module: replace(part, magnitude="gone") for module, part in pool["dora"].parts.items()}
    mixture_model = MixtureModel(biased(), AdapterPool({"dora": replace(pool["dora"], parts=parts)}))
    with pytest.raises(PoolError, match="weights of adapter 'dora' cannot be read any more"):
        mixed(mixture_model, [alone("dora")])
