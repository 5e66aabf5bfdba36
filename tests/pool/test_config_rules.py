import json

import pytest
from peft import LoraConfig

from lorauter_integrations.errors import AdapterRefusedError
from lorauter_integrations.pool import CONFIG
from lorauter_integrations.pool.config_rules import CONFIG_RULES, compare_bases

PLAIN = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8}


def warnings_of(**changes):
    return [warning for rule in CONFIG_RULES if (warning := rule(PLAIN | changes))]


def test_what_the_installed_peft_writes_is_accepted(tmp_path):
    LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM").save_pretrained(tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text())
    # A newer PEFT may have settings of its own; at their defaults they are a warning, no more.
    assert [warning for rule in CONFIG_RULES if (warning := rule(config)) and "that are empty" not in warning] == []


KEYS = {
    "0.2": "base_model_name_or_path bias enable_lora fan_in_fan_out inference_mode init_lora_weights lora_dropout "
    "merge_weights modules_to_save target_modules",
    "0.6": "alpha_pattern auto_mapping base_model_name_or_path bias fan_in_fan_out inference_mode init_lora_weights "
    "layers_pattern layers_to_transform lora_dropout modules_to_save rank_pattern revision target_modules",
    "0.10": "loftq_config megatron_config megatron_core use_dora use_rslora layer_replication",
    "0.14": "eva_config exclude_modules lora_bias",
    "0.18": "alora_invocation_tokens arrow_config corda_config ensure_weight_tying peft_version qalora_group_size "
    "target_parameters trainable_token_indices use_qalora",
}


@pytest.mark.parametrize("version", KEYS)
def test_settings_of_earlier_versions_of_peft_are_known(version):
    assert warnings_of(**dict.fromkeys(KEYS[version].split())) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"target_modules": None},
        {"target_modules": "all-linear"},
        {"exclude_modules": ["lm_head"]},
        {"task_type": None},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": "eva", "eva_config": {"rho": 2.0}},
        {"init_lora_weights": "orthogonal"},
        {"init_lora_weights": None},
        {"modules_to_save": []},
        {"bias": "all"},
        {"lora_dropout": 0.1},
        {"fan_in_fan_out": True},
        {"megatron_core": "evil.module", "megatron_config": {"a": 1}},
        {"base_model_name_or_path": None},
        {"runtime_config": {"ephemeral_gpu_offload": False}},
        {"merge_weights": True, "enable_lora": None},
        {"auto_mapping": {"base_model_class": "LlamaForCausalLM", "unsloth_fixed": True}},
        {"lora_dtype": "bfloat16", "lorap_lr_ratio": 16.0, "lorap_emb_lr": 1e-6, "ensure_weight_tying": True},
        {"use_qalora": None, "use_dora": None, "trainable_token_indices": {}},
    ],
    ids=lambda changes: " ".join(f"{key}={value}" for key, value in changes.items()),
)
def test_setting_that_does_not_change_the_arithmetic_is_passed_over(changes):
    assert warnings_of(**changes) == []


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"r": None}, "r is missing; the ranks are the tensors'"),
        (
            {"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4}},
            "init_lora_weights='loftq': its weights are relative to the quantised base it was trained on",
        ),
        ({"new": None, "newer": False}, "unknown settings that are empty: 'new', 'newer'"),
        ({"a": [], "b": {}, "c": ""}, "unknown settings that are empty: 'a', 'b', 'c'"),
    ],
    ids=["rank", "loftq", "unknown", "unknown lists"],
)
def test_setting_that_a_person_should_know_of_is_a_warning(changes, warning):
    assert warnings_of(**changes) == [warning]


def test_missing_alpha_is_a_warning():
    config = {key: value for key, value in PLAIN.items() if key != "lora_alpha"}
    assert [warning for rule in CONFIG_RULES if (warning := rule(config))] == [
        "lora_alpha is missing; it is taken to be 8, as PEFT does"
    ]


