from typing import Literal

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.tools import tool
from pydantic import BaseModel, Field, field_validator
from pydantic.v1 import BaseModel as BaseModelV1
from typing_extensions import TypedDict

from lorauter_integrations.errors import InvalidAnswerError, OptionError
from lorauter_integrations.langchain import ChatLoRAuter

METHODS = ["json_schema", "function_calling", "json_mode"]


class Colour(BaseModel):
    """A colour."""

    name: Literal["red", "blue"] = Field(description="what it is called")
    bright: bool


class OldColour(BaseModelV1):
    """A colour."""

    name: Literal["red", "blue"]
    bright: bool


class ColourDict(TypedDict):
    """A colour."""

    name: Literal["red", "blue"]
    bright: bool


@tool
def mix(a: int) -> int:
    """Mixes."""
    return a


SCHEMA = {**Colour.model_json_schema(), "title": "Colour"}


@pytest.fixture
def llm(pico_lorauter):
    return ChatLoRAuter(lorauter=pico_lorauter, max_tokens=120)


def is_colour(found):
    return found["name"] in ("red", "blue") and isinstance(found["bright"], bool) and len(found) == 2


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("schema", [Colour, OldColour])
def test_a_class_gives_its_instances(llm, method, schema):
    found = llm.with_structured_output(schema, method=method).invoke("name a colour")
    assert type(found) is schema
    assert is_colour(found.dict() if schema is OldColour else found.model_dump())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("schema", [ColourDict, SCHEMA], ids=["typed", "schema"])
def test_other_schemas_give_dictionaries(llm, method, schema):
    assert is_colour(llm.with_structured_output(schema, method=method).invoke("name a colour"))


async def test_the_async_forms_agree(llm):
    bound = llm.with_structured_output(Colour)
    whole = bound.invoke("name a colour")
    assert await bound.ainvoke("name a colour") == whole
    assert [one async for one in bound.astream("name a colour")][-1] == whole


@pytest.mark.parametrize("method", METHODS)
def test_streaming_yields_the_object_as_it_grows(llm, method):
    schema = {"title": "Two", "type": "object", "properties": {key: {"type": "boolean"} for key in "ab"}}
    bound = llm.with_structured_output({**schema, "required": ["a", "b"]}, method=method)
    pieces = list(bound.stream("name a colour"))
    assert [sorted(piece) for piece in pieces][-2:] == [["a"], ["a", "b"]]
    assert pieces[-1] == bound.invoke("name a colour")


@pytest.mark.parametrize("method", METHODS)
def test_include_raw_keeps_message_and_object(llm, method):
    found = llm.with_structured_output(Colour, method=method, include_raw=True).invoke("name a colour")
    assert sorted(found) == ["parsed", "parsing_error", "raw"]
    assert isinstance(found["parsed"], Colour)
    assert found["parsing_error"] is None
    assert found["raw"].response_metadata["lorauter"]["tasks"][0]["task"] == "colours"


@pytest.mark.parametrize("method", METHODS)
def test_an_answer_cut_at_max_tokens_is_an_error_that_says_so(llm, method):
    bound = llm.with_structured_output(Colour, method=method, max_tokens=5)
    with pytest.raises(
        OutputParserException, match=r"cut at 5 tokens, before it was whole .*\nHint: raise max_tokens"
    ):
        bound.invoke("name a colour")
    with pytest.raises(InvalidAnswerError, match="cut at 5 tokens"):
        list(bound.stream("name a colour"))
    raw = llm.with_structured_output(Colour, method=method, max_tokens=5, include_raw=True).invoke("name a colour")
    assert raw["parsed"] is None
    assert isinstance(raw["parsing_error"], InvalidAnswerError)
    assert raw["raw"].usage_metadata["output_tokens"] == 5


class Never(BaseModel):
    n: Literal[1]

    def __init__(self, **_):
        raise ValueError("no number is good enough")


def test_a_validator_of_the_class_has_the_last_word(llm):
    with pytest.raises(OutputParserException, match="no number is good enough"):
        llm.with_structured_output(Never).invoke("name a colour")


class Picky(BaseModel):
    name: Literal["red", "blue"]

    @field_validator("name")
    @classmethod
    def none_will_do(cls, name):
        raise ValueError("no colour is good enough")


