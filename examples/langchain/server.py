"""A FastAPI server that streams answers; the requests of all clients share the model's forward passes.

    python examples/langchain/server.py
    curl -N localhost:8000/chat -H 'content-type: application/json' \\
        -d '{"messages": [{"role": "user", "content": "Restore capitals and punctuation: call anna on monday"}]}'

An answer is server-sent events: `token` for each piece, then `end` with route and usage. A client that leaves stops
the model within a step. What fails before the first token is an HTTP status; later it is an event `error`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Literal

from demo_llm import demo_llm
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from langchain_core.messages import AIMessageChunk
from pydantic import BaseModel, ConfigDict

from lorauter_integrations import errors
from lorauter_integrations.langchain import ChatLoRAuter

STATUSES = {
    422: (errors.OptionError, errors.ContentError, errors.ContextLengthError, errors.RoutingError),
    503: (errors.QueueFullError,),
    504: (errors.GenerationTimeoutError,),
}


class Turn(BaseModel):
    role: Literal["system", "user", "assistant"]
    content: str | list[dict[str, Any]]


class Chat(BaseModel):
    model_config = ConfigDict(extra="forbid")
    messages: list[Turn]
    max_tokens: int | None = None
    temperature: float | None = None
    timeout: float | None = None


def create_app(llm: ChatLoRAuter) -> FastAPI:
    """The application around a chat model."""
    app = FastAPI()

    @app.post("/chat")
    async def chat(asked: Chat) -> StreamingResponse:
        given = asked.model_dump(exclude_none=True)
        chunks = llm.astream(given.pop("messages"), **given)
        first = await anext(chunks)  # most errors come here, while the status can still be chosen
        return StreamingResponse(events(first, chunks), media_type="text/event-stream")

    @app.exception_handler(errors.LoRAuterError)
    async def refuse(_: Request, error: errors.LoRAuterError) -> JSONResponse:
        status = next((status for status, kinds in STATUSES.items() if isinstance(error, kinds)), 500)
        return JSONResponse({"error": str(error)}, status, {"Retry-After": "1"} if status == 503 else None)

    return app


async def events(first: AIMessageChunk, rest: AsyncGenerator[AIMessageChunk, None]) -> AsyncGenerator[str, None]:
    """An answer as server-sent events."""
    async with aclosing(rest):
        yield events_of(first)
        try:
            async for chunk in rest:
                yield events_of(chunk)
        except errors.LoRAuterError as error:
            yield event("error", str(error))


def events_of(chunk: AIMessageChunk) -> str:
    text = event("token", chunk.text) if chunk.text else ""
    route = chunk.response_metadata.get("lorauter")  # of the last chunk
    return text + (event("end", {"route": route, "usage": chunk.usage_metadata}) if route else "")


def event(name: str, data: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def main() -> None:
    import uvicorn

    uvicorn.run(create_app(demo_llm()), port=8000)


if __name__ == "__main__":
    main()
