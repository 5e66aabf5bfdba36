"""Whether an encoder is the one an index was made with: by what it does, not by its name. Knows vectors only."""

from __future__ import annotations

import json

import numpy as np

from lorauter_integrations.errors import EncoderMismatchError
from lorauter_integrations.routing.encoder import Encoder

PROBE = "The quick brown fox asks how many parcels were sent to Oslo on Friday."
PROBES = (PROBE, "Read the minutes. " + 400 * "Then the next speaker asked for the floor. " + f"At the end: {PROBE}")
"""A short text, and one that is longer than most encoders read."""
SAME_ENCODER = 0.999  # cosine of the probe's vectors; other hardware or precision stays well above


def probe(encoder: Encoder) -> str:
    """The encoder's vectors of fixed texts, as JSON."""
    return json.dumps([[round(float(x), 6) for x in vector] for vector in encoder.encode(PROBES)])


def require_same(encoder: Encoder, stored: str, stored_name: str) -> None:
    """Refuse an encoder that places the fixed texts elsewhere.

    Args:
        encoder: the one to be used.
        stored: what `probe` gave for the index's own.
        stored_name: the name of that one.

    Raises:
        EncoderMismatchError: the vectors differ.
    """
    theirs = np.atleast_2d(json.loads(stored))  # one vector only in layout 1
    mine = encoder.encode(PROBES[: len(theirs)])
    hint = "use the encoder the index was made with, or a new collection and `lorauter tasks add` again"
    if theirs.shape[1] != mine.shape[1]:
        raise EncoderMismatchError(
            f"the index was made by encoder {stored_name!r} ({theirs.shape[1]} dimensions), "
            f"this one is {encoder.name!r} ({mine.shape[1]} dimensions)",
            hint=hint,
        )
    lengths = np.linalg.norm(mine, axis=1) * np.linalg.norm(theirs, axis=1)
    cosine = float(((mine * theirs).sum(axis=1) / lengths).min())
    if cosine < SAME_ENCODER:
        raise EncoderMismatchError(
            f"the index was made by encoder {stored_name!r}; {encoder.name!r} places the same texts elsewhere "
            f"(cosine {cosine:.3f}, at least {SAME_ENCODER} expected)",
            hint=hint,
        )
