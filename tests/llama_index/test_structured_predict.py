import asyncio
from typing import Literal

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate
from pydantic import BaseModel, Field, field_validator

from lorauter_integrations.errors import InvalidAnswerError, OptionError
from lorauter_integrations.llama_index import LoRAuterLLM


class Colour(BaseModel):
    """A colour."""

    name: Literal["red", "blue"] = Field(description="what it is called")
    bright: bool


class Picky(BaseModel):
    name: Literal["red", "blue"]

    @field_validator("name")
    @classmethod
    def none_will_do(cls, name):
        raise ValueError("no colour is good enough")


PROMPT = PromptTemplate("name a colour like {x}")


@pytest.fixture
def llm(pico_lorauter):
    return LoRAuterLLM(pico_lorauter, max_tokens=120)


def test_every_way_gives_the_same_object(llm):
    async def asynchronous():
        streamed = [piece async for piece in await llm.astream_structured_predict(Colour, PROMPT, x="sky")]
        return await llm.astructured_predict(Colour, PROMPT, x="sky"), streamed[-1]

    whole = llm.structured_predict(Colour, PROMPT, x="sky")
    assert isinstance(whole, Colour)
    assert list(llm.stream_structured_predict(Colour, PROMPT, x="sky"))[-1] == whole
    assert asyncio.run(asynchronous()) == (whole, whole)


def test_a_stream_gives_the_object_as_it_grows(llm):
    pieces = list(llm.stream_structured_predict(Colour, PROMPT, x="sky"))
    assert pieces[0].bright is None
    assert isinstance(pieces[-1], Colour)
    assert pieces[-2].name == pieces[-1].name


def test_a_structured_llm_answers_chats_and_completions(llm):
    structured = llm.as_structured_llm(Colour)
    response = structured.chat([ChatMessage("name a colour")])
    assert isinstance(response.raw, Colour)
    assert Colour.model_validate_json(response.message.content) == response.raw
    assert isinstance(structured.complete("name a colour").raw, Colour)
    assert isinstance(list(structured.stream_chat([ChatMessage("name a colour")]))[-1].raw, Colour)
    assert isinstance(asyncio.run(structured.achat([ChatMessage("name a colour")])).raw, Colour)


def test_the_system_prompt_is_part_of_every_way(pico_lorauter):
    llm = LoRAuterLLM(pico_lorauter, max_tokens=120, system_prompt="add the numbers")
    routes = []

    class Routes(BaseEventHandler):
        def handle(self, event, **_):
            if event.class_name() == "LoRAuterRouteEvent":
                routes.append(event.route["tasks"][0]["similarity"])

    handler = Routes()
    root = get_dispatcher()
    root.add_event_handler(handler)
    try:
        llm.structured_predict(Colour, PROMPT, x="sky")
        asyncio.run(llm.astructured_predict(Colour, PROMPT, x="sky"))
        list(llm.stream_structured_predict(Colour, PROMPT, x="sky"))
        llm.complete("name a colour like sky", max_tokens=1)
    finally:
        root.event_handlers.remove(handler)
    assert len(routes) == 4
    assert len(set(routes)) == 1


@pytest.mark.parametrize("tokens", [1, 5, 9])
def test_an_answer_that_was_cut_is_an_error_that_says_so(llm, tokens):
    with pytest.raises(
        InvalidAnswerError, match=rf"cut at {tokens} tokens, .* a whole Colour.*\nHint: raise max_tokens"
    ):
        llm.structured_predict(Colour, PROMPT, llm_kwargs={"max_tokens": tokens}, x="sky")
    with pytest.raises(InvalidAnswerError, match=f"cut at {tokens} tokens"):
        list(llm.stream_structured_predict(Colour, PROMPT, llm_kwargs={"max_tokens": tokens}, x="sky"))


async def test_an_answer_that_a_validator_refuses_is_an_error(llm):
    with pytest.raises(InvalidAnswerError, match=r"(?s)no Picky: .*no colour is good enough"):
        llm.structured_predict(Picky, PROMPT, x="sky")
    with pytest.raises(InvalidAnswerError, match="no colour is good enough"):
        await llm.astructured_predict(Picky, PROMPT, x="sky")


def test_a_chat_template_will_do_and_a_call_may_choose(llm):
    prompt = ChatPromptTemplate.from_messages([("system", "add the numbers"), ("user", "{x}")])
    assert isinstance(llm.structured_predict(Colour, prompt, llm_kwargs={"task": "sums"}, x="1 2"), Colour)


def test_a_response_format_may_be_a_schema(llm):
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    assert llm.complete("name a colour", response_format=schema).text in ('{"ok": true}', '{"ok": false}')
    with pytest.raises(OptionError, match="response_format=3 is no schema"):
        llm.complete("name a colour", response_format=3)


@pytest.mark.real_model
@pytest.mark.timeout(600)
def test_twenty_objects_of_the_real_model_are_valid(real_lorauter):
    class Person(BaseModel):
        name: str = Field(max_length=30)
        age: int = Field(ge=0, le=120)
        city: str = Field(max_length=30)
        tags: list[Literal["adult", "child", "traveller"]] = Field(max_length=2)

    llm = LoRAuterLLM(real_lorauter, max_tokens=100)
    prompt = PromptTemplate("{name} is {age} years old and lives in {city}. Extract the person.")
    cities = ["Oslo", "Lima", "Cairo", "Kyoto"]

    async def all_of_them():
        people = [{"name": f"Ann{n}", "age": 20 + n, "city": cities[n % 4]} for n in range(20)]
        return await asyncio.gather(*(llm.astructured_predict(Person, prompt, **person) for person in people))

    found = asyncio.run(all_of_them())
    assert [type(one) for one in found] == [Person] * 20
    assert sum(one.age == 20 + n for n, one in enumerate(found)) >= 10
