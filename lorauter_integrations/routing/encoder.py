"""Texts to unit vectors. Knows nothing of tasks; the only home of sentence-transformers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from lorauter_integrations.errors import ConfigError, ModelLoadError

Vectors: TypeAlias = npt.NDArray[np.float32]
LongTexts: TypeAlias = Literal["ends", "head"]
HEAD = 0.75  # of what a model reads, when a longer text is cut in its middle


@runtime_checkable
class Encoder(Protocol):
    """Anything that turns texts into unit vectors."""

    @property
    def name(self) -> str:
        """What people call the encoder; shown in messages, stored with the index."""
        ...

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors of the texts. *Shape:* ``(len(texts), dimension)``, float32."""
        ...


class SentenceTransformerEncoder:
    """A sentence-transformers model, loaded at the first use.

    Args:
        model: hub name or folder.
        prefix: put before each text, for encoders trained with an instruction.
        device: torch device; the library's choice when None.
        batch_size: texts encoded at once.
        long_texts: what is read of a text that is longer than the model reads: "ends", its beginning and its last
            quarter of the length, since a prompt says what to do at its ends, or "head", its beginning alone.

    Raises:
        ModelLoadError: at the first use, when the model cannot be loaded.
    """

    def __init__(
        self,
        model: str,
        *,
        prefix: str = "",
        device: str | None = None,
        batch_size: int = 32,
        long_texts: LongTexts = "ends",
    ) -> None:
        self._model_name = model
        self._long_texts = long_texts
        self._prefix = prefix
        self._device = device
        self._batch_size = batch_size
        self._lock = threading.Lock()
        self._model: Any = None

    @property
    def name(self) -> str:
        """The model's name (a folder's last part) and the prefix, if any."""
        path = Path(self._model_name)
        name = path.name if path.is_absolute() else self._model_name
        return f"{name} with prefix {self._prefix!r}" if self._prefix else name

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors of the texts. *Shape:* ``(len(texts), dimension)``."""
        with self._lock:  # loading twice wastes memory, and fast tokenizers refuse two threads at once
            model = self._loaded()
            read = _both_ends(model, texts, self._prefix) if self._long_texts == "ends" else texts
            vectors = model.encode(
                [self._prefix + text for text in read],
                batch_size=self._batch_size,
                normalize_embeddings=True,
                show_progress_bar=False,
            )
        return np.asarray(vectors, dtype=np.float32)

    def _loaded(self) -> Any:
        if self._model is None:
            from sentence_transformers import SentenceTransformer

            try:
                self._model = SentenceTransformer(self._model_name, device=self._device)
            except (OSError, ValueError) as error:
                raise ModelLoadError(
                    f"the encoder {self._model_name!r} cannot be loaded: {error}",
                    hint="give a hub name, or the folder of a sentence-transformers model",
                ) from error
        return self._model


def _both_ends(model: Any, texts: Sequence[str], prefix: str) -> list[str]:
    """The texts, of those that are longer than a sentence-transformers model reads their two ends."""
    limit, tokenizer = model.max_seq_length, model.tokenizer
    if not limit or tokenizer is None:
        return list(texts)
    room = limit - tokenizer.num_special_tokens_to_add() - len(_ids(tokenizer, prefix))
    tail = room - int(room * HEAD)
    read = []
    for text in texts:
        ids = _ids(tokenizer, text) if len(text.encode("utf-8", "replace")) > room else []  # no token has no byte
        if len(ids) > room:
            # One token less, since a word that is cut may be read as two at its seam.
            text = f"{tokenizer.decode(ids[: room - tail - 1])} {tokenizer.decode(ids[-tail:])}"
        read.append(text)
    return read


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


class CallableEncoder:
    """Any function from texts to vectors as an `Encoder`; the vectors are made unit length here."""

    def __init__(self, name: str, embed: Callable[[list[str]], Sequence[Sequence[float]]]) -> None:
        self.name = name
        self._embed = embed

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors of the texts. *Shape:* ``(len(texts), dimension)``.

        Raises:
            ConfigError: the function gave another number of vectors, or a vector without direction.
        """
        vectors = np.asarray(self._embed(list(texts)), dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise ConfigError(f"encoder {self.name}: {len(texts)} texts gave vectors of shape {vectors.shape}")
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(lengths).all() or (lengths == 0).any():
            raise ConfigError(f"encoder {self.name}: a vector has length zero or is not finite")
        return np.asarray(vectors / lengths, dtype=np.float32)


def mean_vector(vectors: Vectors) -> Vectors:
    """The mean of unit vectors, made unit length. *Shape:* ``(n, dimension)`` to ``(dimension,)``."""
    mean = vectors.mean(axis=0)
    length = float(np.linalg.norm(mean))
    return np.asarray(mean / length if length else vectors[0], dtype=np.float32)


def as_encoder(thing: Any) -> Encoder:
    """An `Encoder` from a model name, an `Encoder`, a LangChain `Embeddings` or a LlamaIndex embedding.

    Of a framework's embedding the method for documents is used for all texts, also where it has another for queries:
    tasks' examples and routing texts are texts of one kind, and must meet in one space.

    Raises:
        ConfigError: none of these.
    """
    if isinstance(thing, str):
        return SentenceTransformerEncoder(thing)
    name = str(getattr(thing, "model_name", "") or getattr(thing, "model", "") or type(thing).__name__)
    if callable(getattr(thing, "embed_documents", None)):
        return CallableEncoder(name, thing.embed_documents)
    if callable(getattr(thing, "get_text_embedding_batch", None)):
        return CallableEncoder(name, thing.get_text_embedding_batch)
    if isinstance(thing, Encoder):
        return thing
    raise ConfigError(
        f"{type(thing).__name__} is not an encoder",
        hint="give a model name, a LangChain Embeddings, a LlamaIndex BaseEmbedding, or name + encode(texts)",
    )
