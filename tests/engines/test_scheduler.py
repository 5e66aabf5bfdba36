"""Requests of many callers in one forward pass: the pico model, real threads."""

import asyncio
import gc
import itertools
import os
import shutil
import subprocess
import sys
import threading
import time

import pytest
import torch
from conftest import pico_model, pico_tokenizer

from lorauter_integrations import (
    AdapterPool,
    GenerationOptions,
    GenerationRequest,
    Limits,
    LocalEngine,
    Message,
    Mixture,
)
from lorauter_integrations.engines.base import completion_of
from lorauter_integrations.errors import (
    EngineClosedError,
    EngineError,
    GenerationTimeoutError,
    ModelLoadError,
    OptionError,
    PoolError,
    QueueFullError,
)
from lorauter_integrations.mixing import base_shapes

MIXTURES = [
    {},
    {"plain": 1.0},
    {"wide": 0.5, "mlp": -1.0},
    {"rslora": 0.3},
    {"ranks": 1.0},
    {"alphas": 0.2},
    {"mlp": 2.0},
    {"plain": 0.5, "wide": 0.5},
]


def request(number, **options):
    facts = {"max_tokens": 10 + number, **options}
    text = f"prompt {number} " * (1 + 3 * (number % 3))
    return GenerationRequest([Message("user", text)], Mixture(MIXTURES[number % 8]), GenerationOptions(**facts))


def run(threads):
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def small_engine(pool, **limits):
    return LocalEngine(pico_model(), pico_tokenizer(), pool, limits=Limits(**limits))


def passes(engine, seen=None):
    """The shape of the ids of every forward pass that the engine will make."""
    shapes = [] if seen is None else seen
    engine.mixtures.model.register_forward_pre_hook(
        lambda _, __, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    return shapes


@pytest.fixture
def steps(pico_engine):
    """How many forward passes the model made, by the number of rows in each."""
    counted = []
    hook = pico_engine.mixtures.model.register_forward_hook(
        lambda _, args, kwargs, __: counted.append(kwargs["input_ids"].shape[0]), with_kwargs=True
    )
    yield counted
    hook.remove()


def together(engine, requests):
    """Every request from a thread of its own; returns the completions in order."""
    got = [None] * len(requests)

    def work(place):
        got[place] = completion_of(engine.stream(requests[place]))

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(requests))]
    with engine._scheduler.lead():  # nobody begins before everybody waits, however slow the machine is
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 60
        while len(engine._scheduler._waiting) < len(requests):
            assert time.monotonic() < deadline
            time.sleep(0.001)
    for thread in threads:
        thread.join()
    return got


def test_eight_threads_share_their_steps_and_get_what_they_get_alone(pico_pool):
    engine = small_engine(pico_pool, chunk=2000)
    steps = passes(engine)
    requests = [request(n, temperature=(0.0 if n % 2 else 1.0), seed=n, stop=("zq",)) for n in range(8)]
    alone = [completion_of(engine.stream(one)) for one in requests]
    serial = len(steps)
    steps.clear()
    assert together(engine, requests) == alone
    assert len(steps) == 17 < serial  # the longest answer has 17 tokens, the first of them from reading the prompts
    assert steps[0][0] == 8


def test_a_newcomer_joins_in_the_middle_and_changes_nothing(pico_engine):
    first, second = request(5, max_tokens=30), request(2, max_tokens=8)
    alone = [completion_of(pico_engine.stream(one)) for one in (first, second)]
    stream = pico_engine.stream(first)
    begun = [next(stream) for _ in range(6)]
    assert completion_of(pico_engine.stream(second)) == alone[1]
    rest = list(stream)
    assert "".join(d.text for d in begun + rest) == alone[0].text
    assert rest[-1].completion == alone[0]


def test_more_rows_than_fit_wait_for_their_turn(pico_pool, steps, pico_engine):
    small = LocalEngine(pico_engine.mixtures.model, pico_tokenizer(), pico_pool, limits=Limits(rows=3))
    requests = [request(n, max_tokens=4 + n) for n in range(8)]
    alone = [completion_of(small.stream(one)) for one in requests]
    steps.clear()
    assert small.complete(requests) == alone
    assert max(steps) == 3


