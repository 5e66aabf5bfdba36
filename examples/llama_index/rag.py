"""Questions about a folder of documents: Chroma finds the passage, the routed model reads the answer from it.

The router's own encoder makes the vectors, so that one model serves both. The base model alone reads the same
passages, to see what routing brings.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import chromadb
from chroma_store import ChromaStore
from demo_llm import console, demo_llm, nearest_task
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.node_parser import SentenceSplitter
from routes import asking, recorded_routes

from lorauter_integrations.llama_index import LoRAuterLLM
from lorauter_integrations.llama_index.embeddings import RouterEmbedding
from lorauter_integrations.metrics import contains, exact_match, f1

FOLDER = Path(__file__).parent
SHOWN = 6


@dataclass(frozen=True)
class Answer:
    """An answer, the document whose passage was read for it, and the route."""

    text: str
    document: str
    route: dict[str, Any]


def read_documents(folder: Path) -> list[Document]:
    """The documents of a folder. The title is embedded with its passage and not shown to the model: the adapter was
    trained on bare passages.
    """
    documents = []
    for file in sorted(folder.glob("*.md")):
        title, text = file.read_text(encoding="utf-8").split("\n\n", 1)
        facts = {"title": title.removeprefix("# ")}
        documents.append(Document(text=text, id_=file.name, metadata=facts, excluded_llm_metadata_keys=["title"]))
    return documents


def build_index(documents: Sequence[Document], llm: LoRAuterLLM) -> VectorStoreIndex:
    """The documents in a new Chroma collection; `chromadb.PersistentClient(folder)` would keep it on disk."""
    client = chromadb.EphemeralClient(chromadb.Settings(anonymized_telemetry=False))
    collection = client.create_collection(f"rag-{uuid4().hex}", configuration={"hnsw": {"space": "cosine"}})
    return VectorStoreIndex.from_documents(
        documents,
        storage_context=StorageContext.from_defaults(vector_store=ChromaStore(collection)),
        embed_model=RouterEmbedding(llm.lorauter.index.encoder),
        transformations=[SentenceSplitter(chunk_size=256, chunk_overlap=0)],
    )


def answer_all(index: VectorStoreIndex, llm: LoRAuterLLM, questions: Sequence[str]) -> list[Answer]:
    """Ask all questions at once; they share the model's forward passes.

    One passage a question: a model of this size is easily led astray by a second one.
    """
    engine = index.as_query_engine(llm=llm, similarity_top_k=1, response_mode="compact")

    async def ask() -> list[Answer]:
        return await asyncio.gather(*(answer_one(engine, question, routes) for question in questions))

    with recorded_routes() as routes:
        return asyncio.run(ask())


async def answer_one(engine: BaseQueryEngine, question: str, routes: dict[str, dict[str, Any]]) -> Answer:
    with asking(question):
        response = await engine.aquery(question)
    return Answer(str(response), response.source_nodes[0].node.ref_doc_id, routes[question])


def scores(answers: Sequence[Answer], rows: Sequence[dict[str, str]]) -> dict[str, float]:
    """Means over the questions: the right document was read, the answer's exact match and F1, and whether the
    right words stand in it anywhere.
    """
    pairs = list(zip(answers, rows, strict=True))
    found = {"found": sum(answer.document == row["document"] for answer, row in pairs) / len(pairs)}
    return found | {
        metric.__name__: sum(metric(answer.text, row["answer"]) for answer, row in pairs) / len(pairs)
        for metric in (exact_match, f1, contains)
    }


def read_questions(file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    rows = read_questions(FOLDER / "questions.jsonl")
    questions = [row["question"] for row in rows]
    llm = demo_llm()
    index = build_index(read_documents(FOLDER / "documents"), llm)
    routed = answer_all(index, llm, questions)
    base = answer_all(index, demo_llm(adapters={}), questions)
    for question, answer, alone in list(zip(questions, routed, base, strict=True))[:SHOWN]:
        console.print(f"\n[bold]{question}[/]", highlight=False)
        mixture = answer.route["adapters"].items()
        show("read", answer.document)
        show("route", ", ".join(f"{adapter} {weight:.2f}" for adapter, weight in mixture))
        show("routed", answer.text)
        show("base model", alone.text)
    console.print()
    for name, answers in (("routed", routed), ("base model", base)):
        show(name, ", ".join(f"{metric} {mean:.2f}" for metric, mean in scores(answers, rows).items()))
    nearest = Counter(nearest_task(answer.route) for answer in routed)
    show("first task", ", ".join(f"{task} for {times} of {len(rows)}" for task, times in nearest.items()))


def show(label: str, text: str) -> None:
    console.print(f"{label:>12}: {' '.join(text.split())[:160]}", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
