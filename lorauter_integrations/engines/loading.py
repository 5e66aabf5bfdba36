"""Base models and tokenizers from a hub name, a folder or a GGUF file. Knows transformers only."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from lorauter_integrations.errors import MissingExtraError, ModelLoadError
from lorauter_integrations.mixing import base_shapes
from lorauter_integrations.pool import BaseShapes

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_LOAD_ERRORS = (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError, struct.error)


def load_model(name: str, *, dtype: str = "auto", device: str = "auto") -> tuple[Any, Any]:
    """A causal language model, ready to write, and its tokenizer.

    Args:
        name: hub name, folder, or `.gguf` file (its weights are unpacked).
        dtype: "bfloat16", "float16", "float32", or "auto" for the type the weights are stored in.
        device: a torch device, or "auto" for CUDA, else MPS, else the CPU.

    Raises:
        ModelLoadError: unknown dtype, or the weights cannot be loaded.
    """
    source = _source(name)
    extra = {"dtype": _dtype(dtype), **_unpacked(name)}
    try:
        model = AutoModelForCausalLM.from_pretrained(**source, **extra)
        tokenizer = AutoTokenizer.from_pretrained(**source)
        return model.to(pick_device(device)).eval(), tokenizer
    except _LOAD_ERRORS as error:
        raise _load_error(name, error) from error


def model_shapes(name: str) -> BaseShapes:
    """The modules of a base model that can carry a LoRA, from its config alone: no weights are read.

    Raises:
        ModelLoadError: the config cannot be loaded.
    """
    try:
        config = AutoConfig.from_pretrained(**_source(name))
        with torch.device("meta"):
            return base_shapes(AutoModelForCausalLM.from_config(config))
    except _LOAD_ERRORS as error:
        raise _load_error(name, error) from error


def pick_device(device: str) -> torch.device:
    """The torch device of a name; "auto" takes the fastest kind present.

    Raises:
        ModelLoadError: not a device.
    """
    if device != "auto":
        try:
            return torch.device(device)
        except RuntimeError as error:
            raise ModelLoadError(
                f"{device!r} is not a torch device: {error}", hint="try auto, cpu, cuda or mps"
            ) from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _dtype(name: str) -> Any:
    if name != "auto" and name not in _DTYPES:
        raise ModelLoadError(f"unknown dtype {name!r}", hint=f"use auto, {', '.join(_DTYPES)}")
    return _DTYPES.get(name, "auto")


def _source(name: str) -> dict[str, str]:
    if not name.endswith(".gguf"):
        return {"pretrained_model_name_or_path": name}
    try:
        import gguf  # noqa: F401  transformers' own message does not say which extra
    except ImportError as error:
        raise MissingExtraError(
            "reading a GGUF file needs the package gguf", hint="pip install 'lorauter-integrations[gguf]'"
        ) from error
    path = Path(name)
    if not path.is_file():
        raise ModelLoadError(f"there is no file {name}", hint="give the path of a .gguf file, a folder or a hub name")
    return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}


def _unpacked(name: str) -> dict[str, Any]:
    """transformers 5 keeps some GGUF layers packed unless told; older versions always unpack."""
    config = getattr(transformers, "GgufConfig", None)
    return {"quantization_config": config(dequantize=True)} if name.endswith(".gguf") and config else {}


def _load_error(name: str, error: Exception) -> ModelLoadError:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ModelLoadError(
        f"the base model {name!r} cannot be loaded: {first}",
        hint="give a hub name such as HuggingFaceTB/SmolLM2-135M-Instruct, a folder, or a .gguf file",
    )
