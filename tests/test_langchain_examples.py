"""The LangChain examples: their steps on SmolLM2-135M-Instruct and the committed adapters, as an application runs
them; and what the server does with errors and with clients that leave, on the pico model.
"""

import asyncio
import importlib.util
import io
import json
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from conftest import pico_model, pico_tokenizer
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from starlette.requests import ClientDisconnect

from lorauter_integrations import GenerationOptions, LocalEngine, LoRAuter
from lorauter_integrations.engines.base import Limits
from lorauter_integrations.errors import OptionError
from lorauter_integrations.langchain import ChatLoRAuter

FOLDER = Path(__file__).parents[1] / "examples" / "langchain"
pytestmark = pytest.mark.timeout(900)
NAMES = ("agent", "batch", "graph", "server", "tracing")


@pytest.fixture(scope="module")
def examples():
    """The modules, under names of their own: the demo has an `agent` too."""
    sys.path.insert(0, str(FOLDER))
    modules = {}
    for name in NAMES:
        spec = importlib.util.spec_from_file_location(f"langchain_example_{name}", FOLDER / f"{name}.py")
        modules[name] = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(modules[name])
    yield SimpleNamespace(**modules)
    sys.path.remove(str(FOLDER))


@pytest.fixture
def llm(examples, real_lorauter, real_settings, monkeypatch):
    """The examples' own chat model, on the tests' own index and pool."""
    monkeypatch.setenv("LORAUTER_INDEX__PATH", real_settings.index.path)
    monkeypatch.setenv("LORAUTER_POOL__PATH", real_settings.pool.path)
    monkeypatch.setenv("LORAUTER_MAPPING__LEDGER", real_settings.mapping.ledger)
    llm = examples.batch.demo_llm()
    assert llm.lorauter.engine is real_lorauter.engine
    return llm


ANSWERS = {
    "text_repair": "Dr. Weber flies to Vienna on Friday to meet Anna.",
    "topic": "sports",
    "entities": "Microsoft (organisation); Berlin (place)",
    "sentiment": "negative",
    "text_to_sql": "SELECT COUNT(*) FROM bookings WHERE price > 90",
    "data_to_text": "The Anchor Bar is a pub located in the riverside area.",
    "passage_qa": "5 euros",
    "function_calling": '{"name": "get_weather", "arguments": {"city": "Lisbon"}}',
}


@pytest.mark.real_model
def test_without_a_mapped_task_the_examples_say_what_to_run(examples, llm, tmp_path, monkeypatch):
    monkeypatch.setenv("LORAUTER_INDEX__PATH", str(tmp_path / "index"))
    with pytest.raises(SystemExit, match=r"holds no mapped task, .* Run `make demo` first"):
        examples.batch.demo_llm()


@pytest.mark.real_model
def test_a_batch_of_eight_tasks_shares_its_passes_and_keeps_its_order(examples, llm):
    answers, passes = examples.batch.run_batch(llm, examples.batch.INPUTS)
    assert {answer["task"]: answer["text"] for answer in answers} == ANSWERS
    assert [answer["task"] for answer in answers] == list(ANSWERS)
    tokens = [answer["tokens"] for answer in answers]
    assert max(tokens) <= passes < sum(tokens) / 2


@pytest.mark.real_model
@pytest.mark.parametrize(
    ("request_", "call", "reply"),
    [
        ("What is the weather in Lisbon?", ("get_weather", {"city": "Lisbon"}), ("weather", "sunny, 24 degrees")),
        ("Where is my order 48213?", ("order_status", {"order_id": "48213"}), ("order", "delayed")),
        pytest.param(
            "Where is my order 90311?",
            ("order_status", {"order_id": "90311"}),
            ("order", "on its way"),
            marks=pytest.mark.xfail(reason="the model's skill: right tool, then Reply('order', '90311')"),
        ),
    ],
)
def test_the_agent_calls_the_right_tool_once_and_ends_with_an_object(examples, llm, request_, call, reply):
    state = examples.agent.run_agent(llm, request_)
    assert [message.type for message in state["messages"]] == ["human", "ai", "tool", "ai"]
    [made] = state["messages"][1].tool_calls
    assert (made["name"], made["args"]) == call
    assert examples.agent.nearest_task(state["messages"][1]) == "function_calling"
    about, answer = reply
    assert state["structured_response"] == examples.agent.Reply(about=about, answer=answer)