REFUSED = [
    ({"peft_type": "IA3"}, "peft_type is 'IA3', only 'LORA' can be mixed"),
    ({"peft_type": ["LORA"]}, r"peft_type is \['LORA'\], only 'LORA' can be mixed"),
    ({"peft_type": "X" * 1000}, r"peft_type is 'XX{100,120}\.\.\., only"),
    ({"task_type": "SEQ_CLS"}, "task_type is 'SEQ_CLS', not 'CAUSAL_LM'"),
    ({"r": 0}, "r must be a whole number of at least 1, the config says 0"),
    ({"r": True}, "r must be a whole number of at least 1, the config says True"),
    ({"r": 4.0}, "r must be a whole number of at least 1, the config says 4.0"),
    ({"r": "4"}, "r must be a whole number of at least 1, the config says '4'"),
    ({"lora_alpha": None}, "lora_alpha must be a number, the config says None"),
    ({"lora_alpha": "16"}, "lora_alpha must be a number, the config says '16'"),
    ({"lora_alpha": True}, "lora_alpha must be a number, the config says True"),
    ({"lora_alpha": float("nan")}, "lora_alpha must be a number, the config says nan"),
    ({"lora_alpha": 10**400}, "lora_alpha must be a number, the config says 1000"),
    ({"alpha_pattern": {"q_proj": "2"}}, "alpha_pattern must give each pattern a number"),
    ({"rank_pattern": ["q_proj"]}, r"rank_pattern must give each pattern a number, .* \['q_proj'\]"),
    ({"rank_pattern": {"[": 2}}, r"rank_pattern: '\[' is not a pattern: unterminated"),
    ({"use_rslora": "false"}, "use_rslora must be true or false, the config says 'false'"),
    ({"use_dora": "yes"}, "use_dora must be true or false, the config says 'yes'"),
    ({"modules_to_save": "lm_head"}, "modules_to_save must be a list of names, the config says 'lm_head'"),
    ({"modules_to_save": [""]}, r"modules_to_save must be a list of names, the config says \[''\]"),
    ({"lora_bias": True}, "lora_bias=True is more than a low-rank sum"),
    ({"layer_replication": [[0, 2]]}, r"layer_replication=\[\[0, 2\]\] is more than"),
    ({"trainable_token_indices": [1]}, r"trainable_token_indices=\[1\] is more than"),
    ({"target_parameters": ["w"]}, r"target_parameters=\['w'\] is more than"),
    ({"alora_invocation_tokens": [1]}, r"alora_invocation_tokens=\[1\] is more than"),
    ({"use_qalora": True}, "use_qalora=True is more than"),
    ({"use_bdlora": {"nblocks": 2}}, "use_bdlora={'nblocks': 2} is more than"),
    ({"kasa_config": {}}, "kasa_config={} is more than"),
    ({"monteclora_config": {}}, "monteclora_config={} is more than"),
    ({"velora_config": {}}, "velora_config={} is more than"),
    ({"arrow_config": {"top_k": 3}}, "arrow_config={'top_k': 3} is more than"),
    ({"enable_lora": [True, False, True]}, r"enable_lora=\[True, False, True\] is more than"),
    ({"init_lora_weights": "pissa_niter_4"}, "'pissa_niter_4' changes the base weights; convert it"),
    ({"init_lora_weights": "OLoRA"}, "'olora' changes the base weights; convert it"),
    ({"init_lora_weights": "corda"}, "'corda' changes the base weights"),
    ({"init_lora_weights": "lora_ga"}, "'lora_ga' changes the base weights"),
    ({"init_lora_weights": "milora"}, "init_lora_weights='milora' is unknown and may change the base weights"),
    ({"new": 0}, "the config has the unknown setting 'new' = 0; it may change the arithmetic"),
    ({"new": {"scale": 2}}, "the config has the unknown setting 'new' = {'scale': 2}"),
    ({"\x1b[2J": 1}, r"the config has the unknown setting '\\x1b\[2J' = 1"),
]


@pytest.mark.parametrize(
    ("changes", "message"),
    REFUSED,
    ids=["{}={!r:.20}".format(*next(iter(changes.items()))) for changes, _ in REFUSED],
)
def test_setting_that_changes_the_arithmetic_is_refused(changes, message):
    with pytest.raises(AdapterRefusedError, match=message):
        warnings_of(**changes)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "the config has no peft_type; this is not a PEFT adapter"),
        ({"fine_tune_type": "lora"}, "an adapter in MLX format, not PEFT's"),
        ({"lora_parameters": {"rank": 8}, "num_layers": 16}, "an adapter in MLX format, not PEFT's"),
    ],
    ids=["empty", "MLX", "old MLX"],
)
def test_config_of_something_else_is_refused(config, message):
    with pytest.raises(AdapterRefusedError, match=message):
        CONFIG_RULES[0](config)


