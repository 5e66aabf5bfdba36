"""One LoRA on disk, described: ranks, targets, scaling, base, content hash. Values only; reads nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLED = "adapter_model.bin"


@dataclass(frozen=True, slots=True)
class LowRankPart:
    """The LoRA of one module: ``scaling * B A``.

    Attributes:
        rank: number of rows of A.
        inputs: columns of A.
        outputs: rows of B.
        scaling: ``alpha / rank``, or ``alpha / sqrt(rank)`` for rsLoRA (Kalajdzievski, arXiv 2312.03732).
        tensors: names of A and B in the file.
        magnitude: name of the DoRA magnitude vector in the file (Liu et al., arXiv 2402.09353); empty without.
    """

    rank: int
    inputs: int
    outputs: int
    scaling: float
    tensors: tuple[str, str]
    magnitude: str = ""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA that may be used.

    Attributes:
        name: its folder's path within the pool, with `/`.
        folder: where it lies.
        base_model: the base it says it was trained on; may be empty.
        content_hash: of the weights file and of the settings that change the arithmetic.
        parts: module of the base model -> its LoRA; one mapping may be shared by many adapters.
        size: bytes of the weights file.
        changed: when the weights file was last written, in nanoseconds.
        alone: why it cannot be mixed with others, only used alone with weight 1; empty for one that mixes.
        warnings: what a person should know of it though it may be used.
        replaced: module of the base model -> tensor in the file that stands in for the module's own weight
            (PEFT's `modules_to_save`), of shape (outputs, inputs); only in adapters that are used alone.
        weights: name of the weights file in its folder.
    """

    name: str
    folder: Path
    base_model: str
    content_hash: str
    parts: Mapping[str, LowRankPart] = field(repr=False)
    size: int
    changed: int = field(default=0, repr=False)
    alone: str = ""
    warnings: tuple[str, ...] = field(default=(), repr=False)
    replaced: Mapping[str, str] = field(default_factory=dict, repr=False)
    weights: str = field(default=WEIGHTS, repr=False)

    @property
    def weights_file(self) -> Path:
        """The safetensors file; `adapter_model.bin` in a pool that allows pickles, see `pickled.load_pickled`."""
        return self.folder / self.weights

    @property
    def ranks(self) -> list[int]:
        """The different ranks of its modules, sorted."""
        return sorted({part.rank for part in self.parts.values()})

    @property
    def targets(self) -> list[str]:
        """The last names of its modules, such as q_proj, sorted."""
        return sorted({module.rpartition(".")[2] for module in self.parts})
