"""One LoRA on disk, described: ranks, targets, scaling, base, content hash. Reads headers, no weights."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorauter_integrations.errors import AdapterRefusedError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_TENSOR = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight"
)  # PEFT's names; `.default` is left in by tools that save the live model


@dataclass(frozen=True, slots=True)
class LowRankPart:
    """The LoRA of one module: ``scaling * B A``.

    Attributes:
        rank: number of rows of A.
        inputs: columns of A.
        outputs: rows of B.
        scaling: ``alpha / rank``, or ``alpha / sqrt(rank)`` for rsLoRA (Kalajdzievski, arXiv 2312.03732).
        tensors: names of A and B in the file.
        magnitude: name of the DoRA magnitude vector in the file (Liu et al., arXiv 2402.09353); empty without.
    """

    rank: int
    inputs: int
    outputs: int
    scaling: float
    tensors: tuple[str, str]
    magnitude: str = ""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA that may be used.

    Attributes:
        name: its folder's path within the pool, with `/`.
        folder: where it lies.
        base_model: the base it says it was trained on; may be empty.
        content_hash: of the weights file and of the settings that change the arithmetic.
        parts: module of the base model -> its LoRA.
        size: bytes of the weights file.
        changed: when the weights file was last written, in nanoseconds.
        alone: why it cannot be mixed with others, only used alone with weight 1; empty for one that mixes.
        warnings: what a person should know of it though it may be used.
        replaced: module of the base model -> tensor in the file that stands in for the module's own weight
            (PEFT's `modules_to_save`); only in adapters that are used alone.
    """

    name: str
    folder: Path
    base_model: str
    content_hash: str
    parts: Mapping[str, LowRankPart] = field(repr=False)
    size: int
    changed: int = field(default=0, repr=False)
    alone: str = ""
    warnings: tuple[str, ...] = field(default=(), repr=False)
    replaced: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def weights_file(self) -> Path:
        """The safetensors file."""
        return self.folder / WEIGHTS

    @property
    def ranks(self) -> list[int]:
        """The different ranks of its modules, sorted."""
        return sorted({part.rank for part in self.parts.values()})

    @property
    def targets(self) -> list[str]:
        """The last names of its modules, such as q_proj, sorted."""
        return sorted({module.rpartition(".")[2] for module in self.parts})


def read_config(folder: Path) -> dict[str, Any]:
    """The adapter's `adapter_config.json`.

    Raises:
        AdapterRefusedError: it is missing or not a JSON object.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise AdapterRefusedError(f"no {CONFIG}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterRefusedError(f"{CONFIG} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise AdapterRefusedError(f"{CONFIG} is not a JSON object")
    return config


def read_parts(header: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, LowRankPart]:
    """Module -> LoRA, from the names and shapes in the weights file and the scaling of the config.

    Args:
        header: tensor name -> {"dtype", "shape", ...}, see `read_header`.
        config: the adapter's configuration.

    Raises:
        AdapterRefusedError: a tensor that is no LoRA factor, a factor without its partner, shapes that do
            not multiply, or a rank that the config contradicts.
    """
    factors: dict[str, dict[str, str]] = {}
    for name in header:
        match = _TENSOR.fullmatch(name)
        if not match:
            raise AdapterRefusedError(f"tensor {name!r} is not a LoRA factor; it would be left out")
        sides = factors.setdefault(match["module"], {})
        if match["side"] in sides:
            raise AdapterRefusedError(f"two tensors for lora_{match['side']} of {match['module']}")
        sides[match["side"]] = name
    if not factors:
        raise AdapterRefusedError(f"{WEIGHTS} holds no tensors")
    return {module: _part(module, sides, header, config) for module, sides in factors.items()}


def _part(module: str, sides: Mapping[str, str], header: Mapping[str, Any], config: Mapping[str, Any]) -> LowRankPart:
    if len(sides) < 2:
        raise AdapterRefusedError(f"{module} has only lora_{next(iter(sides))}, its partner is missing")
    a, b = header[sides["A"]]["shape"], header[sides["B"]]["shape"]
    if len(a) != 2 or len(b) != 2 or a[0] != b[1]:
        raise AdapterRefusedError(f"{module}: lora_A {a} and lora_B {b} do not multiply")
    stated = by_pattern(config.get("rank_pattern"), module, config["r"])
    if a[0] != stated or a[0] < 1:
        raise AdapterRefusedError(f"{module}: the file has rank {a[0]}, the config says {stated}")
    alpha = by_pattern(config.get("alpha_pattern"), module, config["lora_alpha"])
    scaling = alpha / math.sqrt(a[0]) if config.get("use_rslora") else alpha / a[0]
    return LowRankPart(a[0], a[1], b[0], scaling, (sides["A"], sides["B"]))


def by_pattern(patterns: Mapping[str, float] | None, module: str, default: float) -> float:
    """PEFT's rule for `rank_pattern` and `alpha_pattern`: the first pattern that matches the name's end."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def read_header(file: Path) -> dict[str, Any]:
    """The tensors of a safetensors file, without their values: name -> {"dtype", "shape", "data_offsets"}.

    Format: https://huggingface.co/docs/safetensors (8 bytes of length, JSON, then the data).

    Raises:
        AdapterRefusedError: the file is missing, empty, a Git LFS pointer, cut off, or something else.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(8)
            length = int.from_bytes(start, "little")
            if start.startswith(b"version "):
                raise AdapterRefusedError(f"{file.name} is a Git LFS pointer; the weights were not downloaded")
            if size < 8 or length > size - 8:
                raise AdapterRefusedError(f"{file.name} is cut off or not a safetensors file ({size} bytes)")
            header = json.loads(stream.read(length))
    except FileNotFoundError as error:
        raise AdapterRefusedError(_why_no_weights(file)) from error
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterRefusedError(f"{file.name} cannot be read: {error}") from error
    tensors = _tensors(header, file.name)
    end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
    if 8 + length + end != size:
        raise AdapterRefusedError(f"{file.name} should have {8 + length + end} bytes and has {size}")
    return tensors


def _tensors(header: Any, file: str) -> dict[str, Any]:
    if not isinstance(header, dict):
        raise AdapterRefusedError(f"the header of {file} is not a JSON object")
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    for name, entry in tensors.items():
        if not _is_entry(entry):
            raise AdapterRefusedError(f"{file} does not say what tensor {name!r} is")
    return tensors


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        return False
    lists = [entry.get("shape"), entry.get("data_offsets")]
    numbers = all(isinstance(part, list) and all(type(x) is int and x >= 0 for x in part) for part in lists)
    return numbers and len(entry["data_offsets"]) == 2


def _why_no_weights(file: Path) -> str:
    if file.with_suffix(".bin").exists():
        return f"only {file.stem}.bin (a pickle, which can run code); save it as {file.name}"
    return f"no {file.name}"


def content_hash(file: Path, config: Mapping[str, Any]) -> str:
    """Changes when the weights file or a setting that changes the arithmetic does."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    keys = ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "fan_in_fan_out")
    # Not sorted: where two patterns match a module, the first one counts.
    digest.update(json.dumps([config.get(key) for key in keys]).encode())
    return digest.hexdigest()[:16]
