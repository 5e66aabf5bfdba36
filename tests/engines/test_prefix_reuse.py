"""A conversation that goes on is not read again; another mixture never sees what one has read. Pico model."""

import shutil

import pytest
from conftest import make_adapter, pico_model, pico_tokenizer

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
from lorauter_integrations.mixing import base_shapes

PLAIN = Mixture({"plain": 1.0})
FIRST = Message("user", "tell me about the ferry " * 6)


def engine_of(pool, prefix_bytes=1 << 24):
    return LocalEngine(pico_model(), pico_tokenizer(), pool, limits=Limits(prefix_bytes=prefix_bytes))


def conversation(*texts, mixture=PLAIN, **options):
    messages = [
        FIRST,
        *(Message("assistant" if place % 2 == 0 else "user", text) for place, text in enumerate(texts)),
    ]
    return GenerationRequest(messages, mixture, GenerationOptions(**{"max_tokens": 20, **options}))


@pytest.fixture
def read(pico_pool):
    """An engine, and how many tokens each of its answers read."""
    engine = engine_of(pico_pool)
    tokens = []
    engine.mixtures.model.register_forward_pre_hook(
        lambda _, __, kwargs: tokens.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    return engine, tokens


def test_a_second_turn_reads_only_what_is_new_and_answers_the_same(read, pico_pool):
    engine, tokens = read
    first = completion_of(engine.stream(conversation()))
    follow_up = conversation(first.text, "and shorter please")
    tokens.clear()
    second = completion_of(engine.stream(follow_up))
    assert tokens[0] < 60 < engine.count_tokens(follow_up) / 2
    assert second == completion_of(engine_of(pico_pool, 0).stream(follow_up))
    assert second.usage.prompt_tokens == engine.count_tokens(follow_up)
    assert engine.stats().prefixes.found == 1


@pytest.mark.parametrize(
    "other",
    [Mixture(), Mixture({"plain": 0.99}), Mixture({"alphas": 1.0}), Mixture({"plain": 1.0, "mlp": 1e-6})],
    ids=str,
)
def test_another_mixture_reads_everything_itself(read, pico_pool, other):
    engine, tokens = read
    completion_of(engine.stream(conversation()))
    tokens.clear()
    asked = conversation(mixture=other)
    assert completion_of(engine.stream(asked)) == completion_of(engine_of(pico_pool, 0).stream(asked))
    assert tokens[0] == engine.count_tokens(asked)
    assert engine.stats().prefixes.found == 0


def test_two_names_of_one_content_share_what_was_read(tmp_path, pico_pool_folder):
    for name in ("one", "two"):
        shutil.copytree(pico_pool_folder / "plain", tmp_path / name)
    make_adapter(tmp_path / "three", seed=9)  # the same shapes, other weights
    engine = engine_of(AdapterPool.from_folder(tmp_path, base_shapes(pico_model())))
    texts = [
        completion_of(engine.stream(conversation(mixture=Mixture({name: 1.0})))).text
        for name in ("one", "two", "three")
    ]
    assert engine.stats().prefixes.found == 1
    assert texts[0] == texts[1] != texts[2]


def test_rows_with_and_without_a_known_beginning_are_read_together(read, pico_pool):
    engine, _ = read
    plain = engine_of(pico_pool, 0)
    first = completion_of(engine.stream(conversation()))
    asked = [
        conversation(first.text, "more"),
        conversation(mixture=Mixture({"wide": 0.5})),
        conversation(first.text, "a much longer second question, to be read to its end", temperature=1.0, seed=4),
        conversation("no, I never said this", "why"),
    ]
    alone = [completion_of(plain.stream(one)) for one in asked]
    streams = [engine.stream(one) for one in asked]
    for stream in streams:
        stream._writing._join()
    assert [completion_of(stream) for stream in streams] == alone
    assert engine.stats().prefixes.found == 3


def test_a_long_new_part_after_a_known_beginning_is_read_in_chunks(pico_pool):
    engine = LocalEngine(pico_model(), pico_tokenizer(), pico_pool, limits=Limits(chunk=24))
    first = completion_of(engine.stream(conversation()))
    follow_up = conversation(first.text, "word " * 30)
    assert completion_of(engine.stream(follow_up)) == completion_of(engine_of(pico_pool, 0).stream(follow_up))
    assert engine.stats().prefixes.found == 1


def test_nothing_is_kept_of_answers_that_failed_or_were_left(read):
    engine, _ = read
    stream = engine.stream(conversation(max_tokens=300))
    next(stream)
    stream.close()

    def fail(text):
        raise ValueError("no")

    asked = conversation()
    bad = GenerationRequest(asked.messages, asked.mixture, asked.options, keep_on=fail)
    with pytest.raises(ValueError, match="no"):
        list(engine.stream(bad))
    assert engine.stats().prefixes.conversations == 0


def test_complete_neither_looks_nor_keeps(read):
    engine, _ = read
    engine.complete([conversation()] * 2)
    assert engine.stats().prefixes.asked == 0
    assert engine.stats().prefixes.conversations == 0


def test_memory_stays_within_the_budget(pico_pool):
    engine = engine_of(pico_pool, prefix_bytes=200_000)
    for n in range(12):
        messages = [Message("user", f"question {n} " * 20)]
        completion_of(engine.stream(GenerationRequest(messages, PLAIN, GenerationOptions(max_tokens=5))))
        assert 0 < engine.stats().prefixes.bytes <= 200_000
    assert engine.stats().prefixes.conversations < 12
