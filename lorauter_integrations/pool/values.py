"""The numbers of an adapter's weights file, read once and in pieces: content hash, NaN, all zero. Knows no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lorauter_integrations.errors import AdapterRefusedError
from lorauter_integrations.pool.header import Header
from lorauter_integrations.pool.wording import shown

_PIECE = 1 << 20
# How a number is stored, and which of its bits are the exponent: all of them set means NaN or infinite.
_BITS: Mapping[str, tuple[str, int]] = {
    "BF16": ("<u2", 0x7F80),
    "F16": ("<u2", 0x7C00),
    "F32": ("<u4", 0x7F80_0000),
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
}
_ARITHMETIC = ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "fan_in_fan_out")


@dataclass(frozen=True, slots=True)
class Values:
    """What reading all numbers of a file has shown.

    Attributes:
        content_hash: of the file and of the settings that change the arithmetic.
        fault: why the adapter must not be used; empty if all numbers are finite.
        zero: the side of the LoRA whose factors are zero in every module, "lora_A" or "lora_B"; else empty.
    """

    content_hash: str
    fault: str = ""
    zero: str = ""


def arithmetic(config: Mapping[str, Any]) -> str:
    """The settings that change what the same tensors compute, as one text.

    DoRA and `modules_to_save` are not among them: with these tensors in the file only one value is accepted.
    """
    # Not sorted: where two patterns match a module, the first one counts.
    return json.dumps([({"lora_alpha": 8} | dict(config)).get(key) for key in _ARITHMETIC])


def read_values(file: Path, header: Header, settings: str) -> Values:
    """Read a safetensors file to its end, at most a MiB of it in memory.

    Args:
        file: was checked by `read_header`.
        header: its tensors in the order of their bytes.
        settings: see `arithmetic`.

    Raises:
        AdapterRefusedError: the file has become shorter.
    """
    digest, seen = hashlib.sha256(), Seen()
    with file.open("rb") as stream:
        start = stream.read(8)
        digest.update(start + stream.read(int.from_bytes(start, "little")))
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            seen.add(name, entry["dtype"], _hashed(stream, end - begin, digest))
    digest.update(settings.encode())
    return seen.values(digest.hexdigest()[:16])


def _hashed(stream: BinaryIO, size: int, digest: Any) -> Iterator[bytes]:
    while size:
        piece = stream.read(min(size, _PIECE))
        if not piece:
            raise AdapterRefusedError("the weights file became shorter while it was read")
        digest.update(piece)
        yield piece
        size -= len(piece)


class Seen:
    """What the tensors read so far have shown."""

    def __init__(self) -> None:
        self._fault = ""
        self._zero = {"lora_A", "lora_B"}

    def add(self, name: str, dtype: str, pieces: Iterable[Any]) -> None:
        """Look at a tensor.

        Args:
            name: in the file.
            dtype: a key of `WIDTHS`.
            pieces: its bytes; each piece holds whole numbers.
        """
        stored, exponent = _BITS[dtype]
        for piece in pieces:
            numbers = np.frombuffer(piece, stored)
            if not self._fault and ((numbers & exponent) == exponent).any():
                self._fault = f"tensor {shown(name)} has NaN or infinite values"
            # Shifting the sign out makes a zero of -0.0.
            self._zero = {side for side in self._zero if f".{side}." not in name or not (numbers << 1).any()}

    def values(self, content_hash: str) -> Values:
        """What was seen. The zero side is lora_B if both are."""
        return Values(content_hash, self._fault, max(self._zero, default=""))
