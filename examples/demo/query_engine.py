"""A LlamaIndex query engine whose answers go through the passage-QA adapter by routing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llama_index.core import Document, VectorStoreIndex
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.events.llm import LLMChatEndEvent
from pydantic import Field
from show import console, show_step

from lorauter_integrations.llama_index import LoRAuterLLM, RouterEmbedding
from lorauter_integrations.metrics import f1


class RouteRecorder(BaseEventHandler):
    """Keeps the route of every answer, as an application would for its traces."""

    routes: list[dict[str, Any]] = Field(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        return "RouteRecorder"

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        if isinstance(event, LLMChatEndEvent) and event.response and event.response.raw:
            self.routes.append(event.response.raw["lorauter"])


def run_query_engine(config: Path, documents: Path, questions: Path, limit: int = 12) -> dict[str, Any]:
    """Ask the questions of the documents; returns the scores of the routed and of the bare model."""
    llm = LoRAuterLLM.from_config(config)
    files = sorted(documents.glob("*.txt"))
    index = VectorStoreIndex.from_documents(
        [Document(text=file.read_text(), doc_id=file.name) for file in files],
        embed_model=RouterEmbedding(llm.lorauter.index.encoder),
    )
    base = LoRAuterLLM.from_config(config, adapters={})
    engines = {
        name: index.as_query_engine(llm=model, similarity_top_k=1)
        for name, model in (("routed", llm), ("base", base))
    }
    rows = [json.loads(line) for line in questions.read_text().splitlines()][:limit]
    recorder = RouteRecorder()
    get_dispatcher().add_event_handler(recorder)
    scores: dict[str, list[float]] = {name: [] for name in engines}
    for number, row in enumerate(rows):
        answers = {name: str(engine.query(row["question"])) for name, engine in engines.items()}
        for name, answer in answers.items():
            scores[name].append(f1(answer, row["answer"]))
        if number < 3:
            show_step(row["question"], recorder.routes[-2], answers["routed"], answers["base"])
    means = {name: sum(found) / len(found) for name, found in scores.items()}
    console.print(f"\n{len(rows)} questions, mean F1: routed {means['routed']:.2f}, base model {means['base']:.2f}")
    return means
