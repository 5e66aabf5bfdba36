import threading

import pytest
import torch
from conftest import pico_model

from lorauter_integrations import Mixture, MixtureModel
from lorauter_integrations.errors import EngineError, OptionError, PoolError
from lorauter_integrations.mixing import WeightCache, fingerprint, write_fused
from lorauter_integrations.mixing.base_model import placements

IDS = torch.arange(12).reshape(1, 12)


def logits(mixture_model, mixture):
    with mixture_model.rows([mixture]), torch.inference_mode():
        return mixture_model.model(input_ids=IDS).logits


def test_two_threads_with_different_mixtures_do_not_meet(pico_pool):
    shared = MixtureModel(pico_model(), pico_pool)
    choices = [
        Mixture({"plain": 1.0}),
        Mixture({"wide": -1.0}),
        Mixture(),
        Mixture({"mlp": 2.0, "plain": 0.5}),
    ]
    expected = [logits(MixtureModel(pico_model(), pico_pool), mixture) for mixture in choices]
    wrong = []

    def work(place):
        for _ in range(25):
            if not torch.allclose(logits(shared, choices[place]), expected[place], atol=1e-5):
                wrong.append(place)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(choices))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_modules_found_to_share_an_input_while_a_plan_is_made_wait_for_the_next(pico_pool, monkeypatch):
    mixture_model, mixture = MixtureModel(pico_model(), pico_pool), Mixture({"plain": 1.0})
    stacked = mixture_model._stacked

    def another_thread_finds_twins(names):
        groups = stacked(names)
        attention = "model.layers.0.self_attn."
        mixture_model._twins[f"{attention}v_proj"] = f"{attention}q_proj"
        return groups

    monkeypatch.setattr(mixture_model, "_stacked", another_thread_finds_twins)
    found = logits(mixture_model, mixture)
    torch.testing.assert_close(found, logits(MixtureModel(pico_model(), pico_pool), mixture), atol=1e-6, rtol=0)


def test_an_error_inside_the_block_leaves_the_model_clean(pico_pool):
    mixture_model = MixtureModel(pico_model(), pico_pool)
    with pytest.raises(RuntimeError, match="boom"), mixture_model.rows([Mixture({"plain": 1.0})]):
        raise RuntimeError("boom")
    with torch.inference_mode():
        assert torch.equal(mixture_model.model(input_ids=IDS).logits, pico_model()(input_ids=IDS).logits)


def test_blocks_nest(pico_pool):
    mixture_model = MixtureModel(pico_model(), pico_pool)
    outer, inner = Mixture({"plain": 1.0}), Mixture({"wide": 1.0})
    expected = logits(mixture_model, outer)
    with mixture_model.rows([outer]), torch.inference_mode():
        logits(mixture_model, inner)
        assert torch.equal(mixture_model.model(input_ids=IDS).logits, expected)


def test_a_wrong_number_of_mixtures_is_refused(pico_pool):
    mixture_model = MixtureModel(pico_model(), pico_pool)
    rows = [Mixture({"plain": 1.0}), Mixture({"wide": 1.0})]
    with (
        pytest.raises(EngineError, match=r"2 mixtures for an input of shape \(3, 12, 32\) at model.layers.0"),
        mixture_model.rows(rows),
        torch.inference_mode(),
    ):
        mixture_model.model(input_ids=IDS.expand(3, -1))


def test_the_cache_drops_the_least_used_within_its_budget(pico_pool):
    one = WeightCache(pico_pool, placements(pico_model()))
    one["plain"]
    size = one.size
    assert size == sum(part.rank * (part.inputs + part.outputs) * 4 for part in pico_pool["plain"].parts.values())
    cache = WeightCache(pico_pool, placements(pico_model()), budget=2 * size)
    for name in ("plain", "alphas", "plain", "mlp"):
        cache[name]
    assert cache.resident == ["plain", "mlp"]
    assert cache.size <= 2 * size


def test_an_adapter_larger_than_the_budget_still_serves(pico_pool):
    cache = WeightCache(pico_pool, placements(pico_model()), budget=1)
    assert cache["wide"]
    assert cache["plain"]
    assert cache.resident == ["plain"]


def test_a_file_that_has_gone_is_an_error_that_names_the_adapter(tmp_path, pico_pool_folder):
    import shutil

    from lorauter_integrations import AdapterPool
    from lorauter_integrations.mixing import base_shapes

    shutil.copytree(pico_pool_folder / "plain", tmp_path / "pool" / "plain")
    pool = AdapterPool.from_folder(tmp_path / "pool", base_shapes(pico_model()))
    shutil.rmtree(tmp_path / "pool" / "plain")
    with pytest.raises(PoolError, match="weights of adapter 'plain' cannot be read any more"):
        logits(MixtureModel(pico_model(), pool), Mixture({"plain": 1.0}))


def test_fingerprints_tell_models_apart():
    same, other = pico_model(), pico_model()
    other.model.layers[1].mlp.up_proj.weight.data[0, 0] += 1
    assert fingerprint(same) == fingerprint(pico_model())
    assert fingerprint(other) != fingerprint(same)


