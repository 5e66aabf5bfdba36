"""The LlamaIndex examples: on SmolLM2-135M-Instruct and the committed adapters, as an application runs them; their
documents and vector store on a hand-written encoder, and their log on the pico model. And LlamaIndex' own engines and
agents on the real model.
"""

import asyncio
import importlib.util
import io
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import llama_index.core
import pytest
from conftest import CONFIG, DEMO
from llama_index.core import Document, Settings, SQLDatabase, VectorStoreIndex
from llama_index.core.agent.workflow import AgentWorkflow
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.llms import ChatMessage
from llama_index.core.query_engine import CitationQueryEngine, NLSQLTableQueryEngine, RouterQueryEngine
from llama_index.core.schema import MetadataMode
from llama_index.core.tools import QueryEngineTool
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
from pydantic import BaseModel
from sqlalchemy import create_engine, text
from sqlalchemy.pool import StaticPool

from lorauter_integrations.errors import OptionError
from lorauter_integrations.llama_index import LoRAuterLLM, LoRAuterSelector, RouterEmbedding

FOLDER = Path(__file__).parents[1] / "examples" / "llama_index"
QUESTIONS = FOLDER / "questions.jsonl"
NAMES = ("demo_llm", "routes", "chroma_store", "rag", "agent", "extraction", "tracing")
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def examples():
    """The modules, under the names by which they import each other; other examples have such names too."""
    modules = {}
    with pytest.MonkeyPatch.context() as patch:
        for name in NAMES:
            spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
            modules[name] = importlib.util.module_from_spec(spec)
            patch.setitem(sys.modules, name, modules[name])
            spec.loader.exec_module(modules[name])
        yield SimpleNamespace(**modules)


@pytest.fixture(scope="module")
def rag(examples):
    return examples.rag


# ---------------------------------------------------------------------- documents and vector store


def test_every_answer_is_a_short_span_of_its_document_and_none_is_the_demos(rag):
    texts = {document.doc_id: document.text for document in rag.read_documents(FOLDER / "documents")}
    rows = rag.read_questions(QUESTIONS)
    assert len(texts) >= 24
    assert len({row["question"] for row in rows}) == len({row["document"] for row in rows}) == 20
    assert [row for row in rows if row["answer"] not in texts[row["document"]]] == []
    assert max(len(row["answer"].split()) for row in rows) <= 4
    demo = " ".join(file.read_text(encoding="utf-8") for file in DEMO.glob("documents/*"))
    assert [name for name, text in texts.items() for line in text.split(". ") if line in demo] == []


DOCUMENTS = {
    "cat": ("animals", "the cat sat on the mat"),
    "rates": ("money", "interest rates rose in june"),
    "rain": ("weather", "rain fell on the hills in june"),
}


@pytest.fixture
def store(rag, pico_lorauter):
    """Three documents in Chroma, under the hand-written encoder."""
    documents = [
        Document(text=text, id_=name, metadata={"title": title}, excluded_llm_metadata_keys=["title"])
        for name, (title, text) in DOCUMENTS.items()
    ]
    return rag.build_index(documents, LoRAuterLLM(pico_lorauter))


def retrieve(store, query, count):
    return store.as_retriever(similarity_top_k=count).retrieve(query)


def test_the_nearest_documents_come_first_with_their_cosines(store, encoder):
    query = "how much did interest rates rise in june"
    found = retrieve(store, query, 2)
    assert [node.node.ref_doc_id for node in found] == ["rates", "rain"]
    embedded = [f"title: {title}\n\n{text}" for title, text in (DOCUMENTS["rates"], DOCUMENTS["rain"])]
    cosines = encoder.encode(embedded) @ encoder.encode([query])[0]
    assert [node.score for node in found] == pytest.approx(cosines.tolist(), abs=1e-4)


def test_a_title_is_found_and_not_read_by_the_model(store):
    [found] = retrieve(store, "money", 1)
    assert found.node.ref_doc_id == "rates"
    assert found.node.get_content(MetadataMode.LLM) == DOCUMENTS["rates"][1]


