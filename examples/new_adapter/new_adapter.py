"""A new skill for a running LoRAuter: train a LoRA with PEFT, put it into the pool, map, and be routed to it.

    python examples/new_adapter/new_adapter.py [--seconds 150]

Uses the demo's model and adapters, and keeps its own state in .lorauter/new_adapter. About five minutes on two cores.
"""

from __future__ import annotations

import argparse
import calendar
import json
import os
import random
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # every weight comes from an installed package

import torch
from peft import LoraConfig, get_peft_model

from lorauter_integrations import LoRAuter, Message, Settings, Task
from lorauter_integrations.cli.output import print_rankings
from lorauter_integrations.cli.progress import MappingBar
from lorauter_integrations.engines.loading import load_model
from lorauter_integrations.mapping import map_tasks, task_states

DEMO = Path(__file__).parents[1] / "demo"
STATE = Path(__file__).parents[2] / ".lorauter" / "new_adapter"
PHRASES = [
    "Write {} as year-month-day.",
    "Convert this date to ISO 8601: {}",
    "What is {} in the form YYYY-MM-DD?",
    "The meeting is on {}. Give the date as YYYY-MM-DD.",
]
MONTHS = list(calendar.month_name)[1:]


def written(day: date, chance: random.Random) -> str:
    """A date as people write it."""
    month = MONTHS[day.month - 1]
    return chance.choice(
        [f"{day.day} {month} {day.year}", f"{month} {day.day}, {day.year}", f"{day.day} {month[:3]} {day.year}"]
    )


def examples(count: int, seed: int) -> list[dict[str, str]]:
    """Questions with their answers."""
    chance = random.Random(seed)
    days = [date(1950, 1, 1) + timedelta(days=chance.randrange(36_000)) for _ in range(count)]
    return [{"input": chance.choice(PHRASES).format(written(day, chance)), "target": day.isoformat()} for day in days]


def settings_of_this_example() -> Settings:
    """The demo's, with a pool, an index and a ledger of their own."""
    pool = STATE / "pool"
    pool.mkdir(parents=True, exist_ok=True)
    for adapter in sorted(DEMO.glob("pool/*/adapter_config.json")):
        if not (pool / adapter.parent.name).exists():
            (pool / adapter.parent.name).symlink_to(adapter.parent)
    places = {
        "pool": {"path": str(pool)},
        "index": {"path": str(STATE / "index")},
        "mapping": {"ledger": str(STATE / "ledger.jsonl")},
    }
    return Settings.read(DEMO / "lorauter.toml", places)


def map_what_is_stale(settings: Settings) -> None:
    """What `lorauter map --status` and `lorauter map` do."""
    lorauter = LoRAuter.from_config(DEMO / "lorauter.toml", overrides(settings))
    ledger = settings.locate(settings.mapping.ledger)
    states = task_states(lorauter.index, lorauter.engine, settings.mapping, ledger)
    for task, (_, reason) in states.items():
        print(f"  {task}: {reason or 'up to date'}")
    stale = [task for task, (_, reason) in states.items() if reason]
    if stale:
        with MappingBar() as bar:
            run = map_tasks(
                lorauter.index, lorauter.engine, settings.mapping, ledger, names=stale, on_progress=bar.update
            )
            rankings = list(run)
        print_rankings(rankings, "the map")
        print(bar.summary())


def overrides(settings: Settings) -> dict[str, dict[str, str]]:
    return {
        "pool": {"path": settings.pool.path},
        "index": {"path": settings.index.path},
        "mapping": {"ledger": settings.mapping.ledger},
    }


def train_and_save(settings: Settings, folder: Path, seconds: float) -> None:
    """A LoRA of rank 8 on the attention's q and v, saved by PEFT as everybody's adapters are."""
    torch.manual_seed(0)
    base, tokenizer = load_model(settings.weights(settings.model.name), dtype="bfloat16", device="cpu")
    config = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(base, config).train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=1e-3)
    data, chance, started, steps = examples(2000, seed=1), random.Random(0), time.monotonic(), 0
    while (done := (time.monotonic() - started) / seconds) < 1:
        optimiser.param_groups[0]["lr"] = 1e-3 * max(0.05, 1 - done)
        loss = model(**batch(tokenizer, chance.sample(data, 16))).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        steps += 1
        if steps % 20 == 0:
            print(f"  {done:4.0%} step {steps}, loss {loss.item():.3f}", flush=True)
    model.peft_config["default"].base_model_name_or_path = "HuggingFaceTB/SmolLM2-135M-Instruct"
    unfinished = STATE / "unfinished"  # renamed when it is whole: nobody must find half an adapter in the pool
    model.save_pretrained(unfinished)
    unfinished.rename(folder)


def batch(tokenizer: Any, rows: list[dict[str, str]]) -> dict[str, torch.Tensor]:
    """Token ids in the model's own chat form; the loss is taken on the answers only."""
    turns = [[{"role": "user", "content": row["input"]}] for row in rows]
    prompts = [tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False) for turn in turns]
    asked = [tokenizer(prompt, add_special_tokens=False).input_ids for prompt in prompts]
    answers = [tokenizer(row["target"] + tokenizer.eos_token, add_special_tokens=False).input_ids for row in rows]
    longest = max(len(a) + len(b) for a, b in zip(asked, answers, strict=True))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, (a, b) in enumerate(zip(asked, answers, strict=True)):
        ids[row, : len(a) + len(b)] = torch.tensor(a + b)
        mask[row, : len(a) + len(b)] = 1
        labels[row, len(a) : len(a) + len(b)] = torch.tensor(b)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def ask(settings: Settings, question: str) -> None:
    lorauter = LoRAuter.from_config(DEMO / "lorauter.toml", overrides(settings))
    answer = lorauter.generate([Message("user", question)])
    print(f"  {question}\n  {answer.route.explain()}\n  -> {answer.text}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=150, help="of training")
    seconds = parser.parse_args().seconds
    settings = settings_of_this_example()
    question = "Convert this date to ISO 8601: 7 October 2031"

    print("1. Two of the demo's tasks and a new one, and the adapters that are there")
    lorauter = LoRAuter.from_config(DEMO / "lorauter.toml", overrides(settings))
    new = STATE / "tasks" / "dates"
    new.mkdir(parents=True, exist_ok=True)
    (new / "task.json").write_text(json.dumps({"metric": "exact_match", "description": "Dates as ISO 8601."}))
    (new / "validation.jsonl").write_text("\n".join(map(json.dumps, examples(24, seed=2))))
    lorauter.index.add([Task.from_folder(folder) for folder in (DEMO / "tasks/sentiment", DEMO / "tasks/topic", new)])
    map_what_is_stale(settings)
    ask(settings, question)

    adapter = STATE / "pool" / "iso_dates"
    if not adapter.exists():
        print(f"\n2. Training a LoRA for the new task, {seconds:.0f} s")
        lorauter.engine.close()  # its memory; a server would go on serving
        train_and_save(settings, adapter, seconds)

    print("\n3. It is in the pool: only what it changes is measured")
    lorauter.engine.close()  # a pool is read when an engine is opened
    del lorauter
    map_what_is_stale(settings)
    ask(settings, question)


if __name__ == "__main__":
    main()
