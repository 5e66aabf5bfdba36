"""States of earlier conversations, for later ones that begin alike. Knows tokens and states only.

What a token's states are depends on the adapters that read it, so states are found again only under the
very same content: the adapters' content hashes and their weights in the mixture.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lorauter_integrations.engines.kv_cache import RowStates

WORTH_REUSING = 16  # tokens in common


@dataclass(frozen=True, slots=True)
class PrefixStats:
    """What a `PrefixCache` holds and has spared.

    Attributes:
        conversations: held.
        bytes: their states' size.
        budget: the most that `bytes` may be.
        asked: requests that looked for a beginning.
        found: those of them that found one.
        tokens: prompt tokens that were not read again.
    """

    conversations: int
    bytes: int
    budget: int
    asked: int
    found: int
    tokens: int


class PrefixCache:
    """Conversations that have been read, the last used ones within a budget.

    Args:
        budget: bytes; 0 keeps nothing.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._held: OrderedDict[tuple[Hashable, bytes], tuple[npt.NDArray[np.int64], RowStates]] = OrderedDict()
        self._bytes = self._asked = self._found = self._tokens = 0

    @property
    def stats(self) -> PrefixStats:
        """Counts so far."""
        return PrefixStats(len(self._held), self._bytes, self._budget, self._asked, self._found, self._tokens)

    def find(self, content: Hashable, prompt: Sequence[int]) -> tuple[int, RowStates] | None:
        """The longest known beginning of a prompt: how many tokens, and their states.

        At least one token of the prompt is left to be read, since its logits are needed.
        """
        self._asked += 1
        wanted = np.asarray(prompt[:-1], dtype=np.int64)
        common = {key: _common(wanted, tokens) for key, (tokens, _) in self._held.items() if key[0] == content}
        key = max(common, key=common.__getitem__, default=None)
        if key is None or common[key] < WORTH_REUSING:
            return None
        self._held.move_to_end(key)
        self._found += 1
        self._tokens += common[key]
        return common[key], self._held[key][1].first(common[key])

    def keep(self, content: Hashable, tokens: Sequence[int], size: int, copied: Callable[[], RowStates]) -> None:
        """Keep what has been read under a content; it takes the place of its own beginnings.

        Args:
            content: of the mixture.
            tokens: what was read.
            size: bytes of their states.
            copied: makes a copy of the states; not called when they would not be kept.
        """
        if len(tokens) <= WORTH_REUSING or size > self._budget:
            return
        states = copied()
        read = np.asarray(tokens, dtype=np.int64)
        for key in [
            key for key, (held, _) in self._held.items() if key[0] == content and _common(read, held) == len(held)
        ]:
            self._drop(key)
        self._held[content, read.tobytes()] = (read, states)
        self._bytes += states.nbytes
        while self._bytes > self._budget:
            self._drop(next(iter(self._held)))

    def clear(self) -> None:
        """Forget everything."""
        self._held.clear()
        self._bytes = 0

    def _drop(self, key: tuple[Hashable, bytes]) -> None:
        self._bytes -= self._held.pop(key)[1].nbytes


def _common(one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]) -> int:
    """How many tokens two lists begin with in common."""
    length = min(len(one), len(other))
    different = np.flatnonzero(one[:length] != other[:length])
    return int(different[0]) if len(different) else length
