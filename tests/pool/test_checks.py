import json
import shutil

import pytest
import torch
from conftest import make_adapter, pico_config, pico_model
from safetensors.torch import load_file, save_file

from lorauter_integrations.errors import AdapterRefusedError
from lorauter_integrations.mixing import base_shapes
from lorauter_integrations.pool import CONFIG, WEIGHTS, check_adapter, check_config
from lorauter_integrations.pool.checks import check_header

Q0 = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def shapes():
    return base_shapes(pico_model())


@pytest.fixture
def folder(tmp_path, pico_pool_folder):
    """A good adapter of its own for each test, to be spoilt."""
    return shutil.copytree(pico_pool_folder / "plain", tmp_path / "adapter")


def change_config(folder, **changes):
    config = json.loads((folder / CONFIG).read_text()) | changes
    (folder / CONFIG).write_text(json.dumps({key: value for key, value in config.items() if value != "GONE"}))


def change_weights(folder, change):
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


# ------------------------------------------------------------------ accepted


@pytest.mark.parametrize(
    ("name", "ranks", "targets", "scalings"),
    [
        ("plain", [4], ["q_proj", "v_proj"], {"0.self_attn.q_proj": 2.0, "1.self_attn.v_proj": 2.0}),
        ("rslora", [6], ["q_proj", "v_proj"], {"0.self_attn.q_proj": 3 / 6**0.5}),
        ("ranks", [4, 7], ["q_proj", "up_proj"], {"0.self_attn.q_proj": 8 / 7, "1.self_attn.q_proj": 2.0}),
        (
            "alphas",
            [4],
            ["q_proj", "v_proj"],
            {"0.self_attn.q_proj": 2.0, "1.self_attn.q_proj": 10.0, "1.self_attn.v_proj": 0.5},
        ),
        ("mlp", [3], ["down_proj"], {"1.mlp.down_proj": 8 / 3}),
    ],
)
def test_good_adapter_is_described(pico_pool_folder, shapes, name, ranks, targets, scalings):
    adapter = check_adapter(pico_pool_folder / name, name, shapes)
    assert (adapter.name, adapter.ranks, adapter.targets) == (name, ranks, targets)
    found = {module: adapter.parts[f"model.layers.{module}"].scaling for module in scalings}
    assert found == pytest.approx(scalings)
    assert adapter.weights_file.stat().st_size == adapter.size


def test_inputs_and_outputs_are_the_base_models(folder, shapes):
    part = check_adapter(folder, "a", shapes).parts["model.layers.0.self_attn.v_proj"]
    assert (part.inputs, part.outputs) == (32, 16)


