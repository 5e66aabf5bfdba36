"""A large pool with noise, made from real adapters: what people find when they collect every adapter there is.

    python tests/benchmarks/wild_pool.py REAL_POOL FOLDER [--adapters 1500] [--seed 0]

The real adapters are copied; the rest are variants of them, of eight kinds: perturbed weakly and strongly, cut to a
lower rank, layers shuffled, half trained (a part of the layers, at part of the strength), mixtures of two, scaled far
too much, and plain noise. Same seed, same files; `kinds.json` beside them says what each is.
"""

from __future__ import annotations

import argparse
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


class Variant:
    """One adapter to be spoilt, with its luck.

    Attributes:
        tensors: name -> float32 values.
        config: its adapter_config.json.
        other: tensors of another real adapter, for mixtures.
        chance: the variant's own.
    """

    def __init__(self, tensors: Tensors, config: dict, other: Tensors, chance: random.Random) -> None:
        self.tensors, self.config, self.other, self.chance = tensors, config, other, chance
        self.generator = torch.Generator().manual_seed(chance.randrange(2**31))

    def noise(self, like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=self.generator) * like.std()

    def modules(self) -> list[str]:
        return sorted({name.partition(".lora_")[0] for name in self.tensors})

    def layers(self) -> list[int]:
        return sorted({int(LAYER.search(name)[1]) for name in self.tensors})


def perturbed(it: Variant, strength: tuple[float, float]) -> None:
    share = it.chance.uniform(*strength)
    it.tensors = {name: value + share * it.noise(value) for name, value in it.tensors.items()}


def truncated(it: Variant) -> None:
    """The best approximation of each B A of a lower rank, a little perturbed."""
    rank = it.chance.choice([1, 2, 3, 4])
    perturbed(it, (0.0, 0.1))
    for module in it.modules():
        a, b = (it.tensors[f"{module}.lora_{side}.weight"] for side in "AB")
        left, r_b = torch.linalg.qr(b)
        right, r_a = torch.linalg.qr(a.T)
        u, s, v = torch.linalg.svd(r_b @ r_a.T)
        it.tensors[f"{module}.lora_B.weight"] = left @ u[:, :rank] * s[:rank]
        it.tensors[f"{module}.lora_A.weight"] = v[:rank] @ right.T
    it.config["lora_alpha"] *= rank / it.config["r"]
    it.config["r"] = rank


def shuffled(it: Variant) -> None:
    layers = it.layers()
    order = dict(zip(layers, it.chance.sample(layers, len(layers)), strict=True))
    it.tensors = {
        LAYER.sub(lambda found: f"layers.{order[int(found[1])]}.", name): value for name, value in it.tensors.items()
    }


def half_trained(it: Variant) -> None:
    strength, share = it.chance.uniform(0.2, 0.6), it.chance.uniform(0.5, 1.0)
    kept = set(it.chance.sample(it.layers(), round(len(it.layers()) * share)))
    it.tensors = {name: value for name, value in it.tensors.items() if int(LAYER.search(name)[1]) in kept}
    for name, value in it.tensors.items():
        if ".lora_B." in name:
            it.tensors[name] = strength * value + 0.1 * it.noise(value)


def mixed(it: Variant) -> None:
    """Two adapters side by side, rank 16, with weights of one's choice."""
    weight = it.chance.uniform(0.2, 0.8)
    for name, value in it.tensors.items():
        other = it.other[name]
        is_b = ".lora_B." in name
        pair = [weight * value, (1 - weight) * other] if is_b else [value, other]
        it.tensors[name] = torch.cat(pair, dim=1 if is_b else 0)
    it.config["r"] *= 2
    it.config["lora_alpha"] *= 2


def overscaled(it: Variant) -> None:
    it.config["lora_alpha"] *= it.chance.uniform(3, 8)


def plain_noise(it: Variant) -> None:
    it.tensors = {name: it.noise(value) for name, value in it.tensors.items()}


KINDS: dict[str, Callable[[Variant], None]] = {
    "perturbed": lambda it: perturbed(it, (0.05, 0.3)),
    "noisy": lambda it: perturbed(it, (0.5, 1.5)),
    "truncated": truncated,
    "shuffled": shuffled,
    "half": half_trained,
    "mixed": mixed,
    "overscaled": overscaled,
    "noise": plain_noise,
}


def fill(real: Path, folder: Path, adapters: int, seed: int = 0) -> dict[str, dict[str, str]]:
    """Copy the real adapters and add variants until there are so many; name -> what it is."""
    sources = sorted(path.parent for path in real.glob(f"*/{CONFIG}"))
    weights = {path.name: {n: t.float() for n, t in load_file(path / WEIGHTS).items()} for path in sources}
    facts: dict[str, dict[str, str]] = {}
    for path in sources[:adapters]:
        shutil.copytree(path, folder / path.name, dirs_exist_ok=True, copy_function=shutil.copyfile)
        facts[path.name] = {"kind": "real", "source": path.name}
    for number in range(adapters - len(facts)):
        kind = list(KINDS)[number % len(KINDS)]
        source = sources[number // len(KINDS) % len(sources)]
        chance = random.Random(f"{seed}/{number}")
        other = chance.choice([path.name for path in sources if path != source])
        config = json.loads((source / CONFIG).read_text())
        it = Variant(dict(weights[source.name]), config, weights[other], chance)
        KINDS[kind](it)
        name = f"{kind}-{number:04d}"
        write(folder / name, it.tensors, it.config)
        facts[name] = {"kind": kind, "source": source.name} | ({"other": other} if kind == "mixed" else {})
    (folder / "kinds.json").write_text(json.dumps(facts, indent=1) + "\n")
    return facts


def write(folder: Path, tensors: Tensors, config: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.bfloat16().contiguous() for name, value in tensors.items()}, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("real", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--adapters", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    facts = fill(args.real, args.folder, args.adapters, args.seed)
    print(f"{len(facts)} adapters in {args.folder}")


if __name__ == "__main__":
    main()
