"""What is held out from a task's test inputs: the regimes of LORAUTER's evaluation. Knows tasks; no models.

As in the paper's evaluation (arXiv 2601.21795): in the semi-out-of-domain regime the adapter that was trained for the
task is masked, out of domain the task as well. A task's own adapter is the pool's adapter of the same name.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from lorauter_integrations.errors import OptionError, listing
from lorauter_integrations.evaluation.tested_task import TestedTask
from lorauter_integrations.routing.known_tasks import KnownTasks

REGIMES = {
    "in_domain": "nothing is held out: the task and its own adapter are known",
    "semi_ood": "the task's own adapter is held out, the task's examples are known",
    "ood": "the task and its own adapter are held out",
    "ood_hard": "the task, all tasks of its domain, and their own adapters are held out",
}


@dataclass(frozen=True, slots=True)
class Remainder:
    """What is left for the inputs of one task.

    Attributes:
        without_tasks: names of tasks that are not known.
        without_adapters: names of adapters that are not in the pool.
    """

    without_tasks: frozenset[str] = frozenset()
    without_adapters: frozenset[str] = frozenset()

    def known(self, known: KnownTasks) -> KnownTasks:
        """The tasks that are left, each ranked without the adapters that are held out."""
        left = known.without(self.without_tasks) if self.without_tasks else known
        rankings = [
            replace(ranking, scores=[one for one in ranking.scores if one.adapter not in self.without_adapters])
            for ranking in left.rankings
        ]
        return replace(left, rankings=rankings) if self.without_adapters else left

    def adapters(self, pool: Collection[str]) -> list[str]:
        """The adapters that are left, sorted."""
        return sorted(set(pool) - self.without_adapters)


def regimes_of(names: Sequence[str]) -> list[str]:
    """The regimes of some names; all when there are none.

    Raises:
        OptionError: a name that no regime has.
    """
    if unknown := [name for name in names if name not in REGIMES]:
        raise OptionError(f"there is no regime {listing(unknown)}", hint=f"the regimes are {listing(REGIMES)}")
    return list(names) or list(REGIMES)


def remainder(regime: str, task: TestedTask, tasks: Sequence[TestedTask]) -> Remainder:
    """What a regime leaves for the inputs of a task.

    Args:
        regime: one of `REGIMES`.
        task: whose inputs they are.
        tasks: all of the evaluation.

    Raises:
        OptionError: no such regime.
    """
    regimes_of([regime])
    family = frozenset(other.name for other in tasks if other.domain == task.domain)
    own = frozenset([task.name])
    return {
        "in_domain": Remainder(),
        "semi_ood": Remainder(without_adapters=own),
        "ood": Remainder(own, own),
        "ood_hard": Remainder(family, family),
    }[regime]
