"""A cache with spare room holds what transformers' own holds, through every change of its rows."""

import torch
from conftest import pico_model
from transformers import DynamicCache, MistralConfig

from lorauter_integrations.engines.kv_cache import RowCache


def states(rows, tokens, seed):
    return torch.randn(rows, 2, tokens, 8, generator=torch.Generator().manual_seed(seed))


def grown(cache, rows=3, steps=(5, 1, 1, 80, 1)):
    for seed, tokens in enumerate(steps):
        for layer in range(2):
            cache.update(states(rows, tokens, 10 * seed + layer), states(rows, tokens, 100 * seed + layer), layer)
    return cache


def same(ours, theirs):
    return all(
        torch.equal(a.keys, b.keys) and torch.equal(a.values, b.values)
        for a, b in zip(ours.layers, theirs.layers, strict=True)
    )


def test_it_grows_as_a_dynamic_cache_does():
    config = pico_model().config
    ours, theirs = RowCache(config), DynamicCache(config=config)
    grown(ours.states), grown(theirs)
    assert same(ours.states, theirs)
    assert ours.states.get_seq_length() == 88


def test_new_tokens_are_written_into_room_that_is_there():
    cache = RowCache(pico_model().config)
    grown(cache.states, steps=(5,))
    before = cache.states.layers[0].keys.data_ptr()
    grown(cache.states, steps=(1,) * 40)
    assert cache.states.layers[0].keys.data_ptr() == before


def test_rows_leave_join_and_lose_their_padding():
    config = pico_model().config
    one, two = RowCache(config), RowCache(config)
    grown(one.states, rows=3, steps=(7, 1)), grown(two.states, rows=2, steps=(4,))
    keys = [one.states.layers[1].keys.clone(), two.states.layers[1].keys.clone()]
    one.keep(torch.tensor([2, 0]))
    one.absorb(two, 8)
    held = one.states.layers[1].keys
    assert held.shape == (4, 2, 8, 8)
    assert torch.equal(held[:2], keys[0][[2, 0]])
    assert torch.equal(held[2:, :, 4:], keys[1])
    assert not held[2:, :, :4].any()
    one.cut(3)
    assert torch.equal(one.states.layers[1].keys[:2], keys[0][[2, 0]][:, :, 3:])
    grown(one.states, rows=4, steps=(1,))
    assert one.states.get_seq_length() == 6


def test_a_rows_states_can_begin_another_cache():
    config = pico_model().config
    first = RowCache(config)
    grown(first.states, rows=2, steps=(6,))
    kept = first.row(1, torch.tensor([1, 2, 4, 5]))
    second = RowCache(config)
    second.start_with([None, kept.first(3)], 5)
    held = second.states.layers[0].values
    assert held.shape == (2, 2, 5, 8)
    assert torch.equal(held[1, :, 2:], first.states.layers[0].values[1][:, [1, 2, 4]])
    assert not held[0].any()
    assert kept.nbytes == 2 * 2 * 2 * 4 * 8 * 4  # layers, keys and values, heads, tokens, size, bytes


def test_a_kept_row_does_not_change_with_the_cache_it_came_from():
    cache = RowCache(pico_model().config)
    grown(cache.states, rows=1, steps=(6,))
    kept = cache.row(0, torch.arange(6))
    before = kept.layers[0][0].clone()
    cache.states.layers[0].keys.fill_(7)
    assert torch.equal(kept.layers[0][0], before)


def test_sliding_windows_are_left_to_transformers():
    config = MistralConfig(num_hidden_layers=2, sliding_window=16)
    cache = RowCache(config)
    assert not cache.plain
    grown(cache.states, rows=3, steps=(5, 1))
    cache.keep(torch.tensor([1]))
    assert cache.states.layers[0].keys.shape[0] == 1