def test_a_closed_stream_frees_its_row_at_once_and_harms_no_other(pico_engine, steps):
    kept, closed = request(1, max_tokens=20), request(2, max_tokens=400)
    alone = completion_of(pico_engine.stream(kept))
    streams = [pico_engine.stream(closed), pico_engine.stream(kept)]
    begun = [[next(stream).text for _ in range(4)] for stream in streams]
    streams[0].close()
    steps.clear()
    rest = list(streams[1])
    assert "".join([*begun[1], *(d.text for d in rest)]) == alone.text
    assert set(steps) == {1}


def test_an_abandoned_stream_is_freed_even_if_it_is_collected_during_a_step(pico_engine, steps):
    abandoned = pico_engine.stream(request(2, max_tokens=400))
    next(abandoned)
    with pico_engine._scheduler.lead():  # as when the garbage collector runs inside a forward pass
        del abandoned
        gc.collect()
    steps.clear()
    assert completion_of(pico_engine.stream(request(1, max_tokens=5))).usage.completion_tokens == 5
    assert set(steps) == {1}


def test_a_step_that_fails_reaches_all_its_callers_and_the_engine_goes_on(pico_engine):
    requests = [request(n, max_tokens=30) for n in range(3)]
    alone = [completion_of(pico_engine.stream(one)) for one in requests]
    streams = [pico_engine.stream(one) for one in requests]
    for stream in streams:
        next(stream)

    def explode(*_):
        raise RuntimeError("out of memory, 7 bytes short")

    hook = pico_engine.mixtures.model.model.layers[1].register_forward_hook(explode)
    seen = []
    for stream in streams:
        with pytest.raises(
            EngineError, match=r"the step failed.*RuntimeError: out of memory, 7 bytes short"
        ) as caught:
            list(stream)
        assert caught.value.__cause__.__traceback__  # to the line where it happened
        seen.append(caught.value)
    assert len(set(map(id, seen))) == 3  # to each caller an object of its own
    hook.remove()
    assert [completion_of(pico_engine.stream(one)) for one in requests] == alone


def test_an_interrupt_stops_its_caller_and_tells_the_others(pico_engine):
    streams = [pico_engine.stream(request(n, max_tokens=30)) for n in range(2)]
    for stream in streams:
        next(stream)

    def interrupt(*_):
        raise KeyboardInterrupt

    hook = pico_engine.mixtures.model.model.layers[0].register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(streams[0])
    hook.remove()
    with pytest.raises(EngineError, match="stopped by KeyboardInterrupt in another caller"):
        list(streams[1])
    assert completion_of(pico_engine.stream(request(1)))


def test_padding_that_no_row_needs_is_cut_off(pico_engine):
    short, long = (
        request(1, max_tokens=40),
        GenerationRequest([Message("user", "x" * 300)], options=GenerationOptions(max_tokens=5)),
    )
    alone = completion_of(pico_engine.stream(short))
    stream = pico_engine.stream(short)
    begun = [next(stream) for _ in range(3)]
    pico_engine.complete([long])
    lengths = []
    hook = pico_engine.mixtures.model.register_forward_pre_hook(
        lambda _, __, kwargs: lengths.append(kwargs["cache"].get_seq_length() if "cache" in kwargs else 0),
        with_kwargs=True,
    )
    rest = list(stream)
    hook.remove()
    assert "".join(d.text for d in begun + rest) == alone.text
    assert max(lengths) < 150


def test_a_model_with_sliding_windows_writes_rows_side_by_side(pico_pool):
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(**{k: v for k, v in pico_model().config.to_dict().items() if k in {
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "max_position_embeddings", "eos_token_id"}}, sliding_window=16)  # fmt: skip
    engine = LocalEngine(MistralForCausalLM(config).eval(), pico_tokenizer(), pico_pool)
    requests = [request(n, max_tokens=25) for n in range(4)]
    alone = [completion_of(engine.stream(one)) for one in requests]
    assert together(engine, requests) == alone


def test_a_request_lost_by_an_interrupt_is_an_error_and_no_endless_wait(pico_engine):
    stream = pico_engine.stream(request(1, max_tokens=30))
    next(stream)
    pico_engine._scheduler._writing.clear()  # as Ctrl-C between two lines could leave it
    with pytest.raises(EngineError, match="lost this request"):
        list(stream)
    assert completion_of(pico_engine.stream(request(1)))


def whole(stream, pause=0.0):
    """The completion of a stream, whose pieces must be its text."""
    deltas = [(delta, time.sleep(pause))[0] for delta in stream]
    assert "".join(delta.text for delta in deltas) == deltas[-1].completion.text
    return deltas[-1].completion


