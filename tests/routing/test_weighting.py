import math

import numpy as np
import pytest

from lorauter_integrations.errors import ConfigError
from lorauter_integrations.routing import Nucleus, Softmax, Uniform
from lorauter_integrations.routing.known_tasks import nearest_places
from lorauter_integrations.routing.task_space import LeftOut
from lorauter_integrations.routing.weighting import softmax

SIMILARITIES = np.array([0.6, 1.0, 0.0, 0.8])


def never():
    pytest.fail("nothing is to be fitted")


def shares(weighting, left_out=never):
    return weighting.fit(left_out)(SIMILARITIES)


def test_softmax_is_over_the_nearest_alone():
    places, weights = zip(*shares(Softmax(3, 0.2)), strict=True)
    total = 1 + math.exp(-1) + math.exp(-2)
    assert places == (1, 3, 0)
    assert weights == pytest.approx([1 / total, math.exp(-1) / total, math.exp(-2) / total])


def test_shares_that_hardly_count_go_to_the_others():
    """At 0.05: 0.982, 0.018, 0.0003."""
    found = shares(Softmax(3, 0.05))
    assert [place for place, _ in found] == [1, 3, 0]
    assert [weight for _, weight in found] == pytest.approx([1 / (1 + math.exp(-4)), 1 / (1 + math.exp(4)), 0.0])
    assert all(weight > 0 for _, weight in shares(Softmax(3, 0.05, least=0.0)))


def test_however_many_share_alike_none_is_dropped():
    found = Softmax(150, 2.0).fit(never)(np.zeros(200))
    assert [weight for _, weight in found] == pytest.approx([1 / 150] * 150)


def test_uniform_shares_alike():
    assert shares(Uniform(2)) == [(1, 0.5), (3, 0.5)]


def test_one_task_has_all_the_weight():
    assert shares(Softmax(1, 0.2)) == shares(Uniform(1)) == [(1, 1.0)]


@pytest.mark.parametrize(("mass", "count"), [(0.5, 1), (0.9, 2), (0.99, 3), (1.0, 4)])
def test_a_nucleus_grows_with_its_mass(mass, count):
    """Softmax at 0.1 over all: 0.867, 0.117, 0.016, 0.00004."""
    found = shares(Nucleus(mass, 4, 0.1))
    assert [place for place, _ in found] == [1, 3, 0, 2][:count]
    assert sum(weight for _, weight in found) == pytest.approx(1)


def test_a_nucleus_has_a_bound():
    assert len(shares(Nucleus(1.0, 2, 0.1))) == 2


@pytest.mark.parametrize("weighting", [Softmax(4), Nucleus(1.0, 4)])
def test_temperature_is_fitted_to_left_out_examples(weighting):
    """Four tasks; each example is nearer to its own by 0.1, nine times of ten."""
    similarities = np.full((1000, 4), 0.5)
    own = np.arange(1000) % 4
    chosen = np.where(np.arange(1000) % 10 == 0, (own + 1) % 4, own)
    similarities[np.arange(1000), chosen] += 0.1
    found = dict(shares(weighting, lambda: LeftOut(similarities, own, similarities[:, :0])))
    # The derivative of 0.9 log e - log(e + 3), with e = exp(0.1 / t), is 0 at e = 27.
    expected = softmax(SIMILARITIES, 0.1 / math.log(27))
    assert [found.get(place, 0.0) for place in range(4)] == pytest.approx(expected, abs=0.05)


def test_without_examples_to_leave_out_the_papers_temperature_stands():
    assert shares(Softmax(3), lambda: None) == shares(Softmax(3, 0.2))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Softmax(0), "k must be at least 1"),
        (lambda: Uniform(0), "k must be at least 1"),
        (lambda: Softmax(3, 0.0), "temperature above 0"),
        (lambda: Nucleus(1.5), "mass must be above 0 and at most 1, not 1.5"),
        (lambda: Nucleus(0.9, 0), "k must be at least 1"),
    ],
)
def test_values_out_of_range_are_refused(make, match):
    with pytest.raises(ConfigError, match=match):
        make()


def test_softmax_does_not_overflow():
    assert softmax([1.0, -1.0], 1e-4) == [1.0, 0.0]


def test_nearest_places_are_exact_and_equal_ones_come_in_order():
    rng = np.random.default_rng(0)
    for k in (1, 3, 50, 2000):
        values = rng.normal(size=1000)
        assert nearest_places(values, k) == list(np.argsort(-values))[:k]
    assert nearest_places(np.array([0.5, 0.7, 0.5, 0.7, 0.7]), 4) == [1, 3, 4, 0]
    assert nearest_places(np.array([0.5, 0.7, 0.7 + 1e-8, 0.1]), 2) == [1, 2]
