"""A Chroma collection as LlamaIndex' vector store, in the few lines that a query engine needs.

The package llama-index-vector-stores-chroma has filters and more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chromadb import Collection
from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict
from pydantic import PrivateAttr


class ChromaStore(BasePydanticVectorStore):
    """Keeps nodes with text, metadata and vector in a collection, and finds the nearest.

    Args:
        collection: one that compares by cosine.
    """

    stores_text: bool = True
    _collection: Collection = PrivateAttr()

    def __init__(self, collection: Collection) -> None:
        super().__init__()
        self._collection = collection

    @property
    def client(self) -> Collection:
        return self._collection

    def add(self, nodes: Sequence[BaseNode], **_: Any) -> list[str]:
        ids = [node.node_id for node in nodes]
        self._collection.upsert(
            ids,
            embeddings=[node.get_embedding() for node in nodes],
            metadatas=[node_to_metadata_dict(node, remove_text=True, flat_metadata=True) for node in nodes],
            documents=[node.get_content(MetadataMode.NONE) for node in nodes],
        )
        return ids

    def delete(self, ref_doc_id: str, **_: Any) -> None:
        self._collection.delete(where={"ref_doc_id": ref_doc_id})

    def query(self, query: VectorStoreQuery, **_: Any) -> VectorStoreQueryResult:
        if query.filters or query.node_ids or query.doc_ids or query.mode != VectorStoreQueryMode.DEFAULT:
            raise NotImplementedError("this small store finds the nearest of all nodes, and takes no filter or mode")
        found = self._collection.query(query_embeddings=[query.query_embedding], n_results=query.similarity_top_k)
        [ids], [texts], [facts], [distances] = (
            found[part] for part in ("ids", "documents", "metadatas", "distances")
        )
        return VectorStoreQueryResult(
            nodes=[metadata_dict_to_node(dict(fact), text) for fact, text in zip(facts, texts, strict=True)],
            similarities=[1 - distance for distance in distances],
            ids=ids,
        )
