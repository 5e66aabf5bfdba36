"""Faults that a review of the LlamaIndex side has found, and what holds instead."""

import asyncio
import json
import pickle
from functools import partial
from typing import Any, Literal

import pytest
from llama_index.core import VectorStoreIndex, get_response_synthesizer
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, ImageBlock
from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler
from llama_index.core.extractors import SummaryExtractor
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.program import FunctionCallingProgram
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate
from llama_index.core.schema import TextNode
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel, ConfigDict, Field
from scripted import ScriptedEngine, call, llm_of

from lorauter_integrations.errors import ContentError, InvalidAnswerError, OptionError
from lorauter_integrations.generation import Completion, Delta, Usage
from lorauter_integrations.llama_index import LoRAuterLLM
from lorauter_integrations.llama_index.embeddings import RouterEmbedding
from lorauter_integrations.llama_index.messages import from_llama_index

QUESTION = [ChatMessage(role="user", content="name a colour")]
PROMPT = PromptTemplate("name a colour")


class Trip(BaseModel):
    hour: int
    place: str


class Paint(BaseModel):
    colour: Literal["red", "blue"]
    bright: bool


def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


class CutEngine(ScriptedEngine):
    """Each answer is cut at the limit."""

    def _deltas(self, text, asked):
        yield Delta(text)
        yield Delta("", Completion(text, "length", Usage(asked, len(text))))


pytestmark = pytest.mark.usefixtures("loop")


@pytest.fixture
def scripted(pico_lorauter):
    return partial(llm_of, pico_lorauter)


@pytest.fixture
def query_engine(pico_lorauter):
    """A query engine over one passage."""
    embedding = RouterEmbedding(pico_lorauter.index.encoder)
    index = VectorStoreIndex([TextNode(text="name a colour: red")], embed_model=embedding)
    return lambda **options: index.as_query_engine(**options)


# ------------------------------------------------------------------ errors are never an empty response


@pytest.mark.parametrize(
    "fields",
    [{"temperature": -1}, {"max_tokens": 0}, {"top_p": 5.0}, {"adapters": {"plain": 1.0}, "task": "sums"}],
    ids=lambda fields: "+".join(fields),
)
def test_a_wrong_field_is_refused_when_the_llm_is_made(pico_lorauter, fields):
    with pytest.raises(OptionError, match=r"must be|exclude each other"):
        LoRAuterLLM(pico_lorauter, **fields)


def test_content_that_cannot_be_read_is_an_error_of_a_query_engine(scripted, query_engine):
    picture = ChatMessage(role="user", blocks=[ImageBlock(image=b"x")])
    template = ChatPromptTemplate([picture, ChatMessage(role="user", content="{context_str} {query_str}")])
    llm, _ = scripted("red")
    engine = query_engine(llm=llm, text_qa_template=template)
    with pytest.raises(ContentError, match="content block of type 'image'"):
        engine.query("name a colour")


def test_a_schema_that_cannot_be_kept_is_an_error_of_a_query_engine(pico_lorauter, query_engine):
    class Odd(BaseModel):
        model_config = ConfigDict(
            json_schema_extra={"patternProperties": {"^a": {"type": "string"}, "^ab": {"type": "integer"}}}
        )

    engine = query_engine(llm=LoRAuterLLM(pico_lorauter), output_cls=Odd)
    with pytest.raises(OptionError, match=r"patternProperty regexes .* are not disjoint"):
        engine.query("name a colour")


def test_what_is_no_lorauter_is_refused_with_the_way_to_one():
    with pytest.raises(OptionError, match=r"'lorauter.toml' is no LoRAuter\nHint: write LoRAuterLLM.from_config"):
        LoRAuterLLM("lorauter.toml")


# ------------------------------------------------------------------ calls


