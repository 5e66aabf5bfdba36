"""A LangChain agent on the routed model: calls with tools go to the function-calling adapter by routing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from show import console, show_step

from lorauter_integrations.langchain import ChatLoRAuter

REQUESTS = ("What is the weather in Lisbon?", "Where is my order 48213?")


@tool
def get_weather(city: str) -> str:
    """Current weather of a city."""
    return {"Lisbon": "sunny, 24 degrees"}.get(city, "no data")


@tool
def order_status(order_id: str) -> str:
    """Status of an order by its number."""
    return {"48213": "delayed"}.get(order_id, "unknown order")


def run_agent(config: Path) -> list[list[Any]]:
    """Let the agent serve each request; returns the messages of each run."""
    llm = ChatLoRAuter.from_config(config)
    agent = create_agent(llm, [get_weather, order_status], system_prompt="You are a helpful assistant.")
    base = llm.bind_tools([get_weather, order_status], adapters={})
    runs = []
    for request in REQUESTS:
        messages = agent.invoke({"messages": [("user", request)]}, {"recursion_limit": 8})["messages"]
        runs.append(messages)
        calls = [m for m in messages if isinstance(m, AIMessage)]
        alone = base.invoke([("system", "You are a helpful assistant."), ("user", request)])
        show_step(request, calls[0].response_metadata["lorauter"], written(calls[0]), written(alone))
        for message in messages[2:]:
            console.print(f"  [dim]{message.type:>13}:[/] {written(message)}", highlight=False)
    return runs


def written(message: Any) -> str:
    """A message's tool calls, or its text."""
    calls = [f"{call['name']}({call['args']})" for call in getattr(message, "tool_calls", ())]
    return "call " + ", ".join(calls) if calls else message.text
