"""Kinds of adapters whose files or settings are broken or hostile; see wild.py."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from conftest import make_adapter, pico_model
from safetensors.torch import load_file
from wild import CONFIG, GONE, HEAD, PICKLED, Q0, WEIGHTS, Kind, edit_config, edit_tensors, plain, rename, spoil

ABSURD = 1 << 40


class Evil:
    """Unpickling it creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self.marker).touch, (self.marker,))


def marker_of(folder: Path) -> Path:
    """The file that opening a hostile adapter would create, beside the pool."""
    return folder.parents[1] / "touched"


def _no_weights(folder: Path) -> None:
    (plain(folder) / WEIGHTS).unlink()


def _text(name: str, text: str) -> Callable[[Path], Any]:
    return lambda folder: (plain(folder) / name).write_text(text)


def _pickled(folder: Path) -> None:
    torch.save(load_file(plain(folder) / WEIGHTS), folder / PICKLED)
    (folder / WEIGHTS).unlink()


def _hostile_pickle(folder: Path) -> None:
    _no_weights(folder)
    (folder / PICKLED).write_bytes(pickle.dumps(Evil(marker_of(folder))))


def _mlx(folder: Path) -> None:
    (folder / CONFIG).write_text(json.dumps({"fine_tune_type": "lora", "lora_parameters": {"rank": 4}}))
    (folder / "adapters.safetensors").write_bytes(b"")


def with_header(folder: Path, change: Callable[[dict[str, Any]], Any], length: int | None = None) -> None:
    """A plain adapter whose safetensors header was changed; its data stays."""
    raw = (plain(folder) / WEIGHTS).read_bytes()
    old = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + old])
    change(header)
    text = json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", length or len(text)) + text + raw[8 + old :])


def _overlap(header: dict[str, Any]) -> None:
    names = [name for name in header if name.endswith("lora_A.weight")]
    header[names[0]]["data_offsets"] = header[names[1]]["data_offsets"]


def _turned(header: dict[str, Any]) -> None:
    header[f"{Q0}.lora_A.weight"]["data_offsets"].reverse()


def _link_outside(folder: Path) -> None:
    _no_weights(folder)
    secret = folder.parents[1] / "secret"
    secret.write_text("root:x:0:0\n" * 9)
    (folder / WEIGHTS).symlink_to(secret)


def _pipe(folder: Path) -> None:
    _no_weights(folder)
    os.mkfifo(folder / WEIGHTS)


def _without(name: str) -> Callable[[Path], Any]:
    return lambda folder: edit_tensors(plain(folder), lambda tensors: {k: v for k, v in tensors.items() if k != name})


def _beside(name: str, tensor: torch.Tensor) -> Callable[[Path], Any]:
    return lambda folder: edit_tensors(plain(folder), lambda tensors: tensors | {name: tensor})


def _poisoned(value: float) -> Callable[[Path], Any]:
    def change(weight: torch.Tensor) -> torch.Tensor:
        weight[1, 2] = value
        return weight

    return lambda folder: spoil(plain(folder), f"{Q0}.lora_A.weight", change)


def _dora_without_one(folder: Path) -> None:
    make_adapter(folder, use_dora=True)
    edit_tensors(folder, lambda tensors: {k: v for k, v in tensors.items() if k != f"{Q0}.lora_magnitude_vector"})


FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no-config": (lambda folder: (plain(folder) / CONFIG).unlink(), "no adapter_config.json"),
    "broken-json": (_text(CONFIG, "{oops"), "adapter_config.json cannot be read"),
    "config-pointer": (_text(CONFIG, "version https://git-lfs.github.com/spec/v1\n"), "is a Git LFS pointer"),
    "no-weights": (_no_weights, "no adapter_model.safetensors"),
    "empty-file": (_text(WEIGHTS, ""), "cut off or not a safetensors file (0 bytes)"),
    "lfs-pointer": (_text(WEIGHTS, "version https://git-lfs.github.com/spec/v1\n"), "is a Git LFS pointer"),
    "cut-off": (lambda f: os.truncate(plain(f) / WEIGHTS, 2000), "bytes and has 2000"),
    "no-tensors": (lambda f: edit_tensors(plain(f), lambda tensors: {}), "holds no tensors"),
    "absurd-header": (lambda f: with_header(f, lambda header: None, ABSURD), "cut off or not a safetensors file"),
    "tensors-overlap": (lambda f: with_header(f, _overlap), "begins at byte"),
    "offsets-reversed": (lambda f: with_header(f, _turned), "has -512 bytes, its shape needs 512"),
    "pickled": (_pickled, "only adapter_model.bin (a pickle, which can run code)"),
    "pickle-hostile": (_hostile_pickle, "only adapter_model.bin (a pickle, which can run code)"),
    "mlx": (_mlx, "an adapter in MLX format"),
    "whole-model": (lambda folder: pico_model().save_pretrained(folder), "a whole model, not an adapter"),
    "gguf": (lambda folder: (folder / "lora.gguf").write_bytes(b"GGUF"), "a GGUF adapter"),
    "link-outside": (_link_outside, "a link to a file outside the pool"),
    "pipe": (_pipe, "adapter_model.safetensors is not an ordinary file"),
    "two-for-one": (_beside(f"{Q0}.lora_A.default.weight", torch.ones(4, 32)), "two tensors mean the same"),
    "partner-missing": (_without(f"{Q0}.lora_B.weight"), "has only lora_A, its partner is missing"),
    "extra-tensor": (_beside(f"{Q0}.lora_C.weight", torch.ones(2)), "is not a LoRA factor; it would be left out"),
    "own-head": (_beside(f"{HEAD}.weight", torch.ones(258, 32)), "a full weight that modules_to_save does not name"),
    "unknown-prefix": (lambda f: rename(plain(f), "base_model.", "other."), "are not in the base model, such as"),
    "nan": (_poisoned(float("nan")), "q_proj.lora_A.weight' has NaN or infinite values"),
    "infinite": (_poisoned(float("inf")), "q_proj.lora_A.weight' has NaN or infinite values"),
    "integers": (lambda f: spoil(plain(f), f"{Q0}.lora_A.weight", torch.Tensor.int), "has type 'I32', not a"),
    "dora-half": (_dora_without_one, "the file has no magnitude vector for 'model.layers.0.self_attn.q_proj'"),
    "dora-unsaid": (lambda f: edit_config(make_adapter(f, use_dora=True), use_dora=False), "does not say use_dora"),
}  # fmt: skip
SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "no-peft-type": ({"peft_type": GONE}, "no peft_type; this is not a PEFT adapter"),
    "unknown-peft-type": ({"peft_type": "FOO"}, "peft_type is 'FOO', only 'LORA'"),
    "rank-zero": ({"r": 0}, "r must be a whole number of at least 1, the config says 0"),
    "rank-is-text": ({"r": "4"}, "the config says '4'"),
    "rank-disagrees": ({"r": 5}, "the file has rank 4, the config says 5"),
    "alpha-zero": ({"lora_alpha": 0}, "every lora_alpha is zero"),
    "unknown-setting": ({"new_trick": 3}, "the config has the unknown setting 'new_trick' = 3"),
    "unknown-start": ({"init_lora_weights": "milora"}, "init_lora_weights='milora' is unknown"),
    "flag-is-text": ({"use_rslora": "false"}, "use_rslora must be true or false"),
    "slow-pattern": ({"alpha_pattern": {"(q.*)*x": 2}}, "matching it could take for ever"),
    "dora-without": ({"use_dora": True}, "the config says use_dora, the file has no magnitude vector"),
    "head-not-saved": ({"modules_to_save": ["lm_head"]}, "modules_to_save names 'lm_head', the file has no weight"),
    "experts": ({"target_parameters": ["mlp.experts.up"]}, "target_parameters=['mlp.experts.up'] is more than"),
    "arrow": ({"arrow_config": {"top_k": 3}}, "arrow_config={'top_k': 3} is more than"),
    "kasa": ({"kasa_config": {}}, "kasa_config={} is more than"),
}  # fmt: skip


def kinds() -> dict[str, Kind]:
    """All of them, refused, by name."""
    made = {name: Kind(name, make, "refused", words, False) for name, (make, words) in FILES.items()}
    for name, (changes, words) in SETTINGS.items():
        made[name] = Kind(name, _changed(changes), "refused", words, False)
    return made


def _changed(changes: dict[str, Any]) -> Callable[[Path], Any]:
    return lambda folder: edit_config(plain(folder), **changes)
