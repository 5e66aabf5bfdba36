"""Our answers as LlamaIndex responses. Knows llama-index-core; nothing of routing or engines."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    MessageRole,
    TextBlock,
    ToolCallBlock,
)
from llama_index.core.llms.llm import ToolSelection

from lorauter_integrations.answer_form import Form
from lorauter_integrations.call_stream import CallPiece, CallStream
from lorauter_integrations.errors import InvalidAnswerError
from lorauter_integrations.generation import Completion, Delta
from lorauter_integrations.llama_index.messages import BROKEN
from lorauter_integrations.llama_index.structured import partial_object
from lorauter_integrations.routing import Route
from lorauter_integrations.tool_calls import CallForm, ParsedAnswer, new_call_id


class ResponseWriter:
    """Writes one answer: a response for each piece, and each holds all that is written so far.

    Args:
        route: the answer's.
        model: its name in `raw`.
        form: how the model writes calls; None when the answer holds none.
        asked: the form of the answer that was asked for.
    """

    def __init__(self, route: Route, model: str, form: CallForm | None, asked: Form) -> None:
        self._route = route
        self._model = model
        self._is_forced = asked.is_forced
        self._stream = CallStream(form, asked.unmarked) if form else None
        self._text = ""
        self._calls: dict[int, ToolCallBlock] = {}

    def chat(self, delta: Delta) -> ChatResponse:
        """A piece of a chat answer. Calls that are still being written have their arguments as text.

        Raises:
            InvalidAnswerError: the only call was cut. An agent would take what is left for its last word.
        """
        piece, parsed = self._take(delta)
        done = delta.completion
        if done and done.finish_reason == "length" and parsed and not parsed.calls:
            self._refuse_cut(done, parsed)
        blocks = [*([TextBlock(text=self._text)] if self._text or not self._calls else []), *self._blocks(parsed)]
        message = ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks)
        if calls := [_beside(block) for block in blocks if isinstance(block, ToolCallBlock)]:
            message.additional_kwargs["tool_calls"] = calls  # where LlamaIndex' streaming programs look for them
        if parsed and parsed.broken:
            message.additional_kwargs[BROKEN] = [
                {"name": one.name, "text": one.text, "reason": one.reason} for one in parsed.broken
            ]
        return ChatResponse(message=message, delta=piece, raw=self._raw(delta))

    def complete(self, delta: Delta) -> CompletionResponse:
        """A piece of a completion."""
        piece, _ = self._take(delta)
        return CompletionResponse(text=self._text, delta=piece, raw=self._raw(delta))

    def _refuse_cut(self, completion: Completion, parsed: ParsedAnswer) -> None:
        if not self._is_forced and not parsed.broken:
            return
        begun = parsed.broken[0].text if parsed.broken else parsed.text
        raise InvalidAnswerError(
            f"the call was cut at {completion.usage.completion_tokens} tokens, before it was whole: {begun[-200:]!r}",
            hint="raise max_tokens",
        )

    def _take(self, delta: Delta) -> tuple[str, ParsedAnswer | None]:
        """The new text, and at the end the whole answer taken apart."""
        before, parsed = len(self._text), None
        self._note(self._stream.push(delta.text) if self._stream else [delta.text])
        if delta.completion and self._stream:
            rest, parsed = self._stream.finish(cut=delta.completion.finish_reason == "length")
            self._note(rest)
        return self._text[before:], parsed

    def _note(self, pieces: Sequence[str | CallPiece]) -> None:
        for piece in pieces:
            if isinstance(piece, str):
                self._text += piece
                continue
            known = self._calls.get(piece.index)
            name, call_id = (known.tool_name, known.tool_call_id) if known else (piece.name, new_call_id())
            arguments = f"{known.tool_kwargs if known else ''}{piece.arguments}"
            self._calls[piece.index] = ToolCallBlock(tool_call_id=call_id, tool_name=name, tool_kwargs=arguments)

    def _blocks(self, parsed: ParsedAnswer | None) -> list[ToolCallBlock]:
        """The calls: as far as they are written, or at the end the whole ones."""
        if parsed is None:
            return list(self._calls.values())
        whole = zip(parsed.places, parsed.calls, strict=True)
        return [
            ToolCallBlock(
                tool_call_id=self._calls[place].tool_call_id, tool_name=call.name, tool_kwargs=dict(call.arguments)
            )
            for place, call in whole
        ]

    def _raw(self, delta: Delta) -> dict[str, Any] | None:
        """Of a whole answer; JSON-able, with the token counts where LlamaIndex looks for them."""
        if (completion := delta.completion) is None:
            return None
        counted = completion.usage
        return {
            "model": self._model,
            "finish_reason": completion.finish_reason,
            "usage": {
                "prompt_tokens": counted.prompt_tokens,
                "completion_tokens": counted.completion_tokens,
                "total_tokens": counted.total_tokens,
            },
            "lorauter": self._route.as_dict(),
            **completion.logprob_facts(),
        }


Response = TypeVar("Response", ChatResponse, CompletionResponse)
Write = Callable[[ResponseWriter, Delta], Response]


def written(
    writer: ResponseWriter, deltas: Iterator[Delta], write: Write[Response]
) -> Generator[Response, None, None]:
    """An answer piece by piece."""
    for delta in deltas:
        yield write(writer, delta)


async def awritten(
    writer: ResponseWriter, deltas: AsyncGenerator[Delta, None], write: Write[Response]
) -> AsyncGenerator[Response, None]:
    """An answer piece by piece, for event loops."""
    async with aclosing(deltas):
        async for delta in deltas:
            yield write(writer, delta)


def whole(writer: ResponseWriter, completion: Completion, write: Write[Response]) -> Response:
    """The whole answer as one piece, without the new text that makes it a piece."""
    return write(writer, Delta(completion.text, completion)).model_copy(update={"delta": None})


def _beside(call: ToolCallBlock) -> dict[str, Any]:
    """A call in OpenAI's form."""
    given = call.tool_kwargs
    arguments = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    return {
        "id": call.tool_call_id,
        "type": "function",
        "function": {"name": call.tool_name, "arguments": arguments},
    }


def selections(response: ChatResponse) -> list[ToolSelection]:
    """The calls of a response; of those that are still being written, as much as can be read."""
    return [
        ToolSelection(
            tool_id=block.tool_call_id or "", tool_name=block.tool_name, tool_kwargs=_arguments(block.tool_kwargs)
        )
        for block in response.message.blocks
        if isinstance(block, ToolCallBlock)
    ]


def _arguments(given: dict[str, Any] | str) -> dict[str, Any]:
    return given if isinstance(given, dict) else partial_object(given) or {}