def test_a_deleted_document_is_no_longer_found_and_the_others_are(store):
    store.delete_ref_doc("rates")
    found = retrieve(store, "interest rates", 3)
    assert {node.node.ref_doc_id for node in found} == {"cat", "rain"}


def test_an_index_opened_again_on_the_same_collection_finds_the_same(rag, store):
    again = rag.VectorStoreIndex.from_vector_store(store.vector_store, embed_model=store._embed_model)
    assert retrieve(again, "interest rates", 3) == retrieve(store, "interest rates", 3)


def test_two_indexes_in_one_process_do_not_mix(rag, store, pico_lorauter):
    other = rag.build_index([Document(text="interest rates fell", id_="other")], LoRAuterLLM(pico_lorauter))
    assert [node.node.ref_doc_id for node in retrieve(other, "interest rates", 3)] == ["other"]
    assert len(retrieve(store, "interest rates", 5)) == 3


def test_what_the_small_store_cannot_do_is_an_error(store):
    filters = MetadataFilters(filters=[MetadataFilter(key="title", value="money")])
    with pytest.raises(NotImplementedError, match="takes no filter or mode"):
        store.as_retriever(filters=filters).retrieve("rates")
    with pytest.raises(NotImplementedError, match="takes no filter or mode"):
        store.as_retriever(vector_store_query_mode="mmr").retrieve("rates")


# ---------------------------------------------------------------------- the real model


@pytest.fixture
def llms(rag, real_lorauter, real_settings, monkeypatch):
    """The examples' own LLM, routed and as the base model alone, on the tests' own index and pool."""
    monkeypatch.setenv("LORAUTER_INDEX__PATH", real_settings.index.path)
    monkeypatch.setenv("LORAUTER_POOL__PATH", real_settings.pool.path)
    monkeypatch.setenv("LORAUTER_MAPPING__LEDGER", real_settings.mapping.ledger)
    routed, base = rag.demo_llm(), rag.demo_llm(adapters={})
    assert routed.lorauter.engine is base.lorauter.engine is real_lorauter.engine
    return routed, base


@pytest.mark.real_model
def test_without_a_mapped_task_the_examples_say_what_to_run(rag, llms, tmp_path, monkeypatch):
    monkeypatch.setenv("LORAUTER_INDEX__PATH", str(tmp_path / "index"))
    with pytest.raises(SystemExit, match=r"holds no mapped task, .* Run `make demo` first"):
        rag.demo_llm()


@pytest.mark.real_model
def test_every_question_finds_its_document(rag, llms):
    index = rag.build_index(rag.read_documents(FOLDER / "documents"), llms[0])
    for row in rag.read_questions(QUESTIONS):
        [found] = retrieve(index, row["question"], 1)
        assert found.node.ref_doc_id == row["document"]


@pytest.mark.real_model
def test_questions_asked_at_once_are_routed_to_passage_qa_and_answered_better_than_by_the_base_model(rag, llms):
    index = rag.build_index(rag.read_documents(FOLDER / "documents"), llms[0])
    rows = rag.read_questions(QUESTIONS)[::3]
    handlers = list(get_dispatcher().event_handlers)
    routed, base = (rag.answer_all(index, llm, [row["question"] for row in rows]) for llm in llms)
    assert get_dispatcher().event_handlers == handlers
    assert [answer.document for answer in routed] == [row["document"] for row in rows]
    assert {rag.nearest_task(answer.route) for answer in routed} == {"passage_qa"}
    assert all(max(mixture, key=mixture.get) == "passage_qa" for mixture in mixtures(routed))
    assert mixtures(base) == [{}] * len(rows)
    mine, alone = rag.scores(routed, rows), rag.scores(base, rows)
    assert mine["f1"] > alone["f1"] + 0.4
    assert mine["exact_match"] > alone["exact_match"] + 0.4


