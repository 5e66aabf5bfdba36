import json
import shutil
import struct

import pytest
import torch
from conftest import make_adapter, pico_config, pico_model
from safetensors.torch import load_file, save_file

from lorauter_integrations.errors import AdapterRefusedError
from lorauter_integrations.mixing import base_shapes
from lorauter_integrations.pool import CONFIG, WEIGHTS, check_adapter

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


@pytest.mark.parametrize(
    "changes",
    [
        {"target_modules": None},
        {"target_modules": "all-linear"},
        {"task_type": None},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": "eva"},
        {"modules_to_save": []},
        {"bias": "all"},
        {"lora_dropout": 0.1},
        {"megatron_core": "evil.module"},
        {"base_model_name_or_path": None},
    ],
    ids=lambda changes: " ".join(f"{key}={value}" for key, value in changes.items()),
)
def test_setting_that_does_not_change_the_arithmetic_is_accepted(folder, shapes, changes):
    plain = check_adapter(folder, "a", shapes)
    change_config(folder, **changes)
    assert check_adapter(folder, "a", shapes).parts == plain.parts


def test_missing_alpha_is_pefts_eight(folder, shapes):
    change_config(folder, lora_alpha="GONE")
    assert check_adapter(folder, "a", shapes).parts["model.layers.0.self_attn.q_proj"].scaling == 8 / 4


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


# ------------------------------------------------------------------ refused for the config


REFUSED_CONFIGS = [
    ({"peft_type": "GONE"}, "no peft_type; this is not a PEFT adapter"),
    ({"peft_type": "IA3"}, "peft_type is 'IA3', only 'LORA' can be mixed"),
    ({"task_type": "SEQ_CLS"}, "task_type is 'SEQ_CLS', not 'CAUSAL_LM'"),
    ({"r": "GONE"}, "r must be a whole number of at least 1, the config says None"),
    ({"r": 0}, "r must be a whole number of at least 1, the config says 0"),
    ({"r": "4"}, "r must be a whole number of at least 1, the config says '4'"),
    ({"r": 5}, "q_proj: the file has rank 4, the config says 5"),
    ({"lora_alpha": "16"}, "lora_alpha must be a number, the config says '16'"),
    ({"lora_alpha": True}, "lora_alpha must be a number, the config says True"),
    ({"lora_alpha": float("nan")}, "lora_alpha must be a number, the config says nan"),
    ({"lora_alpha": 10**400}, "lora_alpha must be a number, the config says 1000"),
    ({"alpha_pattern": {"q_proj": "2"}}, "alpha_pattern must give each pattern a number"),
    ({"rank_pattern": ["q_proj"]}, r"rank_pattern must give each pattern a number, .* \['q_proj'\]"),
    ({"rank_pattern": {"[": 2}}, r"rank_pattern: '\[' is not a pattern: unterminated"),
    ({"use_dora": True}, "use_dora=True is more than a low-rank sum"),
    ({"lora_bias": True}, "lora_bias=True is more than a low-rank sum"),
    ({"modules_to_save": ["lm_head"]}, r"modules_to_save=\['lm_head'\] is more than a low-rank sum"),
    ({"layer_replication": [[0, 2]]}, r"layer_replication=\[\[0, 2\]\] is more than"),
    ({"trainable_token_indices": [1]}, r"trainable_token_indices=\[1\] is more than"),
    ({"target_parameters": ["w"]}, r"target_parameters=\['w'\] is more than"),
    ({"alora_invocation_tokens": [1]}, r"alora_invocation_tokens=\[1\] is more than"),
    ({"use_qalora": True}, "use_qalora=True is more than"),
    ({"use_bdlora": True}, "use_bdlora=True is more than"),
    ({"kasa_config": {}}, "kasa_config={} is more than"),
    ({"monteclora_config": {}}, "monteclora_config={} is more than"),
    ({"velora_config": {}}, "velora_config={} is more than"),
    ({"arrow_config": {"top_k": 3}}, "arrow_config={'top_k': 3} is more than"),
    ({"init_lora_weights": "pissa_niter_4"}, "(?s)'pissa_niter_4' changes the base weights; convert it"),
    ({"init_lora_weights": "OLoRA"}, "'OLoRA' changes the base weights; convert it"),
    ({"init_lora_weights": "corda"}, "'corda' changes the base weights"),
]


