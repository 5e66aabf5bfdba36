import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorauter_integrations import Mixture, Route, TaskMatch
from lorauter_integrations.errors import RoutingError
from lorauter_integrations.routing.servable import servable, settled

DORA = {"dora": "it uses DoRA", "other": "it uses DoRA", "plain": ""}
names = st.sampled_from(["a", "b", "c", "d", "e"])
shares = st.dictionaries(names, st.floats(0.001, 1), max_size=5)
weights = st.dictionaries(names, st.floats(-2, 2).filter(lambda w: abs(w) > 1e-3), max_size=5)
sets = st.frozensets(names)


def can_be_served(mixture, alone):
    return not alone & set(mixture) or (len(mixture) == 1 and set(mixture.values()) == {1.0})


@given(weights=shares, alone=sets)
def test_what_is_settled_can_be_served_and_stays_as_it_is(weights, alone):
    once = settled(Mixture(weights), alone)
    assert can_be_served(once, alone)
    assert settled(once, alone) == once


@given(weights=shares, alone=sets)
def test_the_heaviest_adapter_stays_and_the_others_keep_sum_and_proportions(weights, alone):
    mixture = Mixture(weights)
    found = settled(mixture, alone)
    heaviest, weight = next(iter(mixture.by_weight()), (None, 0.0))
    base = 1 - sum(mixture.values())
    if heaviest in alone and weight >= base:
        assert found == Mixture({heaviest: 1.0})
    elif set(mixture) <= alone:
        assert found == Mixture()  # nothing, or the base model has more than any of them
    elif heaviest not in alone:
        assert set(found) == set(mixture) - alone
        assert sum(found.values()) == pytest.approx(sum(mixture.values()))
        for name, weight in found.items():
            assert weight / found[heaviest] == pytest.approx(mixture[name] / mixture[heaviest])


@given(weights=weights, alone=sets, order=st.randoms(use_true_random=False))
def test_the_order_of_adapters_does_not_matter(weights, alone, order):
    items = list(weights.items())
    order.shuffle(items)
    outcomes = []
    for mixture in (Mixture(weights), Mixture(dict(items))):
        try:
            outcomes.append(settled(mixture, alone))
        except RoutingError as error:
            outcomes.append(error.message)
    assert outcomes[0] == outcomes[1]


@given(weights=weights, alone=sets)
def test_weights_keep_their_signs_and_the_sum_of_their_sizes(weights, alone):
    mixture = Mixture(weights)
    if not mixture or mixture.by_weight()[0][0] in alone or not alone & set(mixture) or set(mixture) <= alone:
        return
    found = settled(mixture, alone)
    assert sum(map(abs, found.values())) == pytest.approx(sum(map(abs, mixture.values())))
    assert all((weight > 0) == (mixture[name] > 0) for name, weight in found.items())


@given(weights=weights)
def test_a_mixture_of_adapters_that_mix_is_not_touched(weights):
    mixture = Mixture(weights)
    assert settled(mixture, frozenset()) is mixture
    route = Route(mixture, reason="near")
    assert servable(route, dict.fromkeys(weights, "")) is route


def test_an_adapter_alone_with_weight_one_is_not_touched():
    route = Route(Mixture({"dora": 1.0}), reason="near")
    assert servable(route, DORA) is route


def test_an_adapter_that_would_be_taken_away_cannot_be_used_at_all():
    with pytest.raises(
        RoutingError, match=r"routed to -1\.00 dora, whose adapters can only be used alone, with weight 1"
    ):
        settled(Mixture({"dora": -1.0}), {"dora"})
    assert settled(Mixture({"dora": -1.0, "plain": 0.5}), {"dora"}) == Mixture({"plain": 1.5})


def test_the_base_model_may_be_heavier_than_an_adapter_that_is_used_alone():
    """At weight 1 the adapter would answer a text that is its own by a tenth."""
    route = servable(Route(Mixture({"dora": 0.12}), (), "near"), DORA)
    assert route.mixture == Mixture()
    assert route.reason == "near; left out 'dora', not to be mixed with others (it uses DoRA)"
    assert settled(Mixture({"dora": 0.3, "plain": 0.1}), {"dora"}) == Mixture({"plain": 0.4})


def test_a_route_to_the_heaviest_alone_says_so():
    matches = (TaskMatch("x", 0.8, 0.5, "dora"), TaskMatch("y", 0.7, 0.3, "plain"), TaskMatch("z", 0.6, 0.2, ""))
    route = servable(Route(Mixture({"dora": 0.5, "plain": 0.3}), matches, "nearest 3 of the mapped tasks"), DORA)
    assert route.explain().splitlines()[0] == (
        "1.00 dora: nearest 3 of the mapped tasks; "
        "'dora' has the heaviest weight and can only be used alone (it uses DoRA)"
    )
    assert route.matches == matches


def test_a_route_without_those_that_cannot_be_mixed_says_so():
    mixture = Mixture({"plain": 0.5, "dora": 0.2, "other": 0.1, "second": 0.1})
    route = servable(Route(mixture, (), "near", abstained=False), DORA)
    assert dict(route.mixture) == pytest.approx({"plain": 0.75, "second": 0.15})
    assert route.reason == "near; left out 'dora', 'other', not to be mixed with others (it uses DoRA)"
