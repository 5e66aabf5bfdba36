"""Routes whose adapters cannot all be mixed, made ones that can be served. Knows values only."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from lorauter_integrations.errors import RoutingError, listing
from lorauter_integrations.mixture import Mixture
from lorauter_integrations.routing.route import Route


def servable(route: Route, alone: Mapping[str, str]) -> Route:
    """A route whose mixture can be served, with the reason; the same one when it can be as it is.

    Args:
        route: a router's.
        alone: adapter -> why it can only be used alone; empty for one that mixes.

    Raises:
        RoutingError: as `settled`.
    """
    barred = {name: why for name, why in alone.items() if why and name in route.mixture}
    mixture = settled(route.mixture, barred)
    if mixture == route.mixture:
        return route
    kept = next((name for name in barred if name in mixture), "")
    if kept:
        change = f"{kept!r} has the heaviest weight and can only be used alone ({barred[kept]})"
    else:
        reasons = ", ".join(sorted(set(barred.values())))
        change = f"left out {listing(barred)}, not to be mixed with others ({reasons})"
    return replace(route, mixture=mixture, reason=f"{route.reason}; {change}")


def settled(mixture: Mixture, alone: Collection[str]) -> Mixture:
    """The mixture without what cannot be mixed; itself when all can be.

    If the heaviest adapter can only be used alone, it is, with weight 1, unless the base model's share is larger
    (what is left to 1). Otherwise such adapters are left out, and the others take their weight over in proportion to
    their own; where there are no others, the base model does.

    Args:
        mixture: weights of any sign; the sum that is kept is that of their sizes.
        alone: adapters that can only be used alone.

    Raises:
        RoutingError: no adapter is left, since the heaviest one can only be used alone and its weight is negative.
    """
    if not any(name in alone for name in mixture):
        return mixture
    heaviest, weight = mixture.by_weight()[0]
    base = 1 - sum(map(abs, mixture.values()))
    if heaviest in alone and weight > 0 and weight >= base:
        return Mixture({heaviest: 1.0})
    rest = {name: share for name, share in mixture.items() if name not in alone}
    if not rest:
        if base > abs(weight):
            return Mixture()
        raise RoutingError(
            f"the text was routed to {mixture}, whose adapters can only be used alone, with weight 1",
            hint="choose adapters=... or another router",
        )
    growth = sum(map(abs, mixture.values())) / sum(map(abs, rest.values()))
    return Mixture({name: share * growth for name, share in rest.items()})
