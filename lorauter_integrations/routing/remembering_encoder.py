"""An encoder that encodes no text twice while it remembers it. Knows texts and vectors only."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from lorauter_integrations.routing.encoder import Encoder, Vectors


class RememberingEncoder:
    """Another encoder, with its last vectors kept in memory. Safe to use from many threads.

    A chain or an agent asks with the same routing text again and again; a sticky route looks at a turn that was
    routed before.

    Args:
        encoder: makes the vectors.
        most: vectors kept, of 4 bytes a dimension each; the longest unused goes first.
    """

    def __init__(self, encoder: Encoder, most: int) -> None:
        self._encoder = encoder
        self._most = most
        self._vectors: OrderedDict[bytes, Vectors] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The other encoder's."""
        return self._encoder.name

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors of the texts. *Shape:* ``(len(texts), dimension)``. Raises as the other encoder."""
        keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
        with self._lock:
            known = {key: self._vectors[key] for key in keys if key in self._vectors}
            for key in known:
                self._vectors.move_to_end(key)
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if new:
            known |= dict(zip(new, self._encoder.encode(list(new.values())), strict=True))
            with self._lock:
                self._vectors.update({key: known[key] for key in new})
                while len(self._vectors) > self._most:
                    self._vectors.popitem(last=False)
        return np.stack([known[key] for key in keys]) if keys else self._encoder.encode([])
