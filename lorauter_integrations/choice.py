"""What one call chooses of its routing, as a value; and the check of names. Knows nothing of routers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lorauter_integrations.errors import OptionError, UnknownAdapterError, listing
from lorauter_integrations.generation import refuse_unsupported
from lorauter_integrations.route_text import RouteOn, checked_route_on

CHOICE_NAMES = ("adapters", "task", "route_on", "sticky")


@dataclass(frozen=True, slots=True)
class Choice:
    """What a caller may choose: where a call goes instead of routing it, or how it is routed.

    Attributes:
        adapters: with weights; instead of routing.
        task: by name; instead of routing, and not with adapters.
        text: the text to route on, instead of the conversation's.
        route_on: what of the conversation is routed on; the LoRAuter's own when None.
        sticky: whether a follow-up stays on its conversation's task; the LoRAuter's own when None.

    Raises:
        OptionError: adapters with a task, or a value that is none of these.
    """

    adapters: Mapping[str, float] | None = None
    task: str | None = None
    text: str | None = None
    route_on: RouteOn | None = None
    sticky: bool | None = None

    def __post_init__(self) -> None:
        if self.adapters is not None and self.task is not None:
            raise OptionError("adapters and task exclude each other", hint="give one of them, or none to route")
        if not isinstance(self.task, str | None):
            raise OptionError(f"task must be a task's name, not {self.task!r}")
        if not isinstance(self.adapters, Mapping | None):
            raise OptionError(f"adapters must be names with weights, not {self.adapters!r}", hint='{"sql": 1.0}')
        if self.route_on is not None:
            checked_route_on(self.route_on)
        if not isinstance(self.sticky, bool | None):
            raise OptionError(f"sticky must be true or false, not {self.sticky!r}")

    @classmethod
    def asked(cls, given: Mapping[str, Any], keywords: Mapping[str, Any]) -> Choice:
        """What one call of a framework's model chooses.

        Args:
            given: the model object's own `CHOICE_NAMES`; None = not set.
            keywords: the call's; they win, adapters and task as a pair.

        Raises:
            OptionError: as the class.
        """
        own = keywords.get("adapters") is not None or keywords.get("task") is not None
        place = keywords if own else given
        ways = {name: given.get(name) if keywords.get(name) is None else keywords[name] for name in CHOICE_NAMES[2:]}
        return cls(place.get("adapters"), place.get("task"), **ways)


ROUTED = Choice()


def with_model(source: Mapping[str, Any], base_names: Collection[str], pool: Collection[str]) -> dict[str, Any]:
    """The same with an adapter that is named as the `model` among the adapters, as servers of adapters have it.

    Args:
        source: fields or keywords.
        base_names: what the base model is called; it routes.
        pool: the adapters' names.

    Raises:
        OptionError: `model` names an adapter, and adapters or a task are given as well.
        UnknownAdapterError: `model` is neither the base model nor an adapter.
    """
    source = dict(source)
    name = source.get("model")
    if name is None or name in base_names:
        return source
    if name not in pool:
        raise UnknownAdapterError(
            f"there is no model {name!r}: the base model is {listing(base_names)}, and no adapter has this name",
            hint=f"the pool has {listing(pool)}; leave `model` out to route",
        )
    if source.get("adapters") is not None or source.get("task") is not None:
        raise OptionError(
            f"model={name!r} names an adapter, and adapters or task are given as well", hint="give one of them"
        )
    return {**source, "adapters": {name: 1.0}}


def refuse_unknown(names: Iterable[str], known: Iterable[str], what: str) -> None:
    """Nothing a caller writes is dropped in silence.

    Raises:
        OptionError: a name that is not known.
    """
    names = set(names)
    refuse_unsupported(sorted(names - set(known)))
    if unknown := names - set(known):
        raise OptionError(f"unknown {what} {listing(unknown)}", hint=f"known are {listing(known, limit=20)}")
