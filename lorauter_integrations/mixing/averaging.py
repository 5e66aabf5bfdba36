"""Adapters averaged factor by factor, as LoraRetriever's fusion does (arXiv 2402.09997). Knows files and tensors.

Averaging A and B apart is not averaging the adapters: ``mean(B) mean(A)`` has the cross terms ``B_i A_j``. The way is
here to be compared with; `write_fused` writes an exact mixture.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file

from lorauter_integrations.errors import OptionError, listing
from lorauter_integrations.pool import CONFIG, WEIGHTS, Adapter


def write_averaged(adapters: Sequence[Adapter], folder: str | Path) -> Path:
    """Write the average of some adapters' factors as a PEFT adapter.

    Args:
        adapters: at least one, alike in modules, ranks and scalings.
        folder: made if needed; an average that is there already stays.

    Raises:
        OptionError: they are not alike, or one can only be used alone.
    """
    folder = Path(folder)
    first = adapters[0]
    if any(one.alone or one.weights != WEIGHTS or dict(one.parts) != dict(first.parts) for one in adapters):
        raise OptionError(
            f"the adapters {listing(one.name for one in adapters)} cannot be averaged factor by factor",
            hint="they must have the same modules, ranks and scalings, in safetensors; a mixture needs none of that",
        )
    if (folder / WEIGHTS).exists():
        return folder
    tensors = [load_file(one.weights_file) for one in adapters]
    mean = {
        name: sum(one[name].float() for one in tensors).div(len(tensors)).to(tensor.dtype)
        for name, tensor in tensors[0].items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(first.folder / CONFIG, folder / CONFIG)
    beside = folder / f"{WEIGHTS}.tmp"
    save_file(mean, beside, metadata={"format": "pt"})
    beside.replace(folder / WEIGHTS)
    return folder