def test_the_last_piece_is_not_lost_on_a_caller_who_looks_in_the_middle_of_a_step(pico_engine, monkeypatch):
    from lorauter_integrations.engines.decoding import DecodingBatch

    step = DecodingBatch.step

    def slow(batch):
        pieces = step(batch)
        time.sleep(0.02)  # rows are done already, and their last pieces not yet in their callers' hands
        return pieces

    monkeypatch.setattr(DecodingBatch, "step", slow)
    got = []
    threads = [
        threading.Thread(
            target=lambda n=n: got.append(whole(pico_engine.stream(request(n, max_tokens=4 + n)), 0.007 * n))
        )
        for n in range(8)
    ]
    run(threads)
    assert len(got) == 8


def test_thirty_two_requests_of_eight_threads_equal_their_serial_results(pico_pool):
    engine = small_engine(pico_pool, rows=5, chunk=40)
    requests = [
        request(n, temperature=n % 3 * 0.5, seed=n, top_k=n % 4 * 5, min_p=0.02 * (n % 2), stop=("q", "zz")[: n % 3])
        for n in range(32)
    ]
    alone = [completion_of(engine.stream(one)) for one in requests]
    got = {}

    def work(thread):
        for place in range(thread, 32, 8):
            got[place] = whole(engine.stream(requests[place]))

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
    run(threads)
    assert [got[place] for place in range(32)] == alone


def test_killing_one_request_of_eight_changes_nothing_for_the_others(pico_engine):
    requests = [request(n, max_tokens=30) for n in range(8)]
    alone = [completion_of(pico_engine.stream(one)) for one in requests]
    streams = [pico_engine.stream(one) for one in requests]
    for stream in streams:
        next(stream)
    streams[3].close()
    assert next(streams[3], None) is None
    rest = [completion_of(stream) for place, stream in enumerate(streams) if place != 3]
    assert rest == [one for place, one in enumerate(alone) if place != 3]


def test_a_long_prompt_is_read_in_chunks_and_the_others_go_on_between_them(pico_pool):
    engine = small_engine(pico_pool, chunk=32, prefix_bytes=0)
    long = GenerationRequest(
        [Message("user", "long " * 40)], Mixture({"plain": 1.0}), GenerationOptions(max_tokens=6)
    )
    whole = completion_of(small_engine(pico_pool, chunk=1000).stream(long))
    shapes = passes(engine)
    writing = engine.stream(request(3, max_tokens=60))
    next(writing)
    shapes.clear()
    assert completion_of(engine.stream(long)) == whole
    reads = [place for place, (_, tokens) in enumerate(shapes) if tokens > 1]
    assert [shapes[place] for place in reads[:-1]] == [(1, 32)] * (len(reads) - 1)
    assert len(reads) >= 6
    assert all(second - first == 2 for first, second in itertools.pairwise(reads))  # a token for the other between
    writing.close()


def test_a_short_prompt_does_not_wait_until_a_long_one_is_read(pico_pool):
    engine = small_engine(pico_pool, chunk=32, prefix_bytes=0)
    long = GenerationRequest([Message("user", "long " * 100)], options=GenerationOptions(max_tokens=2))
    short = GenerationRequest([Message("user", "hi")], options=GenerationOptions(max_tokens=2))
    shapes = passes(engine)
    together(engine, [long, short])
    assert shapes.index((1, engine.count_tokens(short))) <= 2


def test_a_chunk_is_shared_by_the_rows_that_are_read_together(pico_pool):
    engine = small_engine(pico_pool, chunk=200, prefix_bytes=0)
    requests = [request(n, max_tokens=3) for n in range(8)]
    alone = [completion_of(engine.stream(one)) for one in requests]
    shapes = passes(engine)
    assert engine.complete(requests) == alone
    assert max(rows * tokens for rows, tokens in shapes) <= 200


def test_a_full_queue_is_an_error_with_the_numbers(pico_pool):
    engine = small_engine(pico_pool, rows=1, queue=2)
    streams = [engine.stream(request(n, max_tokens=20)) for n in range(4)]
    next(streams[0])
    threads = [threading.Thread(target=list, args=(stream,)) for stream in streams[1:3]]
    with engine._scheduler.lead():
        for thread in threads:
            thread.start()
        while len(engine._scheduler._waiting) < 2:
            time.sleep(0.001)
        with pytest.raises(
            QueueFullError, match=r"(?s)2 requests wait and 1 are being written; no more than 2.*Hint"
        ):
            next(streams[3])
    streams[0].close()
    for thread in threads:
        thread.join()
    assert completion_of(engine.stream(request(3, max_tokens=20)))  # and there is room again


