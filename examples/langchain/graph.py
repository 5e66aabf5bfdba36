"""A graph on one model: repair a dictated text, find its topic and, for some topics, who and what is in it.

No node names an adapter; each is routed by its own instruction. The conditional edge goes by what a node answered.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

from demo_llm import console, demo_llm, nearest_task
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from lorauter_integrations.langchain import ChatLoRAuter

TOPICS = "Options:\n* world\n* sports\n* business\n* technology"
DICTATED = (
    "microsoft opened an office in berlin and google opened an office in madrid on monday",
    "the striker scored twice and the team won the cup final on saturday",
)


class Item(TypedDict, total=False):
    """What is known of a news item, and the task that each node was routed to."""

    dictated: str
    text: str
    topic: str
    entities: str
    routes: Annotated[dict[str, str], operator.or_]


def ask(llm: ChatLoRAuter, node: str, instruction: str, key: str) -> Callable[[Item], dict[str, Any]]:
    """A node that fills an instruction in from the state, and puts the answer under a key of it."""

    def run(state: Item) -> dict[str, Any]:
        answer = llm.invoke(instruction.format(**state))
        return {key: answer.text, "routes": {node: nearest_task(answer)}}

    return run


def after_topic(state: Item) -> str:
    """Names matter in two kinds of news."""
    return "find_entities" if state["topic"] in ("business", "technology") else END


def build_graph(llm: ChatLoRAuter) -> CompiledStateGraph:
    """The graph; its input is `{"dictated": text}`."""
    graph = StateGraph(Item)
    for node, instruction, key in (
        ("repair", "Restore capitals and punctuation: {dictated}", "text"),
        ("find_topic", "Classify the news item by topic.\n{text}\n" + TOPICS, "topic"),
        ("find_entities", "Find the named entities in this sentence and give their types.\n{text}", "entities"),
    ):
        graph.add_node(node, ask(llm, node, instruction, key))
    graph.add_edge(START, "repair")
    graph.add_edge("repair", "find_topic")
    graph.add_conditional_edges("find_topic", after_topic, ["find_entities", END])
    graph.add_edge("find_entities", END)
    return graph.compile()


def main() -> None:
    graph = build_graph(demo_llm())
    for dictated in DICTATED:
        for update in graph.stream({"dictated": dictated}, stream_mode="updates"):
            for node, found in update.items():
                [answer] = [text for key, text in found.items() if key != "routes"]
                console.print(
                    f"[bold]{node:>13}[/] [dim]\\[{found['routes'][node]}][/] {answer}",
                    highlight=False,
                    soft_wrap=True,
                )
        console.print()


if __name__ == "__main__":
    main()
