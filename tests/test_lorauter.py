import asyncio
import copy
import json
import logging
import threading
from dataclasses import dataclass

import pytest
from conftest import pico_model, pico_tokenizer, set_winner
from mixing.by_hand import described, make_alone

from lorauter_integrations import (
    AdapterPool,
    Choice,
    Example,
    GenerationOptions,
    LocalEngine,
    LoRAuter,
    Message,
    Mixture,
    Route,
    Task,
    TaskRouter,
)
from lorauter_integrations.engines.threads import in_threads
from lorauter_integrations.errors import OptionError
from lorauter_integrations.routing import PAPER, Rules, Softmax

COLOUR = [Message("user", "name a colour")]


def test_an_answer_carries_its_route_and_its_completion(pico_lorauter):
    answer = pico_lorauter.generate(COLOUR)
    assert answer.text == answer.completion.text
    assert answer.route == pico_lorauter.route(COLOUR)
    assert answer.route.matches[0].task == "colours"


def test_a_task_whose_winner_is_the_base_model_is_answered_by_it(pico_lorauter):
    base = pico_lorauter.generate(COLOUR, choice=Choice(adapters={}))
    set_winner(pico_lorauter.index, "colours", "", "")
    answer = pico_lorauter.generate(COLOUR, choice=Choice(task="colours"))
    assert answer.text == base.text
    assert answer.route.reason.endswith("no adapter improves on the base model")


def test_a_call_can_choose_what_is_routed_on(pico_lorauter):
    talk = [Message("system", "add the numbers 1 and 1"), Message("user", "name a colour")]

    def nearest(**choice):
        return pico_lorauter.route(talk, choice=Choice(**choice)).matches[0].task

    assert nearest(route_on="last_user") == "colours"
    assert nearest(route_on=lambda messages: messages[0].content) == "sums"
    assert nearest(text="add the numbers") == "sums"
    assert nearest(text="add the numbers", route_on="last_user", sticky=True) == "sums"


def test_what_is_routed_on_is_the_lorauters_own_unless_a_call_says_otherwise(pico_lorauter):
    asked = []

    class Asked:
        def route(self, text):
            asked.append(text)
            return Route(Mixture(), (), "asked")

    index, engine = pico_lorauter.index, pico_lorauter.engine
    lorauter = LoRAuter(index, engine, router=Asked(), route_on="last_user", sticky=True)
    talk = [Message("system", "Be kind."), Message("user", "name a colour"), Message("user", "make that shorter")]
    lorauter.choose(talk)
    lorauter.choose(talk, Choice(sticky=False))
    lorauter.choose(talk, Choice(route_on="conversation", sticky=False))
    lorauter.choose(talk, Choice(route_on="system_and_last_user"))
    lorauter.route("make that shorter")
    assert asked == [
        "name a colour",
        "make that shorter",
        "Be kind.\n\nmake that shorter\n\nname a colour",
        "Be kind.\n\nname a colour",
        "make that shorter",
    ]


def test_a_follow_up_says_that_it_stayed(pico_lorauter):
    talk = [*COLOUR, Message("assistant", "red"), Message("user", "make that shorter")]
    answer = pico_lorauter.generate(talk, choice=Choice(sticky=True))
    assert answer.route.matches == pico_lorauter.route(COLOUR).matches
    assert answer.route.reason == "a follow-up of the turn before: nearest 1 of the mapped tasks"


def test_route_honours_chosen_adapters_and_task_like_choose(pico_lorauter):
    for choice in (Choice(adapters={"plain": 0.5}), Choice(task="sums"), Choice(adapters={})):
        assert pico_lorauter.route(COLOUR, choice=choice) == pico_lorauter.choose(COLOUR, choice)


def test_a_way_to_route_that_does_not_exist_is_refused(pico_lorauter):
    with pytest.raises(OptionError, match="unknown route_on 'all'"):
        LoRAuter(pico_lorauter.index, pico_lorauter.engine, route_on="all")


def test_a_call_asks_with_its_keywords_the_fields_and_the_settings_in_this_order(pico_lorauter):
    fields = {"temperature": 0.5, "task": "sums", "sticky": True}
    options, choice = pico_lorauter.asked(fields, {"top_k": 3, "adapters": {}, "route_on": "last_user"})
    assert (options.max_tokens, options.temperature, options.top_k) == (8, 0.5, 3)
    assert choice == Choice(adapters={}, route_on="last_user", sticky=True)


# --- identity, for caches


