import asyncio
import threading

import pytest
from llama_index.core.query_engine import CustomQueryEngine, RouterQueryEngine
from llama_index.core.schema import QueryBundle
from llama_index.core.tools import QueryEngineTool, ToolMetadata

from lorauter_integrations import Example, Task
from lorauter_integrations.errors import OptionError, RoutingError, UnknownTaskError
from lorauter_integrations.llama_index import LoRAuterLLM
from lorauter_integrations.llama_index.selector import LoRAuterSelector

COLOUR, SUM = "name a colour like shade 9", "add the numbers 7 and 7"
PAINTER = ToolMetadata(name="painter", description="knows paintings")
ADDER = ToolMetadata(name="adder", description="an adding machine")
TASKS = {"painter": ["colours"], "adder": ["sums"]}


class Named(CustomQueryEngine):
    """Answers with its name."""

    name: str

    def custom_query(self, query_str):
        return f"{self.name}: {query_str}"


def selected(selector, choices, query):
    [selection] = selector.select(choices, query).selections
    return selection


@pytest.mark.parametrize(("query", "place", "task"), [(COLOUR, 0, "colours"), (SUM, 1, "sums")])
def test_the_choice_of_the_nearest_task_is_selected_and_the_reason_says_so(pico_lorauter, query, place, task):
    selection = selected(LoRAuterSelector(pico_lorauter, TASKS), [PAINTER, ADDER], query)
    routed = {match.task: match.similarity for match in pico_lorauter.index.nearest(query, 2)}
    other = "sums" if task == "colours" else "colours"
    owner = {"colours": "painter", "sums": "adder"}
    assert selection.index == place
    assert selection.reason == (
        f"nearest by task {task!r} of {owner[task]!r} (similarity {routed[task]:.3f}); "
        f"next is task {other!r} of {owner[other]!r} (similarity {routed[other]:.3f})"
    )


def test_a_choice_of_a_tasks_name_stands_for_the_task(pico_lorauter):
    choices = [ToolMetadata(name=name, description="x") for name in ("sums", "colours")]
    selector = LoRAuterSelector(pico_lorauter)
    assert [selected(selector, choices, query).index for query in (SUM, COLOUR)] == [0, 1]


def test_what_is_given_wins_over_the_name(pico_lorauter):
    choices = [ToolMetadata(name=name, description="x") for name in ("sums", "colours")]
    swapped = LoRAuterSelector(pico_lorauter, {"sums": ["colours"], "colours": ["sums"]})
    assert [selected(swapped, choices, query).index for query in (SUM, COLOUR)] == [1, 0]


def test_a_choice_of_several_tasks_is_as_near_as_the_nearest(pico_lorauter):
    selector = LoRAuterSelector(pico_lorauter, {"adder": ["colours", "sums"]})
    other = ToolMetadata(name="other", description="unlike all else")
    for query, task in ((COLOUR, "colours"), (SUM, "sums")):
        selection = selected(selector, [other, ADDER], query)
        assert selection.index == 1
        assert selection.reason.startswith(f"nearest by task {task!r} of 'adder'")


def test_choices_without_tasks_are_compared_by_their_descriptions(index):
    selection = selected(LoRAuterSelector(index), [PAINTER, ADDER], "which paintings are there")
    assert selection.index == 0
    assert selection.reason.startswith("nearest by the description of 'painter' (similarity 0.")
    assert "next is the description of 'adder'" in selection.reason


def test_a_bare_description_is_named_by_its_place(index):
    selection = selected(LoRAuterSelector(index), ["knows paintings"], QueryBundle("paintings"))
    assert (selection.index, selection.reason.split(" (")[0]) == (0, "nearest by the description of 'choice 1'")


def test_one_query_is_encoded_once_with_all_descriptions(pico_lorauter, encoder):
    before = encoder.calls
    selected(LoRAuterSelector(pico_lorauter, {"adder": ["sums"]}), [PAINTER, ADDER], SUM)
    assert encoder.calls == before + 1


@pytest.mark.parametrize(
    ("choices", "query", "tasks", "error", "match"),
    [
        ([], SUM, {}, RoutingError, "no choices to select from"),
        ([ADDER], " ", {}, RoutingError, "an empty query cannot select"),
        (
            [ADDER],
            SUM,
            {"adder": ["nope"]},
            UnknownTaskError,
            r"no task 'nope'\nHint: the tasks are 'colours', 'sums'",
        ),
        ([ADDER], SUM, {"addr": ["sums"]}, OptionError, r"unknown choice 'addr'\nHint: known are 'adder'"),
        (
            [ADDER],
            SUM,
            {"adder": ["new"]},
            RoutingError,
            r"task 'new' has not been mapped.*\nHint: run `lorauter map`",
        ),
    ],
    ids=["no choices", "no query", "no task", "no choice", "not mapped"],
)
def test_what_cannot_be_selected_is_one_clear_error(pico_lorauter, choices, query, tasks, error, match):
    if tasks == {"adder": ["new"]}:
        pico_lorauter.index.add([Task("new", "exact_match", [Example("a", "b")])])
    with pytest.raises(error, match=match):
        LoRAuterSelector(pico_lorauter, tasks).select(choices, query)


def test_a_router_query_engine_asks_the_selected_engine_and_no_model(pico_lorauter):
    llm = LoRAuterLLM(pico_lorauter)
    steps = []
    hook = pico_lorauter.engine.mixtures.model.register_forward_hook(lambda *_: steps.append(1))
    tools = [QueryEngineTool(query_engine=Named(name=tool.name), metadata=tool) for tool in (PAINTER, ADDER)]
    engine = RouterQueryEngine(LoRAuterSelector(pico_lorauter, TASKS), tools, llm=llm)
    answers = [engine.query(COLOUR), engine.query(SUM), asyncio.run(engine.aquery(SUM))]
    hook.remove()
    assert [str(answer) for answer in answers] == [f"painter: {COLOUR}", f"adder: {SUM}", f"adder: {SUM}"]
    assert answers[1].metadata["selector_result"].ind == 1
    assert steps == []


def test_the_async_twin_leaves_the_event_loop_free(pico_lorauter, encoder, monkeypatch):
    threads = []
    encode = encoder.encode
    monkeypatch.setattr(encoder, "encode", lambda texts: threads.append(threading.current_thread()) or encode(texts))
    result = asyncio.run(LoRAuterSelector(pico_lorauter, TASKS).aselect([PAINTER, ADDER], SUM))
    assert result.ind == 1
    assert threading.main_thread() not in threads
    assert threads
