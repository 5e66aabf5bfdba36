"""Where the prompts that LlamaIndex sends are routed, by several texts, for docs/llama_index.md.

    python tests/benchmarks/llama_index_routing.py ENCODER TASKS HELD_OUT [--each 24] [--seed 1]

TASKS holds the demo's eight tasks. HELD_OUT holds tasks of the same kinds (squad_v1, sst2, ...), of whose test.jsonl
the inputs are put into LlamaIndex' own templates. Every step of LlamaIndex that no demo task does (condensing,
keywords) becomes a task of its own in the second table, with examples in the template's form.
"""

from __future__ import annotations

import argparse
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from llama_index.core.agent.react.formatter import ReActChatFormatter
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.chat_engine import condense_plus_context, condense_question, context
from llama_index.core.extractors import metadata_extractors
from llama_index.core.prompts import PromptTemplate, chat_prompts, default_prompts
from llama_index.core.query_engine import citation_query_engine
from llama_index.core.question_gen import prompts as question_gen
from llama_index.core.retrievers import fusion_retriever
from llama_index.core.selectors import prompts as selectors
from llama_index.core.tools import FunctionTool

from lorauter_integrations import (
    Encoder,
    Example,
    Message,
    SentenceTransformerEncoder,
    Task,
    TaskRouter,
)
from lorauter_integrations.evaluation.quality import router_of
from lorauter_integrations.llama_index.messages import from_llama_index
from lorauter_integrations.locations import resolve_location
from lorauter_integrations.route_text import route_text
from lorauter_integrations.routing import DEFAULT, PAPER, RememberingEncoder
from lorauter_integrations.task import find_task_folders, read_examples

HELD_OUT = {
    "passage_qa": ["squad_v1"],
    "sentiment": ["sst2", "yelp_polarity_reviews"],
    "text_repair": ["true_case", "fix_punct"],
    "text_to_sql": ["text_to_sql"],
    "entities": ["ner_news"],
    "topic": ["ag_news"],
    "data_to_text": ["e2e_nlg", "web_nlg_en"],
    "function_calling": ["function_calling"],
}
READ = 6000  # characters; the encoder reads fewer, and tokenizing more takes time


@dataclass(frozen=True)
class Passage:
    """One question on a passage."""

    text: str
    question: str
    answer: str


@dataclass(frozen=True)
class Case:
    """One call of the language model.

    Attributes:
        messages: what the model gets.
        right: the task that it should go to.
        query: the variable of the template that asks.
        rest: the template's other variable.
        tools: what is offered, in OpenAI's form.
    """

    messages: Sequence[Message]
    right: str
    query: str
    rest: str = ""
    tools: tuple[dict, ...] = ()

    @property
    def whole(self) -> str:
        return route_text(self.messages, self.tools)


TEXTS: dict[str, Callable[[Case], str]] = {
    "whole": lambda case: case.whole,
    "last_user": lambda case: route_text(case.messages, route_on="last_user"),
    "query": lambda case: case.query,
    "variables": lambda case: f"{case.query}\n\n{case.rest}".strip(),
}
# How the texts are read and compared: preset and what is read of texts that are longer than the encoder reads.
WAYS = {"paper, head": (PAPER, "head"), "paper, ends": (PAPER, "ends"), "default, ends": (DEFAULT, "ends")}


# ------------------------------------------------------------------ what LlamaIndex sends


def said(template: str | object, **variables: object) -> tuple[Message, ...]:
    """A template filled in."""
    template = PromptTemplate(template) if isinstance(template, str) else template
    return from_llama_index(template.format_messages(**variables))


def with_context(template: str, text: str, query: str) -> tuple[Message, ...]:
    """A chat engine's call: the context in the system message."""
    return Message("system", PromptTemplate(template).format(context_str=text)), Message("user", query)


Ask = Callable[[str, str, str], tuple[Message, ...]]  # a context, a query, an earlier answer
ANSWERS: dict[str, Ask] = {
    "text_qa": lambda c, q, _: said(chat_prompts.CHAT_TEXT_QA_PROMPT, context_str=c, query_str=q),
    "tree_summarize": lambda c, q, _: said(chat_prompts.CHAT_TREE_SUMMARIZE_PROMPT, context_str=c, query_str=q),
    "refine": lambda c, q, a: said(chat_prompts.CHAT_REFINE_PROMPT, context_msg=c, query_str=q, existing_answer=a),
    "text_qa, no system message": lambda c, q, _: said(
        default_prompts.DEFAULT_TEXT_QA_PROMPT, context_str=c, query_str=q
    ),
    "citations": lambda c, q, _: said(
        citation_query_engine.CITATION_QA_TEMPLATE, context_str=f"Source 1:\n{c}", query_str=q
    ),
    "context chat": lambda c, q, _: with_context(context.DEFAULT_CONTEXT_TEMPLATE, c, q),
    "condense plus context chat": lambda c, q, _: with_context(
        condense_plus_context.DEFAULT_CONTEXT_PROMPT_TEMPLATE, c, q
    ),
}


