"""Shared parts of the tests: pico models and adapters made on disk once a run, a hand-written encoder, and
the real model with the demo's real adapters.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # torch on a shared CPU: see Makefile
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["ANONYMIZED_TELEMETRY"] = "False"

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lorauter_integrations import (
    AdapterPool,
    AdapterScore,
    Example,
    GenerationOptions,
    LocalEngine,
    LoRAuter,
    Ranking,
    TaskIndex,
)
from lorauter_integrations.cli import main
from lorauter_integrations.mixing import base_shapes
from lorauter_integrations.settings import Settings
from lorauter_integrations.task import Task, find_task_folders

DEMO = Path(__file__).parents[1] / "examples" / "demo"
CONFIG = DEMO / "lorauter.toml"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class WordEncoder:
    """Every word has a fixed random direction; a text is the sum of its words."""

    def __init__(self, name: str = "words", dimension: int = 64) -> None:
        self.name = name
        self.dimension = dimension
        self.calls = 0

    def encode(self, texts: Sequence[str]) -> Any:
        self.calls += 1
        vectors = np.stack(
            [sum(map(self._word, text.lower().split()), np.full(self.dimension, 1e-3)) for text in texts]
        )
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def _word(self, word: str) -> Any:
        seed = int.from_bytes(hashlib.sha256((self.name + word).encode()).digest()[:8], "little")
        return np.random.default_rng(seed).standard_normal(self.dimension)


@pytest.fixture
def encoder() -> WordEncoder:
    return WordEncoder()


@pytest.fixture
def index(tmp_path: Path, encoder: WordEncoder) -> Any:
    with TaskIndex.embedded(tmp_path / "index", encoder) as opened:
        yield opened


@pytest.fixture
def lorauter(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run one command in this process; returns (exit code, standard output, error output)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lorauter", *arguments])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def loop() -> Any:
    """A new event loop of this thread.

    LlamaIndex' blocking methods run their own coroutines on the thread's loop, or on one that nobody closes.
    """
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield loop
    asyncio.set_event_loop(None)
    loop.close()


def pico_tokenizer(template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """One token a byte, and the two special tokens of ChatML."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|im_end|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    tokenizer.chat_template = template
    return tokenizer


def pico_config(**changes: Any) -> LlamaConfig:
    facts = {
        "vocab_size": 258,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "eos_token_id": 256,
        "bos_token_id": 257,
        "tie_word_embeddings": True,
    }
    return LlamaConfig(**(facts | changes))


def pico_model(**changes: Any) -> LlamaForCausalLM:
    """A random Llama of two layers, float32; the same one every time."""
    torch.manual_seed(0)
    return LlamaForCausalLM(pico_config(**changes)).eval()


MakeAdapter = Callable[..., Path]


def make_adapter(folder: Path, *, seed: int = 0, model: Any = None, **config: Any) -> Path:
    """A PEFT adapter with random weights, written by PEFT itself."""
    facts = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
    peft_model = get_peft_model(model or pico_model(), LoraConfig(**(facts | config)))
    generator = torch.Generator().manual_seed(seed)
    for name, weight in peft_model.named_parameters():
        if "lora_" in name:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.3
    peft_model.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def pico_pool_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapters of mixed ranks, targets, alphas and scalings."""
    folder = tmp_path_factory.mktemp("pool")
    every = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    make_adapter(folder / "plain", seed=1)
    make_adapter(folder / "rslora", seed=2, r=6, lora_alpha=3, use_rslora=True)
    make_adapter(folder / "wide", seed=3, r=2, target_modules=every)
    make_adapter(
        folder / "ranks",
        seed=4,
        r=4,
        rank_pattern={"layers.0.self_attn.q_proj": 7},
        target_modules=["q_proj", "up_proj"],
    )
    make_adapter(folder / "alphas", seed=5, alpha_pattern={"v_proj": 2, "layers.1.self_attn.q_proj": 40})
    make_adapter(folder / "mlp", seed=6, r=3, target_modules=["down_proj"], layers_to_transform=[1])
    return folder


@pytest.fixture
def pico_pool(pico_pool_folder: Path) -> AdapterPool:
    return AdapterPool.from_folder(pico_pool_folder, base_shapes(pico_model()))


@pytest.fixture
def pico_engine(pico_pool: AdapterPool) -> LocalEngine:
    return LocalEngine(pico_model(), pico_tokenizer(), pico_pool, name="pico")


@pytest.fixture
def pico_lorauter(index: TaskIndex, pico_engine: LocalEngine) -> LoRAuter:
    """Two tasks told apart by their words, mapped to two adapters, on the pico model."""
    index.add(
        [
            Task("colours", "exact_match", [Example(f"name a colour like shade {i}", "red") for i in range(3)]),
            Task("sums", "exact_match", [Example(f"add the numbers {i} and {i}", str(2 * i)) for i in range(3)]),
        ]
    )
    for task, adapter in (("colours", "plain"), ("sums", "wide")):
        set_winner(index, task, adapter, pico_engine.adapters[adapter].content_hash)
    return LoRAuter(index, pico_engine, options=GenerationOptions(max_tokens=8))


def set_winner(index: TaskIndex, task: str, adapter: str, content_hash: str, base_model: str = "pico") -> None:
    """Map a task to an adapter by hand."""
    scores = (AdapterScore(adapter, content_hash, 1.0, 24), AdapterScore("", "", 0.0, 24))
    index.set_ranking(Ranking(task, index.get(task).content_hash, base_model, "by hand", scores, 0))


@pytest.fixture(scope="session")
def pico_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pico model as a folder that transformers loads."""
    folder = tmp_path_factory.mktemp("pico-model")
    pico_model().save_pretrained(folder)
    pico_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def real_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The demo's settings with an index and a ledger of their own; only committed adapters are in the pool."""
    state = tmp_path_factory.mktemp("real")
    pool = state / "pool"
    pool.mkdir()
    for adapter in sorted(DEMO.glob("pool/*/adapter_config.json")):
        (pool / adapter.parent.name).symlink_to(adapter.parent)
    overrides = {
        "index": {"path": str(state / "index")},
        "pool": {"path": str(pool)},
        "mapping": {"ledger": str(state / "ledger.jsonl")},
    }
    return Settings.read(CONFIG, overrides)


def real_overrides(settings: Settings) -> dict[str, dict[str, str]]:
    """What makes the demo's settings the tests' own."""
    return {
        "index": {"path": settings.index.path},
        "pool": {"path": settings.pool.path},
        "mapping": {"ledger": settings.mapping.ledger},
    }


@pytest.fixture(scope="session")
def real_lorauter(real_settings: Settings) -> LoRAuter:
    """SmolLM2-135M-Instruct, MiniLM and the demo's tasks and adapters, mapped as the demo's README table says."""
    lorauter = LoRAuter.from_config(CONFIG, real_overrides(real_settings))
    tasks = [Task.from_folder(folder) for folder in find_task_folders([DEMO / "tasks"])]
    lorauter.index.add(tasks)
    engine = lorauter.engine
    for task, adapter in WINNERS.items():
        set_winner(lorauter.index, task, adapter, engine.adapters[adapter].content_hash, engine.identity)
    return lorauter


WINNERS = {
    "data_to_text": "data_to_text",
    "entities": "ner_news",
    "function_calling": "function_calling",
    "passage_qa": "passage_qa",
    "sentiment": "sst2",
    "text_repair": "text_repair",
    "text_to_sql": "text_to_sql",
    "topic": "ag_news",
}