@pytest.mark.parametrize(
    "pattern",
    ["(q+)+x", "(.*)*", "(a|b){9}c", ".*.*.*.*.*.*x", "(.|.)(.|.)(.|.)(.|.)(.|.)(.|.)", ".?.?.?.?.?.?", "q" * 201],
)
def test_pattern_that_could_take_for_ever_is_refused_at_once(pattern):
    with pytest.raises(AdapterRefusedError, match="is so involved that matching it could take for ever"):
        warnings_of(alpha_pattern={pattern: 2})


@pytest.mark.parametrize("patterns", [[f"m.{i}" for i in range(20_001)], [f".*{i}" for i in range(65)]], ids=len)
def test_more_patterns_than_anybody_writes_are_refused(patterns):
    with pytest.raises(AdapterRefusedError, match="rank_pattern has so many patterns that matching them could take"):
        warnings_of(rank_pattern=dict.fromkeys(patterns, 2))
    assert warnings_of(rank_pattern=dict.fromkeys(patterns[1:], 2)) == []


@pytest.mark.parametrize(
    "pattern",
    ["model.layers.31.mlp.down_proj", r"^model\.layers\.(1[6-9]|2\d|3[01])\..*q_proj", ".*_proj", "(?:q|k|v)_proj"],
)
def test_pattern_as_people_write_it_is_accepted(pattern):
    assert warnings_of(alpha_pattern={pattern: 2}, rank_pattern={pattern: 4}) == []


# ------------------------------------------------------------------ the base model's name


@pytest.mark.parametrize(
    ("stated", "base", "warning"),
    [
        ("meta-llama/Llama-2-7b-hf", "meta-llama/Llama-2-7b-hf", ""),
        ("NousResearch/llama-2-7B-hf", "meta-llama/Llama-2-7b-hf", ""),
        ("/home/me/Llama-2-7b-hf/", "meta-llama/Llama-2-7b-hf", ""),
        ("C:\\models\\Llama-2-7b-hf", "meta-llama/Llama-2-7b-hf", ""),
        (
            "meta-llama/Llama-2-7b-chat-hf",
            "meta-llama/Llama-2-7b-hf",
            "it was trained on 'meta-llama/Llama-2-7b-chat-hf'; the base model is 'meta-llama/Llama-2-7b-hf'",
        ),
        ("gpt2", "distilgpt2", "it was trained on 'gpt2'; the base model is 'distilgpt2'"),
        ("/home/me/base", "meta-llama/Llama-2-7b-hf", ""),
        ("../base", "meta-llama/Llama-2-7b-hf", ""),
        ("meta-llama/Llama-2-7b-hf", "/models/base", ""),
        (None, "meta-llama/Llama-2-7b-hf", ""),
        ("meta-llama/Llama-2-7b-hf", "", ""),
        (
            "unsloth/Llama-3.2-1B-Instruct-unsloth-bnb-4bit",
            "meta-llama/Llama-3.2-1B-Instruct",
            "it was trained on the quantised 'unsloth/Llama-3.2-1B-Instruct-unsloth-bnb-4bit'",
        ),
        ("TheBloke/Llama-2-7B-GPTQ", "", "it was trained on the quantised 'TheBloke/Llama-2-7B-GPTQ'"),
        ("TheBloke/Llama-2-7B-GPTQ", "TheBloke/Llama-2-7B-GPTQ", ""),
        ("a/SmolLM2-135M", "package:smol/SmolLM2-135M.Q4_1.gguf", ""),
    ],
)
def test_base_models_are_compared_by_the_last_part_of_their_names(stated, base, warning):
    assert compare_bases({"base_model_name_or_path": stated}, base) == warning


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ("org/other", "it was trained on 'org/other'; the base model is 'org/base'"),
        ("/home/me/model", "it was trained on '/home/me/model'; the base model is 'org/base'"),
        ("", "it does not say on which base model it was trained; ours is 'org/base'"),
        (None, "it does not say on which base model it was trained; ours is 'org/base'"),
    ],
)
def test_strict_base_wants_the_base_to_be_named(stated, message):
    with pytest.raises(AdapterRefusedError, match=message):
        compare_bases({"base_model_name_or_path": stated}, "org/base", strict=True)


@pytest.mark.parametrize("base", ["org/base", "/models/Base.gguf", "package:smol/base.Q4_K_M.gguf"])
@pytest.mark.parametrize("stated", ["org/base", "else/Base", "/home/me/base", "org/base-bnb-4bit"])
def test_strict_base_takes_what_is_called_like_it(stated, base):
    compare_bases({"base_model_name_or_path": stated}, base, strict=True)
