"""Our answers as LangChain messages and chunks. Knows langchain-core; nothing of routing or engines."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, cast

from langchain_core.messages import AIMessage, AIMessageChunk, InvalidToolCall
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import ToolCallChunk, invalid_tool_call, tool_call, tool_call_chunk
from langchain_core.utils.json import parse_partial_json

from lorauter_integrations.call_stream import CallPiece, CallStream
from lorauter_integrations.generation import Completion, Delta
from lorauter_integrations.routing import Route
from lorauter_integrations.tool_calls import BrokenCall, CallForm, ParsedAnswer, new_call_id

PROVIDER = "lorauter"
ENDS = ("", "]", "}", '"]', '"}', '""]', '""}')
"""What makes any beginning of a JSON object unreadable, when put behind it; see `spoilt`."""


class AnswerWriter:
    """Writes one answer: as chunks, or as one message.

    Args:
        route: the answer's; goes into its metadata.
        model: its name there.
        form: how the model writes calls; None when the answer holds none.
        unmarked: the tools whose calls are read without the form's marks too.
    """

    def __init__(self, route: Route, model: str, form: CallForm | None, unmarked: Collection[str] = ()) -> None:
        self._route = route
        self._model = model
        self._stream = CallStream(form, unmarked) if form else None
        self._arguments: dict[int, str] = {}  # of each call, as far as they are sent
        self._calls_begin = 0  # at this block: LangChain merges blocks of one index, and counts a text before them

    def message(self, completion: Completion) -> AIMessage:
        """The whole answer."""
        self._pieces(completion.text)
        _, parsed = self._end(completion)
        return AIMessage(
            content=parsed.text,
            tool_calls=[tool_call(name=c.name, args=dict(c.arguments), id=new_call_id()) for c in parsed.calls],
            invalid_tool_calls=[self._invalid(broken, completion) for broken in parsed.broken],
            response_metadata=self._metadata(completion, parsed),
            usage_metadata=usage(completion),
        )

    def chunks(self, delta: Delta) -> Iterator[AIMessageChunk]:
        """A piece of the answer; the last one carries metadata and usage, once each: merging adds them up."""
        yield from self._pieces(delta.text)
        if delta.completion is None:
            return
        rest, parsed = self._end(delta.completion)
        yield from rest
        yield AIMessageChunk(
            content="",
            tool_call_chunks=[self._spoilt(broken) for broken in parsed.broken],
            response_metadata=self._metadata(delta.completion, parsed),
            usage_metadata=usage(delta.completion),
            chunk_position="last",
        )

    def _pieces(self, text: str) -> list[AIMessageChunk]:
        return self._written(self._stream.push(text) if self._stream else [text])

    def _end(self, completion: Completion) -> tuple[list[AIMessageChunk], ParsedAnswer]:
        if self._stream is None:
            return [], ParsedAnswer(completion.text)
        rest, parsed = self._stream.finish(cut=completion.finish_reason == "length")
        return self._written(rest), parsed

    def _written(self, pieces: Sequence[str | CallPiece]) -> list[AIMessageChunk]:
        chunks = []
        for piece in pieces:
            if isinstance(piece, CallPiece):
                chunks.append(AIMessageChunk(content="", tool_call_chunks=[self._chunk(piece)]))
            elif piece:
                self._calls_begin = self._calls_begin if self._arguments else 1
                chunks.append(AIMessageChunk(content=piece))
        return chunks

    def _chunk(self, piece: CallPiece) -> ToolCallChunk:
        is_first = piece.index not in self._arguments
        self._arguments[piece.index] = self._arguments.get(piece.index, "") + piece.arguments
        return tool_call_chunk(
            name=piece.name if is_first else None,
            args=piece.arguments,
            id=new_call_id() if is_first else None,
            index=self._calls_begin + piece.index,
        )

    def _spoilt(self, broken: BrokenCall) -> ToolCallChunk:
        """What keeps a broken call invalid after merging, which repairs half-written JSON."""
        sent, place = self._arguments.get(broken.index), self._calls_begin + broken.index
        if sent is not None:
            return tool_call_chunk(name=None, args=spoilt(sent), id=None, index=place)
        return tool_call_chunk(name=None, args=broken.text + spoilt(broken.text), id=new_call_id(), index=place)

    def _invalid(self, broken: BrokenCall, completion: Completion) -> InvalidToolCall:
        sent, reason = self._arguments.get(broken.index), broken.reason
        if completion.finish_reason == "length":
            counted = completion.usage.completion_tokens
            reason = f"the answer was cut at {counted} tokens (max_tokens, or the end of the context): {reason}"
        name, arguments = (None, broken.text) if sent is None else (broken.name, sent)
        return invalid_tool_call(name=name, args=arguments, id=new_call_id(), error=reason)

    def _metadata(self, completion: Completion, parsed: ParsedAnswer) -> dict[str, Any]:
        called = parsed.calls and completion.finish_reason == "stop"
        return {
            "model_name": self._model,
            "model_provider": PROVIDER,
            "finish_reason": "tool_calls" if called else completion.finish_reason,
            "lorauter": self._route.as_dict(),
            **completion.logprob_facts(),
        }


def usage(completion: Completion) -> UsageMetadata:
    """Token counts as LangChain names them."""
    counted = completion.usage
    counts = {"input_tokens": counted.prompt_tokens, "output_tokens": counted.completion_tokens}
    return cast("UsageMetadata", {**counts, "total_tokens": counted.total_tokens})


def spoilt(arguments: str) -> str:
    """The shortest end that makes these arguments unreadable as an object, for `parse_partial_json` too."""
    return next(end for end in ENDS if not _reads_as_object(arguments + end))


def _reads_as_object(text: str) -> bool:
    if not text:  # LangChain takes no arguments for {}
        return True
    try:
        return isinstance(parse_partial_json(text), dict)
    except ValueError:
        return False
