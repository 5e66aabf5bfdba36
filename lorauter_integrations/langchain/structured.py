"""`with_structured_output`: an answer bound to a schema, and parsed into what the caller gave as one."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import BaseOutputParser, JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.pydantic import is_basemodel_subclass

from lorauter_integrations.errors import OptionError
from lorauter_integrations.langchain.errors import UnparsedAnswerError
from lorauter_integrations.langchain.tools import json_schema, name_of, tool_schemas

if TYPE_CHECKING:
    from langchain_core.utils.pydantic import TBaseModel  # noqa: F401  # mypy looks for it here, for `_Typed`

    from lorauter_integrations.langchain.chat_model import ChatLoRAuter

Method: TypeAlias = Literal["json_schema", "function_calling", "json_mode"]


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
    asked_for = {"kwargs": {"method": method}, "schema": schema}
    if method == "function_calling":
        bound, parser = _by_call(llm, schema, strict, {**keywords, "ls_structured_output_format": asked_for})
    elif method in ("json_schema", "json_mode"):
        if schema is None and method == "json_schema":
            raise OptionError("method='json_schema' needs a schema", hint="give one, or use method='json_mode'")
        told = {} if schema is None else {"ls_structured_output_format": asked_for}
        given = {"tools": (), **told, **keywords}
        bound = llm.bind_tools(response_format=_response_format(schema), **given)
        parser = _typed(schema) if _is_class(schema) else _Json()
    else:
        raise OptionError(
            f"method={method!r} is not known", hint="use 'json_schema', 'function_calling' or 'json_mode'"
        )
    if not include_raw:
        return bound | parser
    parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=bound) | parsed.with_fallbacks([failed], exception_key="parsing_error")


def _by_call(
    llm: ChatLoRAuter, schema: Any, strict: bool | None, keywords: Mapping[str, Any]
) -> tuple[Runnable[LanguageModelInput, AIMessage], BaseOutputParser[Any]]:
    """The schema as the one tool that must be called."""
    if schema is None:
        raise OptionError("method='function_calling' needs a schema", hint="give one, or use method='json_mode'")
    [tool] = tool_schemas([schema], strict=strict)
    bound = llm.bind_tools([dict(tool)], tool_choice=name_of(tool), **keywords)
    if _is_class(schema):
        return bound, _TypedCall(tools=[schema], first_tool_only=True)
    return bound, _Call(key_name=name_of(tool), first_tool_only=True)


def _is_class(schema: Any) -> bool:
    return isinstance(schema, type) and is_basemodel_subclass(schema)


def _typed(schema: Any) -> BaseOutputParser[Any]:
    return _Typed(pydantic_object=schema)


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
        answer = result[0]
        if isinstance(answer, ChatGeneration) and isinstance(answer.message, AIMessage):
            _refuse_cut(answer.message)
        return super().parse_result(result, partial=partial)  # type: ignore[misc]  # the parser it is mixed with


class _Json(_Whole, JsonOutputParser):
    """JSON as Python values."""


class _Typed(_Whole, PydanticOutputParser[Any]):
    """JSON as an object of a pydantic class."""


class _Call(_Whole, JsonOutputKeyToolsParser):
    """The arguments of the one call, as a dictionary."""


class _TypedCall(_Whole, PydanticToolsParser):
    """The arguments of the one call, as an object of a pydantic class."""


def _refuse_cut(message: AIMessage) -> None:
    reason = message.response_metadata.get("finish_reason")
    if reason != "length":
        return
    counted = message.usage_metadata["output_tokens"] if message.usage_metadata else 0
    raise UnparsedAnswerError(
        f"the answer was cut at {counted} tokens, before it was whole for its schema: {_written(message)[-200:]!r}",
        hint="raise max_tokens, or bound the schema's strings and lists (maxLength, maxItems)",
    )


def _written(message: AIMessage) -> str:
    return message.text or "".join(str(call["args"]) for call in message.invalid_tool_calls)
