"""Why an adapter's configuration rules it out: one small function a rule, cheapest first. Reads no weights.

Each rule takes the configuration, raises `AdapterRefusedError` with one reason, or returns a warning; most return
none, the empty text. What is not in `_KNOWN` is unknown, and refused unless it is empty.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from lorauter_integrations.errors import AdapterRefusedError, listing
from lorauter_integrations.pool.wording import shown

Config: TypeAlias = Mapping[str, Any]
Rule: TypeAlias = Callable[[Config], str]

# Anything but these values changes what the adapter computes in a way that is not a sum of low-rank parts.
_PLAIN_VALUES: Mapping[str, Sequence[Any]] = {
    "lora_bias": (False, None),
    "layer_replication": (None, []),
    "trainable_token_indices": (None, [], {}),
    "target_parameters": (None, []),
    "alora_invocation_tokens": (None, []),
    "use_qalora": (False, None),
    "use_bdlora": (False, None),
    "arrow_config": (None,),
    "kasa_config": (None,),
    "monteclora_config": (None,),
    "velora_config": (None,),
    "enable_lora": (None, []),  # PEFT 0.1: some thirds of a fused projection only
}
# Have a rule of their own, here or on the tensors.
_RULED = (
    "peft_type", "task_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "bias",
    "modules_to_save", "init_lora_weights", "base_model_name_or_path", "ensure_weight_tying", "target_modules",
)  # fmt: skip
# Say how it was trained, or where it acts, which the tensors' names say too; written by PEFT 0.1 to 0.21, unsloth
# and ms-swift. `megatron_core` names a module that PEFT would import; nothing here does.
_HARMLESS = (
    "auto_mapping", "peft_version", "revision", "inference_mode", "exclude_modules", "layers_to_transform",
    "layers_pattern", "lora_dropout", "fan_in_fan_out", "megatron_config", "megatron_core", "loftq_config",
    "eva_config", "corda_config", "lora_ga_config", "qalora_group_size", "runtime_config", "merge_weights",
    "base_model_class", "parent_library", "unsloth_fixed", "unsloth_version", "lora_dtype", "lorap_lr_ratio",
    "lorap_emb_lr", "transformers_version", "torch_dtype", "library_name",
)  # fmt: skip
_KNOWN = frozenset([*_PLAIN_VALUES, *_RULED, *_HARMLESS])

_INIT_EDITS_BASE = ("pissa", "olora", "corda", "lora_ga")
_INIT_PLAIN = ("true", "false", "gaussian", "eva", "orthogonal", "mica")
_QUANTISED = re.compile(r"[-_.](unsloth-)?(bnb-?)?(4bit|8bit|int4|int8|nf4|gptq|awq|i?q[1-8]_\w+)\b.*")
# What a hostile pattern could make matching cost: each group or repetition multiplies the ways to match a name.
_PATTERNS, _INVOLVED_PATTERNS, _PATTERN_LENGTH, _PATTERN_MARKS = 20_000, 64, 200, 5


def is_a_lora(config: Config) -> str:
    """It is a LoRA for text generation."""
    if "peft_type" not in config:
        if "fine_tune_type" in config or "lora_parameters" in config:
            raise AdapterRefusedError("an adapter in MLX format, not PEFT's")
        raise AdapterRefusedError("the config has no peft_type; this is not a PEFT adapter")
    if config["peft_type"] != "LORA":
        raise AdapterRefusedError(f"peft_type is {shown(config['peft_type'])}, only 'LORA' can be mixed")
    if config.get("task_type") not in (None, "CAUSAL_LM"):
        raise AdapterRefusedError(f"task_type is {shown(config['task_type'])}, not 'CAUSAL_LM'")
    return ""


def has_plain_rank(config: Config) -> str:
    """The rank is a whole number; one left out is read from the tensors."""
    rank = config.get("r")
    if rank is None:
        return "r is missing; the ranks are the tensors'"
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise AdapterRefusedError(f"r must be a whole number of at least 1, the config says {shown(rank)}")
    return ""


def has_plain_alpha(config: Config) -> str:
    """Alpha is a number; one left out is PEFT's 8."""
    if "lora_alpha" not in config:
        return "lora_alpha is missing; it is taken to be 8, as PEFT does"
    if not _is_number(config["lora_alpha"]):
        raise AdapterRefusedError(f"lora_alpha must be a number, the config says {shown(config['lora_alpha'])}")
    return ""


def has_plain_patterns(config: Config) -> str:
    """Ranks and alphas of single modules are numbers under readable patterns."""
    for key in ("rank_pattern", "alpha_pattern"):
        patterns = config.get(key) or {}
        if not isinstance(patterns, dict) or not all(map(_is_number, patterns.values())):
            raise AdapterRefusedError(f"{key} must give each pattern a number, the config says {shown(patterns)}")
        involved = [pattern for pattern in patterns if _marks(key, pattern)]
        if len(patterns) > _PATTERNS or len(involved) > _INVOLVED_PATTERNS:
            raise AdapterRefusedError(f"{key} has so many patterns that matching them could take for ever")
    return ""


