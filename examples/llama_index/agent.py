"""A FunctionAgent with two tools whose last word is an object of a class.

The agent streams each step, as is LlamaIndex' default; whether a step calls a tool or answers in text is the model's
own choice. The object is one more call, that LlamaIndex makes of the whole conversation.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal

from demo_llm import console, demo_llm, nearest_task
from llama_index.core.agent.workflow import AgentOutput, FunctionAgent, ToolCallResult
from pydantic import BaseModel

from lorauter_integrations.llama_index import LoRAuterLLM

REQUESTS = ("What is the weather in Lisbon?", "Where is my order 48213?")


def get_weather(city: str) -> str:
    """Current weather of a city."""
    return {"Lisbon": "sunny, 24 degrees"}.get(city, "no data")


def order_status(order_id: str) -> str:
    """Status of an order by its number."""
    return {"48213": "delayed", "90311": "on its way"}.get(order_id, "unknown order")


class Reply(BaseModel):
    """What the user is told."""

    about: Literal["weather", "order"]
    answer: str


@dataclass(frozen=True)
class Step:
    """What the model or a tool said, and the task that the model's call was routed to."""

    by: Literal["model", "tool"]
    text: str
    task: str | None = None


async def run_agent(llm: LoRAuterLLM, request: str) -> tuple[list[Step], Reply | None]:
    """Let the agent serve a request; returns its steps and its last word."""
    agent = FunctionAgent(
        tools=[get_weather, order_status],
        llm=llm,
        system_prompt="You are a helpful assistant.",
        output_cls=Reply,
    )
    running, steps = agent.run(request, max_iterations=4), []
    async for event in running.stream_events():
        if isinstance(event, AgentOutput):
            steps.append(Step("model", written(event), nearest_task(event.raw["lorauter"])))
        elif isinstance(event, ToolCallResult):
            steps.append(Step("tool", event.tool_output.content))
    return steps, (await running).get_pydantic_model(Reply)


def written(output: AgentOutput) -> str:
    """A step's tool calls, or its text."""
    calls = [f"{call.tool_name}({call.tool_kwargs})" for call in output.tool_calls]
    return ", ".join(calls) or output.response.content or ""


def main() -> None:
    llm = demo_llm()
    for request in REQUESTS:
        steps, reply = asyncio.run(run_agent(llm, request))
        console.print(f"[dim]   user:[/] {request}", highlight=False)
        for step in steps:
            route = f"  [dim]\\[{step.task}][/]" if step.task else ""
            console.print(f"[dim]{step.by:>7}:[/] {step.text}{route}", highlight=False, soft_wrap=True)
        console.print(f"[green]  reply: {reply!r}[/]\n", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
