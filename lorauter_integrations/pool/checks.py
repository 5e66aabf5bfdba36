"""Why an adapter must not be used: one small function a rule, cheapest first. Knows no torch.

Each rule takes what is known of the adapter and raises `AdapterRefusedError` with one reason.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from lorauter_integrations.errors import AdapterRefusedError, listing
from lorauter_integrations.pool.adapter import (
    WEIGHTS,
    Adapter,
    LowRankPart,
    by_pattern,
    content_hash,
    read_config,
    read_header,
    read_parts,
)

BaseShapes: TypeAlias = Mapping[str, tuple[int, int]]
"""Module of the base model -> (inputs, outputs) of its weight."""

Config: TypeAlias = Mapping[str, Any]

# Anything but these values changes what the adapter computes in a way that is not a sum of low-rank parts.
_PLAIN_VALUES: Mapping[str, Sequence[Any]] = {
    "use_dora": (False, None),
    "lora_bias": (False, None),
    "modules_to_save": (None, []),
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
}
_INIT_EDITS_BASE = ("pissa", "olora", "corda", "lora_ga")


def is_a_lora(config: Config) -> None:
    """It is a LoRA for text generation."""
    if "peft_type" not in config:
        raise AdapterRefusedError("the config has no peft_type; this is not a PEFT adapter")
    if config["peft_type"] != "LORA":
        raise AdapterRefusedError(f"peft_type is {config['peft_type']!r}, only 'LORA' can be mixed")
    if config.get("task_type") not in (None, "CAUSAL_LM"):
        raise AdapterRefusedError(f"task_type is {config['task_type']!r}, not 'CAUSAL_LM'")


def has_plain_numbers(config: Config) -> None:
    """Rank and alpha are numbers that make sense."""
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise AdapterRefusedError(f"r must be a whole number of at least 1, the config says {rank!r}")
    if not _is_number(alpha):
        raise AdapterRefusedError(f"lora_alpha must be a number, the config says {alpha!r}")


def has_plain_patterns(config: Config) -> None:
    """Ranks and alphas of single modules are numbers under readable patterns."""
    for key in ("rank_pattern", "alpha_pattern"):
        patterns = config.get(key) or {}
        if not isinstance(patterns, dict) or not all(map(_is_number, patterns.values())):
            raise AdapterRefusedError(f"{key} must give each pattern a number, the config says {patterns!r}")
        for pattern in patterns:
            try:
                by_pattern({pattern: 0}, "", 0)
            except re.error as error:
                raise AdapterRefusedError(f"{key}: {pattern!r} is not a pattern: {error}") from error


def _is_number(value: Any) -> bool:
    is_one = isinstance(value, int | float) and not isinstance(value, bool)
    return is_one and abs(value) <= sys.float_info.max


def is_a_plain_sum(config: Config) -> None:
    """It computes ``W x + scaling B A x`` and nothing else."""
    for key, allowed in _PLAIN_VALUES.items():
        if key in config and config[key] not in allowed:
            raise AdapterRefusedError(f"{key}={config[key]!r} is more than a low-rank sum and cannot be mixed")
    init = config.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(_INIT_EDITS_BASE):
        raise AdapterRefusedError(
            f"init_lora_weights={init!r} changes the base weights; convert it "
            "(PEFT: path_initial_model_for_weight_conversion)"
        )


def fits_the_base(parts: Mapping[str, LowRankPart], shapes: BaseShapes) -> None:
    """Every module it changes is in the base model, with the same shape."""
    if missing := [module for module in parts if module not in shapes]:
        known = {name.rpartition(".")[2] for name in shapes}
        raise AdapterRefusedError(
            f"{len(missing)} of its {len(parts)} modules are not in the base model, such as {missing[0]!r}; "
            f"the base has {listing(known)} in {len(shapes)} places"
        )
    for module, part in parts.items():
        if (part.inputs, part.outputs) != shapes[module]:
            raise AdapterRefusedError(
                f"{module} maps {part.inputs} to {part.outputs} numbers, "
                f"the base model's {shapes[module][0]} to {shapes[module][1]}"
            )


def is_finite(file: Path, header: Mapping[str, Any]) -> None:
    """No weight is NaN or infinite, and some B is not zero (else it would be the base model)."""
    data = np.memmap(file, dtype=np.uint8, mode="r")
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    effect = False
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        _has_its_bytes(name, entry)
        values = _as_floats(data[start + begin : start + end], entry["dtype"])
        if not np.isfinite(values).all():
            raise AdapterRefusedError(f"tensor {name!r} has NaN or infinite values")
        effect = effect or (".lora_B" in name and bool(values.any()))
    if not effect:
        raise AdapterRefusedError("every lora_B is zero; the adapter has no effect")


_STORED = {"BF16": "<u2", "F16": "<f2", "F32": "<f4", "F64": "<f8"}


def _has_its_bytes(name: str, entry: Mapping[str, Any]) -> None:
    if entry["dtype"] not in _STORED:
        raise AdapterRefusedError(
            f"tensor {name!r} has type {entry['dtype']}, not a floating point type that can be mixed"
        )
    begin, end = entry["data_offsets"]
    needed = math.prod(entry["shape"]) * np.dtype(_STORED[entry["dtype"]]).itemsize
    if end - begin != needed:
        raise AdapterRefusedError(f"tensor {name!r} has {end - begin} bytes, its shape needs {needed}")


def _as_floats(raw: Any, dtype: str) -> Any:
    values = np.frombuffer(raw.tobytes(), _STORED[dtype])
    # bfloat16 is the upper half of a float32.
    return (values.astype("<u4") << 16).view("<f4") if dtype == "BF16" else values


CONFIG_RULES: Sequence[Callable[[Config], None]] = (
    is_a_lora,
    has_plain_numbers,
    has_plain_patterns,
    is_a_plain_sum,
)


def check_adapter(folder: Path, name: str, shapes: BaseShapes) -> Adapter:
    """Read one adapter folder and apply every rule.

    Args:
        folder: holds `adapter_config.json` and `adapter_model.safetensors`.
        name: what the pool calls it.
        shapes: the base model's modules.

    Raises:
        AdapterRefusedError: the first rule it breaks.
    """
    config = {"lora_alpha": 8, **read_config(folder)}  # PEFT's default alpha
    for rule in CONFIG_RULES:
        rule(config)
    file = folder / WEIGHTS
    header = read_header(file)
    parts = read_parts(header, config)
    fits_the_base(parts, shapes)
    is_finite(file, header)
    base = str(config.get("base_model_name_or_path") or "")
    facts = file.stat()
    return Adapter(name, folder, base, content_hash(file, config), parts, facts.st_size, facts.st_mtime_ns)