def mixtures(answers):
    return [answer.route["adapters"] for answer in answers]


# ---------------------------------------------------------------------- the agent


@pytest.mark.real_model
@pytest.mark.parametrize(
    ("request_", "call", "result", "about"),
    [
        ("What is the weather in Lisbon?", "get_weather({'city': 'Lisbon'})", "sunny, 24 degrees", "weather"),
        ("Where is my order 48213?", "order_status({'order_id': '48213'})", "delayed", "order"),
        pytest.param(
            "Where is my order 90311?",
            "order_status({'order_id': '90311'})",
            "on its way",
            "order",
            marks=pytest.mark.xfail(reason="the model's skill: the right last text, then Reply('order', '90311')"),
        ),
    ],
)
def test_the_agent_calls_the_right_tool_once_and_ends_with_text_and_object(
    examples, llms, request_, call, result, about
):
    steps, reply = asyncio.run(examples.agent.run_agent(llms[0], request_))
    assert [step.by for step in steps] == ["model", "tool", "model"]
    assert [step.task for step in steps] == ["function_calling", None, "function_calling"]
    assert [step.text for step in steps[:2]] == [call, result]
    assert result.split()[-1] in steps[2].text
    assert reply == examples.agent.Reply(about=about, answer=result)


@pytest.mark.real_model
def test_an_agent_workflow_of_the_same_tools_ends_with_what_the_tool_said(examples, llms):
    answers = []

    async def run():
        workflow = AgentWorkflow.from_tools_or_functions(
            [examples.agent.get_weather, examples.agent.order_status],
            llm=llms[0],
            system_prompt="You are a helpful assistant.",
        )
        answers.append(str(await workflow.run("Where is my order 48213?")))

    lines = logged(examples, lambda: asyncio.run(run()))
    assert answers == ["Your order 48213 is delayed."]
    assert [(line["step"], line["task"]) for line in lines] == [
        ("AgentWorkflow.run_agent_step", "function_calling")
    ] * 2
    assert len({line["run"] for line in lines}) == 1


# ---------------------------------------------------------------------- extraction


def test_every_booking_stands_in_its_text(examples):
    rows = examples.extraction.read_rows(examples.extraction.FILE)
    assert len({row["text"] for row in rows}) == 16
    for row in rows:
        booking = examples.extraction.Booking(**{key: row[key] for key in ("people", "day", "time", "guest")})
        assert all(word in row["text"] for word in (booking.day, booking.time, booking.guest))


def test_times_are_written_one_way_and_others_are_refused(examples):
    kind = examples.extraction.Booking
    assert kind(people=2, day="Monday", time="8:00 pm", guest="Ann").time == "8 pm"
    assert kind(people=2, day="Monday", time="8:30 pm", guest="Ann").time == "8:30 pm"
    with pytest.raises(ValueError, match="String should match pattern"):
        kind(people=2, day="Monday", time="in the evening", guest="Ann")


@pytest.mark.real_model
def test_bookings_found_at_once_are_routed_to_function_calling_and_are_better_than_the_base_models(examples, llms):
    rows = examples.extraction.read_rows(examples.extraction.FILE)
    routed, base = (examples.extraction.find_all(llm, [row["text"] for row in rows]) for llm in llms)
    nearest = [examples.demo_llm.nearest_task(found.route) for found in routed]
    assert nearest.count("function_calling") >= 14
    assert mixtures(base) == [{}] * len(rows)
    mine, alone = examples.extraction.scores(routed, rows), examples.extraction.scores(base, rows)
    assert mine["all"] >= 0.75
    assert mine["all"] > alone["all"] + 0.2
    assert mine["people"] > alone["people"] + 0.2


# ---------------------------------------------------------------------- workflow and log


def logged(examples, work):
    """The lines that a piece of work writes into the log, without the seconds."""
    file, root = io.StringIO(), get_dispatcher()
    before = list(root.event_handlers), list(root.span_handlers)
    with examples.tracing.logged_routes(file):
        work()
    assert (root.event_handlers, root.span_handlers) == before
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert all(line.pop("seconds") >= 0 for line in lines)
    return lines


