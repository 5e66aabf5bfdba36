"""LlamaIndex' own engines on the LLM, each to its end; what the model says is scripted, what it is asked is real."""

import asyncio
from functools import partial

import pytest
from llama_index.core import Document, VectorStoreIndex, get_response_synthesizer
from llama_index.core.base.response.schema import PydanticResponse
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.query_engine import CitationQueryEngine, RouterQueryEngine, SubQuestionQueryEngine
from llama_index.core.question_gen import LLMQuestionGenerator
from llama_index.core.selectors import LLMSingleSelector, PydanticSingleSelector
from llama_index.core.tools import QueryEngineTool
from pydantic import BaseModel
from scripted import call, llm_of

from lorauter_integrations import LoRAuter
from lorauter_integrations.errors import InvalidAnswerError

DOCUMENTS = [Document(text="The ferry leaves at nine."), Document(text="The museum is closed on Monday.")]


pytestmark = pytest.mark.usefixtures("loop")


@pytest.fixture
def scripted(pico_lorauter):
    return partial(llm_of, pico_lorauter)


@pytest.fixture
def index():
    return VectorStoreIndex.from_documents(DOCUMENTS, embed_model=MockEmbedding(embed_dim=8))


@pytest.fixture
def index_of_tasks(tmp_path, encoder):
    from lorauter_integrations import TaskIndex

    with TaskIndex.embedded(tmp_path / "tasks", encoder) as opened:
        yield opened


@pytest.fixture
def pico_lorauter(index_of_tasks, pico_engine):
    """As the suite's, since `index` is a vector index here."""
    from conftest import set_winner

    from lorauter_integrations import Example
    from lorauter_integrations.task import Task

    examples = [Example(f"what does the context say about {n}", "red") for n in range(3)]
    index_of_tasks.add([Task("answers", "exact_match", examples)])
    set_winner(index_of_tasks, "answers", "plain", pico_engine.adapters["plain"].content_hash)
    return LoRAuter(index_of_tasks, pico_engine)


def said(engine, number=0):
    """All text of one request."""
    return "\n".join(message.content for message in engine.requests[number].messages)


def test_compact_answers_in_one_call_with_the_documents(scripted, index):
    llm, engine = scripted("At nine.")
    response = index.as_query_engine(llm=llm).query("When does the ferry leave?")
    assert str(response) == "At nine."
    assert len(engine.requests) == 1
    assert "The ferry leaves at nine." in said(engine)
    assert "When does the ferry leave?" in said(engine)


def test_streaming_gives_the_answer_in_pieces(scripted, index):
    llm, _ = scripted("At nine in the morning.")
    response = index.as_query_engine(llm=llm, streaming=True).query("When does the ferry leave?")
    pieces = list(response.response_gen)
    assert len(pieces) > 1
    assert "".join(pieces) == "At nine in the morning."


def test_refine_asks_for_each_document(scripted, index):
    llm, engine = scripted("At nine.", "At nine, and the museum is closed.")
    response = index.as_query_engine(llm=llm, response_mode="refine").query("What is open?")
    assert str(response) == "At nine, and the museum is closed."
    assert "At nine." in said(engine, 1)


def test_tree_summarize_works_in_threads_and_in_a_loop(scripted):
    llm, engine = scripted("Both.", "Both.")
    synthesizer = get_response_synthesizer(llm=llm, response_mode="tree_summarize", use_async=True)
    assert synthesizer.get_response("What?", [one.text for one in DOCUMENTS]) == "Both."
    assert asyncio.run(synthesizer.aget_response("What?", [one.text for one in DOCUMENTS])) == "Both."
    assert len(engine.requests) == 2


def test_condense_plus_context_condenses_only_with_a_history(scripted, index):
    llm, engine = scripted("At nine.", "When does the ferry leave on Sunday?", "At ten.")
    memory = ChatMemoryBuffer.from_defaults(token_limit=2000)  # the default leaves its database open
    chat = index.as_chat_engine(chat_mode="condense_plus_context", llm=llm, memory=memory)
    assert str(chat.chat("When does the ferry leave?")) == "At nine."
    assert str(chat.chat("And on Sunday?")) == "At ten."
    assert len(engine.requests) == 3
    assert "And on Sunday?" in said(engine, 1)
    assert "When does the ferry leave on Sunday?" in said(engine, 2) or "And on Sunday?" in said(engine, 2)


def test_citations_are_numbered(scripted, index):
    llm, engine = scripted("At nine [1].")
    response = CitationQueryEngine.from_args(index, llm=llm).query("When does the ferry leave?")
    assert str(response) == "At nine [1]."
    assert "Source 1:" in said(engine)


class Departure(BaseModel):
    hour: int


def test_a_query_engine_may_answer_with_an_object(scripted, index):
    llm, engine = scripted('{"hour": 9}')
    response = index.as_query_engine(llm=llm, output_cls=Departure).query("When does the ferry leave?")
    assert isinstance(response, PydanticResponse)
    assert response.response == Departure(hour=9)
    assert engine.requests[0].grammar.kind == "json_schema"


def test_an_object_that_is_no_object_is_an_error_and_no_empty_response(scripted, index):
    llm, _ = scripted('{"hour": "ni')
    with pytest.raises(InvalidAnswerError, match="the answer is no Departure"):
        index.as_query_engine(llm=llm, output_cls=Departure).query("When does the ferry leave?")


def tools(index, llm):
    return [
        QueryEngineTool.from_defaults(index.as_query_engine(llm=llm), name="ferries", description="about ferries"),
        QueryEngineTool.from_defaults(index.as_query_engine(llm=llm), name="museums", description="about museums"),
    ]


def test_a_router_engine_selects_by_a_call(scripted, index):
    picked = call("SingleSelection", index=2, reason="it is about museums")
    llm, engine = scripted(picked, "On Monday.")
    router = RouterQueryEngine.from_defaults(
        tools(index, llm), llm=llm, selector=PydanticSingleSelector.from_defaults(llm=llm)
    )
    response = router.query("When is the museum closed?")
    assert str(response) == "On Monday."
    assert response.metadata["selector_result"].ind == 1
    assert not engine.requests[0].grammar.allows_text


def test_a_router_engine_selects_by_text(scripted, index):
    llm, _ = scripted('[{"choice": 1, "reason": "it is about ferries"}]', "At nine.")
    selector = LLMSingleSelector.from_defaults(llm=llm)
    router = RouterQueryEngine.from_defaults(tools(index, llm), llm=llm, selector=selector)
    response = router.query("When does the ferry leave?")
    assert (str(response), response.metadata["selector_result"].ind) == ("At nine.", 0)


def test_sub_questions_are_asked_of_their_tools(scripted, index):
    questions = '{"items": [{"sub_question": "When does it leave?", "tool_name": "ferries"}]}'
    llm, engine = scripted(f"```json\n{questions}\n```", "At nine.", "It leaves at nine.")
    whole = SubQuestionQueryEngine.from_defaults(
        tools(index, llm),
        llm=llm,
        question_gen=LLMQuestionGenerator.from_defaults(llm=llm),
        response_synthesizer=get_response_synthesizer(llm=llm),
        use_async=False,
        verbose=False,
    )
    assert str(whole.query("Tell me of the ferry")) == "It leaves at nine."
    assert len(engine.requests) == 3
