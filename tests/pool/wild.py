"""A pool as people collect one: good adapters beside every kind of odd and broken one that WILD has met.

    python tests/pool/wild.py FOLDER

Made for the pico Llama of tests/conftest.py, most by PEFT itself. Each kind is a function that writes one adapter
folder; its decorator says how the check must end, with a part of the reason. Broken files are in wild_files.py.
"""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # for conftest, when this is run as a script

from conftest import make_adapter, pico_config, pico_model
from peft import IA3Config, LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForSequenceClassification

CONFIG, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
Q0 = "base_model.model.model.layers.0.self_attn.q_proj"
HEAD = "base_model.model.lm_head"
BASE = "org/pico-Llama"


@dataclass(frozen=True)
class Kind:
    """One kind of adapter.

    Attributes:
        name: of its folder.
        make: writes the folder.
        end: "accepted", "warning", "alone" or "refused".
        words: a part of the warning or reason.
        like_plain: it computes what the plain adapter does, though PEFT itself may not read it so.
    """

    name: str
    make: Callable[[Path], Any]
    end: str
    words: str
    like_plain: bool


KINDS: dict[str, Kind] = {}


def kind(end: str, words: str = "", *, like_plain: bool = False) -> Callable[[Callable[[Path], Any]], Any]:
    """Name a function a kind; its own name, with dashes, is the folder's."""

    def register(make: Callable[[Path], Any]) -> Callable[[Path], Any]:
        name = make.__name__.replace("_", "-")
        KINDS[name] = Kind(name, make, end, words, like_plain)
        return make

    return register


def configured(name: str, end: str, words: str = "", **changes: Any) -> None:
    """A kind that is the plain adapter but for some settings; GONE leaves one out."""
    plain_but(name, end, words, lambda folder: edit_config(folder, **changes))


def plain_but(name: str, end: str, words: str, change: Callable[[Path], Any], *, like_plain: bool = True) -> None:
    """A kind that is the plain adapter after a change of its files."""
    KINDS[name] = Kind(name, lambda folder: change(plain(folder)), end, words, like_plain)


GONE = object()


def edit_config(folder: Path, **changes: Any) -> Path:
    config = json.loads((folder / CONFIG).read_text()) | changes
    (folder / CONFIG).write_text(json.dumps({k: v for k, v in config.items() if v is not GONE}))
    return folder


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Path:
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)
    return folder


def rename(folder: Path, old: str, new: str) -> Path:
    return edit_tensors(folder, lambda tensors: {k.replace(old, new): v for k, v in tensors.items()})


def cast(folder: Path, dtype: torch.dtype) -> Path:
    return edit_tensors(folder, lambda tensors: {k: v.to(dtype) for k, v in tensors.items()})


def spoil(folder: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Path:
    return edit_tensors(folder, lambda tensors: tensors | {name: change(tensors[name])})


def saved(folder: Path, config: Any, model: Any = None, **options: Any) -> Path:
    """What PEFT saves right after it has made an adapter."""
    get_peft_model(model or pico_model(), config).save_pretrained(str(folder), **options)
    return folder


# ------------------------------------------------------------------ good ones


@kind("accepted", like_plain=True)
def plain(folder: Path) -> Path:
    return make_adapter(folder, seed=1)


@kind("accepted")
def rslora(folder: Path) -> None:
    make_adapter(folder, r=6, use_rslora=True)


@kind("accepted")
def patterns(folder: Path) -> None:
    make_adapter(folder, rank_pattern={"layers.0.self_attn.q_proj": 7}, alpha_pattern={"v_proj": 40})


@kind("accepted")
def every_linear_layer(folder: Path) -> None:
    make_adapter(folder, r=2, target_modules="all-linear")


@kind("accepted")
def targets_by_regex(folder: Path) -> None:
    make_adapter(folder, target_modules=r".*\.1\..*(q|up)_proj", exclude_modules=["up_proj"])


@kind("accepted")
def one_layer(folder: Path) -> None:
    make_adapter(folder, layers_to_transform=[1])


@kind("warning", "the file holds the weights of 'lm_head' too; the base model's own are used")
def output_layer(folder: Path) -> None:
    make_adapter(folder, target_modules=["q_proj", "lm_head"])


@kind("accepted")
def bias_without_biases(folder: Path) -> None:
    make_adapter(folder, bias="all")


@kind("accepted")
def pissa_converted(folder: Path) -> None:
    model = get_peft_model(pico_model(), LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights="pissa"))
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(str(folder / "start"))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data += 0.1
    model.peft_config["default"].init_lora_weights = "pissa"
    model.save_pretrained(str(folder), path_initial_model_for_weight_conversion=str(folder / "start"))
    shutil.rmtree(folder / "start")


