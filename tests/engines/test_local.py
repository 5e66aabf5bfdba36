import json
import re
import threading

import pytest
import torch
from conftest import pico_model, pico_tokenizer

from lorauter_integrations import (
    GenerationOptions,
    GenerationRequest,
    Grammar,
    Limits,
    LocalEngine,
    Message,
    Mixture,
)
from lorauter_integrations.engines.base import completion_of
from lorauter_integrations.engines.loading import load_model, model_shapes, pick_device
from lorauter_integrations.errors import (
    ContextLengthError,
    EngineError,
    ModelLoadError,
    OptionError,
    UnknownAdapterError,
)
from lorauter_integrations.mixing import base_shapes

PROMPTS = ["Hi", "A rather longer prompt, so that rows differ in length", "x " * 30, "42?"]
MIXTURES = [Mixture(), Mixture({"plain": 1.0}), Mixture({"wide": 0.5, "mlp": -1.0}), Mixture({"rslora": 0.3})]


def request(text="Hi", mixture=None, **options):
    return GenerationRequest(
        [Message("user", text)], mixture or Mixture(), GenerationOptions(**{"max_tokens": 12, **options})
    )


def answer(engine, *args, **options):
    return completion_of(engine.stream(request(*args, **options)))


def by_transformers(text, max_new_tokens=12):
    """Greedy ids of transformers' own generate, without our code."""
    model, tokenizer = pico_model(), pico_tokenizer()
    prompt = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
    ids = torch.tensor([tokenizer(prompt, add_special_tokens=False).input_ids])
    mask = torch.ones_like(ids)
    out = model.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=256,
        eos_token_id=256,
    )
    return tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("text", PROMPTS)
def test_greedy_text_is_what_transformers_generate_writes(pico_engine, text):
    got = answer(pico_engine, text).text
    assert got == by_transformers(text)
    assert got


def test_a_batch_of_different_rows_equals_each_row_alone(pico_engine):
    requests = [request(t, m) for t, m in zip(PROMPTS, MIXTURES, strict=True)]
    requests += [
        request("Hi", max_tokens=3),
        request("Hi", temperature=1.5, seed=7),
        request("Hi", stop=("a", "e", "�")),
    ]
    together = pico_engine.complete(requests)
    assert together == [completion_of(pico_engine.stream(one)) for one in requests]
    assert len({completion.text for completion in together}) > 4


def test_a_mixture_changes_the_answer_and_the_base_stays(pico_engine):
    base = answer(pico_engine).text
    assert answer(pico_engine, "Hi", Mixture({"plain": 1.0})).text != base
    assert answer(pico_engine).text == base


def test_pieces_join_to_the_completion(pico_engine):
    deltas = list(pico_engine.stream(request("Hi", max_tokens=20)))
    assert "".join(delta.text for delta in deltas) == deltas[-1].completion.text
    assert [delta.completion is None for delta in deltas[:-1]] == [True] * (len(deltas) - 1)


def test_max_tokens_cuts_and_says_so(pico_engine):
    cut = answer(pico_engine, max_tokens=5)
    assert (cut.finish_reason, cut.usage.completion_tokens) == ("length", 5)


def test_an_end_token_ends_the_answer(pico_pool):
    model = pico_model()
    with torch.no_grad():  # every hidden state points at the end token now
        model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
    head = torch.zeros(258)
    head[256] = 1
    model.lm_head.register_forward_hook(lambda _, __, out: out + head)
    ended = answer(LocalEngine(model, pico_tokenizer(), pico_pool))
    assert (ended.text, ended.finish_reason, ended.usage.completion_tokens) == ("", "stop", 1)


def test_usage_counts_the_template(pico_engine):
    counted = answer(pico_engine, "Hi", max_tokens=4).usage
    # one token a byte; the two special tokens are one each
    bare = "user\nHi" + "\n" + "assistant\n"
    assert counted.prompt_tokens == len(bare) + 3
    assert counted.prompt_tokens == pico_engine.count_tokens(request("Hi"))
    assert counted.total_tokens == counted.prompt_tokens + 4


