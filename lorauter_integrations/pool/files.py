"""What an adapter's folder holds, and which of its files may be opened. Knows nothing of weights."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Any

from lorauter_integrations.errors import AdapterRefusedError
from lorauter_integrations.pool.adapter import CONFIG, PICKLED, WEIGHTS

_OF_ADAPTERS = frozenset({CONFIG, WEIGHTS, PICKLED})
_OTHER_FORMATS = {
    "adapters.safetensors": "an adapter in MLX format, not PEFT's",
    "adapters.npz": "an adapter in MLX format, not PEFT's",
    "pytorch_lora_weights.safetensors": "a diffusers LoRA, not PEFT's",
    "model.safetensors": "a whole model, not an adapter",
    "model.safetensors.index.json": "a whole model, not an adapter",
    "pytorch_model.bin": "a whole model, not an adapter",
    "pytorch_model.bin.index.json": "a whole model, not an adapter",
}
_CONFIG_BYTES = 8 << 20
LFS_POINTER = b"version "


def is_adapter_folder(files: Collection[str]) -> bool:
    """Whether a folder with these files is an adapter, or something that people take for one."""
    return not _OF_ADAPTERS.isdisjoint(files) or bool(_other_format(files))


def _other_format(files: Collection[str]) -> str:
    known = next((reason for file, reason in _OTHER_FORMATS.items() if file in files), "")
    return known or ("a GGUF adapter, not PEFT's" if any(file.endswith(".gguf") for file in files) else "")


def openable(folder: Path, name: str, pool: Path | None = None) -> Path:
    """A file of an adapter's folder, once it is sure that it may be opened.

    A link is followed inside the pool, inside the folder's real place, and from a snapshot of the Hugging Face
    cache to its blobs; any other one could make a download read what is not its own.

    Args:
        folder: the adapter's.
        name: of the file.
        pool: the folder of adapters; without one, the adapter stands alone.

    Raises:
        FileNotFoundError: there is none.
        AdapterRefusedError: a link to elsewhere, or not an ordinary file (a device, a pipe).
    """
    file = folder / name
    if not stat.S_ISREG(file.stat().st_mode):
        raise AdapterRefusedError(f"{name} is not an ordinary file")
    if file.is_symlink():
        target = Path(os.path.realpath(file))
        if not any(target.is_relative_to(place) for place in _own_places(folder, pool)):
            raise AdapterRefusedError(
                f"{name} is a link to a file outside the pool; copy the file, or link the whole folder"
            )
    return file


def _own_places(folder: Path, pool: Path | None) -> list[Path]:
    here = Path(os.path.realpath(folder))
    blobs = [above.parent / "blobs" for above in here.parents if above.name == "snapshots"]
    return [here, *blobs, *([Path(os.path.realpath(pool))] if pool else [])]


def read_config(folder: Path, pool: Path | None = None) -> dict[str, Any]:
    """The adapter's `adapter_config.json`; the arguments are those of `openable`.

    Raises:
        AdapterRefusedError: it is missing, must not be opened, or is not a JSON object.
    """
    try:
        with openable(folder, CONFIG, pool).open("rb") as stream:
            raw = stream.read(_CONFIG_BYTES + 1)
        if len(raw) > _CONFIG_BYTES:
            raise AdapterRefusedError(f"{CONFIG} is larger than {_CONFIG_BYTES:,} bytes")
        if raw.startswith(LFS_POINTER):
            raise AdapterRefusedError(f"{CONFIG} is a Git LFS pointer; the file was not downloaded")
        config = json.loads(raw.decode())
    except FileNotFoundError as error:
        raise AdapterRefusedError(_other_format(_names(folder)) or f"no {CONFIG}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterRefusedError(f"{CONFIG} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise AdapterRefusedError(f"{CONFIG} is not a JSON object")
    return config


def find_weights(folder: Path, pool: Path | None = None, *, allow_bin: bool = False) -> Path:
    """The adapter's weights file, safetensors if there is one; the arguments are those of `openable`.

    Args:
        folder: the adapter's.
        pool: the folder of adapters.
        allow_bin: a pickle will do.

    Raises:
        AdapterRefusedError: there is none that may be opened.
    """
    for name in (WEIGHTS, PICKLED) if allow_bin else (WEIGHTS,):
        try:
            return openable(folder, name, pool)
        except FileNotFoundError:
            continue
    files = _names(folder)
    if PICKLED in files:
        raise AdapterRefusedError(
            f"only {PICKLED} (a pickle, which can run code); save it as {WEIGHTS}, or set allow_bin (--allow-bin)"
        )
    raise AdapterRefusedError(_other_format(files) or f"no {WEIGHTS}")


def _names(folder: Path) -> list[str]:
    return [file.name for file in folder.glob("*")]