plain_but("float16", "accepted", "", lambda folder: cast(folder, torch.float16), like_plain=False)
plain_but("bfloat16", "accepted", "", lambda folder: cast(folder, torch.bfloat16), like_plain=False)
plain_but("saved-live-model", "accepted", "", lambda folder: rename(folder, ".weight", ".default.weight"))
configured("megatron-hostile", "accepted", megatron_core="evil", megatron_config={"a": 1})
configured("eva", "accepted", init_lora_weights="eva", eva_config={"rho": 2.0})
configured("fan-in-fan-out", "accepted", fan_in_fan_out=True)
configured("unsloth", "accepted", auto_mapping={"unsloth_fixed": True}, unsloth_version="2026.1")

# ------------------------------------------------------------------ usable, with a warning

configured("no-alpha", "warning", "lora_alpha is missing; it is taken to be 8", lora_alpha=GONE)
configured("no-rank", "warning", "r is missing; the ranks are the tensors'", r=GONE)
configured("unknown-empty", "warning", "unknown settings that are empty: 'new_trick'", new_trick=None)
configured("loftq", "warning", "relative to the quantised base", init_lora_weights="loftq")
configured("chat-variant", "warning", "trained on 'org/pico-Chat'", base_model_name_or_path="org/pico-Chat")
configured("qlora", "warning", "the quantised 'a/pico-llama-bnb-4bit'",
           base_model_name_or_path="a/pico-llama-bnb-4bit")  # fmt: skip
configured("pattern-for-nothing", "warning", "alpha_pattern: 'w_q' matches none", alpha_pattern={"w_q": 2})


plain_but("bare-names", "warning", "such as 'layers.0.self_attn.q_proj' as 'model.layers.0.",
          lambda folder: rename(folder, "base_model.model.model.", ""))  # fmt: skip
plain_but("doubled-prefix", "warning", "names were read as the base model's",
          lambda folder: rename(folder, "base_model.model.", "base_model.model.base_model.model."))  # fmt: skip


@kind("warning", "target_modules asks for 4 modules; the file lacks 2")
def a_layer_is_missing(folder: Path) -> None:
    edit_tensors(plain(folder), lambda tensors: {k: v for k, v in tensors.items() if ".layers.0." in k})


# ------------------------------------------------------------------ usable alone only


@kind("alone", "it uses DoRA")
def dora(folder: Path) -> Path:
    return make_adapter(folder, use_dora=True, use_rslora=True)


@kind("alone", "it uses DoRA")
def dora_live(folder: Path) -> None:
    rename(dora(folder), "magnitude_vector", "magnitude_vector.default.weight")


def with_head(folder: Path, **changes: Any) -> Path:
    make_adapter(folder, modules_to_save=["lm_head"], **changes)
    return spoil(folder, f"{HEAD}.weight", lambda weight: weight + 0.05)


@kind("alone", "it replaces the weights of lm_head")
def saved_head(folder: Path) -> None:
    with_head(folder)


@kind("alone", "it replaces the weights of lm_head")
def saved_head_live(folder: Path) -> None:
    rename(with_head(folder), f"{HEAD}.weight", f"{HEAD}.modules_to_save.default.weight")


@kind("alone", "it uses DoRA and replaces the weights of lm_head")
def dora_and_saved_head(folder: Path) -> None:
    with_head(folder, use_dora=True)


# ------------------------------------------------------------------ refused for what they are


@kind("refused", "peft_type is 'IA3'")
def ia3(folder: Path) -> None:
    saved(folder, IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj"], feedforward_modules=[]))


@kind("refused", "peft_type is 'PROMPT_TUNING'")
def prompt_tuning(folder: Path) -> None:
    saved(folder, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))


