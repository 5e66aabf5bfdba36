"""A LangChain chain of six steps on one routed model. No step names an adapter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.prompts import ChatPromptTemplate
from show import show_step

from lorauter_integrations.langchain import ChatLoRAuter

DICTATED = "microsoft opened an office in berlin and google opened an office in madrid on monday"
STEPS = {
    "repair": "Restore capitals and punctuation: {dictated}",
    "topic": "Classify the news item by topic.\n{repair}\nOptions:\n* world\n* sports\n* business\n* technology",
    "entities": "Find the named entities in this sentence and give their types.\n{repair}",
    "sentiment": "Review: {review}\nIs this review positive or negative?",
    "sql": "Database schema:\nbookings(id, passenger, route, price, month)\n\nQuestion: {question}\nSQL:",
    "describe": "Describe this venue in plain English.\n{venue}",
}
INPUTS = {
    "dictated": DICTATED,
    "review": "The crossing was late, the seats were dirty and nobody said sorry.",
    "question": "How many bookings have a price above 90?",
    "venue": "name: Anchor Bar; Type: pub; food: fish; area: riverside; family friendly: yes",
}


@dataclass(frozen=True)
class Step:
    """What one step answered, by which route, and what the base model alone answers."""

    text: str
    route: dict[str, Any]
    base: str


def run_chain(config: Path) -> dict[str, Step]:
    """Run the steps, each on what the steps before it answered."""
    llm = ChatLoRAuter.from_config(config)
    base = llm.bind(adapters={})  # the empty mixture: the model alone
    known, answers = dict(INPUTS), {}
    for step, template in STEPS.items():
        prompt = ChatPromptTemplate.from_template(template)
        answer = (prompt | llm).invoke(known)
        alone = (prompt | base).invoke(known).text
        answers[step] = Step(answer.text, answer.response_metadata["lorauter"], alone)
        show_step(f"{step}: {known_inputs(template, known)}", answers[step].route, answer.text, alone)
        known[step] = answer.text
    return answers


def known_inputs(template: str, known: dict[str, str]) -> str:
    """What a step reads, for the reader."""
    return " | ".join(value for name, value in known.items() if "{" + name + "}" in template)
