"""The head of a safetensors file: which tensors it holds and where. Reads no values, allocates little.

Format: https://huggingface.co/docs/safetensors (8 bytes of length, that many of JSON, then the data).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

from lorauter_integrations.errors import AdapterRefusedError
from lorauter_integrations.pool.files import LFS_POINTER
from lorauter_integrations.pool.wording import shown

Header: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Tensor name -> {"dtype": as safetensors calls it, "shape": list, ...}, in the order of the file's bytes."""

WIDTHS: Mapping[str, int] = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8}
"""Bytes of a number of each type that can be mixed."""

_HEADER_BYTES = 32 << 20  # room for 200,000 tensors; the file itself may claim any length


def read_header(file: Path) -> dict[str, Any]:
    """The tensors of a safetensors file: name -> {"dtype", "shape", "data_offsets"}.

    Raises:
        AdapterRefusedError: the file is empty, a Git LFS pointer, cut off, or something else; or its tensors do
            not fill it one after the other.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(8)
            length = int.from_bytes(start, "little")
            _has_a_header(file.name, start, length, size)
            header = json.loads(stream.read(length))
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterRefusedError(f"{file.name} cannot be read: {error}") from error
    tensors = _tensors(header, file.name)
    _fill_the_file(tensors, file.name, 8 + length, size)
    return tensors


def _has_a_header(file: str, start: bytes, length: int, size: int) -> None:
    if start == LFS_POINTER:
        raise AdapterRefusedError(f"{file} is a Git LFS pointer; the weights were not downloaded")
    if size < 8 or length > size - 8:
        raise AdapterRefusedError(f"{file} is cut off or not a safetensors file ({size} bytes)")
    if length > _HEADER_BYTES:
        raise AdapterRefusedError(f"{file} has a header of {length:,} bytes; {_HEADER_BYTES:,} are read at most")


def _tensors(header: Any, file: str) -> dict[str, Any]:
    if not isinstance(header, dict):
        raise AdapterRefusedError(f"the header of {file} is not a JSON object")
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    for name, entry in tensors.items():
        if not _is_entry(entry):
            raise AdapterRefusedError(f"{file} does not say what tensor {shown(name)} is")
        _has_its_bytes(name, entry)
    return dict(sorted(tensors.items(), key=lambda item: item[1]["data_offsets"]))


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        return False
    lists = [entry.get("shape"), entry.get("data_offsets")]
    numbers = all(isinstance(part, list) and all(type(x) is int and x >= 0 for x in part) for part in lists)
    return numbers and len(entry["data_offsets"]) == 2


def _has_its_bytes(name: str, entry: Mapping[str, Any]) -> None:
    if entry["dtype"] not in WIDTHS:
        raise AdapterRefusedError(
            f"tensor {shown(name)} has type {shown(entry['dtype'])}, not a floating point type that can be mixed"
        )
    begin, end = entry["data_offsets"]
    needed = math.prod(entry["shape"]) * WIDTHS[entry["dtype"]]
    if end - begin != needed:
        raise AdapterRefusedError(f"tensor {shown(name)} has {end - begin} bytes, its shape needs {needed}")


def _fill_the_file(tensors: Header, file: str, start: int, size: int) -> None:
    """Each tensor begins where the one before ends: none shares bytes with another, and no bytes are left over."""
    offsets = [(0, 0), *(tuple(entry["data_offsets"]) for entry in tensors.values())]
    if start + offsets[-1][1] != size:
        raise AdapterRefusedError(f"{file} should have {start + offsets[-1][1]} bytes and has {size}")
    for name, (before, after) in zip(tensors, pairwise(offsets), strict=True):
        if before[1] != after[0]:
            raise AdapterRefusedError(
                f"tensor {shown(name)} begins at byte {after[0]} of the data, the one before it ends at {before[1]}"
            )
