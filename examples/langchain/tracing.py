"""A callback handler that writes one JSON line for each call: step, route, tokens, seconds.

Works for invoke, batch, stream and their async twins, in chains, agents and graphs. LangSmith needs none of it: set
LANGSMITH_TRACING=true and LANGSMITH_API_KEY, and each model run shows the route in its output, under
`response_metadata.lorauter`, beside the token counts.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any, TextIO
from uuid import UUID

from demo_llm import demo_llm
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult
from langchain_core.prompts import ChatPromptTemplate

REVIEW = "The crossing was late and the seats were dirty."


class RouteLog(BaseCallbackHandler):
    """Give it to a call as `config={"callbacks": [RouteLog(file)]}`, or to the model as `callbacks=[...]`.

    Args:
        file: gets the lines; calls may end at the same time in many threads.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._begun: dict[UUID, tuple[float, str]] = {}

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """A graph's node names the step, or else the first tag that is not LangChain's own."""
        own = [tag for tag in tags or () if not tag.startswith("seq:")]
        self._begun[run_id] = (time.monotonic(), (metadata or {}).get("langgraph_node") or "".join(own[:1]))

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        answer = response.generations[0][0].message
        route, usage = answer.response_metadata["lorauter"], answer.usage_metadata
        task = route["tasks"][0]["task"] if route["tasks"] else None  # none when the caller chose
        tokens = {"input": usage["input_tokens"], "output": usage["output_tokens"]}
        self._write(run_id, {"task": task, "adapters": route["adapters"], "tokens": tokens})

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        self._write(run_id, {"error": f"{type(error).__name__}: {error}"})

    def _write(self, run_id: UUID, facts: dict[str, Any]) -> None:
        begun, step = self._begun.pop(run_id)
        line = {"run": str(run_id), "step": step, **facts, "seconds": round(time.monotonic() - begun, 3)}
        with self._lock:
            self._file.write(json.dumps(line) + "\n")


def main() -> None:
    llm = demo_llm()
    repair = ChatPromptTemplate.from_template("Restore capitals and punctuation: {text}") | llm
    sentiment = ChatPromptTemplate.from_template("Review: {text}\nIs this review positive or negative?") | llm
    log = RouteLog(sys.stdout)
    repair.invoke({"text": "dr weber flies to vienna"}, {"callbacks": [log], "tags": ["repair"]})
    for _ in sentiment.stream({"text": REVIEW}, {"callbacks": [log], "tags": ["sentiment"]}):
        pass


if __name__ == "__main__":
    main()
