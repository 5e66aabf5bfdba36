import math

import pytest

from lorauter_integrations.errors import AdapterRefusedError
from lorauter_integrations.pool.adapter import by_pattern, content_hash, read_parts

CONFIG = {"r": 2, "lora_alpha": 8}


def header(**shapes):
    return {name.replace("__", "."): {"dtype": "F32", "shape": shape} for name, shape in shapes.items()}


def factors(prefix="", suffix=".weight"):
    return {
        f"{prefix}m.q.lora_A{suffix}": {"dtype": "F32", "shape": [2, 5]},
        f"{prefix}m.q.lora_B{suffix}": {"dtype": "F32", "shape": [7, 2]},
    }


@pytest.mark.parametrize(
    ("prefix", "suffix"),
    [("base_model.model.", ".weight"), ("", ".weight"), ("base_model.model.", ".default.weight")],
    ids=["peft", "bare", "live model"],
)
def test_tensor_names_of_every_writer_are_read(prefix, suffix):
    parts = read_parts(factors(prefix, suffix), CONFIG)
    assert list(parts) == ["m.q"]
    part = parts["m.q"]
    assert (part.rank, part.inputs, part.outputs, part.scaling) == (2, 5, 7, 4.0)
    assert part.tensors == (f"{prefix}m.q.lora_A{suffix}", f"{prefix}m.q.lora_B{suffix}")


@pytest.mark.parametrize(
    ("change", "scaling"),
    [
        ({}, 8 / 2),
        ({"use_rslora": True}, 8 / math.sqrt(2)),
        ({"alpha_pattern": {"q": 3}}, 3 / 2),
        ({"alpha_pattern": {"q": 3}, "use_rslora": True}, 3 / math.sqrt(2)),
        ({"alpha_pattern": {"k": 3}}, 8 / 2),
        ({"r": 4, "rank_pattern": {"q": 2}}, 8 / 2),
        ({"alpha_pattern": None, "rank_pattern": None}, 8 / 2),
    ],
    ids=["plain", "rslora", "alpha pattern", "both", "other module", "rank pattern", "null"],
)
def test_scaling_is_alpha_over_rank_or_its_root(change, scaling):
    assert read_parts(factors(), CONFIG | change)["m.q"].scaling == pytest.approx(scaling)


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        ("q_proj", 9),
        ("self_attn.q_proj", 9),
        ("proj", 1),
        ("q", 1),
        (r"layers\.\d+\.self_attn\..*", 9),
        ("^q_proj", 1),
    ],
)
def test_pattern_must_match_whole_parts_at_the_end_of_the_name(pattern, value):
    assert by_pattern({pattern: 9}, "model.layers.10.self_attn.q_proj", 1) == value


def test_first_pattern_that_matches_wins():
    assert by_pattern({"k": 1, "a.q": 2, "q": 3}, "m.a.q", 4) == 2


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "holds no tensors"),
        (header(m__q__bias=[4]), "tensor 'm.q.bias' is not a LoRA factor; it would be left out"),
        (header(m__lora_embedding_A=[2, 5]), "tensor 'm.lora_embedding_A' is not a LoRA factor"),
        (header(m__q__lora_A__weight=[2, 5]), "m.q has only lora_A, its partner is missing"),
        (
            header(m__q__lora_A__weight=[2, 5], m__q__lora_B__weight=[7, 3]),
            r"m.q: lora_A \[2, 5\] and lora_B \[7, 3\] do not multiply",
        ),
        (
            header(m__q__lora_A__weight=[2, 5, 1, 1], m__q__lora_B__weight=[7, 2, 1, 1]),
            r"m.q: lora_A \[2, 5, 1, 1\] .* do not multiply",
        ),
        (
            header(m__q__lora_A__weight=[3, 5], m__q__lora_B__weight=[7, 3]),
            "m.q: the file has rank 3, the config says 2",
        ),
        (factors() | factors("base_model.model."), "two tensors for lora_A of m.q"),
    ],
    ids=["none", "bias", "embedding", "no partner", "shapes", "convolution", "rank", "twice"],
)
def test_tensors_that_are_no_low_rank_sum_are_refused(tensors, message):
    with pytest.raises(AdapterRefusedError, match=message):
        read_parts(tensors, CONFIG)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"base_model_name_or_path": "elsewhere"}, True),
        ({"lora_alpha": 9}, False),
        ({"use_rslora": True}, False),
        ({"alpha_pattern": {"q": 3}}, False),
    ],
    ids=["nothing", "base name", "alpha", "rslora", "alpha pattern"],
)
def test_content_hash_changes_with_what_changes_the_arithmetic(tmp_path, change, same):
    file = tmp_path / "w"
    file.write_bytes(b"weights")
    assert (content_hash(file, CONFIG | change) == content_hash(file, CONFIG)) is same


def test_content_hash_changes_with_the_weights(tmp_path):
    (tmp_path / "a").write_bytes(b"weights")
    (tmp_path / "b").write_bytes(b"weightz")
    assert content_hash(tmp_path / "a", CONFIG) != content_hash(tmp_path / "b", CONFIG)
