"""Where a model is put and how it is quantised; bitsandbytes and accelerate for real, on the CPU."""

import logging
import sys

import pytest
import torch
from conftest import make_adapter, pico_model, pico_tokenizer
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from lorauter_integrations import AdapterPool, Mixture, MixtureModel
from lorauter_integrations.engines.loading import load_model, model_shapes, pick_device
from lorauter_integrations.errors import MissingExtraError, ModelLoadError
from lorauter_integrations.mixing import base_shapes

IDS = torch.arange(12).reshape(2, 6)
WIDE = {"hidden_size": 64, "intermediate_size": 128}  # bitsandbytes quantises blocks of 64 numbers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model that bitsandbytes can quantise."""
    folder = tmp_path_factory.mktemp("wide-pico")
    pico_model(**WIDE).save_pretrained(folder)
    pico_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    make_adapter(folder / "one", seed=1, model=pico_model(**WIDE))
    make_adapter(folder / "two", seed=2, model=pico_model(**WIDE), r=2, target_modules=["down_proj", "q_proj"])
    return AdapterPool.from_folder(folder, base_shapes(pico_model(**WIDE)))


@pytest.fixture
def may_not_move(monkeypatch):
    """As transformers' message says for models that bitsandbytes has quantised."""

    def to(*_):
        raise ValueError("`.to` is not supported for `4-bit` or `8-bit` bitsandbytes models.")

    monkeypatch.setattr(LlamaForCausalLM, "to", to)


def logits(model):
    with torch.inference_mode():
        return model(input_ids=IDS).logits


# --- what may be asked for


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"dtype": ""}, r"unknown dtype ''\nHint: use auto, bfloat16, float16, float32"),
        ({"device_map": "spread"}, r"unknown device_map 'spread'\nHint: use auto, balanced, balanced_low_0, sequent"),
        ({"quantization": "2bit"}, r"unknown quantization '2bit'\nHint: use 4bit, 8bit"),
        (
            {"device": "cpu", "device_map": "auto"},
            r"device 'cpu' and device_map 'auto' exclude each other\nHint: leave",
        ),
    ],
    ids=["dtype", "device_map", "quantization", "device and device_map"],
)
def test_a_wrong_choice_says_what_is_known_before_anything_is_read(options, match):
    with pytest.raises(ModelLoadError, match=match):
        load_model("/nowhere", **options)


