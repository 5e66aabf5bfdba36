import asyncio
import threading

import numpy as np
import pytest
from conftest import WordEncoder, set_winner
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode
from pydantic import ValidationError

from lorauter_integrations import Example, Task
from lorauter_integrations.errors import ConfigError
from lorauter_integrations.llama_index.embeddings import RouterEmbedding
from lorauter_integrations.routing import as_encoder

TEXTS = ["a cat sat on the mat", "interest rates rose", "rain fell"]


def test_vectors_are_the_encoders_and_a_query_is_a_document(encoder):
    embedding = RouterEmbedding(encoder)
    vectors = encoder.encode(TEXTS).tolist()
    assert embedding.get_text_embedding_batch(TEXTS) == vectors
    assert embedding.get_text_embedding(TEXTS[1]) == embedding.get_query_embedding(TEXTS[1]) == vectors[1]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 1], rtol=1e-5)


def test_the_async_twins_give_the_same(encoder):
    embedding = RouterEmbedding(encoder)

    async def run():
        return (
            await embedding.aget_text_embedding_batch(TEXTS),
            await embedding.aget_text_embedding(TEXTS[1]),
            await embedding.aget_query_embedding(TEXTS[1]),
        )

    vectors = encoder.encode(TEXTS).tolist()
    assert asyncio.run(run()) == (vectors, vectors[1], vectors[1])


def test_texts_are_encoded_a_batch_at_a_time_and_no_texts_not_at_all(encoder):
    embedding = RouterEmbedding(encoder, embed_batch_size=2)
    assert len(embedding.get_text_embedding_batch(TEXTS)) == 3
    assert encoder.calls == 2
    assert embedding.get_text_embedding_batch([]) == []
    assert encoder.calls == 2


@pytest.mark.parametrize("method", ["aget_text_embedding", "aget_query_embedding", "aget_text_embedding_batch"])
def test_the_event_loop_is_free_while_texts_are_embedded(method):
    loop_ran = threading.Event()

    class Waiting(WordEncoder):
        def encode(self, texts):
            assert loop_ran.wait(60)
            return super().encode(texts)

    given, expected = TEXTS[0], WordEncoder().encode(TEXTS[:1]).tolist()
    if method.endswith("batch"):
        given, expected = [given], [expected]

    async def run():
        embedding = asyncio.ensure_future(getattr(RouterEmbedding(Waiting()), method)(given))
        await asyncio.sleep(0)
        loop_ran.set()
        return await embedding

    assert asyncio.run(run()) == expected[0]


def test_a_vector_index_ranks_as_the_router_does(index):
    tasks = {"colours": "name a colour like blue", "sums": "add the numbers 1 and 2"}
    index.add([Task(name, "f1", [Example(text, "x")]) for name, text in tasks.items()])
    for name in tasks:
        set_winner(index, name, "plain", "hash")
    nodes = [TextNode(text=text, id_=name) for name, text in tasks.items()]
    own = VectorStoreIndex(nodes, embed_model=RouterEmbedding(index.encoder))
    query = "add a colour and the numbers"
    found = own.as_retriever(similarity_top_k=2).retrieve(query)
    near = index.nearest(query, 2)
    assert [node.node_id for node in found] == [match.task for match in near] == ["sums", "colours"]
    assert [node.score for node in found] == pytest.approx([match.similarity for match in near], abs=1e-4)


def test_the_encoder_may_be_anything_that_is_one_and_keeps_its_name():
    class Own:
        model_name = "own"

        def embed_documents(self, texts):
            return [[0.0, 2.0] for _ in texts]

    embedding = RouterEmbedding(Own())
    assert embedding.get_query_embedding("a") == [0.0, 1.0]
    assert as_encoder(embedding).name == embedding.to_dict()["model_name"] == "own"
    assert embedding.to_dict()["class_name"] == "RouterEmbedding"
    with pytest.raises(ConfigError, match="int is not an encoder"):
        RouterEmbedding(3)


def test_a_field_that_does_not_exist_is_refused(encoder):
    with pytest.raises(ValidationError, match=r"batch_sise\s+Extra inputs are not permitted"):
        RouterEmbedding(encoder, batch_sise=3)
