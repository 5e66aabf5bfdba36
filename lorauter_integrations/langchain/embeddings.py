"""The router's encoder as LangChain's `Embeddings`. Knows encoders; nothing of tasks or engines."""

from __future__ import annotations

from typing import Any

from langchain_core.embeddings import Embeddings

from lorauter_integrations.routing import as_encoder


class RouterEmbeddings(Embeddings):
    """Embeddings that share one loaded encoder with the router, for an application's own vector store.

    Documents and queries lie in one space, as unit vectors. The async twins leave the event loop free.

    Args:
        encoder: an `Encoder`, or anything else that `as_encoder` takes.

    Raises:
        ConfigError: no encoder.

    Example:
        ```python
        store = InMemoryVectorStore(RouterEmbeddings(llm.lorauter.index.encoder))
        ```
    """

    def __init__(self, encoder: Any) -> None:
        self._encoder = as_encoder(encoder)

    @property
    def model_name(self) -> str:
        """The encoder's name."""
        return self._encoder.name

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One unit vector for each text."""
        vectors: list[list[float]] = self._encoder.encode(texts).tolist() if texts else []
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """The text's unit vector, the same as a document's."""
        return self.embed_documents([text])[0]