@pytest.mark.real_model
def test_the_graphs_nodes_are_routed_each_to_its_own_task_and_its_edge_goes_by_the_topic(examples, llm):
    technology, sports = (
        examples.graph.build_graph(llm).invoke({"dictated": text}) for text in examples.graph.DICTATED
    )
    assert technology["routes"] == {"repair": "text_repair", "find_topic": "topic", "find_entities": "entities"}
    assert technology["text"] == (
        "Microsoft opened an office in Berlin and Google opened an office in Madrid on Monday."
    )
    assert technology["topic"] == "technology"
    assert technology["entities"].startswith("Microsoft (organisation); Berlin (place)")
    assert sports["routes"] == {"repair": "text_repair", "find_topic": "topic"}
    assert sports["text"] == "The striker scored twice and the team won the cup final on Saturday."
    assert sports["topic"] == "sports"
    assert "entities" not in sports


# ---------------------------------------------------------------------- the server


def client(app):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1", timeout=None)


def asked(text, **options):
    return {"messages": [{"role": "user", "content": text}], **options}


def read(body):
    """The events of a body."""
    events = [dict(line.split(": ", 1) for line in part.splitlines()) for part in body.split("\n\n") if part]
    return [(event["event"], json.loads(event["data"])) for event in events]


def text_of(body):
    return "".join(data for name, data in read(body) if name == "token")


@pytest.mark.real_model
def test_the_server_streams_what_invoke_answers_token_by_token_and_ends_with_the_route(examples, llm):
    text = examples.batch.INPUTS[0]
    answer = llm.invoke(text)

    async def ask():
        async with client(examples.server.create_app(llm)) as http:
            return await http.post("/chat", json=asked(text))

    response = asyncio.run(ask())
    assert response.headers["content-type"].startswith("text/event-stream")
    assert text_of(response.text) == answer.text == ANSWERS["text_repair"]
    *pieces, (last, end) = read(response.text)
    assert {name for name, _ in pieces} == {"token"}
    assert len(pieces) > 5
    assert last == "end"
    assert end == {"route": answer.response_metadata["lorauter"], "usage": answer.usage_metadata}


@pytest.mark.real_model
def test_eight_clients_at_once_share_forward_passes(examples, llm):
    async def ask_all():
        async with client(examples.server.create_app(llm)) as http:
            asks = [http.post("/chat", json=asked(text)) for text in examples.batch.INPUTS]
            return await asyncio.gather(*asks)

    with examples.batch.counted_passes(llm) as passes:
        bodies = [response.text for response in asyncio.run(ask_all())]
    assert [text_of(body) for body in bodies] == list(ANSWERS.values())
    tokens = [read(body)[-1][1]["usage"]["output_tokens"] for body in bodies]
    assert max(tokens) <= len(passes) < sum(tokens) / 2


@pytest.fixture
def slow(pico_lorauter, pico_pool):
    """A chat model of which each step takes a while, with one row and one place to wait."""
    engine = LocalEngine(pico_model(), pico_tokenizer(), pico_pool, name="pico", limits=Limits(rows=1, queue=1))
    engine.mixtures.model.register_forward_pre_hook(lambda *_: time.sleep(0.02))
    lorauter = LoRAuter(pico_lorauter.index, engine, options=GenerationOptions(max_tokens=200))
    return ChatLoRAuter(lorauter=lorauter)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (asked("name a colour", max_tokens=0), "max_tokens must be a whole number of at least 1"),
        (asked([{"type": "image_url", "image_url": {"url": "x"}}]), "content block of type 'image_url'"),
        (asked("name a colour " * 100), "the model's context holds 1024"),
        ({"messages": []}, "has no system or user text to route on"),
    ],
)
def test_what_cannot_be_answered_is_refused_as_unprocessable(examples, slow, body, told):
    async def ask():
        async with client(examples.server.create_app(slow)) as http:
            return await http.post("/chat", json=body)

    response = asyncio.run(ask())
    assert response.status_code == 422
    assert told in response.json()["error"]


def test_more_clients_than_there_is_room_for_are_asked_to_come_back(examples, slow):
    async def ask_all():
        async with client(examples.server.create_app(slow)) as http:
            asks = [http.post("/chat", json=asked("name a colour", max_tokens=40)) for _ in range(8)]
            return await asyncio.gather(*asks)

    responses = asyncio.run(ask_all())
    assert {response.status_code for response in responses} == {200, 503}
    refused = [response for response in responses if response.status_code == 503]
    assert {response.headers["retry-after"] for response in refused} == {"1"}
    assert "no more than 1 may wait" in refused[0].json()["error"]


