"""Base models and tokenizers from a hub name, a folder or a GGUF file. Knows transformers only."""

from __future__ import annotations

import logging
import struct
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from lorauter_integrations.engines.decoding import takes
from lorauter_integrations.errors import ModelLoadError
from lorauter_integrations.extras import needs_extra
from lorauter_integrations.mixing import base_shapes
from lorauter_integrations.pool import BaseShapes

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
_QUANTIZATIONS = ("4bit", "8bit")
_LOAD_ERRORS = (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError, struct.error)


def load_model(
    name: str, *, dtype: str = "auto", device: str = "auto", device_map: str = "", quantization: str = ""
) -> tuple[Any, Any]:
    """A causal language model, ready to write, and its tokenizer.

    Args:
        name: hub name, folder, or `.gguf` file (its weights are unpacked).
        dtype: "bfloat16", "float16", "float32", or "auto" for the type the weights are stored in (with
            `quantization`: bfloat16).
        device: a torch device, or "auto" for CUDA, else MPS, else the CPU.
        device_map: how accelerate spreads the model over all devices: "auto", "balanced", "balanced_low_0" or
            "sequential"; empty for one device.
        quantization: "4bit" (NF4) or "8bit" (LLM.int8), by bitsandbytes while loading; empty leaves the weights
            as they are stored.

    Raises:
        ModelLoadError: an unknown value, values that exclude each other, or the weights cannot be loaded.
        MissingExtraError: a package that this way of loading needs is not installed.
    """
    _check(dtype, device, device_map, quantization)
    place = pick_device(device)
    options = {"dtype": _DTYPES.get(dtype, "auto")} | _unpacked(name)
    if quantization:
        options |= _quantised(name, quantization, _DTYPES.get(dtype, torch.bfloat16))
    if device_map or quantization or _is_quantised(name):
        # Quantised models go to their place while they are loaded: some kinds refuse to be moved later.
        with needs_extra("quantized", "accelerate"):
            import_module("accelerate")
        options["device_map"] = device_map or str(place)
        # bitsandbytes says at every layer of every step that LLM.int8 computes in float16.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    source = _source(name)
    try:
        model = AutoModelForCausalLM.from_pretrained(**source, **options)
        tokenizer = AutoTokenizer.from_pretrained(**source)
        return (model if "device_map" in options else model.to(place)), tokenizer
    except _LOAD_ERRORS as error:
        raise _load_error(name, error) from error


def model_shapes(name: str) -> BaseShapes:
    """The modules of a base model that can carry a LoRA, from its config alone: no weights are read.

    Raises:
        ModelLoadError: the config cannot be loaded.
    """
    config = _config(name)
    try:
        with torch.device("meta"):
            return base_shapes(AutoModelForCausalLM.from_config(config))
    except _LOAD_ERRORS as error:
        raise _load_error(name, error) from error


def pick_device(device: str) -> torch.device:
    """The torch device of a name; "auto" takes the fastest kind present.

    Raises:
        ModelLoadError: not a device, or not one that torch finds here.
    """
    found = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if device == "auto":
        return torch.device(next((kind for kind, count in found.items() if count), "cpu"))
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ModelLoadError(
            f"{device!r} is not a torch device: {error}", hint="try auto, cpu, cuda or mps"
        ) from error
    count = found.get(place.type)
    if count is not None and (place.index or 0) >= count:
        raise ModelLoadError(
            f"there is no device {device!r}: torch {torch.__version__} finds {count} {place.type} devices here",
            hint="use auto or cpu; NVIDIA GPUs need their driver and a CUDA build of torch (https://pytorch.org)",
        )
    return place


def _check(dtype: str, device: str, device_map: str, quantization: str) -> None:
    choices = {
        "dtype": (dtype, ("auto", *_DTYPES)),
        "device_map": (device_map, ("", *_DEVICE_MAPS)),
        "quantization": (quantization, ("", *_QUANTIZATIONS)),
    }
    for option, (value, known) in choices.items():
        if value not in known:
            raise ModelLoadError(f"unknown {option} {value!r}", hint=f"use {', '.join(filter(None, known))}")
    if device_map and device != "auto":
        raise ModelLoadError(
            f"device {device!r} and device_map {device_map!r} exclude each other", hint="leave device at auto"
        )


def _quantised(name: str, quantization: str, dtype: torch.dtype) -> dict[str, Any]:
    """What makes transformers quantise the weights while it reads them; the rest gets `dtype`."""
    if name.endswith(".gguf") or _is_quantised(name):
        raise ModelLoadError(
            f"quantization {quantization!r} cannot be used on {name!r}, which is quantised already",
            hint="leave quantization empty, or give the model's original weights",
        )
    with needs_extra("quantized", "bitsandbytes"):
        import_module("bitsandbytes")
    how = {"load_in_8bit": True} if quantization == "8bit" else {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    return {"dtype": dtype, "quantization_config": BitsAndBytesConfig(**how, bnb_4bit_compute_dtype=dtype)}


def _is_quantised(name: str) -> bool:
    """Whether the stored weights are quantised (GPTQ, AWQ, bitsandbytes ...); those of a GGUF file get unpacked."""
    if name.endswith(".gguf"):
        return False
    config = _config(name)
    return any(getattr(part, "quantization_config", None) for part in (config, config.get_text_config()))


def _config(name: str) -> Any:
    source = _source(name)
    try:
        return AutoConfig.from_pretrained(**source)
    except _LOAD_ERRORS as error:
        raise _load_error(name, error) from error


def _source(name: str) -> dict[str, str]:
    if not name.endswith(".gguf"):
        return {"pretrained_model_name_or_path": name}
    with needs_extra("gguf", "gguf"):
        import_module("gguf")  # transformers' own message does not say which extra
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


def require_causal(model: Any) -> None:
    """Refuse models whose answers the engine would write wrongly, before it writes any.

    Raises:
        ModelLoadError: it is an encoder-decoder, or takes no cache.
    """
    if getattr(model.config, "is_encoder_decoder", False):
        reason = "it is an encoder-decoder"
    elif not (takes(model, "cache") or takes(model, "past_key_values")):
        reason = "its forward takes neither cache nor past_key_values"
    else:
        return
    raise ModelLoadError(
        f"the model {type(model).__name__} cannot be served: {reason}",
        hint="use a causal language model of transformers, such as Llama, Qwen, Mistral or Gemma",
    )
