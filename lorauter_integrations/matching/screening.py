"""Which adapters of a large pool a task should try at all, found without running any. Knows engines and the ledger.

Every adapter changes the base's weights in some direction, and a task's loss falls in some direction (see
`mixing.first_order`): adapters that were trained for the like of the task point that way. Many adapters point a
little towards every task (they teach the model to be brief, say), so an adapter's mean over all tasks is taken off;
as that says little when there are few tasks, every second place goes by the plain cosine.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lorauter_integrations.digests import digest
from lorauter_integrations.engines import Engine
from lorauter_integrations.generation import GenerationRequest
from lorauter_integrations.matching.ledger import Key, Ledger
from lorauter_integrations.matching.scoring import length_errors
from lorauter_integrations.mixture import Mixture
from lorauter_integrations.pool import Adapter
from lorauter_integrations.task import Task

if TYPE_CHECKING:
    from lorauter_integrations.engines import Descent

SHORTLIST = 24
EXAMPLES = 16  # of a task that its direction is taken from
COPY = 0.98  # likeness from which one of two adapters is a copy of the other
TASKS_AT_ONCE = 16  # whose directions are in memory together
AT_ONCE = 32  # adapters whose slopes are recorded together


class Screen:
    """Orders a pool for each task and leaves a shortlist.

    What was found stays in the ledger, and each task's direction in a file: a new adapter costs no pass of the model.

    Args:
        engine: holds the pool, and has gradients.
        ledger: remembers how adapters point.
        folder: keeps the tasks' directions, some MB each; None keeps none.
        size: length of the shortlist.
    """

    def __init__(
        self, engine: Engine, ledger: Ledger, folder: str | Path | None = None, *, size: int = SHORTLIST
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._folder = Path(folder) if folder else None
        self._size = size
        self._pointing: dict[str, Mapping[str, float]] = {}
        self._mean: dict[str, float] = {}  # of an adapter's cosines, over all tasks

    def needed(self, pool: Mapping[str, Adapter]) -> bool:
        """Whether the pool is larger than the shortlist."""
        return len(pool) > self._size

    def look(self, tasks: Sequence[Task], pool: Mapping[str, Adapter]) -> Iterator[tuple[int, int]]:
        """Find how all adapters point for all tasks; yields now and then how many are done, and of how many.

        Adapters are compared with up to 16 tasks at once; for more tasks they are counted more than once.

        Args:
            tasks: all that are known: what an adapter does for every task is taken off.
            pool: the adapters.

        Raises:
            MappingError: an example is too long for the model, or what is kept cannot be read or written.
            EngineError: the engine has no gradients, or one is not finite.
        """
        unknown = self._unknown(tasks, pool)
        done, total = 0, sum(map(len, unknown.values()))
        for missing, names in unknown.items():
            modules = {module for name in names for module in pool[name].parts}
            compared = [task for task in tasks if task.name in missing]
            descents = []
            for task in compared:
                descents.append(self._descent(task, modules))
                yield done, total
            keys = [self._key(task) for task in compared]
            for start in range(0, len(names), AT_ONCE):
                part = names[start : start + AT_ONCE]
                contents = [pool[name].content_hash for name in part]
                self._record(contents, keys, self._engine.slopes(part, descents))
                done += len(part)
                yield done, total
        self._pointing = {task.name: self._cosines(task, pool) for task in tasks}
        count = len(self._pointing)
        self._mean = {name: math.fsum(of[name] for of in self._pointing.values()) / count for name in pool}

    def shortlist(self, task: Task, pool: Mapping[str, Adapter]) -> list[str]:
        """The adapters that the task should try, the most promising first; copies of one another once.

        Args:
            task: one of those looked at.
            pool: the same.
        """
        plain = self._pointing[task.name]
        order = _best_first(plain, pool)
        if len(self._pointing) > 1:  # else there is nothing that could be taken off
            own = {name: plain[name] - self._mean[name] for name in pool}
            order = _alternating(_best_first(own, pool), order)
        return self._without_copies(order)

    def _without_copies(self, names: Sequence[str]) -> list[str]:
        """The first ones of a list that are not alike; copies only where there is nothing else."""
        kept: list[str] = []
        copies: list[str] = []
        for name in names:
            if len(kept) == self._size:
                break
            is_copy = max(self._engine.likeness(name, kept), default=0.0) >= COPY
            (copies if is_copy else kept).append(name)
        return (kept + copies)[: self._size]

    def _unknown(self, tasks: Sequence[Task], pool: Mapping[str, Adapter]) -> dict[tuple[str, ...], list[str]]:
        """Up to 16 tasks -> the adapters of which it is not known how they point for just these; copies once."""
        keys = {task.name: self._key(task) for task in tasks}
        groups: dict[tuple[str, ...], dict[str, str]] = {}
        for name, adapter in pool.items():
            content = adapter.content_hash
            missing = [t for t, key in keys.items() if self._ledger.get(key._replace(adapter=content)) is None]
            for start in range(0, len(missing), TASKS_AT_ONCE):
                group = tuple(missing[start : start + TASKS_AT_ONCE])
                groups.setdefault(group, {}).setdefault(content, name)
        return {missing: list(names.values()) for missing, names in groups.items()}

    def _record(self, contents: Sequence[str], keys: Sequence[Key], found: Sequence[Sequence[float]]) -> None:
        pairs = {
            key._replace(adapter=content): value
            for content, row in zip(contents, found, strict=True)
            for key, value in zip(keys, row, strict=True)
        }
        self._ledger.record(list(pairs), list(pairs.values()))

    def _cosines(self, task: Task, pool: Mapping[str, Adapter]) -> dict[str, float]:
        """Adapter -> the cosine between its direction and the one in which the task's loss falls."""
        key = self._key(task)
        length = self._known(key)
        return {name: self._known(key._replace(adapter=a.content_hash)) / length for name, a in pool.items()}

    def _known(self, key: Key) -> float:
        value = self._ledger.get(key)
        assert value is not None
        return value

    def _key(self, task: Task) -> Key:
        """Of what is known of a task: with an adapter, its slope; without, the length of the task's gradient."""
        facts = ["first order", self._engine.identity, EXAMPLES]
        subject = digest(facts)
        return Key(subject, "", task.content_hash)

    def _descent(self, task: Task, modules: Collection[str]) -> Descent:
        """The task's direction over these modules at least; found for those only that are not kept."""
        from lorauter_integrations.engines import Descent

        key = self._key(task)
        file = self._folder / f"{key.scorer}-{task.content_hash}.safetensors" if self._folder else None
        kept = Descent.load(file) if file and file.exists() else Descent({}, 0.0)
        if missing := sorted(set(modules) - kept.parts.keys()):
            examples = task.examples[:: max(1, len(task.examples) // EXAMPLES)][:EXAMPLES]
            requests = [GenerationRequest(example.messages, Mixture()) for example in examples]
            with length_errors(task):
                kept = kept.and_of(self._engine.descent(requests, [e.target for e in examples], missing))
            if file:
                kept.save(file)
        if self._ledger.get(key) is None:  # the first length stays: it is only a scale
            self._ledger.record([key], [kept.norm or 1.0])
        return kept


def _best_first(values: Mapping[str, float], pool: Mapping[str, Adapter]) -> list[str]:
    return sorted(values, key=lambda name: (-values[name], pool[name].content_hash))


def _alternating(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """The best of the first list, the best of the second, the second best of the first, ...; each once."""
    return list(dict.fromkeys(name for pair in zip(first, second, strict=True) for name in pair))
