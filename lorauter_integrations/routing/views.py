"""What of a text is embedded: the whole of it, and of a longer one its ending too. Knows texts and vectors.

A prompt often ends with what is asked, behind a passage that is about anything; in the vector of the whole the
passage drowns it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lorauter_integrations.routing.encoder import Encoder, Vectors

LONG = 200  # characters, from which a text has an ending of its own; see docs/evaluation.md
ENDING = 150  # characters


@dataclass(frozen=True, eq=False)
class Embedded:
    """The vectors of some texts.

    Attributes:
        whole: unit vectors of the texts. *Shape:* ``(texts, dimension)``.
        endings: unit vectors of the endings of longer ones. *Shape:* ``(long texts, dimension)``.
        long: the places of those among the texts. *Shape:* ``(long texts,)``.
    """

    whole: Vectors
    endings: Vectors
    long: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.whole)


def embed(encoder: Encoder, texts: Sequence[str], *, endings: bool = True) -> Embedded:
    """Embed texts in one call of the encoder.

    Args:
        encoder: makes the vectors.
        texts: at least one.
        endings: whether those of longer texts are embedded too.
    """
    long = [at for at, text in enumerate(texts) if endings and len(text) > LONG]
    vectors = encoder.encode([*texts, *(texts[at][-ENDING:] for at in long)])
    return Embedded(vectors[: len(texts)], vectors[len(texts) :], np.array(long, dtype=np.int64))