def test_a_list_larger_than_the_queue_is_answered(pico_pool):
    engine = small_engine(pico_pool, rows=2, queue=1)
    assert len(engine.complete([request(n, max_tokens=3) for n in range(9)])) == 9


def test_a_callback_that_fails_harms_no_other_row(pico_engine):
    requests = [request(n, max_tokens=25) for n in range(3)]
    alone = [completion_of(pico_engine.stream(one)) for one in requests]

    def of_the_second(text):
        if len(text) > 3:
            raise ZeroDivisionError("in my own callback")
        return True

    bad = GenerationRequest(requests[1].messages, requests[1].mixture, requests[1].options, keep_on=of_the_second)
    streams = [pico_engine.stream(one) for one in (requests[0], bad, requests[2])]
    for stream in streams:
        next(stream)
    with pytest.raises(ZeroDivisionError, match="in my own callback") as caught:
        list(streams[1])
    assert caught.traceback[-1].name == "of_the_second"
    assert [completion_of(streams[0]), completion_of(streams[2])] == [alone[0], alone[2]]


def slowed(engine, seconds=0.03):
    return engine.mixtures.model.register_forward_pre_hook(lambda *_: time.sleep(seconds))


def test_a_timeout_is_an_error_with_the_numbers_and_frees_the_row(pico_engine, steps):
    hook = slowed(pico_engine)
    stream = pico_engine.stream(request(1, max_tokens=500, timeout=0.2))
    with pytest.raises(GenerationTimeoutError, match=r"(?s)not whole after 0.2 s: \d+ of at most 500 tokens.*Hint"):
        list(stream)
    hook.remove()
    steps.clear()
    assert completion_of(pico_engine.stream(request(2, max_tokens=4)))
    assert set(steps) == {1}


def test_a_timeout_reaches_one_who_waits_for_another_callers_step(pico_engine):
    with pico_engine._scheduler.lead(), pytest.raises(TimeoutError, match=r"not whole after 0.1 s: 0 of at most 11"):
        list(pico_engine.stream(request(1, timeout=0.1)))


def test_a_stream_is_closed_by_another_thread_in_the_middle_of_waiting(pico_engine):
    stream = pico_engine.stream(request(1, max_tokens=400))
    got = []
    thread = threading.Thread(target=lambda: got.extend(stream))
    with pico_engine._scheduler.lead():
        thread.start()
        while not pico_engine._scheduler._waiting:
            time.sleep(0.001)
        stream.close()
        thread.join(timeout=30)
        assert not thread.is_alive()
    assert got == []


def test_a_closed_engine_says_so_to_those_who_wait_and_to_those_who_come(pico_engine):
    stream = pico_engine.stream(request(1, max_tokens=400))
    next(stream)
    pico_engine.close()
    for late in (stream, pico_engine.stream(request(2))):
        with pytest.raises(EngineClosedError, match="the engine was closed"):
            list(late)
    with pytest.raises(EngineClosedError, match="the engine was closed"):
        pico_engine.log_likelihood([request(1)], ["x"])


@pytest.mark.parametrize("limit", ["rows", "queue", "chunk", "adapter_bytes"])
def test_limits_of_nothing_are_refused(limit):
    with pytest.raises(OptionError, match=f"{limit} must be at least 1, not 0"):
        Limits(**{limit: 0})


ENGINE_IN_A_PROCESS = """
import asyncio, os, sys, threading, time
sys.path.insert(0, {tests!r})
from conftest import pico_model, pico_tokenizer
from lorauter_integrations import GenerationOptions, GenerationRequest, LocalEngine, Message
from lorauter_integrations.engines.base import completion_of
from lorauter_integrations.lorauter import in_threads

engine = LocalEngine(pico_model(), pico_tokenizer())
request = GenerationRequest([Message("user", "hello")], options=GenerationOptions(max_tokens=300))
"""