def test_a_stop_string_is_found_across_tokens_and_kept_out(pico_engine):
    whole = answer(pico_engine, max_tokens=30).text
    stop = whole[5:8]
    cut = answer(pico_engine, max_tokens=30, stop=(stop,))
    assert cut.text == whole[: whole.index(stop)]
    assert cut.finish_reason == "stop"
    assert cut.usage.completion_tokens < 30


def test_the_same_seed_gives_the_same_text_and_leaves_the_global_generator_alone(pico_engine):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = answer(pico_engine, temperature=1.0, seed=3, max_tokens=20).text
    assert answer(pico_engine, temperature=1.0, seed=3, max_tokens=20).text == first
    assert answer(pico_engine, temperature=1.0, seed=4, max_tokens=20).text != first
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}], ids=["top_k", "top_p"])
def test_sampling_from_one_token_is_greedy(pico_engine, narrow):
    assert answer(pico_engine, temperature=1.3, seed=5, **narrow).text == answer(pico_engine).text


def test_a_prompt_longer_than_the_context_is_an_error_with_both_numbers(pico_engine):
    with pytest.raises(ContextLengthError, match=r"the prompt has 1219 tokens; the model's context holds 1024"):
        pico_engine.stream(request("a" * 1200))


def test_an_answer_ends_where_the_context_does(pico_engine):
    text = "a" * 980
    room = 1024 - pico_engine.count_tokens(request(text))
    cut = answer(pico_engine, text, max_tokens=100)
    assert (cut.usage.completion_tokens, cut.finish_reason) == (room, "length")


def test_an_unknown_adapter_is_named_before_anything_runs(pico_engine):
    with pytest.raises(UnknownAdapterError, match="there is no adapter 'nope'") as caught:
        pico_engine.stream(request("Hi", Mixture({"nope": 1.0})))
    assert "'plain'" in caught.value.hint


def test_threads_take_turns_and_get_their_own_answers(pico_engine):
    requests = [request(t, m, max_tokens=15) for t, m in zip(PROMPTS, MIXTURES, strict=True)]
    expected = [completion_of(pico_engine.stream(one)) for one in requests]
    got = [None] * len(requests)

    def work(place):
        got[place] = completion_of(pico_engine.stream(requests[place]))

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == expected


def test_a_closed_stream_does_no_more_work(pico_engine):
    steps = 0

    def count(*_):
        nonlocal steps
        steps += 1

    hook = pico_engine.mixtures.model.register_forward_hook(count)
    stream = pico_engine.stream(request(max_tokens=50))
    next(stream)
    stream.close()
    taken = steps
    answer(pico_engine, max_tokens=1)
    assert steps == taken + 1
    hook.remove()


def test_log_likelihood_is_the_mean_over_the_targets_tokens(pico_engine):
    requests = [request(t, m) for t, m in zip(PROMPTS, MIXTURES, strict=True)]
    targets = ["yes", "a longer target", "n", "ok"]
    got = pico_engine.log_likelihood(requests, targets)
    for one, target, value in zip(requests, targets, got, strict=True):
        prompt = pico_engine.render(one)
        tokenizer = pico_tokenizer()
        ids = tokenizer(prompt, add_special_tokens=False).input_ids
        answer_ids = [*tokenizer(target, add_special_tokens=False).input_ids, 256]
        with pico_engine.mixtures.rows([one.mixture]), torch.inference_mode():
            logits = pico_engine.mixtures.model(input_ids=torch.tensor([ids + answer_ids])).logits[0]
        chances = logits[len(ids) - 1 : -1].log_softmax(-1)
        expected = chances[range(len(answer_ids)), answer_ids].mean()
        assert value == pytest.approx(float(expected), abs=1e-4)