@pytest.mark.real_model
def test_the_workflows_steps_are_routed_each_to_its_own_task_and_the_topic_decides(examples, llms):
    technology, sports = asyncio.run(examples.tracing.run_all(llms[0], examples.tracing.DICTATED))
    assert technology["text"] == (
        "Microsoft opened an office in Berlin and Google opened an office in Madrid on Monday."
    )
    assert technology["topic"] == "technology"
    assert technology["entities"].startswith("Microsoft (organisation); Berlin (place)")
    assert sports == {
        "text": "The striker scored twice and the team won the cup final on Saturday.",
        "topic": "sports",
    }


@pytest.mark.real_model
def test_runs_at_the_same_time_write_the_lines_that_each_writes_alone(examples, llms):
    def run(*dictated):
        return logged(examples, lambda: asyncio.run(examples.tracing.run_all(llms[0], dictated)))

    def by_run(lines):
        found = {}
        for line in lines:
            found.setdefault(line.pop("run"), []).append((line["step"], line["task"], line["adapters"]))
        return list(found.values())

    first, second = examples.tracing.DICTATED
    alone = by_run(run(first)) + by_run(run(second))
    together = by_run(run(first, second))
    assert sorted(together, key=len) == sorted(alone, key=len)
    assert [[(step, task) for step, task, _ in steps] for steps in alone] == [
        [
            ("NewsDesk.repair", "text_repair"),
            ("NewsDesk.find_topic", "topic"),
            ("NewsDesk.find_entities", "entities"),
        ],
        [("NewsDesk.repair", "text_repair"), ("NewsDesk.find_topic", "topic")],
    ]


class Colour(BaseModel):
    is_red: bool


@pytest.fixture
def pico(pico_lorauter):
    return LoRAuterLLM(pico_lorauter, max_tokens=6)


def test_every_way_to_call_writes_one_line_with_route_and_tokens(examples, pico):
    messages = [ChatMessage("name a colour")]
    answer = pico.chat(messages)

    async def in_a_loop():
        await pico.achat(messages)
        await pico.acomplete("name a colour")
        [piece async for piece in await pico.astream_chat(messages)]
        [piece async for piece in await pico.astream_complete("name a colour")]

    def work():
        pico.chat(messages)
        pico.complete("name a colour")
        list(pico.stream_chat(messages))
        list(pico.stream_complete("name a colour"))
        asyncio.run(in_a_loop())

    usage = answer.raw["usage"]
    expected = {
        "run": None,
        "step": None,
        "task": "colours",
        "adapters": answer.raw["lorauter"]["adapters"],
        "tokens": {"input": usage["prompt_tokens"], "output": usage["completion_tokens"]},
    }
    assert logged(examples, work) == [expected] * 8


def test_a_line_names_the_engine_that_asked_and_objects_are_one_line(examples, pico, store):
    def work():
        store.as_query_engine(llm=pico).query("name a colour")
        pico.as_structured_llm(Colour).chat([ChatMessage("name a colour")], max_tokens=60)

    steps = [line["step"] for line in logged(examples, work)]
    assert steps == ["RetrieverQueryEngine.query", None]


def test_a_call_that_chooses_or_fails_or_is_left_is_a_line_too(examples, pico):
    def work():
        pico.complete("hello", adapters={})
        with pytest.raises(OptionError, match="max_tokens must be"):
            pico.complete("hello", max_tokens=0)
        stream = pico.stream_complete("name a colour")
        next(stream)
        stream.close()

    chosen, failed, left = logged(examples, work)
    assert (chosen["task"], chosen["adapters"]) == (None, {})
    assert failed["error"].startswith("max_tokens must be a whole number of at least 1")
    assert (left["task"], left["error"]) == ("colours", "GeneratorExit: ")


# ---------------------------------------------------------------------- LlamaIndex' own engines, on the real model


