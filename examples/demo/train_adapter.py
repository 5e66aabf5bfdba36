"""Train one LoRA adapter with PEFT on a JSONL file and save it as a pool adapter (CPU, bfloat16).

Each line is {"input": ..., "target": ...} with an optional "system", or {"messages": [...], "target": ...}.
The prompt is the model's own chat template; the loss is taken on the target's tokens only.

    python train_adapter.py MODEL_FOLDER data.jsonl OUT_FOLDER --seconds 480 --rank 8 --targets all
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

TARGETS = {
    "qv": ["q_proj", "v_proj"],
    "attention": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "all": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}


def encode(tokenizer, row: dict, longest: int) -> tuple[list[int], list[int]] | None:
    """Prompt and target token ids, or None when together they are longer than `longest`."""
    messages = row.get("messages") or [
        *([{"role": "system", "content": row["system"]}] if row.get("system") else []),
        {"role": "user", "content": row["input"]},
    ]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    prompt = tokenizer(text, add_special_tokens=False).input_ids
    target = tokenizer(row["target"] + tokenizer.eos_token, add_special_tokens=False).input_ids
    return (prompt, target) if len(prompt) + len(target) <= longest else None


def batches(data: list, budget: int, rng: random.Random) -> list[list]:
    """Rows of like length together, about `budget` padded tokens a batch, in random order."""
    order = sorted(data, key=lambda pair: len(pair[0]) + len(pair[1]) + rng.random())
    out: list[list] = [[]]
    for pair in order:
        if out[-1] and (len(pair[0]) + len(pair[1])) * (len(out[-1]) + 1) > budget:
            out.append([])
        out[-1].append(pair)
    rng.shuffle(out)
    return out


def loss_of(model, batch: list) -> torch.Tensor:
    """Cross-entropy of the target tokens, averaged over the batch."""
    longest = max(len(prompt) + len(target) for prompt, target in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, (prompt, target) in enumerate(batch):
        length = len(prompt) + len(target)
        ids[row, :length] = torch.tensor(prompt + target)
        mask[row, :length] = 1
        labels[row, len(prompt) : length] = torch.tensor(target)
    base = model.get_base_model()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = base.model(input_ids=ids, attention_mask=mask).last_hidden_state[:, :-1]
        keep = labels[:, 1:] != -100
        logits = base.lm_head(hidden[keep])
    return torch.nn.functional.cross_entropy(logits.float(), labels[:, 1:][keep])


def train(model, data: list, seconds: float, peak: float, seed: int) -> dict:
    """AdamW with a short warm-up and a linear decay over the time allowed."""
    rng = random.Random(seed)
    params = [p for p in model.parameters() if p.requires_grad]
    for param in params:
        param.data = param.data.float()
    optimiser = torch.optim.AdamW(params, lr=peak, betas=(0.9, 0.98), weight_decay=0.0)
    start, losses, epoch = time.time(), [], 0.0
    model.train()
    while True:
        todo = batches(data, 1100, rng)
        for position, batch in enumerate(todo):
            done = (time.time() - start) / seconds
            if done > 1:
                facts = {"steps": len(losses), "epochs": round(epoch + position / len(todo), 2)}
                return facts | {"first_loss": sum(losses[:10]) / 10, "last_loss": sum(losses[-20:]) / 20}
            for group in optimiser.param_groups:
                group["lr"] = peak * min(1.0, (len(losses) + 1) / 10) * max(0.05, 1 - done)
            loss = loss_of(model, batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(params, 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            losses.append(loss.item())
            if len(losses) % 20 == 0:
                print(f"{done:4.0%} step {len(losses)} loss {sum(losses[-20:]) / 20:.3f}", flush=True)
        epoch += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or hub name of the base model")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--base-name", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--seconds", type=float, default=480)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--targets", choices=TARGETS, default="all")
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--longest", type=int, default=400, help="rows with more tokens than this are left out")
    parser.add_argument("--start-from", type=Path, help="an adapter to train further; rank and targets are its own")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    rows = [json.loads(line) for line in args.data.read_text().splitlines()]
    data = [pair for row in rows if (pair := encode(tokenizer, row, args.longest))]
    config = LoraConfig(
        r=args.rank, lora_alpha=2 * args.rank, target_modules=TARGETS[args.targets], task_type="CAUSAL_LM"
    )
    base = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16)
    if args.start_from:
        model = PeftModel.from_pretrained(base, str(args.start_from), is_trainable=True)
        config = model.peft_config["default"]
    else:
        model = get_peft_model(base, config)
    facts = train(model, data, args.seconds, args.lr, args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().to(torch.bfloat16).contiguous() for k, v in get_peft_model_state_dict(model).items()}
    save_file(state, args.out / "adapter_model.safetensors", metadata={"format": "pt"})
    config.base_model_name_or_path, config.inference_mode = args.base_name, True
    config.save_pretrained(args.out)
    facts = {"examples": len(data), "seconds": args.seconds, **facts}
    (args.out / "train.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(facts)


if __name__ == "__main__":
    main()