def test_a_client_whose_time_is_over_before_the_first_token_gets_504(examples, slow):
    begun = threading.Event()
    slow.lorauter.engine.mixtures.model.register_forward_pre_hook(lambda *_: begun.set())

    async def ask():
        async with client(examples.server.create_app(slow)) as http:
            first = asyncio.create_task(http.post("/chat", json=asked("name a colour")))
            await asyncio.to_thread(begun.wait, 20)
            second = await http.post("/chat", json=asked("add the numbers", timeout=0.05))
            return await first, second

    first, second = asyncio.run(ask())
    assert first.status_code == 200
    assert second.status_code == 504
    assert "was not whole after 0.05 s" in second.json()["error"]


def test_time_that_is_over_later_is_the_streams_last_event(examples, slow):
    async def ask():
        async with client(examples.server.create_app(slow)) as http:
            return await http.post("/chat", json=asked("name a colour", timeout=0.5))

    *pieces, (last, told) = read(asyncio.run(ask()).text)
    assert {name for name, _ in pieces} == {"token"}
    assert last == "error"
    assert "was not whole after 0.5 s" in told


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])  # the server tells of it, or fails to send
def test_a_client_that_leaves_stops_the_model(examples, slow, spec_version):
    app = examples.server.create_app(slow)
    body = json.dumps(asked("name a colour")).encode()
    requests = [{"type": "http.request", "body": body}]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": spec_version},
        "http_version": "1.1",
        "method": "POST",
        "path": "/chat",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }

    async def run():
        left = asyncio.Event()

        async def receive():
            if requests:
                return requests.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            if left.is_set():
                raise OSError
            if message["type"] == "http.response.body":
                left.set()

        try:
            await app(scope, receive, send)
        except ClientDisconnect:
            assert spec_version == "2.4"
        taken = len(passes)
        await asyncio.sleep(0.2)
        return taken

    with examples.batch.counted_passes(slow) as passes:
        taken = asyncio.run(run())
    assert len(passes) <= taken + 1 < 10


# ---------------------------------------------------------------------- tracing


def lines_of(file):
    return [json.loads(line) for line in file.getvalue().splitlines()]


@pytest.mark.real_model
def test_every_way_to_call_writes_one_line_with_route_and_tokens(examples, llm):
    file = io.StringIO()
    config = {"callbacks": [examples.tracing.RouteLog(file)], "tags": ["sentiment"]}
    text = examples.batch.INPUTS[3]
    answer = llm.invoke(text, config)

    async def in_a_loop():
        await llm.ainvoke(text, config)
        return [chunk async for chunk in llm.astream(text, config)]

    list(llm.stream(text, config))
    asyncio.run(in_a_loop())
    llm.batch([text] * 2, config)
    lines = lines_of(file)
    assert len(lines) == len({line["run"] for line in lines}) == 6
    facts = [{key: value for key, value in line.items() if key not in ("run", "seconds")} for line in lines]
    expected = {
        "step": "sentiment",
        "task": "sentiment",
        "adapters": answer.response_metadata["lorauter"]["adapters"],
        "tokens": {"input": answer.usage_metadata["input_tokens"], "output": answer.usage_metadata["output_tokens"]},
    }
    assert facts == [expected] * 6
    assert all(line["seconds"] > 0 for line in lines)


@pytest.mark.real_model
def test_a_graphs_lines_name_its_nodes(examples, llm):
    file = io.StringIO()
    graph = examples.graph.build_graph(llm)
    graph.invoke({"dictated": examples.graph.DICTATED[1]}, {"callbacks": [examples.tracing.RouteLog(file)]})
    steps = [(line["step"], line["task"]) for line in lines_of(file)]
    assert steps == [("repair", "text_repair"), ("find_topic", "topic")]


def test_tracers_such_as_langsmiths_hold_the_route_in_the_runs_output(slow):
    tracer = RunCollectorCallbackHandler()
    answer = slow.invoke("name a colour", {"callbacks": [tracer]}, max_tokens=2)
    [run] = tracer.traced_runs
    message = run.outputs["generations"][0][0]["message"]["kwargs"]
    assert message["response_metadata"]["lorauter"] == answer.response_metadata["lorauter"]
    assert message["usage_metadata"] == answer.usage_metadata


@pytest.mark.real_model
def test_a_call_that_fails_or_chooses_is_a_line_too(examples, llm):
    file = io.StringIO()
    config = {"callbacks": [examples.tracing.RouteLog(file)]}
    llm.invoke("hello", config, adapters={}, max_tokens=1)
    with pytest.raises(OptionError, match="max_tokens must be a whole number"):
        llm.invoke("hello", config, max_tokens=0)
    chosen, failed = lines_of(file)
    assert (chosen["task"], chosen["adapters"]) == (None, {})
    assert failed["error"].startswith("InvalidOptionError: max_tokens must be a whole number")
