"""Locations on the Hub to adapters of a pool: all configurations of a repository first, then the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from filelock import FileLock

from lorauter_integrations.errors import AdapterRefusedError, PoolError
from lorauter_integrations.pool.hub.candidate import ANY, Candidate, Criteria, Outcome
from lorauter_integrations.pool.hub.client import Hub
from lorauter_integrations.pool.hub.location import SOURCE, HubLocation, pool_name
from lorauter_integrations.pool.hub.placement import STAGING, Source, undo_half_swaps


class Intake:
    """Adds adapters of the Hub to a pool.

    Args:
        pool: its folder; made when it does not exist.
        hub: where they come from.
        criteria: which of them may enter.
    """

    def __init__(self, pool: Path, hub: Hub, criteria: Criteria = ANY) -> None:
        self._pool = pool
        self._hub = hub
        self._criteria = criteria

    def add(self, location: HubLocation) -> Iterator[Outcome]:
        """Add every adapter of a location; what was added is in the pool when its outcome comes.

        What goes wrong is an outcome too; nothing is written for a location that is not there. A second process
        waits until this one is done with the pool.
        """
        try:
            candidates = self._candidates(location)
            (self._pool / STAGING).mkdir(parents=True, exist_ok=True)
            with FileLock(self._pool / STAGING / "lock"):
                undo_half_swaps(self._pool)
                yield from self._add(location, candidates)
        except (PoolError, OSError) as error:
            yield Outcome(str(location), "failed", _one_line(error))

    def _candidates(self, location: HubLocation) -> list[Candidate]:
        """What the repository lists; offline what huggingface_hub's cache holds of it, which may be nothing."""
        if not self._hub.offline:
            listing = self._hub.listing(location.repo, location.revision)
        elif cached := self._hub.cached_listing(location.repo, location.revision):
            listing = cached
        elif self._pool.is_dir():
            return []
        else:
            raise _nowhere(location)
        folders = listing.adapters(location.sub)
        return [Candidate(listing, sub, pool=self._pool, hub=self._hub, criteria=self._criteria) for sub in folders]

    def _add(self, location: HubLocation, candidates: Sequence[Candidate]) -> Iterator[Outcome]:
        pinned = self._pinned(location) if self._hub.offline else {}
        if not pinned and not candidates:
            raise _nowhere(location)
        yield from (Outcome.there(name, source) for name, source in pinned.items())
        ready = []
        for candidate in (it for it in candidates if it.name not in pinned):
            outcome = _outcome(candidate, candidate.check)
            if outcome:
                yield outcome
            else:
                ready.append(candidate)
        for candidate in ready:
            if outcome := _outcome(candidate, candidate.bring):
                yield outcome

    def _pinned(self, location: HubLocation) -> dict[str, Source]:
        """What the pool holds of a location: name -> source."""
        folders = [file.parent for file in (self._pool / pool_name(location.repo, location.sub)).rglob(SOURCE)]
        sources = [(folder, Source.read(folder)) for folder in sorted(folders)]
        return {
            folder.relative_to(self._pool).as_posix(): source
            for folder, source in sources
            if source and source.is_whole(folder) and location.revision in (source.revision, source.commit)
        }


def _nowhere(location: HubLocation) -> PoolError:
    return PoolError(
        f"offline, and neither the pool nor huggingface_hub's cache holds {location}",
        hint="run the same command once with a network",
    )


def _outcome(candidate: Candidate, step: Callable[[], Outcome | None]) -> Outcome | None:
    try:
        return step()
    except AdapterRefusedError as error:
        return Outcome(candidate.name, "refused", _one_line(error))
    except (PoolError, OSError) as error:
        return Outcome(candidate.name, "failed", _one_line(error))


def _one_line(error: PoolError | OSError) -> str:
    if isinstance(error, PoolError):
        return f"{error.message}; {error.hint}" if error.hint else error.message
    return f"the pool cannot be written: {error}"