def in_a_process(code):
    tests = os.path.dirname(os.path.dirname(__file__))
    program = ENGINE_IN_A_PROCESS.format(tests=tests) + code
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_use_after_a_fork_is_an_error_and_no_hang():
    code = """
completion_of(engine.stream(request))
child = os.fork()
if child == 0:
    try:
        completion_of(engine.stream(request))
    except Exception as error:
        print(type(error).__name__, error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print("parent", completion_of(engine.stream(request)).usage.completion_tokens)
"""
    out = in_a_process(code).stdout
    assert "EngineError the engine was loaded in process" in out
    assert "Hint: load the engine after the fork" in out
    assert "parent" in out


def test_nothing_is_left_behind_at_the_interpreters_exit():
    code = """
async def leave():
    async for _ in engine.stream(request):
        break
    async for _ in in_threads(engine.stream(request)):
        break
    tasks = [asyncio.ensure_future(anext(engine.stream(request))) for _ in range(4)]
    tasks += [asyncio.ensure_future(anext(in_threads(engine.stream(request)))) for _ in range(4)]
    await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()

asyncio.run(leave())
for _ in range(1000):
    if engine._scheduler._seats:  # the step that runs
        time.sleep(0.01)
print(len(engine._scheduler._seats), "rows are left")
"""
    done = in_a_process(code)
    assert done.stdout == "0 rows are left\n"
    assert "Traceback" not in done.stderr


def test_hundreds_of_calls_of_an_event_loop_need_no_thread_each_and_meet_the_queues_limit(pico_pool):
    engine = small_engine(pico_pool, rows=8, queue=100)
    threads = set()
    engine.mixtures.model.register_forward_pre_hook(lambda *_: threads.add(threading.active_count()))

    async def answer(n):
        return [delta async for delta in engine.stream(request(n, max_tokens=4))][-1].completion

    async def everything():
        return await asyncio.gather(*(answer(n) for n in range(250)), return_exceptions=True)

    before = threading.active_count()
    got = asyncio.run(everything())
    refused = [one for one in got if isinstance(one, QueueFullError)]
    assert 100 < len(refused) <= 150  # 8 were being written, 100 waited; at once, before any was whole
    assert [one for one in got if one not in refused] == [
        completion_of(engine.stream(request(n, max_tokens=4))) for n in range(250) if got[n] not in refused
    ]
    assert max(threads) <= before + 64


def test_a_list_of_one_caller_leaves_places_for_the_others(pico_pool):
    engine = small_engine(pico_pool, rows=2)
    slow = threading.Thread(target=engine.complete, args=([request(n, max_tokens=10) for n in range(40)],))
    order = []
    engine.mixtures.model.register_forward_pre_hook(lambda *_: order.append("step"))
    slow.start()
    while len(order) < 5:
        time.sleep(0.001)
    assert completion_of(engine.stream(request(3, max_tokens=3)))
    assert len(order) < 60  # of about 300
    slow.join()


def test_a_likelihood_waits_for_one_step_and_not_for_the_writers_end(pico_engine):
    requests = [request(n, max_tokens=200) for n in range(8)]
    steps = []
    pico_engine.mixtures.model.register_forward_pre_hook(lambda *_: steps.append(1) or time.sleep(0.005))

    def write(one):
        with pytest.raises(EngineClosedError):
            list(pico_engine.stream(one))

    threads = [threading.Thread(target=write, args=(one,)) for one in requests]
    for thread in threads:
        thread.start()
    while len(steps) < 10:
        time.sleep(0.001)
    before = len(steps)
    pico_engine.log_likelihood([request(1)], ["abc"])
    waited = len(steps) - before
    pico_engine.close()
    for thread in threads:
        thread.join()
    assert waited <= 12


def test_an_adapter_that_cannot_be_read_fails_its_own_row_alone(tmp_path, pico_pool_folder):
    for name in ("plain", "alphas"):
        shutil.copytree(pico_pool_folder / name, tmp_path / name)
    engine = small_engine(AdapterPool.from_folder(tmp_path, base_shapes(pico_model())))
    shutil.rmtree(tmp_path / "alphas")
    lost = GenerationRequest([Message("user", "hi")], Mixture({"alphas": 1.0}), GenerationOptions(max_tokens=5))
    with pytest.raises(
        PoolError, match="weights of adapter 'alphas' cannot be read any more"
    ):  # and nobody beside it
        completion_of(engine.stream(lost))
    ask = [
        GenerationRequest([Message("user", "hi")], Mixture({name: 1.0}), GenerationOptions(max_tokens=5))
        for name in ("plain", "alphas")
    ]
    got = [None, None]

    def work(place):
        try:
            got[place] = completion_of(engine.stream(ask[place]))
        except PoolError as error:
            got[place] = error

    threads = [threading.Thread(target=work, args=(place,)) for place in range(2)]
    run(threads)
    assert got[0].usage.completion_tokens == 5
    assert "weights of adapter 'alphas' cannot be read any more" in str(got[1])


