"""Adapters that can only be used alone: written by PEFT, and described from the file's own names."""

import json
import math

import torch
from peft import LoraConfig, get_peft_model

from lorauter_integrations import AdapterPool
from lorauter_integrations.pool import Adapter, LowRankPart
from lorauter_integrations.pool.header import read_header


def make_alone(folder, model, *, seed=0, **config):
    """A PEFT adapter whose every trained weight is random, magnitudes and whole modules too; biases stay."""
    facts = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
    peft_model = get_peft_model(model, LoraConfig(**(facts | config)))
    generator = torch.Generator().manual_seed(seed)
    for name, weight in peft_model.named_parameters():
        if weight.requires_grad and not name.endswith("bias"):
            size = 2.0 if "magnitude" in name else 0.3
            weight.data = (torch.randn(weight.shape, generator=generator) * size).to(weight.dtype)
    peft_model.save_pretrained(str(folder))
    return folder


def described(folder, name):
    """What the pool should know of such an adapter."""
    config = json.loads((folder / "adapter_config.json").read_text())
    file = folder / "adapter_model.safetensors"
    header = read_header(file)
    parts, replaced = {}, {}
    for key in header:
        module = key.removeprefix("base_model.model.")
        if module.endswith(".lora_A.weight"):
            module = module.removesuffix(".lora_A.weight")
            rank, inputs = header[key]["shape"]
            b, magnitude = (key.replace("lora_A.weight", end) for end in ("lora_B.weight", "lora_magnitude_vector"))
            scaling = config["lora_alpha"] / (math.sqrt(rank) if config["use_rslora"] else rank)
            parts[module] = LowRankPart(
                rank, inputs, header[b]["shape"][0], scaling, (key, b), magnitude if magnitude in header else ""
            )
        elif module.endswith(".weight") and "lora_" not in module:
            replaced[module.removesuffix(".weight")] = key
    alone = "it uses DoRA" if config["use_dora"] else "it has whole modules of its own" if replaced else ""
    facts = file.stat()
    return Adapter(
        name, folder, "", f"{name}'s hash", parts, facts.st_size, facts.st_mtime_ns, alone=alone, replaced=replaced
    )


def pool_of(folder):
    """Every adapter of a folder, described by hand."""
    return AdapterPool({place.name: described(place, place.name) for place in sorted(folder.iterdir())})
