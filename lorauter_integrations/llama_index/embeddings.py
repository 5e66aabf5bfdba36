"""The router's encoder as LlamaIndex' embedding. Knows encoders; nothing of tasks or engines."""

from __future__ import annotations

import asyncio
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from pydantic import ConfigDict, PrivateAttr

from lorauter_integrations.routing import Encoder, as_encoder


class RouterEmbedding(BaseEmbedding):
    """An embedding that shares one loaded encoder with the router, for an application's own vector index.

    Documents and queries lie in one space, as unit vectors. The async twins leave the event loop free.

    Args:
        encoder: an `Encoder`, or anything else that `as_encoder` takes.
        fields: of LlamaIndex' `BaseEmbedding`, such as `embed_batch_size=64`.

    Raises:
        ConfigError: no encoder.
        ValidationError: a field that does not exist, or has no such value.

    Example:
        ```python
        index = VectorStoreIndex(nodes, embed_model=RouterEmbedding(llm.lorauter.index.encoder))
        ```
    """

    model_config = ConfigDict(extra="forbid")
    _encoder: Encoder = PrivateAttr()

    def __init__(self, encoder: Any, **fields: Any) -> None:
        found = as_encoder(encoder)
        super().__init__(model_name=found.name, **fields)
        self._encoder = found

    @classmethod
    def class_name(cls) -> str:
        """LlamaIndex' name of the class."""
        return "RouterEmbedding"

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self._encoder.encode(texts).tolist()
        return vectors

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)