def test_a_gguf_file_is_not_quantised_again(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(
        ModelLoadError, match=r"quantization '4bit' cannot be used on .*model.gguf', which is quantised"
    ):
        load_model(str(tmp_path / "model.gguf"), quantization="4bit")


@pytest.mark.parametrize(
    ("package", "extra", "options"),
    [
        ("accelerate", "quantized", {"device_map": "auto"}),
        ("accelerate", "quantized", {"quantization": "8bit"}),
        ("bitsandbytes", "quantized", {"quantization": "4bit"}),
    ],
    ids=["device_map", "quantization", "bitsandbytes"],
)
def test_a_missing_package_is_answered_with_its_extra(monkeypatch, folder, package, extra, options):
    if package == "accelerate" and "quantization" in options:
        pytest.importorskip("bitsandbytes")
    monkeypatch.setitem(sys.modules, package, None)
    match = rf"this needs {package}, which is not installed\nHint: pip install 'lorauter-integrations\[{extra}\]'"
    with pytest.raises(MissingExtraError, match=match):
        load_model(str(folder), **options)


def test_a_missing_gguf_package_is_answered_with_its_extra(monkeypatch, tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(
        MissingExtraError, match=r"this needs gguf, .*\nHint: pip install 'lorauter-integrations\[gguf\]'"
    ):
        load_model(str(tmp_path / "model.gguf"))


# --- devices


@pytest.mark.parametrize(
    ("cuda", "mps", "name", "expected"),
    [
        (0, False, "auto", "cpu"),
        (0, True, "auto", "mps"),
        (2, False, "auto", "cuda"),
        (2, False, "cuda:1", "cuda:1"),
        (0, True, "mps", "mps"),
        (0, False, "cpu", "cpu"),
    ],
)
def test_the_fastest_device_present_is_taken(monkeypatch, cuda, mps, name, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device(name) == torch.device(expected)


@pytest.mark.parametrize(
    ("cuda", "name", "match"),
    [
        (0, "cuda", r"there is no device 'cuda': torch .* finds 0 cuda devices here\nHint: use auto or cpu"),
        (2, "cuda:2", r"there is no device 'cuda:2': torch .* finds 2 cuda devices here"),
        (0, "mps", r"there is no device 'mps': torch .* finds 0 mps devices here"),
    ],
)
def test_a_device_that_is_not_here_is_named(monkeypatch, folder, cuda, name, match):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ModelLoadError, match=match):
        load_model(str(folder), device=name)


def test_a_model_with_a_device_map_is_not_moved(folder, may_not_move):
    pytest.importorskip("accelerate")
    model, _ = load_model(str(folder), device_map="auto")
    assert torch.equal(logits(model), logits(pico_model(**WIDE)))


def test_a_model_in_its_stored_form_needs_no_accelerate_and_is_moved(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    moved = []
    monkeypatch.setattr(LlamaForCausalLM, "to", lambda model, place: moved.append(place) or model)
    model, _ = load_model(str(folder), device="cpu")
    assert moved == [torch.device("cpu")]
    assert not model.training


# --- quantised


@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
def test_a_quantised_model_is_close_to_the_original_and_is_not_moved(folder, may_not_move, quantization, caplog):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    kinds = {"4bit": bitsandbytes.nn.Linear4bit, "8bit": bitsandbytes.nn.Linear8bitLt}
    model, _ = load_model(str(folder), quantization=quantization)
    layers = [m for name, m in model.named_modules() if isinstance(m, kinds[quantization])]
    assert len(layers) == 14
    assert base_shapes(model) == base_shapes(pico_model(**WIDE))
    assert (model.dtype, model.training) == (torch.bfloat16, False)
    with caplog.at_level(logging.WARNING):
        ours = logits(model).float()
    assert "MatMul8bitLt" not in caplog.text
    original = logits(pico_model(**WIDE))
    difference = (ours - original).std() / original.std()
    assert 1e-4 < difference < 0.2


def test_four_bits_are_nf4_and_compute_in_the_type_asked_for(folder):
    pytest.importorskip("bitsandbytes")
    for dtype, expected in (("auto", torch.bfloat16), ("float32", torch.float32)):
        model, _ = load_model(str(folder), quantization="4bit", dtype=dtype, device="cpu")
        layer = model.model.layers[0].mlp.up_proj
        assert (layer.weight.quant_type, layer.compute_dtype, model.dtype) == ("nf4", expected, expected)


@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
def test_a_mixture_on_a_quantised_model_is_its_output_plus_the_sum_written_out(folder, adapters, quantization):
    pytest.importorskip("bitsandbytes")
    model, _ = load_model(str(folder), quantization=quantization, dtype="float32")
    base = logits(model)
    mixtures = MixtureModel(model, adapters)
    mixture = Mixture({"one": 0.7, "two": -1.2})
    with mixtures.rows([mixture]):
        ours = logits(model)
    for adapter, weight in mixture.items():
        tensors = load_file(adapters[adapter].weights_file)
        for name, part in adapters[adapter].parts.items():
            delta = weight * part.scaling * tensors[part.tensors[1]] @ tensors[part.tensors[0]]
            model.get_submodule(name).register_forward_hook(lambda _, args, out, d=delta: out + args[0] @ d.T)
    expected = logits(model)
    assert (expected - base).abs().max() > 0.1
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def test_rows_of_a_quantised_model_in_bfloat16_have_mixtures_of_their_own(folder, adapters):
    pytest.importorskip("bitsandbytes")
    model, _ = load_model(str(folder), quantization="4bit")
    base = logits(model)
    with MixtureModel(model, adapters).rows([Mixture(), Mixture({"two": 1.0})]):
        ours = logits(model)
    torch.testing.assert_close(ours[0], base[0], atol=2e-2, rtol=2e-2)
    assert (ours[1] - base[1]).abs().max() > 0.1


def test_a_checkpoint_that_is_quantised_already_is_put_in_its_place_while_it_is_loaded(
    tmp_path, folder, may_not_move, monkeypatch
):
    pytest.importorskip("bitsandbytes")
    model, tokenizer = load_model(str(folder), quantization="4bit", dtype="float32")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    asked = {}
    real = AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(
        AutoModelForCausalLM,
        "from_pretrained",
        lambda *args, **options: asked.update(options) or real(*args, **options),
    )
    again, _ = load_model(str(tmp_path), device="cpu")
    assert asked["device_map"] == "cpu"
    torch.testing.assert_close(logits(again), logits(model), atol=1e-5, rtol=1e-5)
    assert model_shapes(str(tmp_path)) == model_shapes(str(folder))
    with pytest.raises(ModelLoadError, match=r"quantization '8bit' cannot be used on .*, which is quantised already"):
        load_model(str(tmp_path), quantization="8bit")