def test_an_error_between_two_steps_reaches_everyone_and_leaves_nothing_behind(pico_engine, monkeypatch):
    stream = pico_engine.stream(request(1, max_tokens=30))
    next(stream)
    monkeypatch.setattr(pico_engine._scheduler, "_sweep", lambda: 1 / 0)
    with pytest.raises(EngineError, match=r"the step failed.*ZeroDivisionError"):
        list(stream)
    monkeypatch.undo()
    assert completion_of(pico_engine.stream(request(2, max_tokens=5))).usage.completion_tokens == 5


def test_a_callback_that_asks_the_engine_is_an_error_and_no_hang(pico_engine):
    asked = request(1)
    nested = GenerationRequest(
        asked.messages, asked.mixture, asked.options, keep_on=lambda _: bool(pico_engine.complete([asked]))
    )
    with pytest.raises(EngineError, match=r"(?s)asked from within its own step.*Hint: ask it after"):
        list(pico_engine.stream(nested))


def test_a_callback_that_raises_stop_iteration_does_not_end_its_callers_loop(pico_engine):
    asked = request(1)
    bad = GenerationRequest(asked.messages, asked.mixture, asked.options, keep_on=lambda _: next(iter(())))
    with pytest.raises(RuntimeError, match="a callback raised StopIteration"):
        list(pico_engine.stream(bad))


@pytest.mark.parametrize("kind", ["recurrent", "no positions"])
def test_models_that_cannot_be_padded_write_each_row_alone(kind):
    if kind == "recurrent":
        from transformers import Lfm2Config, Lfm2ForCausalLM

        config = Lfm2Config(
            vocab_size=258, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, layer_types=["conv", "full_attention"], eos_token_id=256, bos_token_id=257,
        )  # fmt: skip
        model = Lfm2ForCausalLM(config).eval()
    else:
        from transformers import BloomConfig, BloomForCausalLM

        config = BloomConfig(vocab_size=258, hidden_size=32, n_layer=2, n_head=4, eos_token_id=256, bos_token_id=257)
        model = BloomForCausalLM(config).eval()
    engine = LocalEngine(model, pico_tokenizer(), limits=Limits(chunk=16))
    requests = [
        GenerationRequest([Message("user", "word " * (1 + 5 * n))], options=GenerationOptions(max_tokens=6 + n))
        for n in range(4)
    ]
    alone = [completion_of(engine.stream(one)) for one in requests]
    assert together(engine, requests) == alone
    prompt = torch.tensor([engine._prompts.token_ids(requests[2].messages)])
    with torch.inference_mode():
        expected = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, do_sample=False, pad_token_id=256
        )
    assert alone[2].text == pico_tokenizer().decode(expected[0, prompt.shape[1] :], skip_special_tokens=True)


def test_models_of_another_kind_are_refused_with_the_reason():
    from transformers import T5Config, T5ForConditionalGeneration

    model = T5ForConditionalGeneration(
        T5Config(vocab_size=258, d_model=32, d_ff=32, num_layers=1, num_heads=2, d_kv=8)
    )
    with pytest.raises(
        ModelLoadError, match=r"(?s)T5ForConditionalGeneration cannot be served: it is an encoder-decoder"
    ):
        LocalEngine(model, pico_tokenizer())


def test_other_uses_of_the_model_wait_for_their_turn(pico_engine):
    """A likelihood is asked in the middle of an answer, by another thread."""
    alone = completion_of(pico_engine.stream(request(2, max_tokens=20)))
    value = pico_engine.log_likelihood([request(5)], ["abc"])
    stream = pico_engine.stream(request(2, max_tokens=20))
    next(stream)
    got = []
    thread = threading.Thread(target=lambda: got.append(pico_engine.log_likelihood([request(5)], ["abc"])))
    thread.start()
    assert completion_of(stream) == alone
    thread.join()
    assert got == [value]