def history(passages: Sequence[Passage]) -> str:
    return "\n".join(f"user: {one.question}\nassistant: {one.answer}" for one in passages)


CHOICES = "(1) Useful for timetables\n\n(2) Useful for summaries of reports\n\n(3) Useful for facts about the crew"
Step = Callable[[Sequence[Passage]], tuple[tuple[Message, ...], str, str]]  # messages, query, the rest
STEPS: dict[str, Step] = {
    "condense question": lambda p: (
        said(condense_question.DEFAULT_TEMPLATE, chat_history=history(p[:2]), question=p[2].question),
        p[2].question,
        history(p[:2]),
    ),
    "condense plus context": lambda p: (
        said(
            condense_plus_context.DEFAULT_CONDENSE_PROMPT_TEMPLATE,
            chat_history=history(p[:2]),
            question=p[2].question,
        ),
        p[2].question,
        history(p[:2]),
    ),
    "fusion queries": lambda p: (
        said(fusion_retriever.QUERY_GEN_PROMPT, num_queries=3, query=p[0].question),
        p[0].question,
        "",
    ),
    "sub-questions": lambda p: (
        said(
            question_gen.DEFAULT_SUB_QUESTION_PROMPT_TMPL,
            tools_str=question_gen.example_tools_str,
            query_str=p[0].question,
        ),
        p[0].question,
        "",
    ),
    "selector": lambda p: (
        said(
            selectors.DEFAULT_SINGLE_SELECT_PROMPT_TMPL,
            num_choices=3,
            context_list=CHOICES,
            query_str=p[0].question,
        ),
        p[0].question,
        CHOICES,
    ),
    "keywords of a question": lambda p: (
        said(default_prompts.DEFAULT_QUERY_KEYWORD_EXTRACT_TEMPLATE, max_keywords=10, question=p[0].question),
        p[0].question,
        "",
    ),
    "keywords": lambda p: (
        said(metadata_extractors.DEFAULT_KEYWORD_EXTRACT_TEMPLATE, keywords=5, context_str=p[0].text),
        p[0].text,
        "",
    ),
    "title": lambda p: (
        said(metadata_extractors.DEFAULT_TITLE_NODE_TEMPLATE, context_str=p[0].text),
        p[0].text,
        "",
    ),
    "summary": lambda p: (said(default_prompts.DEFAULT_SUMMARY_PROMPT, context_str=p[0].text), p[0].text, ""),
    "section summary": lambda p: (
        said(metadata_extractors.DEFAULT_SUMMARY_EXTRACT_TEMPLATE, context_str=p[0].text),
        p[0].text,
        "",
    ),
    "questions of a text": lambda p: (
        said(metadata_extractors.DEFAULT_QUESTION_GEN_TMPL, num_questions=3, context_str=p[0].text),
        p[0].text,
        "",
    ),
}


def get_weather(city: str) -> str:
    """Current weather of a city."""
    return city


def order_status(order_id: str) -> str:
    """Status of an order by its number."""
    return order_id


TOOLS = [FunctionTool.from_defaults(function) for function in (get_weather, order_status)]


def react(request: str) -> tuple[Message, ...]:
    """The first call of a ReActAgent."""
    return from_llama_index(ReActChatFormatter().format(TOOLS, [ChatMessage(request, role="user")]))


def observed(request: str) -> tuple[Message, ...]:
    """Its second: what a tool found comes as a user's message."""
    thought = 'Thought: I need to use a tool.\nAction: get_weather\nAction Input: {"city": "Oslo"}'
    return (*react(request), Message("assistant", thought), Message("user", "Observation: cloudy, 11 degrees"))


# ------------------------------------------------------------------ cases


def passages(file: Path) -> list[Passage]:
    """Passage and question of the prompts that keep them apart."""
    forms = (r"(?s)(.*)\n\nQuestion: (.*)\nAnswer with words from the passage\.", r"(?s)Passage: (.*)\n\n(.*)")
    found = ((re.fullmatch(form, one.input), one.target) for one in read_examples(file) for form in forms)
    return [Passage(match[1], match[2], answer) for match, answer in found if match]


def parts(file: Path, form: str) -> list[tuple[str, ...]]:
    return [match.groups() for one in read_examples(file) if (match := re.search(form, one.input))]


def long(passage: Passage, others: Sequence[Passage], rng: random.Random) -> str:
    """A passage among seven others: two chunks of a usual size."""
    texts = rng.sample(sorted({one.text for one in others} - {passage.text}), 7)
    texts.insert(rng.randrange(8), passage.text)
    return "\n\n".join(texts)