def test_a_model_folder_is_loaded_with_its_pool(pico_folder, pico_pool_folder, pico_engine):
    engine = LocalEngine.load(str(pico_folder), pico_pool_folder, dtype="float32", device="cpu")
    assert engine.name == pico_folder.name
    assert set(engine.adapters) == set(pico_engine.adapters)
    assert answer(engine, "Hi", MIXTURES[2]) == answer(pico_engine, "Hi", MIXTURES[2])
    assert engine.identity == pico_engine.identity


def test_shapes_come_from_the_config_alone(pico_folder):
    assert model_shapes(str(pico_folder)) == base_shapes(pico_model())


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("/nowhere/at/all", {}, "base model '/nowhere/at/all' cannot be loaded"),
        ("no-such-org/no-such-model", {}, "base model 'no-such-org/no-such-model' cannot be loaded"),
        ("x", {"dtype": "int3"}, "unknown dtype 'int3'"),
    ],
    ids=["missing folder", "hub name offline", "dtype"],
)
def test_a_model_that_cannot_be_loaded_is_one_error(name, options, match):
    with pytest.raises(ModelLoadError, match=match):
        load_model(name, **options)


def test_an_unknown_device_is_named():
    with pytest.raises(ModelLoadError, match="'warp' is not a torch device"):
        pick_device("warp")


def test_an_answer_is_ended_when_the_caller_says_so(pico_engine):
    whole = answer(pico_engine, max_tokens=20).text
    asked = []

    def keep_on(text):
        asked.append(text)
        return len(text) < 4

    one = GenerationRequest([Message("user", "Hi")], options=GenerationOptions(max_tokens=20), keep_on=keep_on)
    cut, beside = pico_engine.complete([one, request(max_tokens=20)])
    assert (cut.text, cut.finish_reason) == (whole[:4], "stop")
    assert asked[-1] == whole[:4]
    assert beside.text == whole


def test_a_target_longer_than_the_context_is_refused(pico_engine):
    with pytest.raises(ContextLengthError, match=r"the answer of at least 1201 included"):
        pico_engine.log_likelihood([request("Hi")], ["a" * 1200])


@pytest.mark.parametrize("temperature", [1e-44, 1e-3, 1e6])
def test_no_temperature_overflows(pico_engine, temperature):
    assert answer(pico_engine, temperature=temperature, seed=1).usage.completion_tokens == 12


def test_numbers_that_overflow_are_an_error_that_names_the_mixture(pico_engine):
    huge = Mixture({"wide": 1e30})
    with pytest.raises(EngineError, match=r"numbers overflowed under the mixture 1000.* wide"):
        list(pico_engine.stream(request("Hi", huge)))
    failed, fine = pico_engine.complete([request("Hi", huge), request("Hi")])
    assert failed.finish_reason == "failed"
    assert fine == answer(pico_engine)