def test_identity_is_that_of_an_equal_lorauter(pico_lorauter):
    other = LoRAuter(pico_lorauter.index, pico_lorauter.engine, options=GenerationOptions(max_tokens=8))
    assert other.identity == pico_lorauter.identity == pico_lorauter.identity


def last(messages):
    return messages[-1].content


@pytest.mark.parametrize(
    "change",
    [
        lambda lorauter: set_winner(lorauter.index, "colours", "mlp", "x"),
        lambda lorauter: lorauter.index.remove("sums"),
        lambda lorauter: lorauter.index.add([Task("new", "f1", [Example("a", "b")])]),
        lambda lorauter: lorauter.index.add([Task("sums", "f1", [Example("add", "1")])]),
        lambda lorauter: setattr(lorauter, "router", TaskRouter(lorauter.index, Rules(weighting=Softmax(1)))),
        lambda lorauter: setattr(lorauter, "router", TaskRouter(lorauter.index, PAPER)),
        lambda lorauter: setattr(lorauter, "router", Always("colours")),
        lambda lorauter: setattr(lorauter, "route_on", "last_user"),
        lambda lorauter: setattr(lorauter, "route_on", last),
        lambda lorauter: setattr(lorauter, "sticky", True),
        lambda lorauter: setattr(lorauter, "options", GenerationOptions(max_tokens=9)),
        lambda lorauter: setattr(lorauter, "engine", LocalEngine(pico_model(), pico_tokenizer(), name="pico")),
        lambda lorauter: setattr(lorauter, "engine", LocalEngine(pico_model(), pico_tokenizer(None), name="pico")),
    ],
    ids=[
        "ranking",
        "removed",
        "added",
        "changed",
        "k",
        "temperature",
        "router",
        "name",
        "function",
        "sticky",
        "options",
        "pool",
        "template",
    ],
)
def test_identity_changes_with_everything_that_makes_an_answer(pico_lorauter, change):
    before = pico_lorauter.identity
    change(pico_lorauter)
    assert pico_lorauter.identity != before


@dataclass
class Always:
    """A router of a user's own."""

    task: str

    def route(self, text):
        return Route(Mixture(), (), self.task)


def test_identity_tells_a_router_of_ones_own_by_its_repr(pico_lorauter):
    pico_lorauter.router = Always("colours")
    before = pico_lorauter.identity
    pico_lorauter.router = Always("colours")
    assert pico_lorauter.identity == before
    pico_lorauter.router = Always("sums")
    assert pico_lorauter.identity != before


def test_identity_reads_the_index_only_after_a_change(pico_lorauter, monkeypatch):
    read = []
    get = type(pico_lorauter.index)._read
    monkeypatch.setattr(
        type(pico_lorauter.index), "_read", lambda self, **query: read.append(1) or get(self, **query)
    )
    assert len({pico_lorauter.identity for _ in range(20)}) == 1
    assert len(read) == 1


def test_the_map_is_read_anew_for_every_text(pico_lorauter):
    assert pico_lorauter.route("name a colour").matches[0].adapter == "plain"
    set_winner(pico_lorauter.index, "colours", "mlp", "x")
    assert pico_lorauter.route("name a colour").matches[0].adapter == "mlp"


def test_an_adapter_that_left_the_pool_is_an_error_never_the_base_model(pico_lorauter):
    set_winner(pico_lorauter.index, "colours", "gone", "x")
    with pytest.raises(
        KeyError, match=r"routed to .* gone.*, but there is no adapter 'gone'\nHint: .*run `lorauter map`"
    ):
        pico_lorauter.generate(COLOUR)


def test_opening_warns_of_what_is_stale(pico_lorauter, caplog):
    pico_lorauter.index.add([Task("new", "f1", [Example("a", "b")])])
    identity = pico_lorauter.engine.identity
    set_winner(pico_lorauter.index, "colours", "gone", "x", identity)
    set_winner(pico_lorauter.index, "sums", "wide", "another hash", identity)
    with caplog.at_level(logging.WARNING):
        pico_lorauter.warn_of_stale_map()
    assert "nothing is routed to: new" in caplog.text
    assert "task colours: its adapter 'gone' is not in the pool any more" in caplog.text
    assert "task sums: its adapter 'wide' has changed since it was mapped" in caplog.text
    set_winner(pico_lorauter.index, "sums", "wide", "another hash", "another base")
    with caplog.at_level(logging.WARNING):
        pico_lorauter.warn_of_stale_map()
    assert "task sums: it was mapped with another base model or chat template" in caplog.text


def test_copies_are_the_same_object(pico_lorauter):
    assert copy.deepcopy(pico_lorauter) is copy.copy(pico_lorauter) is pico_lorauter


