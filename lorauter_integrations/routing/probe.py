"""Whether an encoder is the one an index was made with: by what it does, not by its name. Knows vectors only."""

from __future__ import annotations

import json

import numpy as np

from lorauter_integrations.errors import EncoderMismatchError
from lorauter_integrations.routing.encoder import Encoder

PROBE = "The quick brown fox asks how many parcels were sent to Oslo on Friday."
SAME_ENCODER = 0.999  # cosine of the probe's vectors; other hardware or precision stays well above


def probe(encoder: Encoder) -> str:
    """The encoder's vector of a fixed text, as JSON."""
    return json.dumps([round(float(x), 6) for x in encoder.encode([PROBE])[0]])


def require_same(encoder: Encoder, stored: str, stored_name: str) -> None:
    """Refuse an encoder that places the fixed text elsewhere.

    Args:
        encoder: the one to be used.
        stored: what `probe` gave for the index's own.
        stored_name: the name of that one.

    Raises:
        EncoderMismatchError: the vectors differ.
    """
    mine, theirs = np.asarray(json.loads(probe(encoder))), np.asarray(json.loads(stored))
    hint = "use the encoder the index was made with, or a new collection and `lorauter tasks add` again"
    if len(theirs) != len(mine):
        raise EncoderMismatchError(
            f"the index was made by encoder {stored_name!r} ({len(theirs)} dimensions), "
            f"this one is {encoder.name!r} ({len(mine)} dimensions)",
            hint=hint,
        )
    cosine = float(mine @ theirs / (np.linalg.norm(mine) * np.linalg.norm(theirs)))
    if cosine < SAME_ENCODER:
        raise EncoderMismatchError(
            f"the index was made by encoder {stored_name!r}; {encoder.name!r} places the same text elsewhere "
            f"(cosine {cosine:.3f}, at least {SAME_ENCODER} expected)",
            hint=hint,
        )