def test_a_damaged_model_is_one_error(tmp_path, pico_folder):
    import shutil

    shutil.copytree(pico_folder, tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(ModelLoadError, match=r"base model .* cannot be loaded"):
        load_model(str(tmp_path / "model"))
    (tmp_path / "bad.gguf").write_bytes(b"GGUF\x03\x00")
    with pytest.raises(ModelLoadError, match=r"base model .*bad.gguf' cannot be loaded"):
        load_model(str(tmp_path / "bad.gguf"))
    with pytest.raises(ModelLoadError, match=r"there is no file .*none.gguf"):
        load_model(str(tmp_path / "none.gguf"))


def test_a_plain_dictionary_of_adapters_names_what_it_has():
    engine = LocalEngine(pico_model(), pico_tokenizer(), {})
    with pytest.raises(UnknownAdapterError, match=r"no adapter 'x'\nHint: the pool has none"):
        engine.require(Mixture({"x": 1.0}))


def test_logprobs_are_those_of_the_model_under_the_mixture(pico_engine):
    mixture = Mixture({"plain": 0.7})
    asked = request("abc", mixture, temperature=1.0, seed=2, logprobs=3, repetition_penalty=1.3)
    answer = completion_of(pico_engine.stream(asked))
    assert len(answer.logprobs) == answer.usage.completion_tokens == 12
    prompt = pico_tokenizer()(pico_engine.render(asked), add_special_tokens=False).input_ids
    chosen = [pico_tokenizer().convert_tokens_to_ids(pico_tokenizer().tokenize(one.token)) for one in answer.logprobs]
    readable = [place for place, ids in enumerate(chosen) if len(ids) == 1]  # a byte alone may not be a character
    assert readable
    ids = torch.tensor([[*prompt, *(ids[0] if len(ids) == 1 else 0 for ids in chosen)]])
    until = next((place for place, ids in enumerate(chosen) if len(ids) != 1), len(chosen))
    with pico_engine.mixtures.rows([mixture]), torch.inference_mode():
        chances = pico_engine.mixtures.model(input_ids=ids).logits[0].log_softmax(-1)
    for place in range(until):
        one, here = answer.logprobs[place], chances[len(prompt) + place - 1]
        assert one.logprob == pytest.approx(float(here[chosen[place][0]]), abs=1e-4)
        assert [value for _, value in one.top] == pytest.approx(here.topk(3).values.tolist(), abs=1e-4)
    assert not completion_of(pico_engine.stream(request("abc", mixture))).logprobs


def test_pinned_adapters_stay_while_others_come_and_go(pico_pool):
    size = sum(p.rank * (p.inputs + p.outputs) * 4 for p in pico_pool["plain"].parts.values())
    engine = LocalEngine(pico_model(), pico_tokenizer(), pico_pool, limits=Limits(adapter_bytes=2 * 3 * size))
    engine.pin(["plain"])
    for name in ("alphas", "mlp", "ranks", "rslora", "alphas", "mlp"):
        answer(engine, "x", Mixture({name: 1.0}), max_tokens=1)
        assert engine.stats().adapters.bytes <= 3 * size
    stats = engine.stats().adapters
    assert "plain" in engine.mixtures.weights.resident
    assert stats.pinned == 1
    assert stats.evictions > 0
    with pytest.raises(UnknownAdapterError, match="nope"):
        engine.pin(["nope"])


GRAMMARS = [
    Grammar.json_schema({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}),
    Grammar.json_schema({"enum": ["red", "green"]}),
    Grammar.lark("start: /[a-c]{5}/"),
    Grammar.json_schema({"type": "array", "items": {"type": "boolean"}, "minItems": 3, "maxItems": 3}),
]


def test_rows_of_one_batch_have_their_own_grammars(pico_engine):
    requests = [
        GenerationRequest(
            [Message("user", f"prompt {n}")],
            MIXTURES[n % 4],
            GenerationOptions(100, temperature=n % 2, seed=n),
            grammar=g,
        )
        for n, g in enumerate([*GRAMMARS, *GRAMMARS, None])
    ]
    answers = pico_engine.complete(requests)
    for place in (0, 4):
        assert isinstance(json.loads(answers[place].text)["n"], int)
    for place in (1, 5):
        assert json.loads(answers[place].text) in ("red", "green")
    for place in (2, 6):
        assert re.fullmatch("[a-c]{5}", answers[place].text)
    for place in (3, 7):
        assert [type(one) for one in json.loads(answers[place].text)] == [bool] * 3
    assert {answer.finish_reason for answer in answers[:8]} == {"stop"}
    assert answers == [completion_of(pico_engine.stream(one)) for one in requests]


def test_an_answer_that_is_whole_ends_without_another_step(pico_engine):
    steps = []
    pico_engine.mixtures.model.register_forward_pre_hook(lambda *_: steps.append(1))
    asked = GenerationRequest([Message("user", "x")], grammar=Grammar.lark('start: "abc"'))
    answer = completion_of(pico_engine.stream(asked))
    assert (answer.text, answer.finish_reason, len(steps)) == ("abc", "stop", 3)


def test_a_grammar_that_cannot_be_compiled_is_refused_before_anything_runs(pico_engine):
    with pytest.raises(OptionError, match="the lark grammar cannot be compiled"):
        pico_engine.stream(GenerationRequest([Message("user", "x")], grammar=Grammar.lark("start: nowhere")))
