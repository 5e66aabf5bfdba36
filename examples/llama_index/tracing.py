"""A workflow of three steps, and a log with one JSON line for each call of the model: step, route, tokens, seconds.

The log needs nothing from the workflow. It works for agents, query engines and bare calls as well, blocking or not,
streamed or not; calls that run at the same time are told apart by their spans.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, TextIO

from demo_llm import console, demo_llm, nearest_task
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.events.exception import ExceptionEvent
from llama_index.core.instrumentation.events.llm import (
    LLMChatEndEvent,
    LLMChatStartEvent,
    LLMCompletionEndEvent,
    LLMCompletionStartEvent,
)
from llama_index.core.instrumentation.events.span import SpanDropEvent
from llama_index.core.instrumentation.span import BaseSpan
from llama_index.core.instrumentation.span_handlers import BaseSpanHandler
from llama_index.core.workflow import Event, StartEvent, StopEvent, Workflow, step
from pydantic import PrivateAttr

from lorauter_integrations.llama_index import LoRAuterLLM
from lorauter_integrations.llama_index.events import LoRAuterRouteEvent

TOPICS = "Options:\n* world\n* sports\n* business\n* technology"
DICTATED = (
    "microsoft opened an office in berlin and google opened an office in madrid on monday",
    "the striker scored twice and the team won the cup final on saturday",
)


# ---------------------------------------------------------------------- the workflow


class Repaired(Event):
    text: str


class Classified(Event):
    text: str
    topic: str


class NewsDesk(Workflow):
    """Repairs a dictated text, finds its topic and, for two kinds of news, who and what is in it.

    No step names an adapter; each is routed by its own instruction.
    """

    def __init__(self, llm: LoRAuterLLM) -> None:
        super().__init__(timeout=None)  # else LlamaIndex ends it after 45 seconds
        self._llm = llm

    @step
    async def repair(self, event: StartEvent) -> Repaired:
        return Repaired(text=await self._ask(f"Restore capitals and punctuation: {event.dictated}"))

    @step
    async def find_topic(self, event: Repaired) -> Classified | StopEvent:
        topic = await self._ask(f"Classify the news item by topic.\n{event.text}\n{TOPICS}")
        if topic in ("business", "technology"):
            return Classified(text=event.text, topic=topic)
        return StopEvent({"text": event.text, "topic": topic})

    @step
    async def find_entities(self, event: Classified) -> StopEvent:
        entities = await self._ask(f"Find the named entities in this sentence and give their types.\n{event.text}")
        return StopEvent({"text": event.text, "topic": event.topic, "entities": entities})

    async def _ask(self, prompt: str) -> str:
        return (await self._llm.acomplete(prompt)).text


async def run_all(llm: LoRAuterLLM, dictated: tuple[str, ...]) -> list[dict[str, str]]:
    """Run the workflow for all texts at once; their steps share the model's forward passes."""
    desk = NewsDesk(llm)
    return await asyncio.gather(*(desk.run(dictated=text) for text in dictated))


# ---------------------------------------------------------------------- the log


class OpenSpans(BaseSpanHandler[BaseSpan]):
    """What is running, and within what."""

    def new_span(self, id_: str, *_: Any, parent_span_id: str | None = None, **__: Any) -> BaseSpan:
        return BaseSpan(id_=id_, parent_id=parent_span_id)

    def prepare_to_exit_span(self, id_: str, *_: Any, **__: Any) -> BaseSpan | None:
        return self.open_spans.get(id_)

    def prepare_to_drop_span(self, id_: str, *_: Any, **__: Any) -> BaseSpan | None:
        return self.open_spans.get(id_)

    def step_of(self, call: str | None) -> str | None:
        """The workflow's step that a call is made in; else the outermost function, as of a query engine; or None."""
        path = []
        while call:
            path.append(name_of(call))
            span = self.open_spans.get(call)
            call = span.parent_id if span else None
        around = [name for name in path if not name.startswith(("LoRAuterLLM.", "StructuredLLM."))]
        steps = [name for name, within in pairwise(around) if within.endswith(".run")]
        return next(iter(steps + around[-1:]), None)


def name_of(span_id: str) -> str:
    """ "NewsDesk.repair" of "NewsDesk.repair-<uuid>"."""
    return span_id.rsplit("-", 5)[0]


class RouteLog(BaseEventHandler):
    """Writes the lines.

    Args:
        file: gets them; calls may end at the same time in many threads.
        spans: tells the steps.
    """

    _file: TextIO = PrivateAttr()
    _spans: OpenSpans = PrivateAttr()
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)
    _begun: dict[str | None, tuple[BaseEvent, dict[str, Any]]] = PrivateAttr(default_factory=dict)

    def __init__(self, file: TextIO, spans: OpenSpans) -> None:
        super().__init__()
        self._file, self._spans = file, spans

    def handle(self, event: BaseEvent, **_: Any) -> None:
        if isinstance(event, LLMChatStartEvent | LLMCompletionStartEvent):
            if event.model_dict["class_name"] == LoRAuterLLM.class_name():
                facts = {"run": event.tags.get("llamaindex.run_id"), "step": self._spans.step_of(event.span_id)}
                self._begun[event.span_id] = (event, facts)
        elif event.span_id in self._begun:
            self._note(event)

    def _note(self, event: BaseEvent) -> None:
        if isinstance(event, LoRAuterRouteEvent):
            task = nearest_task(event.route) if event.route["tasks"] else None  # none when the caller chose
            self._begun[event.span_id][1].update(task=task, adapters=event.route["adapters"])
        elif isinstance(event, LLMChatEndEvent | LLMCompletionEndEvent):
            usage = event.response.raw["usage"]
            self._write(event, tokens={"input": usage["prompt_tokens"], "output": usage["completion_tokens"]})
        elif isinstance(event, SpanDropEvent):
            self._write(event, error=event.err_str)
        elif isinstance(event, ExceptionEvent):  # of a stream; a GeneratorExit when its reader left
            self._write(event, error=f"{type(event.exception).__name__}: {event.exception}")

    def _write(self, event: BaseEvent, **more: Any) -> None:
        begun, facts = self._begun.pop(event.span_id)
        seconds = round((event.timestamp - begun.timestamp).total_seconds(), 3)
        with self._lock:
            self._file.write(json.dumps({**facts, **more, "seconds": seconds}) + "\n")


@contextmanager
def logged_routes(file: TextIO) -> Iterator[None]:
    """Logs every call of this process into the file while the context is open; a server would never close it."""
    root, spans = get_dispatcher(), OpenSpans()
    log = RouteLog(file, spans)
    root.add_span_handler(spans)
    root.add_event_handler(log)
    try:
        yield
    finally:
        root.event_handlers.remove(log)
        root.span_handlers.remove(spans)


def main() -> None:
    llm = demo_llm()
    with logged_routes(sys.stdout):
        items = asyncio.run(run_all(llm, DICTATED))
    for item in items:
        console.print(item, soft_wrap=True)


if __name__ == "__main__":
    main()
