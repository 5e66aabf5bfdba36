import math

import pytest

from lorauter_integrations.errors import AdapterRefusedError
from lorauter_integrations.pool.contents import ModuleNames, Patterns, read_parts, sort_tensors

CONFIG = {"r": 2, "lora_alpha": 8}
NONE = ModuleNames(())


def header(**shapes):
    return {name.replace("__", "."): {"dtype": "F32", "shape": shape} for name, shape in shapes.items()}


def factors(prefix="", suffix=".weight"):
    return {
        f"{prefix}m.q.lora_A{suffix}": {"dtype": "F32", "shape": [2, 5]},
        f"{prefix}m.q.lora_B{suffix}": {"dtype": "F32", "shape": [7, 2]},
    }


def parts_of(tensors, config=CONFIG, names=NONE):
    return read_parts(sort_tensors(tensors, names), tensors, config)


@pytest.mark.parametrize(
    ("prefix", "suffix"),
    [("base_model.model.", ".weight"), ("", ".weight"), ("base_model.model.", ".default.weight")],
    ids=["peft", "bare", "live model"],
)
def test_tensor_names_of_every_writer_are_read(prefix, suffix):
    parts = parts_of(factors(prefix, suffix))
    assert list(parts) == ["m.q"]
    part = parts["m.q"]
    assert (part.rank, part.inputs, part.outputs, part.scaling) == (2, 5, 7, 4.0)
    assert part.tensors == (f"{prefix}m.q.lora_A{suffix}", f"{prefix}m.q.lora_B{suffix}")


BASE = ["model.layers.0.q", "lm_head", "model.visual.0.q", "visual.0.q"]


@pytest.mark.parametrize(
    ("stem", "module"),
    [
        ("base_model.model.model.layers.0.q", "model.layers.0.q"),
        ("model.layers.0.q", "model.layers.0.q"),
        ("layers.0.q", "model.layers.0.q"),
        ("base_model.model.model.model.layers.0.q", "model.layers.0.q"),
        ("base_model.model.base_model.model.model.layers.0.q", "model.layers.0.q"),
        ("base_model.model.language_model.model.layers.0.q", "model.layers.0.q"),
        ("module._orig_mod.model.layers.0.q", "model.layers.0.q"),
        ("_fsdp_wrapped_module.model.layers.0._checkpoint_wrapped_module.q", "model.layers.0.q"),
        ("model.lm_head", "lm_head"),
        ("visual.0.q", "visual.0.q"),
        ("base_model.model.language_model.visual.0.q", "language_model.visual.0.q"),
        ("other.layers.0.q", "other.layers.0.q"),
        ("model", "model"),
    ],
)
def test_module_is_found_behind_every_known_prefix_but_never_guessed(stem, module):
    assert ModuleNames(BASE).find(stem) == module


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
        ({"r": None}, 8 / 2),
    ],
    ids=["plain", "rslora", "alpha pattern", "both", "other module", "rank pattern", "null", "no rank"],
)
def test_scaling_is_alpha_over_rank_or_its_root(change, scaling):
    assert parts_of(factors(), CONFIG | change)["m.q"].scaling == pytest.approx(scaling)


def test_alpha_that_is_missing_is_pefts_eight():
    assert parts_of(factors(), {"r": 2})["m.q"].scaling == 8 / 2


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
    assert Patterns({pattern: 9}).value("model.layers.10.self_attn.q_proj", 1) == value


def test_first_pattern_that_matches_wins():
    assert Patterns({"k": 1, "a.q": 2, "q": 3}).value("m.a.q", 4) == 2
    assert Patterns(None).value("m.a.q", 4) == 4


def test_pattern_that_matches_nothing_is_named():
    assert Patterns({"k": 1, "q": 2, "m.q": 3, "^q": 4}).useless(["m.q", "m.v"]) == ["k", "^q"]


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "holds no tensors"),
        (header(m__q__weight=[2, 5]), "holds no LoRA"),
        (header(m__q__bias=[4]), "tensor 'm.q.bias' is a bias; it would be left out"),
        (header(m__q__lora_B__bias=[4]), "tensor 'm.q.lora_B.bias' is a bias; it would be left out"),
        (header(m__lora_embedding_A=[2, 5]), "tensor 'm.lora_embedding_A' is a LoRA on an embedding"),
        (header(m__q__lora_diag=[2]), "tensor 'm.q.lora_diag' is not a LoRA factor; it would be left out"),
        (header(m__q__lora_A__weight=[2, 5]), "'m.q' has only lora_A, its partner is missing"),
        (
            header(m__q__lora_A__weight=[2, 5], m__q__lora_B__weight=[7, 3]),
            r"'m.q': lora_A \[2, 5\] and lora_B \[7, 3\] do not multiply",
        ),
        (
            header(m__q__lora_A__weight=[2, 5, 1, 1], m__q__lora_B__weight=[7, 2, 1, 1]),
            r"'m.q': lora_A \[2, 5, 1, 1\] .* do not multiply",
        ),
        (header(m__q__lora_A__weight=[2, 0], m__q__lora_B__weight=[7, 2]), "do not multiply"),
        (
            header(m__q__lora_A__weight=[3, 5], m__q__lora_B__weight=[7, 3]),
            "'m.q': the file has rank 3, the config says 2",
        ),
        (
            factors() | factors("base_model.model."),
            "two tensors mean the same: 'm.q.lora_A.weight' and 'base_model.model.m.q.lora_A.weight'",
        ),
        (factors() | header(m__q__lora_magnitude_vector=[7]), "the config does not say use_dora"),
        (factors() | header(m__k__lora_magnitude_vector=[7]), "vector' is a magnitude without a LoRA"),
    ],
    ids=["none", "whole only", "bias", "lora_bias", "embedding", "diagonal", "no partner", "shapes", "convolution",
         "zero", "rank", "twice", "magnitude", "stray magnitude"],
)  # fmt: skip
def test_tensors_that_are_no_low_rank_sum_are_refused(tensors, message):
    with pytest.raises(AdapterRefusedError, match=message):
        parts_of(tensors)


@pytest.mark.parametrize("ending", ["", ".weight", ".default", ".default.weight"])
def test_every_spelling_of_a_magnitude_is_read(ending):
    name = f"m.q.lora_magnitude_vector{ending}"
    tensors = factors() | {name: {"dtype": "F32", "shape": [7]}}
    assert parts_of(tensors, CONFIG | {"use_dora": True})["m.q"].magnitude == name


def test_magnitude_of_another_length_is_refused():
    tensors = factors() | header(m__q__lora_magnitude_vector=[1, 7])
    with pytest.raises(AdapterRefusedError, match=r"'m.q': DoRA needs magnitudes of shape \[7\], not \[1, 7\]"):
        parts_of(tensors, CONFIG | {"use_dora": True})


def test_long_and_unprintable_names_are_cut_and_escaped():
    name = "\x1b[31m" + "x" * 500
    with pytest.raises(AdapterRefusedError, match=r"^tensor '\\x1b\[31mx{50,150}\.\.\. is not a LoRA factor"):
        parts_of({name: {"dtype": "F32", "shape": [1]}})
