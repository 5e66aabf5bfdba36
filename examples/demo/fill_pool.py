"""Fill the demo's pool up to 48 usable adapters with distractors, and add broken ones the check must refuse.

The distractors are made from the real adapters: pure noise of the same size, layers in a shuffled order, a
scaling eight times too large, and near-copies at half strength. Same seed, same files.

    python fill_pool.py [POOL] [--contestants 48]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LAYER = re.compile(r"layers\.(\d+)\.")


def noise(tensors: Tensors, config: dict, chance: random.Random) -> None:
    generator = torch.Generator().manual_seed(chance.randrange(2**31))
    for name, value in tensors.items():
        spread = value.float().std()
        tensors[name] = (torch.randn(value.shape, generator=generator) * spread).to(value.dtype)


def shuffled_layers(tensors: Tensors, config: dict, chance: random.Random) -> None:
    layers = sorted({int(LAYER.search(name)[1]) for name in tensors})
    order = dict(zip(layers, chance.sample(layers, len(layers)), strict=True))
    before = dict(tensors)
    for name, value in before.items():
        tensors[LAYER.sub(lambda found: f"layers.{order[int(found[1])]}.", name)] = value


def wrong_scaling(tensors: Tensors, config: dict, chance: random.Random) -> None:
    config["lora_alpha"] *= 8


def half_strength(tensors: Tensors, config: dict, chance: random.Random) -> None:
    generator = torch.Generator().manual_seed(chance.randrange(2**31))
    for name, value in tensors.items():
        if ".lora_B." in name:
            jitter = torch.randn(value.shape, generator=generator) * value.float().std() * 0.1
            tensors[name] = (value.float() * 0.5 + jitter).to(value.dtype)


KINDS: dict[str, Callable[[Tensors, dict, random.Random], None]] = {
    "noise": noise,
    "shuffled": shuffled_layers,
    "overscaled": wrong_scaling,
    "half": half_strength,
}


def nan_weights(folder: Path, tensors: Tensors, config: dict) -> None:
    tensors[next(iter(tensors))][0, 0] = float("nan")
    write(folder, tensors, config)


def half_the_tensors(folder: Path, tensors: Tensors, config: dict) -> None:
    write(folder, {name: value for name, value in tensors.items() if "lora_A" in name}, config)


def another_base(folder: Path, tensors: Tensors, config: dict) -> None:
    wide = {n: torch.zeros(v.shape[0], 4096) if "lora_A" in n else v for n, v in tensors.items()}
    write(folder, wide, config | {"base_model_name_or_path": "meta-llama/Llama-2-7b-hf"})


def lfs_pointer(folder: Path, tensors: Tensors, config: dict) -> None:
    write(folder, tensors, config)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 937176\n"
    (folder / WEIGHTS).write_text(pointer)


def cut_off(folder: Path, tensors: Tensors, config: dict) -> None:
    write(folder, tensors, config)
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])


def dora(folder: Path, tensors: Tensors, config: dict) -> None:
    write(folder, tensors, config | {"use_dora": True})


def broken_json(folder: Path, tensors: Tensors, config: dict) -> None:
    write(folder, tensors, config)
    (folder / CONFIG).write_text('{"peft_type": "LORA", "r": 8,')


BROKEN = {
    "broken-another-base": another_base,
    "broken-cut-off": cut_off,
    "broken-dora": dora,
    "broken-half-the-tensors": half_the_tensors,
    "broken-json": broken_json,
    "broken-lfs-pointer": lfs_pointer,
    "broken-nan": nan_weights,
}


def read(folder: Path) -> tuple[Tensors, dict]:
    return load_file(folder / WEIGHTS), json.loads((folder / CONFIG).read_text())


def write(folder: Path, tensors: Tensors, config: dict) -> None:
    folder.mkdir(parents=True)
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(config, indent=1))


def fill(pool: Path, contestants: int, seed: int = 0) -> tuple[int, int]:
    """Make the distractors and the broken adapters anew; returns how many of each."""
    generated = pool / "generated"
    real = sorted(file.parent for file in pool.glob(f"*/{CONFIG}"))
    wanted = {f"{kind}-{number:02d}" for number in range(100) for kind in KINDS}
    names = sorted(wanted, key=lambda name: (name.rpartition("-")[2], name))[: max(0, contestants - len(real))]
    made_from = hashlib.sha256(b"".join((folder / WEIGHTS).read_bytes() for folder in real)).hexdigest()
    stamp = generated / "made_from"
    if stamp.is_file() and stamp.read_text() == f"{made_from} {seed}":
        return len(names), len(BROKEN)
    fresh = pool.parent / "generated.tmp"  # renamed when complete, so that an interrupted run leaves no half pool
    for folder in (fresh, generated):
        shutil.rmtree(folder, ignore_errors=True)
    chance = random.Random(seed)
    for number, name in enumerate(names):
        tensors, config = read(real[number % len(real)])
        KINDS[name.partition("-")[0]](tensors, config, chance)
        write(fresh / name, tensors, config)
    for name, make in BROKEN.items():
        make(fresh / name, *read(chance.choice(real)))
    (fresh / "made_from").write_text(f"{made_from} {seed}")
    fresh.rename(generated)
    return len(names), len(BROKEN)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", type=Path, nargs="?", default=Path(__file__).parent / "pool")
    parser.add_argument("--contestants", type=int, default=48)
    args = parser.parse_args()
    made, broken = fill(args.pool, args.contestants)
    print(f"{made} distractors and {broken} broken adapters in {args.pool / 'generated'}")


if __name__ == "__main__":
    main()
