"""An engine that says what a test tells it, for the paths of agents and engines; what it was asked is kept."""

from lorauter_integrations import GenerationOptions, LoRAuter
from lorauter_integrations.engines.base import Engine
from lorauter_integrations.generation import Completion, Delta, ToolCall, Usage
from lorauter_integrations.llama_index import LoRAuterLLM
from lorauter_integrations.tool_calls import call_text


class ScriptedEngine(Engine):
    name = "scripted"
    identity = "scripted"
    context_length = 4096

    def __init__(self, adapters, answers):
        self._adapters = adapters
        self.answers = list(answers)
        self.requests = []

    @property
    def adapters(self):
        return self._adapters

    def stream(self, request):
        self.requests.append(request)
        text = self.answers.pop(0)
        return self._deltas(text, len(request.messages))

    def _deltas(self, text, asked):
        for start in range(0, len(text), 7):
            yield Delta(text[start : start + 7])
        yield Delta("", Completion(text, "stop", Usage(asked, len(text))))

    def log_likelihood(self, requests, targets):
        raise NotImplementedError

    def count_tokens(self, request):
        return sum(len(message.content) for message in request.messages)

    def token_ids(self, text):
        return list(text.encode())

    def require(self, mixture):
        for name in mixture:
            assert name in self._adapters


def llm_of(lorauter, *answers, engine=ScriptedEngine, **fields):
    """An LLM with a LoRAuter's index and pool that says what it is told; and its engine."""
    made = engine(lorauter.engine.adapters, answers)
    return LoRAuterLLM(LoRAuter(lorauter.index, made, options=GenerationOptions()), **fields), made


def call(name, **arguments):
    """A call as the model writes it."""
    return call_text(ToolCall(name, arguments))