def test_alpha_and_rank_that_are_missing_are_pefts_eight_and_the_tensors(folder, shapes):
    change_config(folder, lora_alpha="GONE", r="GONE")
    adapter = check_adapter(folder, "a", shapes)
    assert adapter.parts["model.layers.0.self_attn.q_proj"].scaling == 8 / 4
    assert adapter.warnings == (
        "r is missing; the ranks are the tensors'",
        "lora_alpha is missing; it is taken to be 8, as PEFT does",
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_half_and_double_precision_are_accepted(folder, shapes, dtype):
    change_weights(folder, lambda tensors: tensors.update({k: v.to(dtype) for k, v in tensors.items()}))
    assert check_adapter(folder, "a", shapes).ranks == [4]


def test_default_in_tensor_names_is_accepted(folder, shapes):
    def rename(tensors):
        for name in list(tensors):
            tensors[name.replace(".weight", ".default.weight")] = tensors.pop(name)

    plain = check_adapter(folder, "a", shapes)
    change_weights(folder, rename)
    named = check_adapter(folder, "a", shapes)
    assert list(named.parts) == list(plain.parts)
    assert named.parts["model.layers.0.self_attn.q_proj"].tensors[0] == f"{Q0}.lora_A.default.weight"


# ------------------------------------------------------------------ usable alone


def test_dora_is_usable_alone_and_says_where_its_magnitudes_are(tmp_path, shapes):
    adapter = check_adapter(make_adapter(tmp_path / "dora", use_dora=True), "dora", shapes)
    assert (adapter.alone, adapter.warnings, adapter.replaced) == ("it uses DoRA", (), {})
    assert adapter.parts["model.layers.0.self_attn.q_proj"].magnitude == f"{Q0}.lora_magnitude_vector"


@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings")
def test_saved_output_layer_is_usable_alone_and_says_where_its_weight_is(tmp_path, shapes):
    folder = make_adapter(tmp_path / "head", modules_to_save=["lm_head"])
    adapter = check_adapter(folder, "head", shapes)
    assert adapter.alone == "it replaces the weights of lm_head"
    assert adapter.replaced == {"lm_head": "base_model.model.lm_head.weight"}
    assert "lm_head" not in adapter.parts


@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings")
def test_copy_of_the_replaced_weight_is_passed_over_with_a_note(tmp_path, shapes):
    folder = make_adapter(tmp_path / "head", modules_to_save=["lm_head"])
    name = "base_model.model.lm_head"
    change_weights(
        folder, lambda t: t.update({f"{name}.modules_to_save.default.weight": t.pop(f"{name}.weight") + 1})
    )
    change_weights(folder, lambda t: t.update({f"{name}.original_module.weight": torch.ones(258, 32)}))
    adapter = check_adapter(folder, "head", shapes)
    assert adapter.replaced == {"lm_head": f"{name}.modules_to_save.default.weight"}
    assert adapter.warnings == ("the file holds the weights of 'lm_head' too; the base model's own are used",)


def test_dora_without_a_low_rank_part_has_an_effect_by_its_magnitudes(tmp_path, shapes):
    folder = make_adapter(tmp_path / "dora", use_dora=True)
    change_weights(folder, zero_every_b)
    change_config(folder, lora_alpha=0)
    assert check_adapter(folder, "dora", shapes).alone == "it uses DoRA"


@pytest.mark.parametrize(
    ("saved", "name", "weight", "message"),
    [
        (["lm_head"], "lm_head.weight", (258, 16), r"has shape \[258, 16\], the base model's has \[258, 32\]"),
        (["lm_head"], "lm_head.weight", (300, 32), "vocabulary 300 against the base's 258 in 'lm_head'"),
        (["lm_head"], "lm_head.bias", (258,), "lm_head.bias' is a bias; it would be left out"),
        (["embed_tokens"], "model.embed_tokens.weight", (258, 32), "'model.embed_tokens', which cannot be replaced"),
        (["embed_tokens"], "model.embed_tokens.weight", (260, 32), "vocabulary 260 against the base's 258"),
        (None, "model.embed_tokens.weight", (260, 32), "vocabulary 260 against the base's 258"),
        (None, "model.embed_tokens.weight", (258, 32), "a full weight that modules_to_save does not name"),
        (["q_proj"], "model.layers.0.self_attn.q_proj.weight", (32, 32), "both a LoRA and a full weight for"),
        (["lm_head", "score"], "lm_head.weight", (258, 32), "modules_to_save names 'score', the file has no weight"),
        (None, "lm_head.base_layer.weight", (258, 32), "is not the base model's own weight beside a cha"),
    ],
    ids=["shape", "vocabulary", "bias", "embeddings", "added tokens", "saved added tokens", "saved embeddings",
         "both", "one is missing", "copy without LoRA"],
)  # fmt: skip
def test_full_weight_that_cannot_stand_in_is_refused(folder, shapes, saved, name, weight, message):
    change_config(folder, modules_to_save=saved)
    change_weights(folder, lambda tensors: tensors.update({f"base_model.model.{name}": torch.ones(weight)}))
    with pytest.raises(AdapterRefusedError, match=message):
        check_adapter(folder, "a", shapes)


# ------------------------------------------------------------------ refused for the config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "GONE"}, "no peft_type; this is not a PEFT adapter"),
        ({"r": 5}, "q_proj': the file has rank 4, the config says 5"),
        ({"rank_pattern": {"v_proj": 8}}, "v_proj': the file has rank 4, the config says 8"),
        ({"use_dora": True}, "the config says use_dora, the file has no magnitude vector for 'model.layers.0"),
        ({"lora_bias": True}, "lora_bias=True is more than a low-rank sum"),
        ({"alpha_pattern": {"v_proj": 0}, "lora_alpha": 0}, "every lora_alpha is zero; the adapter has no effect"),
        ({"new_trick": 3}, "the config has the unknown setting 'new_trick' = 3"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_config_that_the_tensors_or_a_rule_contradict_is_refused(folder, shapes, changes, message):
    change_config(folder, **changes)
    with pytest.raises(AdapterRefusedError, match=message):
        check_adapter(folder, "a", shapes)


def test_check_config_needs_no_weights(folder):
    (folder / WEIGHTS).unlink()
    assert check_config(folder)["r"] == 4
    change_config(folder, lora_bias=True)
    with pytest.raises(AdapterRefusedError, match="lora_bias=True is more than a low-rank sum"):
        check_config(folder)


# ------------------------------------------------------------------ refused for the weights


def poison(name, value):
    def change(tensors):
        tensors[f"{Q0}.{name}.weight"][0, 0] = value

    return change


def zero_every_b(tensors):
    tensors.update({name: torch.zeros_like(t) for name, t in tensors.items() if "lora_B" in name})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (poison("lora_A", float("nan")), "q_proj.lora_A.weight' has NaN or infinite values"),
        (poison("lora_B", float("-inf")), "q_proj.lora_B.weight' has NaN or infinite values"),
        (zero_every_b, "every lora_B is zero; the adapter has no effect"),
        (lambda tensors: tensors.clear(), "holds no tensors"),
        (
            lambda tensors: tensors.pop(f"{Q0}.lora_B.weight"),
            "q_proj' has only lora_A, its partner is missing",
        ),
        (
            lambda tensors: tensors.update({"base_model.model.lm_head.weight": torch.ones(258, 32)}),
            "'base_model.model.lm_head.weight' is a full weight that modules_to_save does not name",
        ),
        (
            lambda tensors: tensors.update({f"{Q0}.lora_A.weight": torch.ones(4, 32, dtype=torch.int8)}),
            "q_proj.lora_A.weight' has type 'I8', not a floating point type",
        ),
    ],
    ids=["nan", "infinite", "zero", "empty", "no partner", "full lm_head", "integers"],
)
def test_weights_that_cannot_be_mixed_are_refused(folder, shapes, change, message):
    change_weights(folder, change)
    with pytest.raises(AdapterRefusedError, match=message):
        check_adapter(folder, "a", shapes)


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
def test_one_bad_number_in_bfloat16_is_found(folder, shapes, value):
    def change(tensors):
        poison("lora_A", value)(tensors)
        tensors.update({name: tensor.bfloat16() for name, tensor in tensors.items()})

    change_weights(folder, change)
    with pytest.raises(AdapterRefusedError, match="has NaN or infinite values"):
        check_adapter(folder, "a", shapes)