def test_a_cut_call_is_an_error_of_an_agent_and_not_its_last_word(scripted):
    llm, _ = scripted('<tool_call>\n{"name": "add", "arguments": {"a": 1, "b', engine=CutEngine)
    agent = FunctionAgent(tools=[FunctionTool.from_defaults(add)], llm=llm)

    async def run():
        return await agent.run("name a colour")

    with pytest.raises(InvalidAnswerError, match=r"the call was cut at \d+ tokens.*\nHint: raise max_tokens"):
        asyncio.run(run())


def test_a_text_that_was_cut_is_the_answer_of_an_agent(scripted):
    llm, _ = scripted("it is a long st", engine=CutEngine)
    agent = FunctionAgent(tools=[FunctionTool.from_defaults(add)], llm=llm)

    async def run():
        return await agent.run("name a colour")

    assert str(asyncio.run(run())) == "it is a long st"


def test_a_broken_call_is_seen_by_the_next_turn(scripted):
    llm, _ = scripted('<tool_call>\n{"name": "add", "arguments": {"a": }}\n</tool_call>')
    answer = llm.chat_with_tools([FunctionTool.from_defaults(add)], user_msg="name a colour").message
    [turn] = from_llama_index([answer])
    assert '{"name": "add", "arguments": {"a": }}' in turn.content


def test_a_streaming_program_fills_its_object_from_a_call(scripted):
    llm, _ = scripted(call("Trip", hour=9, place="Oslo"))
    program = FunctionCallingProgram.from_defaults(output_cls=Trip, prompt_template_str="name a colour {x}", llm=llm)
    last = list(program.stream_call(x="now"))[-1]
    assert (last.hour, last.place) == (9, "Oslo")


def test_streamed_answers_may_be_filtered(scripted):
    llm, _ = scripted(call("StructuredRefineResponse", query_satisfied=True, answer="At nine"))
    refine = get_response_synthesizer(
        llm=llm, response_mode="refine", structured_answer_filtering=True, streaming=True
    )
    assert "".join(refine.get_response("When?", ["the ferry leaves at nine"])) == "At nine"


# ------------------------------------------------------------------ streams


@pytest.fixture
def kept():
    """All events, kept, as some handlers do."""

    class Keeper(BaseEventHandler):
        events: list[Any] = []

        def handle(self, event, **_):
            self.events.append(event)

    keeper = Keeper()
    get_dispatcher().add_event_handler(keeper)
    yield keeper.events
    get_dispatcher().event_handlers.remove(keeper)


@pytest.mark.parametrize("method", ["stream_chat", "stream_complete"])
def test_a_closed_stream_leaves_the_engine_though_its_events_are_kept(pico_lorauter, kept, method):
    llm = LoRAuterLLM(
        pico_lorauter,
        max_tokens=300,
        callback_manager=CallbackManager([LlamaDebugHandler(print_trace_on_end=False)]),
    )
    stream = getattr(llm, method)(QUESTION if method == "stream_chat" else "name a colour")
    next(stream)
    assert len(pico_lorauter.engine._scheduler._seats) == 1
    stream.close()
    assert len(pico_lorauter.engine._scheduler._seats) == 0
    assert kept


@pytest.mark.parametrize("method", ["astream_chat", "astream_complete"])
def test_a_closed_async_stream_leaves_the_engine_though_its_events_are_kept(pico_lorauter, kept, method):
    llm = LoRAuterLLM(pico_lorauter, max_tokens=300)

    async def run():
        stream = await getattr(llm, method)(QUESTION if method == "astream_chat" else "name a colour")
        await anext(stream)
        await stream.aclose()
        return len(pico_lorauter.engine._scheduler._seats)

    assert asyncio.run(run()) == 0
    assert kept


def test_closed_objects_leave_the_engine(pico_lorauter, kept):
    objects = LoRAuterLLM(pico_lorauter, max_tokens=300).stream_structured_predict(Trip, PROMPT)
    next(objects)
    objects.close()
    assert len(pico_lorauter.engine._scheduler._seats) == 0


# ------------------------------------------------------------------ what is written of the LLM


