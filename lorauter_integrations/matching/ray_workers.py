"""Workers that are actors of a Ray cluster, on this and other machines. Alone knows Ray (extra `ray`)."""

from __future__ import annotations

import logging
import os
import socket
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lorauter_integrations.errors import MappingError
from lorauter_integrations.extras import needs_extra
from lorauter_integrations.matching.crew import Crew, Death, Desk, Reply, Worker
from lorauter_integrations.matching.workers import Batch, ScorerFactory

with needs_extra("ray", "ray"):
    import ray
    from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

PATIENCE = 5.0  # seconds for a cluster's address to answer
REASON = 200  # characters of Ray's reason of a death that an error shows


@dataclass(eq=False, slots=True, kw_only=True)
class _Actor(Worker):
    actor: Any
    reply: ray.ObjectRef[Reply] | None


class RayWorkers(Crew[_Actor]):
    """Actors of a Ray cluster; each loads a model of its own, where Ray finds room for it.

    Uses the Ray that this process is connected to, else connects or starts one, which then ends with `close`.
    Every machine needs this package with its extra, and what the factory opens (model, pool, modules) at the same
    paths.

    Args:
        factory: makes a worker's scorers; must be picklable.
        count: of actors; those for which there is no room yet begin when there is.
        address: HOST:PORT of a cluster, or "auto" for the one that this machine belongs to (`RAY_ADDRESS` first);
            None starts one of this machine's own.
        num_cpus: that Ray keeps for each; also the threads of its arithmetic.
        num_gpus: that Ray keeps for each; a part such as 0.5 lets two actors share one.

    Raises:
        MissingExtraError: Ray is not installed (at the import of this module).
        MappingError: no cluster answers, or none of its machines has that many CPUs and GPUs.
    """

    def __init__(
        self,
        factory: ScorerFactory,
        count: int,
        *,
        address: str | None = None,
        num_cpus: float = 1,
        num_gpus: float = 0,
    ) -> None:
        super().__init__(count)
        self._factory = factory
        self._owns_ray = not ray.is_initialized()
        if self._owns_ray:
            _connect(address)
        try:
            _must_fit({"CPU": num_cpus, "GPU": num_gpus})
        except MappingError:
            self.close()
            raise
        self._threads = max(1, int(num_cpus))
        # Ray's own strategy would fill half a machine before it takes the next.
        self._kind: Any = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus, scheduling_strategy="SPREAD")(_Desk)
        self._hire()

    def close(self) -> None:
        """Kill all actors; and end this process' Ray, if it was started or connected here."""
        super().close()
        if self._owns_ray:
            ray.shutdown()
            self._owns_ray = False

    def _start(self) -> _Actor:
        actor = self._kind.remote([os.path.abspath(path) for path in sys.path], self._threads)
        return _Actor(actor=actor, reply=actor.start.remote(self._factory))

    def _give(self, worker: _Actor, batch: Batch) -> None:
        worker.reply = worker.actor.measure.remote(batch)

    def _listen(self, workers: Sequence[_Actor]) -> Iterator[tuple[_Actor, Reply | Death]]:
        asked = {worker.reply: worker for worker in workers if worker.reply is not None}
        ready, _ = ray.wait([*asked])
        for reply in ready:
            worker = asked[reply]
            worker.reply = None
            yield worker, _news(reply)

    def _end(self, workers: Sequence[_Actor]) -> None:
        for worker in workers:
            ray.kill(worker.actor)


class _Desk(Desk):
    """An actor.

    Args:
        paths: where the caller finds modules.
        threads: of the process for its arithmetic.
    """

    def __init__(self, paths: Sequence[str], threads: int) -> None:
        super().__init__(threads)
        sys.path += [path for path in paths if path not in sys.path]


def _news(reply: ray.ObjectRef[Reply]) -> Reply | Death:
    try:
        return ray.get(reply)
    except (RayActorError, OutOfMemoryError) as error:
        return Death(textwrap.shorten(str(error).splitlines()[-1], REASON))
    except RayTaskError as error:  # replies hold the errors of scorers and factories, so this is one of the way there
        unread = MappingError(
            f"a Ray worker cannot read what it was sent: {error.cause}",
            hint="every machine needs the same modules and packages as this one",
        )
        return Reply(error=unread, trace=str(error))


def _connect(address: str | None) -> None:
    host, _, port = (address or "").rpartition(":")
    try:
        if port.isdecimal() and "//" not in host:
            socket.create_connection((host, int(port)), PATIENCE).close()  # ray.init would try for many minutes
        ray.init(
            address=address or "local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
        )
    except (OSError, RuntimeError) as error:  # no answer, or other versions of Ray or Python there
        raise MappingError(
            f"no Ray at {address!r} can be used: {error}",
            hint="start one with `ray start --head`, and on the other machines `ray start --address HOST:PORT`",
        ) from error


def _must_fit(needs: dict[str, float]) -> None:
    """A worker that fits nowhere would be waited for without an end."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    if not any(all(machine.get(name, 0) >= amount for name, amount in needs.items()) for machine in machines):
        wanted = " and ".join(f"{amount:g} {name}" for name, amount in needs.items() if amount)
        raise MappingError(
            f"none of the {len(machines)} machines of the Ray cluster has {wanted} for a worker",
            hint="ask for less, or add a machine with `ray start --address HOST:PORT`",
        )
