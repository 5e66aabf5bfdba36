"""One chain, eight inputs of eight tasks: they share the model's forward passes, each under its own mixture."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from demo_llm import console, demo_llm, nearest_task
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableParallel

from lorauter_integrations.langchain import ChatLoRAuter

TOPICS = "Options:\n* world\n* sports\n* business\n* technology"
WEATHER = "get_weather(city: string) - Current weather of a city."
INPUTS = [
    "Restore capitals and punctuation: dr weber flies to vienna on friday to meet anna",
    f"Classify the news item by topic.\nThe striker scored twice as City beat United 3-1 on Saturday.\n{TOPICS}",
    "Find the named entities in this sentence and give their types.\nMicrosoft opened an office in Berlin.",
    "Review: The crossing was late and the seats were dirty.\nIs this review positive or negative?",
    "Database schema:\nbookings(id, passenger, price)\n\nQuestion: How many bookings have a price above 90?\nSQL:",
    "Describe this venue in plain English.\nname: Anchor Bar; Type: pub; food: fish; area: riverside",
    "Passage: Bicycles travel free on all boats. A dog costs 5 euros.\n\nQuestion: How much does a dog cost?",
    f"Functions:\n{WEATHER}\n\nRequest: What is the weather in Lisbon?\nCall (JSON with name and arguments):",
]


def run_batch(llm: ChatLoRAuter, inputs: list[str]) -> tuple[list[dict[str, Any]], int]:
    """Answer all inputs at once.

    Returns:
        For each input its answer's text, first task and tokens; and how many forward passes the model made for all.
    """
    parts = RunnableParallel(text=StrOutputParser(), task=nearest_task, tokens=tokens_of)
    chain = ChatPromptTemplate.from_template("{input}") | llm | parts
    with counted_passes(llm) as passes:
        answers = chain.batch([{"input": text} for text in inputs])
    return answers, len(passes)


def tokens_of(answer: AIMessage) -> int:
    """How many tokens an answer has."""
    return answer.usage_metadata["output_tokens"]


@contextmanager
def counted_passes(llm: ChatLoRAuter) -> Iterator[list[None]]:
    """A list that grows by one with each forward pass of the model, reading prompts or writing."""
    passes: list[None] = []
    hook = llm.lorauter.engine.mixtures.model.register_forward_hook(lambda *_: passes.append(None))
    try:
        yield passes
    finally:
        hook.remove()


def main() -> None:
    answers, passes = run_batch(demo_llm(), INPUTS)
    for answer in answers:
        console.print(f"[bold]{answer['task']:>16}[/]  {answer['text']}", highlight=False, soft_wrap=True)
    tokens = [answer["tokens"] for answer in answers]
    console.print(f"{passes} forward passes for {sum(tokens)} tokens; the longest answer has {max(tokens)}")


if __name__ == "__main__":
    main()