@pytest.mark.parametrize("change", [-1, 1], ids=["cut off", "grown"])
def test_file_of_another_length_than_it_says_is_refused(folder, shapes, change):
    raw = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(raw[:-1] if change < 0 else raw + b"x")
    with pytest.raises(AdapterRefusedError, match=f"should have {len(raw)} bytes and has {len(raw) + change}"):
        check_adapter(folder, "a", shapes)


@pytest.mark.parametrize(
    ("beside", "message"),
    [(False, "^no adapter_model.safetensors"), (True, r"only adapter_model.bin \(a pickle, .* save it as")],
    ids=["nothing", "bin"],
)
def test_missing_weights_are_refused(folder, shapes, beside, message):
    (folder / WEIGHTS).unlink()
    if beside:
        (folder / "adapter_model.bin").touch()
    with pytest.raises(AdapterRefusedError, match=message):
        check_adapter(folder, "a", shapes)


# ------------------------------------------------------------------ refused for the base model


def test_adapter_of_a_deeper_model_is_refused(tmp_path, shapes):
    folder = make_adapter(tmp_path / "deep", model=pico_model(num_hidden_layers=3))
    message = (
        r"2 of its 6 modules are not in the base model, such as 'model.layers.2.self_attn.q_proj'; "
        r"the base has 'down_proj', .*'v_proj' in 15 places"
    )
    with pytest.raises(AdapterRefusedError, match=message):
        check_adapter(folder, "deep", shapes)


def test_adapter_of_a_wider_model_is_refused(tmp_path, shapes):
    assert pico_config().hidden_size == 32
    folder = make_adapter(tmp_path / "wide", model=pico_model(hidden_size=64))
    with pytest.raises(AdapterRefusedError, match="q_proj maps 64 to 64 numbers, the base model's 32 to 32"):
        check_adapter(folder, "wide", shapes)


# ------------------------------------------------------------------ the header alone


def header_only(folder, shapes, config):
    """The file as a download has it that has brought the header and no data."""
    raw = (folder / WEIGHTS).read_bytes()
    with (folder / WEIGHTS).open("r+b") as stream:
        stream.truncate(8 + int.from_bytes(raw[:8], "little"))
        stream.truncate(len(raw))
    check_header(folder / WEIGHTS, config, shapes)


def test_header_is_enough_for_all_but_the_values(folder, shapes):
    header_only(folder, shapes, check_config(folder))
    header_only(folder, None, check_config(folder))
    with pytest.raises(AdapterRefusedError, match="every lora_B is zero"):
        check_adapter(folder, "a", shapes)


@pytest.mark.parametrize("known", [True, False], ids=["base", "no base"])
def test_header_that_breaks_a_rule_is_refused(folder, shapes, known):
    with pytest.raises(AdapterRefusedError, match="the file has rank 4, the config says 5"):
        header_only(folder, shapes if known else None, check_config(folder) | {"r": 5})


def test_header_is_held_against_the_base_where_it_is_known(tmp_path, shapes):
    folder = make_adapter(tmp_path / "wide", model=pico_model(hidden_size=64))
    check_header(folder / WEIGHTS, check_config(folder))
    with pytest.raises(AdapterRefusedError, match="maps 64 to 64 numbers, the base model's 32 to 32"):
        check_header(folder / WEIGHTS, check_config(folder), shapes)
