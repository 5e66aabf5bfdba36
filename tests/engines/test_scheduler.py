"""Requests of many callers in one forward pass: the pico model, real threads."""

import gc
import threading
import time

import pytest
from conftest import pico_model, pico_tokenizer

from lorauter_integrations import GenerationOptions, GenerationRequest, LocalEngine, Message, Mixture
from lorauter_integrations.engines.base import completion_of

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
    with engine._scheduler.turn:  # nobody begins before everybody waits, however slow the machine is
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 60
        while len(engine._scheduler._waiting) < len(requests):
            assert time.monotonic() < deadline
            time.sleep(0.001)
    for thread in threads:
        thread.join()
    return got


def test_eight_threads_share_their_steps_and_get_what_they_get_alone(pico_engine, steps):
    requests = [request(n, temperature=(0.0 if n % 2 else 1.0), seed=n, stop=("zq",)) for n in range(8)]
    alone = [completion_of(pico_engine.stream(one)) for one in requests]
    serial = len(steps)
    steps.clear()
    assert together(pico_engine, requests) == alone
    assert len(steps) == 17 < serial  # the longest answer has 17 tokens, the first of them from reading the prompts
    assert steps[0] == 8


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
    small = LocalEngine(pico_engine.mixtures.model, pico_tokenizer(), pico_pool, batch_rows=3)
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
    with pico_engine._scheduler.turn:  # as when the garbage collector runs inside a forward pass
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
    for stream in streams:
        with pytest.raises(RuntimeError, match="7 bytes short"):
            list(stream)
    hook.remove()
    assert [completion_of(pico_engine.stream(one)) for one in requests] == alone


def test_an_interrupt_stops_its_caller_and_tells_the_others(pico_engine):
    from lorauter_integrations.errors import EngineError

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
    from lorauter_integrations.errors import EngineError

    stream = pico_engine.stream(request(1, max_tokens=30))
    next(stream)
    pico_engine._scheduler._batches.clear()  # as Ctrl-C between two lines could leave it
    with pytest.raises(EngineError, match="lost this request"):
        list(stream)
    assert completion_of(pico_engine.stream(request(1)))