@pytest.mark.parametrize(
    ("changes", "message"),
    REFUSED_CONFIGS,
    ids=["{}={!r:.20}".format(*next(iter(changes.items()))) for changes, _ in REFUSED_CONFIGS],
)
def test_config_that_cannot_be_mixed_is_refused(folder, shapes, changes, message):
    change_config(folder, **changes)
    with pytest.raises(AdapterRefusedError, match=message):
        check_adapter(folder, "a", shapes)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"{oops", "adapter_config.json cannot be read: "),
        (b"\xff", "adapter_config.json cannot be read: "),
        (b"[]", "adapter_config.json is not a JSON object"),
    ],
    ids=["broken", "not UTF-8", "list"],
)
def test_config_that_cannot_be_read_is_refused(folder, shapes, raw, message):
    (folder / CONFIG).write_bytes(raw)
    with pytest.raises(AdapterRefusedError, match=message):
        check_adapter(folder, "a", shapes)


def test_missing_config_is_refused(folder, shapes):
    (folder / CONFIG).unlink()
    with pytest.raises(AdapterRefusedError, match=r"^no adapter_config\.json$"):
        check_adapter(folder, "a", shapes)


def test_real_dora_adapter_is_refused(tmp_path, shapes):
    with pytest.raises(AdapterRefusedError, match="use_dora=True"):
        check_adapter(make_adapter(tmp_path / "dora", use_dora=True), "dora", shapes)


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
            "q_proj has only lora_A, its partner is missing",
        ),
        (
            lambda tensors: tensors.update({"base_model.model.lm_head.weight": torch.ones(2, 2)}),
            "'base_model.model.lm_head.weight' is not a LoRA factor",
        ),
        (
            lambda tensors: tensors.update({f"{Q0}.lora_A.weight": torch.ones(4, 32, dtype=torch.int8)}),
            "q_proj.lora_A.weight' has type I8, not a floating point type",
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


def header_only(header):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", r"is cut off or not a safetensors file \(0 bytes\)"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "is a Git LFS pointer; the weights were not downloaded",
        ),
        (b"PK\x03\x04 some other file", "is cut off or not a safetensors file"),
        (struct.pack("<Q", 4) + b"oops", "adapter_model.safetensors cannot be read: "),
        (header_only([]), "the header of adapter_model.safetensors is not a JSON object"),
        (header_only({"a.lora_A.weight": 5}), "does not say what tensor 'a.lora_A.weight' is"),
        (
            header_only({"a.lora_A.weight": {"dtype": "F32", "shape": "4", "data_offsets": [0, 0]}}),
            "does not say what tensor 'a.lora_A.weight' is",
        ),
    ],
    ids=["empty", "LFS pointer", "other file", "broken header", "list", "number", "shape text"],
)
def test_file_that_is_no_safetensors_is_refused(folder, shapes, raw, message):
    (folder / WEIGHTS).write_bytes(raw)
    with pytest.raises(AdapterRefusedError, match=message):
        check_adapter(folder, "a", shapes)


@pytest.mark.parametrize("change", [-1, 1], ids=["cut off", "grown"])
def test_file_of_another_length_than_it_says_is_refused(folder, shapes, change):
    raw = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(raw[:-1] if change < 0 else raw + b"x")
    with pytest.raises(AdapterRefusedError, match=f"should have {len(raw)} bytes and has {len(raw) + change}"):
        check_adapter(folder, "a", shapes)


def test_tensor_with_fewer_bytes_than_its_shape_is_refused(folder, shapes):
    names = [f"model.layers.0.self_attn.q_proj.lora_{side}.weight" for side in "AB"]
    facts = [{"dtype": "F32", "shape": s, "data_offsets": [0, 0]} for s in ([4, 32], [32, 4])]
    (folder / WEIGHTS).write_bytes(header_only(dict(zip(names, facts, strict=True))))
    with pytest.raises(AdapterRefusedError, match="has 0 bytes, its shape needs 512"):
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