def test_the_empty_mixture_cannot_be_fused(pico_pool, tmp_path):
    with pytest.raises(OptionError, match="nothing to write"):
        write_fused(Mixture(), pico_pool, tmp_path)


def test_modules_that_see_all_rows_tokens_as_one_list_mix_too(tmp_path):
    """OPT's fully connected layers are given (rows * length, inputs)."""
    from conftest import make_adapter
    from peft import PeftModel
    from transformers import OPTConfig, OPTForCausalLM

    from lorauter_integrations import AdapterPool
    from lorauter_integrations.mixing import base_shapes

    def opt():
        torch.manual_seed(0)
        facts = {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        return OPTForCausalLM(OPTConfig(vocab_size=258, word_embed_proj_dim=32, **facts)).eval()

    for seed, name in enumerate(("one", "two")):
        make_adapter(tmp_path / name, model=opt(), seed=seed, target_modules=["fc1", "fc2", "q_proj"])
    mixture_model = MixtureModel(opt(), AdapterPool.from_folder(tmp_path, base_shapes(opt())))
    ids = torch.arange(14).reshape(2, 7)
    with mixture_model.rows([Mixture({"one": 1.0}), Mixture({"two": 1.0})]), torch.inference_mode():
        ours = mixture_model.model(input_ids=ids).logits
    for row, name in enumerate(("one", "two")):
        reference = PeftModel.from_pretrained(opt(), str(tmp_path / name)).eval()
        with torch.inference_mode():
            expected = reference(input_ids=ids[row : row + 1]).logits
        torch.testing.assert_close(ours[row : row + 1], expected, atol=1e-5, rtol=1e-5)


def test_a_file_that_changed_since_the_check_is_not_used(tmp_path, pico_pool_folder):
    import shutil

    from conftest import make_adapter

    from lorauter_integrations import AdapterPool
    from lorauter_integrations.mixing import base_shapes

    shutil.copytree(pico_pool_folder / "plain", tmp_path / "plain")
    pool = AdapterPool.from_folder(tmp_path, base_shapes(pico_model()))
    make_adapter(tmp_path / "plain", seed=9, r=8, lora_alpha=64)
    with pytest.raises(PoolError, match="weights of adapter 'plain' have changed since the pool was checked"):
        logits(MixtureModel(pico_model(), pool), Mixture({"plain": 1.0}))


def test_sets_of_adapters_are_kept_within_the_budget(pico_pool):
    budget = 4 * sum(sum(p.rank * (p.inputs + p.outputs) * 4 for p in a.parts.values()) for a in pico_pool.values())
    mixture_model = MixtureModel(pico_model(), pico_pool, budget=budget)
    names = list(pico_pool)
    for first in names:
        for second in names:
            logits(mixture_model, Mixture({first: 0.5, second: 0.6}))
    sets = [
        forms for groups, _ in mixture_model._stacks._held.values() for group in groups for forms in group.values()
    ]
    plans = [plan for plan, _ in mixture_model._plans._held.values()]
    for kept, held in ((mixture_model._stacks, sets), (mixture_model._plans, plans)):
        assert 0 < sum(made.nbytes for made in held) == kept.nbytes <= budget // 4


def test_a_closed_model_mixes_again_when_it_is_used_again(pico_pool):
    mixture_model = MixtureModel(pico_model(), pico_pool)
    mixture = Mixture({"plain": 1.0})
    before = logits(mixture_model, mixture)
    mixture_model.close()
    assert torch.equal(logits(mixture_model, mixture), before)


@pytest.mark.parametrize("tokens", [1, 90], ids=["few", "many"])
@pytest.mark.parametrize("rows", [1, 2])
def test_a_16_bit_model_mixes_small_and_large_passes_alike(pico_pool, tokens, rows):
    from lorauter_integrations.mixing.mixture_model import FEW

    mixtures = [Mixture({"plain": 0.6, "mlp": 0.3}), Mixture({"alphas": 0.4})][:rows]
    ids = torch.arange(rows * tokens).reshape(rows, tokens) % 256

    def logits_in(dtype):
        mixture_model = MixtureModel(pico_model().to(dtype), pico_pool)
        with mixture_model.rows(mixtures, tokens), torch.inference_mode():
            found = mixture_model.model(input_ids=ids).logits
        return found, mixture_model._plan(mixtures)

    found, plan = logits_in(torch.bfloat16)
    exact, _ = logits_in(torch.float64)
    base, _ = MixtureModel(pico_model().to(torch.bfloat16), {}).model(input_ids=ids).logits, None
    torch.testing.assert_close(found.double(), exact, atol=0.15, rtol=0.1)
    assert (found - base).abs().max() > 0.3  # the mixture matters more than the tolerance
    forms = plan.parts["model.layers.0.self_attn.q_proj"]
    assert (forms.few.inner.a.dtype, forms.many.inner.a.dtype) == (torch.float32, torch.bfloat16)
    assert (rows * tokens * len(forms.few.inner.a) <= FEW) == (tokens == 1)