class OtherEngine(ScriptedEngine):
    name = identity = "another model"


def test_the_cache_of_a_pipeline_knows_two_models_apart(scripted):
    cache = IngestionCache()

    def summarised(llm):
        extractor = SummaryExtractor(llm=llm, show_progress=False)
        pipeline = IngestionPipeline(transformations=[extractor], cache=cache)

        async def run():
            return await pipeline.arun(nodes=[TextNode(text="The ferry leaves.", id_="1")])

        [node] = asyncio.run(run())
        return node.metadata["section_summary"]

    (first, asked), (again, _) = scripted("of A"), scripted("not asked")
    other, _ = scripted("of B", engine=OtherEngine)
    assert [summarised(first), summarised(again), summarised(other)] == ["of A", "of A", "of B"]
    assert len(asked.requests) == 1


def test_it_is_written_as_json_with_its_functions_by_name_and_read_with_a_lorauter(pico_lorauter):
    llm = LoRAuterLLM(pico_lorauter, max_tokens=7, route_on=lambda messages: messages[-1].content)
    facts = json.loads(llm.to_json())
    assert facts["lorauter"] == pico_lorauter.identity
    assert "<lambda>" in facts["route_on"]
    again = LoRAuterLLM.from_dict({**facts, "route_on": None}, lorauter=pico_lorauter)
    assert (again.max_tokens, again.lorauter) == (7, pico_lorauter)


def test_what_cannot_be_pickled_is_still_there_afterwards(pico_lorauter):
    llm = LoRAuterLLM(pico_lorauter, route_on=lambda messages: messages[-1].content, max_tokens=2)
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(llm)
    assert llm.chat(QUESTION).message.content


# ------------------------------------------------------------------ objects


def test_keywords_of_llama_indexs_programs_are_not_in_the_way(scripted):
    llm, _ = scripted('{"hour": 9, "place": "Oslo"}')
    programs = {"tool_choice": "required", "tool_required": True, "allow_parallel_tool_calls": False}
    assert llm.structured_predict(Trip, PROMPT, llm_kwargs=programs) == Trip(hour=9, place="Oslo")


@pytest.mark.parametrize(
    "response_format",
    [
        Paint,
        Paint.model_json_schema(),
        {"type": "json_schema", "json_schema": {"name": "paint", "schema": Paint.model_json_schema()}},
    ],
    ids=["class", "schema", "openai"],
)
def test_a_response_format_may_be_openais(pico_lorauter, response_format):
    answer = LoRAuterLLM(pico_lorauter, max_tokens=300).chat(QUESTION, response_format=response_format)
    assert Paint.model_validate_json(answer.message.content)


def test_any_object_is_a_response_format_and_text_is_none(pico_lorauter):
    llm = LoRAuterLLM(pico_lorauter, max_tokens=300)
    answer = llm.chat(QUESTION, response_format={"type": "json_object", "schema": Paint.model_json_schema()})
    assert Paint.model_validate_json(answer.message.content)
    free = llm.chat(QUESTION, response_format={"type": "text"}, max_tokens=3)
    assert free.message.content == llm.chat(QUESTION, max_tokens=3).message.content


def test_what_is_no_class_is_refused_before_anything_is_written(scripted):
    llm, engine = scripted("{}")
    with pytest.raises(OptionError, match=r"output_cls=.* is no pydantic class"):
        llm.structured_predict(list[Trip], PROMPT)
    assert not engine.requests


class Named(BaseModel):
    full_name: str = Field(alias="fullName")


def test_a_growing_object_has_its_fields_under_their_names(scripted):
    llm, _ = scripted('{"fullName": "Ada Lovelace"}')
    *growing, last = llm.stream_structured_predict(Named, PROMPT)
    assert last == Named(fullName="Ada Lovelace")
    assert growing[-1].full_name == "Ada Lovelace"
    assert len({one.full_name for one in growing}) == len(growing)