@kind("refused", "task_type is 'SEQ_CLS'")
def classifier(folder: Path) -> None:
    model = LlamaForSequenceClassification(pico_config(num_labels=2, pad_token_id=0))
    saved(folder, LoraConfig(task_type="SEQ_CLS", target_modules=["q_proj"]), model)


@kind("refused", "init_lora_weights='pissa' changes the base weights; convert it")
def pissa_raw(folder: Path) -> None:
    make_adapter(folder, init_lora_weights="pissa")


@kind("refused", "init_lora_weights='olora' changes the base weights")
def olora_raw(folder: Path) -> None:
    make_adapter(folder, init_lora_weights="olora")


@kind("refused", "layer_replication=[[0, 2], [1, 2]] is more than")
def more_layers(folder: Path) -> None:
    make_adapter(folder, layer_replication=[(0, 2), (1, 2)])


@kind("refused", "lora_bias=True is more than")
def lora_bias(folder: Path) -> None:
    make_adapter(folder, lora_bias=True)


@kind("refused", "trainable_token_indices={'embed_tokens': [1, 2]} is more than")
def trained_tokens(folder: Path) -> None:
    make_adapter(folder, trainable_token_indices={"embed_tokens": [1, 2]})


@kind("refused", "alora_invocation_tokens=[5, 6] is more than")
def alora(folder: Path) -> None:
    make_adapter(folder, alora_invocation_tokens=[5, 6])


@kind("refused", "_proj.bias' is a bias; it would be left out")
def bias_with_biases(folder: Path) -> None:
    make_adapter(folder, bias="all", model=pico_model(attention_bias=True))


@kind("refused", "a LoRA on an embedding, which cannot be mixed")
def lora_on_embeddings(folder: Path) -> None:
    make_adapter(folder, target_modules=["q_proj", "embed_tokens"])


@kind("refused", "is a full weight that modules_to_save does not name; it would overwrite the base")
def saved_embeddings(folder: Path) -> None:
    saved(plain(folder), LoraConfig(target_modules=["q_proj"]), save_embedding_layers=True)


@kind("refused", "vocabulary 260 against the base's 258")
def added_tokens(folder: Path) -> None:
    with_head(folder, model=pico_model(vocab_size=260))


@kind("refused", "vocabulary 260 against the base's 258")
def added_tokens_and_lora_on_head(folder: Path) -> None:
    make_adapter(folder, target_modules=["lm_head"], model=pico_model(vocab_size=260))


@kind("refused", "modules_to_save has 'model.norm', which cannot be replaced")
def saved_norm(folder: Path) -> None:
    make_adapter(folder, modules_to_save=["model.norm"])


@kind("refused", "2 of its 6 modules are not in the base model, such as 'model.layers.2.self_attn.q_proj'")
def deeper_base(folder: Path) -> None:
    make_adapter(folder, model=pico_model(num_hidden_layers=3))


@kind("refused", "maps 64 to 64 numbers, the base model's 32 to 32")
def wider_base(folder: Path) -> None:
    make_adapter(folder, model=pico_model(hidden_size=64))


@kind("refused", "2 of its 2 modules are not in the base model, such as 'transformer.h.0.attn.c_attn'")
def other_architecture(folder: Path) -> None:
    config = GPT2Config(vocab_size=258, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    make_adapter(folder, model=GPT2LMHeadModel(config), target_modules=["c_attn"], fan_in_fan_out=True)


@kind("refused", "every lora_B is zero; the adapter has no effect")
def never_trained(folder: Path) -> None:
    saved(folder, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))


@kind("refused", "ensure_weight_tying makes the change of 'lm_head' one of the embeddings too")
def tied_head(folder: Path) -> None:
    edit_config(make_adapter(folder, target_modules=["lm_head"]), ensure_weight_tying=True)


def write_all(pool: Path) -> dict[str, Kind]:
    """Every kind as a folder of the pool; returns them by name."""
    import wild_files

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT has something to say of many of them
        kinds = {**KINDS, **wild_files.kinds()}
        for each in kinds.values():
            (pool / each.name).mkdir(parents=True)
            each.make(pool / each.name)
    return kinds


if __name__ == "__main__":
    made = write_all(Path(sys.argv[1]))
    print("\n".join(f"{each.end:9} {each.name:30} {each.words}" for each in made.values()))
