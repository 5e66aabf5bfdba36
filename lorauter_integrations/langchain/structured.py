"""`with_structured_output`: an answer bound to a schema, and parsed into what the caller gave as one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.output_parsers import BaseOutputParser, JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import Runnable, RunnableGenerator
from langchain_core.runnables.utils import AddableDict
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import ValidationError
from pydantic.v1 import ValidationError as ValidationErrorV1

from lorauter_integrations.answer_form import name_of
from lorauter_integrations.errors import OptionError, listing
from lorauter_integrations.langchain.errors import UnparsedAnswerError
from lorauter_integrations.langchain.tools import json_schema, schema_tool

if TYPE_CHECKING:
    from langchain_core.utils.pydantic import TBaseModel  # noqa: F401  # mypy looks for it here, for `_Typed`

    from lorauter_integrations.langchain.chat_model import ChatLoRAuter

Method: TypeAlias = Literal["json_schema", "function_calling", "json_mode"]

_OWN: Mapping[str, tuple[str, ...]] = {
    "json_schema": ("response_format",),
    "function_calling": ("tools", "tool_choice", "response_format", "parallel_tool_calls"),
    "json_mode": ("response_format",),
}
"""The call keywords that a method sets itself."""


def structured(
    llm: ChatLoRAuter,
    schema: Any,
    method: Method,
    *,
    include_raw: bool,
    strict: bool | None,
    keywords: Mapping[str, Any],
) -> Runnable[LanguageModelInput, Any]:
    """See `ChatLoRAuter.with_structured_output`."""
    if taken := set(_OWN.get(method, ())) & set(keywords):
        raise OptionError(f"method={method!r} sets {listing(taken)} itself", hint="leave it out, or use bind_tools")
    asked_for = {"kwargs": {"method": method}, "schema": schema}
    if method == "function_calling":
        bound, parser = _by_call(llm, schema, strict, {**keywords, "ls_structured_output_format": asked_for})
    elif method in _OWN:
        if schema is None and method == "json_schema":
            raise OptionError("method='json_schema' needs a schema", hint="give one, or use method='json_mode'")
        told = {} if schema is None else {"ls_structured_output_format": asked_for}
        given = {"tools": (), **told, **keywords}
        bound = llm.bind_tools(response_format=_response_format(schema), **given)
        parser = _Typed(pydantic_object=schema) if _is_class(schema) else _Json()
    else:
        raise OptionError(f"method={method!r} is not known", hint=f"use one of {listing(_OWN)}")
    if not include_raw:
        return bound | parser
    return bound | RunnableGenerator(partial(_beside_raw, parser), partial(_abeside_raw, parser))


def _beside_raw(parser: BaseOutputParser[Any], pieces: Iterator[AIMessage]) -> Iterator[AddableDict]:
    """The message as it comes, and at its end what it was parsed into or why it could not be."""
    whole: Any = None
    for piece in pieces:
        whole = piece if whole is None else whole + piece
        yield AddableDict(raw=piece)
    yield _outcome(parser, whole)


async def _abeside_raw(parser: BaseOutputParser[Any], pieces: AsyncIterator[AIMessage]) -> AsyncIterator[AddableDict]:
    whole: Any = None
    async for piece in pieces:
        whole = piece if whole is None else whole + piece
        yield AddableDict(raw=piece)
    yield _outcome(parser, whole)


def _outcome(parser: BaseOutputParser[Any], message: Any) -> AddableDict:
    try:
        return AddableDict(parsed=parser.invoke(message), parsing_error=None)
    except OutputParserException as error:
        return AddableDict(parsed=None, parsing_error=error)


def _by_call(
    llm: ChatLoRAuter, schema: Any, strict: bool | None, keywords: Mapping[str, Any]
) -> tuple[Runnable[LanguageModelInput, AIMessage], BaseOutputParser[Any]]:
    """The schema as the one tool that must be called."""
    if schema is None:
        raise OptionError("method='function_calling' needs a schema", hint="give one, or use method='json_mode'")
    tool = schema_tool(schema, strict)
    bound = llm.bind_tools([dict(tool)], tool_choice=name_of(tool), **keywords)
    if _is_class(schema):
        return bound, _TypedCall(tools=[schema], first_tool_only=True)
    return bound, _Call(key_name=name_of(tool), first_tool_only=True)


def _is_class(schema: Any) -> bool:
    return isinstance(schema, type) and is_basemodel_subclass(schema)


def _response_format(schema: Any) -> dict[str, Any]:
    if schema is None:
        return {"type": "json_object"}
    inner = json_schema(schema)
    name = schema.__name__ if isinstance(schema, type) else inner.get("title", "answer")
    return {"type": "json_schema", "json_schema": {"name": name, "schema": inner, "strict": True}}


class _Whole:
    """A parser that refuses an answer which is not whole, before its parent repairs it into something else.

    Asked about each piece of a stream too, of which only the last says how the answer ended.
    """

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        message = result[0].message if isinstance(result[0], ChatGeneration) else AIMessage("")
        ended = message.response_metadata.get("finish_reason")
        if ended == "length" and isinstance(message, AIMessage):
            raise _cut(message)
        try:
            return super().parse_result(result, partial=partial and ended is None)  # type: ignore[misc]  # the parser's
        except (OutputParserException, ValidationError, ValidationErrorV1) as error:
            raise _unparsed(f"the answer does not pass: {error}", "see the class's validators", message) from error


class _OrCalls(_Whole):
    """Where tools stand beside the schema, an answer may be calls instead; then there is no object."""

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        message = result[0].message if isinstance(result[0], ChatGeneration) else None
        return None if getattr(message, "tool_calls", ()) else super().parse_result(result, partial=partial)


class _Json(_OrCalls, JsonOutputParser):
    """JSON as Python values."""


class _Typed(_OrCalls, PydanticOutputParser[Any]):
    """JSON as an object of a pydantic class."""


class _Call(_Whole, JsonOutputKeyToolsParser):
    """The arguments of the one call, as a dictionary."""


class _TypedCall(_Whole, PydanticToolsParser):
    """The arguments of the one call, as an object of a pydantic class."""


def _cut(message: AIMessage) -> UnparsedAnswerError:
    counted = message.usage_metadata["output_tokens"] if message.usage_metadata else 0
    happened = (
        f"the answer was cut at {counted} tokens, before it was whole for its schema: {_written(message)[-200:]!r}"
    )
    return _unparsed(
        happened, "raise max_tokens, or bound the schema's strings and lists (maxLength, maxItems)", message
    )


def _unparsed(happened: str, hint: str, message: BaseMessage) -> UnparsedAnswerError:
    error = UnparsedAnswerError(happened, hint=hint)
    error.llm_output = _written(message)
    return error


def _written(message: BaseMessage) -> str:
    calls = [*getattr(message, "tool_calls", ()), *getattr(message, "invalid_tool_calls", ())]
    return message.text or "".join(str(call["args"]) for call in calls)