@pytest.mark.parametrize("method", METHODS)
async def test_a_refused_answer_is_an_error_in_every_way_of_asking(llm, method):
    bound = llm.with_structured_output(Picky, method=method)
    for ask in (bound.invoke, lambda text: list(bound.stream(text))):
        with pytest.raises(OutputParserException, match=r"(?s)does not pass: .*no colour is good enough") as raised:
            ask("name a colour")
        assert isinstance(raised.value, InvalidAnswerError)
        assert "name" in raised.value.llm_output
    with pytest.raises(InvalidAnswerError, match="no colour is good enough"):
        _ = [piece async for piece in bound.astream("name a colour")]


@pytest.mark.parametrize("method", METHODS)
async def test_a_refused_answer_is_a_parsing_error_beside_the_raw_message(llm, method):
    bound = llm.with_structured_output(Picky, method=method, include_raw=True)

    def summed(pieces):
        whole = pieces[0]
        for piece in pieces[1:]:
            whole = whole + piece
        return whole

    streams = [list(bound.stream("name a colour")), [piece async for piece in bound.astream("name a colour")]]
    for found in (bound.invoke("name a colour"), await bound.ainvoke("name a colour"), *map(summed, streams)):
        assert sorted(found) == ["parsed", "parsing_error", "raw"]
        assert found["parsed"] is None
        assert "no colour is good enough" in str(found["parsing_error"])
        assert found["raw"].usage_metadata


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("disabled", [True, "tool_calling"])
def test_a_model_that_does_not_stream_still_gives_the_object(llm, method, disabled):
    still = llm.model_copy(update={"disable_streaming": disabled})
    bound = still.with_structured_output(Colour, method=method)
    assert list(bound.stream("name a colour"))[-1] == bound.invoke("name a colour")


def test_json_mode_without_a_schema_gives_an_object(llm):
    llm = llm.model_copy(update={"max_tokens": 1000})
    bound = llm.with_structured_output(None, method="json_mode", include_raw=True)
    assert bound.invoke("name a colour")["raw"].content.startswith("{")


def test_the_schema_is_told_to_tracers(llm):
    from langchain_core.callbacks import BaseCallbackHandler

    class Start(BaseCallbackHandler):
        def on_chat_model_start(self, *_, options, **__):
            self.told = options["ls_structured_output_format"]

    start = Start()
    llm.with_structured_output(Colour).invoke("name a colour", {"callbacks": [start]})
    assert start.told["kwargs"] == {"method": "json_schema"}
    assert start.told["schema"]["properties"]["bright"] == {"type": "boolean"}


def test_tools_may_stand_beside_a_schema(llm):
    found = llm.with_structured_output(Colour, tools=[mix], include_raw=True).invoke("name a colour")
    message = found["raw"]
    assert bool(message.tool_calls) != bool(message.content)  # a call or the answer
    assert isinstance(found["parsed"], Colour) == bool(message.content)
    assert found["parsing_error"] is None
    called = llm.with_structured_output(Colour, tools=[mix], tool_choice="mix", include_raw=True)
    found = called.invoke("name a colour")
    assert found["raw"].tool_calls[0]["name"] == "mix"
    assert (found["parsed"], found["parsing_error"]) == (None, None)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"schema": Colour, "method": "xml"}, "method='xml' is not known"),
        ({"schema": None}, "method='json_schema' needs a schema"),
        ({"schema": None, "method": "function_calling"}, "method='function_calling' needs a schema"),
        ({"schema": Colour, "temprature": 0}, "unknown call keyword 'temprature'"),
        ({"schema": 3}, "3 has no JSON schema"),
        ({"schema": Colour, "method": "function_calling", "tools": [mix]}, "'function_calling' sets 'tools' itself"),
        ({"schema": Colour, "response_format": {}}, "method='json_schema' sets 'response_format' itself"),
    ],
    ids=["method", "none", "none-called", "keyword", "number", "tools", "format"],
)
def test_what_cannot_be_is_one_clear_error_at_once(llm, arguments, match):
    with pytest.raises(OptionError, match=match):
        llm.with_structured_output(**arguments)


def test_strict_is_taken_by_every_method(llm):
    for method in METHODS:
        for strict in (None, True, False):
            assert llm.with_structured_output(Colour, method=method, strict=strict)
