"""Which earlier conversation is found again, and what is forgotten first."""

import torch

from lorauter_integrations.engines.kv_cache import RowStates
from lorauter_integrations.engines.prefixes import WORTH_REUSING, PrefixCache

ONE = (("hash-a", 0.5),)
OTHER = (("hash-a", 0.5000001),)


def states(tokens):
    return RowStates(((torch.arange(tokens).float().expand(1, tokens)[..., None], torch.zeros(1, tokens, 1)),))


def held(cache, content, prompt):
    found = cache.find(content, prompt)
    return found[0] if found else 0


def test_the_longest_common_beginning_is_found():
    cache = PrefixCache(1 << 20)
    cache.keep(ONE, range(40), 40 * 8, lambda: states(40))
    cache.keep(ONE, [*range(30), *range(100, 130)], 60 * 8, lambda: states(60))
    tokens, known = cache.find(ONE, [*range(36), 7, 8])
    assert tokens == 36
    assert known.layers[0][0].shape == (1, 36, 1)
    assert known.layers[0][0][0, :, 0].tolist() == list(range(36))
    assert held(cache, ONE, [*range(30), *range(100, 120), 5]) == 50


def test_one_token_is_left_to_be_read():
    cache = PrefixCache(1 << 20)
    cache.keep(ONE, range(40), 40 * 8, lambda: states(40))
    assert held(cache, ONE, range(40)) == 39
    assert held(cache, ONE, range(30)) == 29


def test_a_mixture_of_other_content_never_finds_it():
    cache = PrefixCache(1 << 20)
    cache.keep(ONE, range(40), 40 * 8, lambda: states(40))
    assert cache.find(OTHER, range(50)) is None
    assert cache.find((("hash-b", 0.5),), range(50)) is None
    assert cache.find((), range(50)) is None


def test_a_short_beginning_is_not_worth_it():
    cache = PrefixCache(1 << 20)
    cache.keep(ONE, range(WORTH_REUSING), WORTH_REUSING * 8, lambda: states(WORTH_REUSING))
    assert cache.stats.conversations == 0
    cache.keep(ONE, range(40), 40 * 8, lambda: states(40))
    assert cache.find(ONE, [*range(WORTH_REUSING - 1), 99, 98]) is None
    assert held(cache, ONE, [*range(WORTH_REUSING), 99, 98]) == WORTH_REUSING


def test_a_conversation_takes_the_place_of_its_own_beginning():
    cache = PrefixCache(1 << 20)
    cache.keep(ONE, range(40), 40 * 8, lambda: states(40))
    cache.keep(ONE, range(60), 60 * 8, lambda: states(60))
    cache.keep(OTHER, range(20), 20 * 8, lambda: states(20))
    assert cache.stats.conversations == 2
    assert cache.stats.bytes == 80 * 8


def test_the_least_used_is_forgotten_at_the_budget():
    cache = PrefixCache(100 * 8)
    cache.keep(ONE, range(40), 40 * 8, lambda: states(40))
    cache.keep(ONE, range(1000, 1040), 40 * 8, lambda: states(40))
    assert held(cache, ONE, range(41)) == 40  # used again
    cache.keep(ONE, range(2000, 2040), 40 * 8, lambda: states(40))
    assert held(cache, ONE, range(1000, 1041)) == 0
    assert held(cache, ONE, range(41)) == 40
    assert cache.stats.bytes == 80 * 8
    cache.keep(ONE, range(5000, 5200), 200 * 8, None)  # larger than everything: not even copied
    assert cache.stats.conversations == 2


def test_what_was_spared_is_counted():
    cache = PrefixCache(1 << 20)
    cache.keep(ONE, range(40), 40 * 8, lambda: states(40))
    cache.find(ONE, range(50)), cache.find(ONE, range(7)), cache.find(ONE, range(20, 50))
    stats = cache.stats
    assert (stats.asked, stats.found, stats.tokens) == (3, 1, 40)
    cache.clear()
    assert (cache.stats.conversations, cache.stats.bytes) == (0, 0)
