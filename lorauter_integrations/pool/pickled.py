"""Adapters saved as `adapter_model.bin`: the only code that opens a pickle, and only in pools that allow it.

torch's `weights_only` reader builds tensors and refuses everything else that a pickle can ask for.
"""

from __future__ import annotations

import hashlib
import pickle
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorauter_integrations.errors import AdapterRefusedError
from lorauter_integrations.pool.files import LFS_POINTER
from lorauter_integrations.pool.values import Seen, Values
from lorauter_integrations.pool.wording import shown

_DTYPES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32", torch.float64: "F64"}
_PIECE = 1 << 18
_LOAD_ERRORS = (OSError, RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError,
                AssertionError, ImportError, OverflowError, pickle.UnpicklingError, struct.error,
                zipfile.BadZipFile)  # fmt: skip


def load_pickled(file: Path) -> dict[str, Tensor]:
    """The tensors of a file that `torch.save` has written, on the CPU; their memory is the file's, mapped.

    Args:
        file: an `adapter_model.bin`.

    Raises:
        AdapterRefusedError: it is not such a file, asks for more than tensors, or unpacks to more than its size.
    """
    try:
        _is_stored_plainly(file)
        tensors = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except _LOAD_ERRORS as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise AdapterRefusedError(
            f"{file.name} is not a file of tensors: {type(error).__name__}: {reason}"
        ) from error
    if not isinstance(tensors, dict) or not all(map(_is_named_tensor, tensors.items())):
        raise AdapterRefusedError(f"{file.name} holds something else than named tensors")
    size = file.stat().st_size
    if sum(tensor.numel() * tensor.itemsize for tensor in tensors.values()) > size:
        raise AdapterRefusedError(f"the tensors of {file.name} are larger than the file ({size:,} bytes)")
    return dict(tensors)


def _is_stored_plainly(file: Path) -> None:
    """No part of the archive is compressed: torch writes none, and it could unpack to far more than its size."""
    with file.open("rb") as stream:
        if stream.read(len(LFS_POINTER)) == LFS_POINTER:
            raise AdapterRefusedError(f"{file.name} is a Git LFS pointer; the weights were not downloaded")
    with zipfile.ZipFile(file) as archive:
        if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
            raise AdapterRefusedError(f"{file.name} has compressed parts, which torch does not write")


def _is_named_tensor(item: tuple[Any, Any]) -> bool:
    name, value = item
    return isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided


def describe_pickled(file: Path) -> dict[str, Any]:
    """The tensors of a pickle as a safetensors header says it: name -> {"dtype", "shape"}.

    Raises:
        AdapterRefusedError: as `load_pickled`; or numbers of a type that cannot be mixed.
    """
    tensors = load_pickled(file)
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            raise AdapterRefusedError(
                f"tensor {shown(name)} has type {tensor.dtype}, not a floating point type that can be mixed"
            )
    return {name: {"dtype": _DTYPES[t.dtype], "shape": list(t.shape)} for name, t in tensors.items()}


def read_pickled_values(file: Path, settings: str) -> Values:
    """As `values.read_values`, for a pickle that `describe_pickled` has passed."""
    digest, seen = hashlib.sha256(), Seen()
    with file.open("rb") as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
    for name, tensor in load_pickled(file).items():
        seen.add(name, _DTYPES[tensor.dtype], _pieces(tensor))
    digest.update(settings.encode())
    return seen.values(digest.hexdigest()[:16])


def _pieces(tensor: Tensor) -> Iterator[Any]:
    for part in torch.split(tensor.detach().flatten(), _PIECE):
        yield part.contiguous().view(torch.uint8).numpy()