def _marks(key: str, pattern: str) -> int:
    """How many groups and repetitions a pattern has."""
    try:
        re.compile(f"({pattern})$")
    except (re.error, OverflowError, RecursionError) as error:
        raise AdapterRefusedError(f"{key}: {shown(pattern)} is not a pattern: {error}") from error
    marks = len(re.findall(r"[*+{(]|(?<!\()\?", pattern))
    if len(pattern) > _PATTERN_LENGTH or marks > _PATTERN_MARKS or re.search(r"\)[*+{]", pattern):
        raise AdapterRefusedError(f"{key}: {shown(pattern)} is so involved that matching it could take for ever")
    return marks


def has_plain_flags(config: Config) -> str:
    """What is on or off says so; a text such as "false" would count as on."""
    for key in ("use_rslora", "use_dora", "ensure_weight_tying"):
        if config.get(key) not in (True, False, None):
            raise AdapterRefusedError(f"{key} must be true or false, the config says {shown(config[key])}")
    saved = config.get("modules_to_save") or []
    if not isinstance(saved, list) or not all(isinstance(name, str) and name for name in saved):
        raise AdapterRefusedError(f"modules_to_save must be a list of names, the config says {shown(saved)}")
    return ""


def is_a_plain_sum(config: Config) -> str:
    """It computes ``W x + scaling B A x``, or what can be used alone, and nothing else."""
    for key, allowed in _PLAIN_VALUES.items():
        if key in config and config[key] not in allowed:
            raise AdapterRefusedError(f"{key}={shown(config[key])} is more than a low-rank sum and cannot be mixed")
    return ""


def starts_beside_the_base(config: Config) -> str:
    """Its training did not begin by changing the base weights, which it is relative to."""
    init = str(config.get("init_lora_weights", True)).lower()
    if init.startswith(_INIT_EDITS_BASE):
        raise AdapterRefusedError(
            f"init_lora_weights={shown(init)} changes the base weights; convert it "
            "(PEFT: path_initial_model_for_weight_conversion)"
        )
    if init == "loftq":
        return "init_lora_weights='loftq': its weights are relative to the quantised base it was trained on"
    if init not in (*_INIT_PLAIN, "none"):
        raise AdapterRefusedError(f"init_lora_weights={shown(init)} is unknown and may change the base weights")
    return ""


def has_known_keys(config: Config) -> str:
    """Every setting is known, or empty: an unknown one may change the arithmetic."""
    unknown = {key: value for key, value in config.items() if key not in _KNOWN}
    for key, value in unknown.items():
        if value not in (None, "", [], {}) and value is not False:
            raise AdapterRefusedError(
                f"the config has the unknown setting {shown(key)} = {shown(value)}; it may change the arithmetic"
            )
    return f"unknown settings that are empty: {listing(key[:80] for key in unknown)}" if unknown else ""


CONFIG_RULES: Sequence[Rule] = (
    is_a_lora,
    has_plain_rank,
    has_plain_alpha,
    has_plain_patterns,
    has_plain_flags,
    is_a_plain_sum,
    starts_beside_the_base,
    has_known_keys,
)


def compare_bases(config: Config, base: str, *, strict: bool = False) -> str:
    """A warning where the base model it was trained on has another name than ours, or is quantised.

    The last parts of the names are compared, in lower case and without the marks of quantised copies. A local path
    says nothing of what lies there.

    Args:
        config: the adapter's.
        base: our base model's name; empty if it is not known.
        strict: refuse an adapter that does not name our base model, be it by a path.

    Raises:
        AdapterRefusedError: with `strict` only.
    """
    stated = str(config.get("base_model_name_or_path") or "")
    if base and _plain_name(stated) != _plain_name(base):
        if strict and not stated:
            raise AdapterRefusedError(f"it does not say on which base model it was trained; ours is {shown(base)}")
        if strict:
            raise AdapterRefusedError(f"it was trained on {shown(stated)}; the base model is {shown(base)}")
        if not _is_path(stated) and not _is_path(base):
            return f"it was trained on {shown(stated)}; the base model is {shown(base)}"
    if _last_part(stated) not in (_plain_name(stated), _last_part(base)):
        return f"it was trained on the quantised {shown(stated)}"
    return ""


def _last_part(name: str) -> str:
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1].lower().removesuffix(".gguf")


def _plain_name(name: str) -> str:
    return _QUANTISED.sub("", _last_part(name))


def _is_path(name: str) -> bool:
    """Not a name of the Hub, which is a word or two words with a slash between."""
    return not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name)


def _is_number(value: Any) -> bool:
    is_one = isinstance(value, int | float) and not isinstance(value, bool)
    return is_one and abs(value) <= sys.float_info.max
