"""The LlamaIndex examples: on SmolLM2-135M-Instruct and the committed adapters, as an application runs them; and
their documents and vector store on a hand-written encoder.
"""

import importlib.util
import sys
from pathlib import Path

import pytest
from conftest import DEMO
from llama_index.core import Document
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.schema import MetadataMode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

from lorauter_integrations.llama_index import LoRAuterLLM

FOLDER = Path(__file__).parents[1] / "examples" / "llama_index"
QUESTIONS = FOLDER / "questions.jsonl"
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def rag():
    """The module `rag` with its neighbours; the LangChain examples have a `demo_llm` too."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("demo_llm", "chroma_store", "rag"):
            spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
            module = importlib.util.module_from_spec(spec)
            patch.setitem(sys.modules, name, module)
            spec.loader.exec_module(module)
        yield module


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