def test_base_model_is_called_by_the_engines_name(pico_lorauter):
    assert pico_lorauter.model_names == {"pico"}


def test_an_async_stream_closes_its_source_when_left_early():
    closed = []

    def source():
        try:
            yield from range(100)
        finally:
            closed.append(True)

    async def run():
        stream = in_threads(source())
        assert [await anext(stream), await anext(stream)] == [0, 1]
        await stream.aclose()

    asyncio.run(run())
    assert closed == [True]


def test_an_error_in_the_source_reaches_the_async_caller():
    def source():
        yield 1
        raise ValueError("boom 7")

    async def run():
        return [item async for item in in_threads(source())]

    with pytest.raises(ValueError, match="boom 7"):
        asyncio.run(run())


def test_a_cancelled_step_closes_the_source_once_it_is_over():
    release, closed = threading.Event(), threading.Event()

    def source():
        try:
            yield 1
            release.wait(10)
            yield 2
        finally:
            closed.set()

    async def run():
        stream = in_threads(source())
        await anext(stream)
        step = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.05)
        step.cancel()
        with pytest.raises(asyncio.CancelledError):
            await step
        assert not closed.is_set()
        release.set()
        await asyncio.to_thread(closed.wait, 10)

    asyncio.run(run())
    assert closed.is_set()


def test_a_routes_dictionary_is_json(pico_lorauter):
    route = pico_lorauter.route("name a colour").as_dict()
    assert json.loads(json.dumps(route)) == route


# --- adapters that can only be used alone


@pytest.fixture
def with_dora(pico_lorauter, tmp_path):
    """The same with a DoRA in the pool, the winner of the colours."""
    folder = make_alone(tmp_path / "dora", pico_model(), use_dora=True, target_modules=["o_proj", "down_proj"])
    dora = described(folder, "dora")
    engine = LocalEngine(pico_model(), pico_tokenizer(), AdapterPool({**pico_lorauter.engine.adapters, "dora": dora}))
    set_winner(pico_lorauter.index, "colours", "dora", dora.content_hash)
    router = TaskRouter(pico_lorauter.index, PAPER)
    return LoRAuter(pico_lorauter.index, engine, router=router, options=pico_lorauter.options)


def test_a_text_next_to_a_task_whose_adapter_is_used_alone_is_answered_by_it_alone(with_dora):
    answer = with_dora.generate(COLOUR)
    first = with_dora.route("name a colour").matches[0]
    assert (first.task, first.adapter) == ("colours", "dora") and first.weight < 1
    assert answer.route.mixture == Mixture({"dora": 1.0})
    assert answer.route.explain().startswith(
        "1.00 dora: nearest 2 of the mapped tasks; 'dora' has the heaviest weight"
    )
    chosen = with_dora.generate(COLOUR, choice=Choice(adapters={"dora": 1.0}))
    named = with_dora.generate(COLOUR, choice=Choice(task="colours"))
    base = with_dora.generate(COLOUR, choice=Choice(adapters={}))
    assert answer.text == chosen.text == named.text != base.text


def test_a_text_next_to_another_task_is_answered_without_it(with_dora):
    answer = with_dora.generate([Message("user", "add the numbers")])
    assert dict(with_dora.route("add the numbers").mixture).keys() == {"wide", "dora"}
    assert dict(answer.route.mixture) == {"wide": pytest.approx(1.0)}
    assert answer.route.reason.endswith("; left out 'dora', not to be mixed with others (it uses DoRA)")
    assert [match.adapter for match in answer.route.matches] == ["wide", "dora"]


def test_adapters_chosen_by_the_caller_are_never_changed(with_dora):
    with pytest.raises(OptionError, match="'dora' can only be used alone: it uses DoRA; the mixture has 2 adapters"):
        with_dora.generate(COLOUR, choice=Choice(adapters={"dora": 1.0, "plain": 0.1}))
    with pytest.raises(OptionError, match=r"its weight is 0\.7\nHint: choose {\"dora\": 1.0}"):
        with_dora.choose(COLOUR, Choice(adapters={"dora": 0.7}))


def test_an_adapter_that_left_the_pool_is_still_an_error_beside_one_that_is_left_out(with_dora):
    class Far:
        def route(self, text):
            return Route(Mixture({"gone": 0.6, "dora": 0.4}), (), "far")

    with pytest.raises(KeyError, match=r"routed to 1\.00 gone, but there is no adapter 'gone'"):
        LoRAuter(with_dora.index, with_dora.engine, router=Far()).choose(COLOUR)