@pytest.fixture
def island(rag, llms):
    return rag.build_index(rag.read_documents(FOLDER / "documents"), llms[0])


@pytest.mark.real_model
@pytest.mark.parametrize(
    ("options", "calls"),
    [({"response_mode": "tree_summarize"}, 1), ({"response_mode": "refine"}, 2), ("citation", 1)],
)
def test_the_other_ways_to_answer_from_two_passages_are_routed_to_passage_qa(examples, llms, island, options, calls):
    llm = llms[0].model_copy(update={"max_tokens": 24})
    if options == "citation":
        engine = CitationQueryEngine.from_args(island, llm=llm, similarity_top_k=2)
    else:
        engine = island.as_query_engine(llm=llm, similarity_top_k=2, **options)
    for question, answer in (
        ("When was the museum opened?", "1957"),
        ("On which radio channel is the harbour master called?", "Channel 12"),
    ):
        assert asked(examples, engine, question) == (answer, ["passage_qa"] * calls)


def asked(examples, engine, question):
    """What an engine answers, and the tasks that its calls were routed to."""
    answers = []
    lines = logged(examples, lambda: answers.append(str(asyncio.run(engine.aquery(question)))))
    return answers[0], [line["task"] for line in lines]


@pytest.mark.real_model
def test_a_router_engine_takes_each_question_to_the_documents_or_to_the_table(examples, llms, island):
    llm = llms[0]
    database = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    with database.begin() as connection:
        connection.execute(text("CREATE TABLE bookings (id INTEGER PRIMARY KEY, passenger TEXT, price INTEGER)"))
        rows = "('Ann', 80), ('Bo', 95), ('Cy', 120), ('Di', 60)"
        connection.execute(text(f"INSERT INTO bookings (passenger, price) VALUES {rows}"))
    table = NLSQLTableQueryEngine(
        SQLDatabase(database),
        tables=["bookings"],
        llm=llm,
        embed_model=RouterEmbedding(llm.lorauter.index.encoder),
        synthesize_response=False,
    )
    tools = [
        QueryEngineTool.from_defaults(table, name="bookings", description="a table"),
        QueryEngineTool.from_defaults(
            island.as_query_engine(llm=llm, similarity_top_k=1), name="island", description="documents"
        ),
    ]
    tasks = {"bookings": ["text_to_sql"], "island": ["passage_qa"]}
    router = RouterQueryEngine(LoRAuterSelector(llm.lorauter, tasks=tasks), tools, llm=llm)
    for question, answer, task in (
        ("How many bookings have a price above 90?", "[(2,)]", "text_to_sql"),
        ("What is the average price of the bookings?", "[(88.75,)]", "text_to_sql"),
        ("When was the museum opened?", "1957", "passage_qa"),
    ):
        assert asked(examples, router, question) == (answer, [task])
    database.dispose()


@pytest.fixture
def settings():
    """LlamaIndex' global settings, as they were before afterwards."""
    names = ("_llm", "_embed_model", "_node_parser", "_prompt_helper", "_transformations")
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setattr(Settings, name, None)
        patch.setattr(llama_index.core, "global_tokenizer", None)
        yield Settings


@pytest.mark.real_model
def test_the_set_up_that_the_docs_show_is_all_that_a_query_engine_needs(llms, settings):
    page = (Path(__file__).parents[1] / "docs" / "llama_index.md").read_text(encoding="utf-8")
    code, shown = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1], {}
    exec(compile(code, "docs", "exec"), shown)
    llm = shown["set_up"](CONFIG)
    assert llm.lorauter.engine is llms[0].lorauter.engine
    assert settings.tokenizer("dr weber") == llm.lorauter.engine.token_ids("dr weber")
    index = VectorStoreIndex.from_documents([Document(text="Bicycles travel free. A dog costs 5 euros.")])
    response = asyncio.run(index.as_query_engine().aquery("How much does a dog cost?"))
    assert str(response) == "5 euros"
