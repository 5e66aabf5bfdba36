"""A LangChain chain of seven steps on one routed model. No step names an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langchain_core.prompts import ChatPromptTemplate
from show import show_step

from lorauter_integrations.langchain import ChatLoRAuter

DICTATED = "the mayor of lisbon opened a new ferry terminal on friday"
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


def run_chain(config: Path) -> dict[str, Any]:
    """Run the steps, each on what the steps before it answered; returns step -> route."""
    llm = ChatLoRAuter.from_config(config)
    base = llm.bind(adapters={})  # the empty mixture: the model alone
    known, routes = dict(INPUTS), {}
    for step, template in STEPS.items():
        prompt = ChatPromptTemplate.from_template(template)
        answer = (prompt | llm).invoke(known)
        routes[step] = answer.response_metadata["lorauter"]
        show_step(
            f"{step}: {known_inputs(template, known)}",
            routes[step],
            answer.text,
            (prompt | base).invoke(known).text,
        )
        known[step] = answer.text
    return routes


def known_inputs(template: str, known: dict[str, str]) -> str:
    """What a step reads, for the reader."""
    return " | ".join(value for name, value in known.items() if "{" + name + "}" in template)