def answering(
    asked: Sequence[Passage], known: Sequence[Passage], rng: random.Random
) -> Iterator[tuple[str, list[Case]]]:
    for name, ask in ANSWERS.items():
        for length in ("short", "long"):
            texts = [one.text if length == "short" else long(one, known, rng) for one in asked]
            yield (
                f"{name}, {length}",
                [
                    Case(ask(text, one.question, one.answer), "passage_qa", one.question, text)
                    for one, text in zip(asked, texts, strict=True)
                ],
            )


def asking(folder: Path, asked: Sequence[Passage], each: int, rng: random.Random) -> Iterator[tuple[str, list[Case]]]:
    """Calls whose query is a task's own input."""
    inputs = [
        (task, one.input)
        for task, names in HELD_OUT.items()
        for name in names
        for one in rng.sample(read_examples(folder / name / "test.jsonl"), max(1, each // 4 // len(names)))
    ]
    yield "the input alone", [Case((Message("user", text),), task, text) for task, text in inputs]
    text = asked[0].text
    yield (
        "the input as a query engine's query",
        [Case(ANSWERS["text_qa"](text, query, ""), task, query, text) for task, query in inputs],
    )
    sql = parts(folder / "text_to_sql" / "test.jsonl", r"(?s)^(?:Tables|Schema): ?(.*)\n[^\n]*: ([^\n]*)$")
    yield (
        "text to SQL",
        [
            Case(
                said(default_prompts.DEFAULT_TEXT_TO_SQL_PROMPT, dialect="sqlite", schema=schema, query_str=query),
                "text_to_sql",
                query,
                schema,
            )
            for schema, query in sql[:each]
        ],
    )
    calls = parts(folder / "function_calling" / "test.jsonl", r"(?s)\n\nRequest: (.*)\nCall \(JSON")[:each]
    tools = tuple(tool.metadata.to_openai_tool() for tool in TOOLS)
    system = Message("system", "You are a helpful assistant.")
    yield (
        "FunctionAgent",
        [Case((system, Message("user", query)), "function_calling", query, tools=tools) for (query,) in calls],
    )
    yield "ReActAgent", [Case(react(query), "function_calling", query) for (query,) in calls]
    yield "ReActAgent, a result", [Case(observed(query), "function_calling", query) for (query,) in calls]


def stepping(known: Sequence[Passage], each: int, rng: random.Random) -> Iterator[tuple[str, list[Case]]]:
    for title, step in STEPS.items():
        name = title.replace(" ", "-")
        made = [step(rng.sample(known, 3)) for _ in range(each)]
        yield name, [Case(messages, name, query, rest) for messages, query, rest in made]


# ------------------------------------------------------------------ the tables


def routers(encoders: dict[str, Encoder], tasks: dict[str, list[str]]) -> dict[str, TaskRouter]:
    """A router among some tasks for each way."""
    made = [Task(name, "f1", [Example(text, "x") for text in texts]) for name, texts in tasks.items()]
    return {way: router_of(made, encoders[read], rules) for way, (rules, read) in WAYS.items()}


def print_table(encoders: dict[str, Encoder], tasks: dict[str, list[str]], rows: dict[str, list[Case]]) -> None:
    ways = routers(encoders, tasks)
    columns = [(kind, "default, ends") for kind in TEXTS if kind != "whole"] + [("whole", way) for way in ways]
    print(f"\n{len(tasks)} tasks | " + " | ".join(f"{kind}: {way}" for kind, way in columns) + " | the last goes to")
    for row, cases in rows.items():
        shares, most = [], ""
        for kind, way in columns:
            look = ways[way].look([TEXTS[kind](case)[:READ] for case in cases])
            near = [look.tasks[at] for at in look.similarities.argmax(axis=1)]
            shares.append(np.mean([name == case.right for name, case in zip(near, cases, strict=True)]))
            most = ", ".join(f"{name} {count}" for name, count in Counter(near).most_common(2))
        print(row, *(f"{share:.2f}" for share in shares), most, sep=" | ", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("encoder")
    parser.add_argument("tasks", type=Path)
    parser.add_argument("held_out", type=Path)
    parser.add_argument("--each", type=int, default=24, help="cases of a row")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    rng = random.Random(given.seed)
    name = resolve_location(given.encoder)
    encoders: dict[str, Encoder] = {
        read: RememberingEncoder(SentenceTransformerEncoder(name, device="cpu", long_texts=read), 100_000)
        for read in ("ends", "head")
    }
    tasks = {
        folder.name: [one.text for one in read_examples(folder / "validation.jsonl")]
        for folder in find_task_folders([given.tasks])
    }
    known, tests = (passages(given.held_out / "squad_v1" / f"{split}.jsonl") for split in ("validation", "test"))
    asked = rng.sample(tests, given.each)
    rows = dict(answering(asked, tests, rng)) | dict(asking(given.held_out, asked, given.each, rng))
    print_table(encoders, tasks, rows)
    steps = {name: [case.whole for case in cases] for name, cases in stepping(known, 24, rng)}
    print_table(encoders, tasks | steps, rows | dict(stepping(tests, given.each // 2, rng)))


if __name__ == "__main__":
    main()
