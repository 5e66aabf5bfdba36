"""An agent with two tools whose last word is an object of a class.

`create_agent` asks for calls or JSON in each step, since the model's profile says that it can write both; which of
them it is, is the model's own choice.
"""

from __future__ import annotations

from typing import Any, Literal

from demo_llm import console, demo_llm, nearest_task
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from lorauter_integrations.langchain import ChatLoRAuter

REQUESTS = ("What is the weather in Lisbon?", "Where is my order 48213?")


@tool
def get_weather(city: str) -> str:
    """Current weather of a city."""
    return {"Lisbon": "sunny, 24 degrees"}.get(city, "no data")


@tool
def order_status(order_id: str) -> str:
    """Status of an order by its number."""
    return {"48213": "delayed", "90311": "on its way"}.get(order_id, "unknown order")


class Reply(BaseModel):
    """What the user is told."""

    about: Literal["weather", "order"]
    answer: str


def run_agent(llm: ChatLoRAuter, request: str) -> dict[str, Any]:
    """Let the agent serve a request; returns its state: `messages` and `structured_response`, a `Reply`."""
    agent = create_agent(
        llm,
        [get_weather, order_status],
        system_prompt="You are a helpful assistant.",
        response_format=Reply,
    )
    return agent.invoke({"messages": [("user", request)]}, {"recursion_limit": 8})


def written(message: BaseMessage) -> str:
    """A message's tool calls, or its text."""
    calls = [f"{call['name']}({call['args']})" for call in getattr(message, "tool_calls", ())]
    return ", ".join(calls) or message.text


def main() -> None:
    llm = demo_llm()
    for request in REQUESTS:
        state = run_agent(llm, request)
        for message in state["messages"]:
            route = f"  [dim]\\[{nearest_task(message)}][/]" if isinstance(message, AIMessage) else ""
            console.print(f"[dim]{message.type:>7}:[/] {written(message)}{route}", highlight=False, soft_wrap=True)
        console.print(f"[green]  reply: {state['structured_response']!r}[/]\n", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
