import numpy as np
import pytest
from conftest import WordEncoder

from lorauter_integrations import Encoder, SentenceTransformerEncoder, as_encoder
from lorauter_integrations.errors import ConfigError, ModelLoadError
from lorauter_integrations.routing import CallableEncoder


class LangChainEmbeddings:
    model = "lc-model"

    def embed_documents(self, texts):
        return [[3.0, 4.0] for _ in texts]


class LlamaIndexEmbedding:
    model_name = "li-model"

    def get_text_embedding_batch(self, texts):
        return [[0.0, 2.0] for _ in texts]


@pytest.mark.parametrize(
    ("embeddings", "name", "vector"),
    [(LangChainEmbeddings(), "lc-model", [0.6, 0.8]), (LlamaIndexEmbedding(), "li-model", [0.0, 1.0])],
    ids=["langchain", "llamaindex"],
)
def test_embeddings_of_a_framework_become_an_encoder_of_unit_vectors(embeddings, name, vector):
    encoder = as_encoder(embeddings)
    assert encoder.name == name
    vectors = encoder.encode(["a", "b"])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [vector, vector], rtol=1e-6)


def test_encoder_stays_itself():
    encoder = WordEncoder()
    assert isinstance(encoder, Encoder)
    assert as_encoder(encoder) is encoder


def test_text_is_the_name_of_a_model():
    encoder = as_encoder("org/model")
    assert isinstance(encoder, SentenceTransformerEncoder)
    assert encoder.name == "org/model"


def test_other_thing_is_no_encoder():
    with pytest.raises(ConfigError, match=r"(?s)int is not an encoder.*Hint: give a model name, a LangChain"):
        as_encoder(3)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([[1.0, 0.0]], r"encoder bad: 2 texts gave vectors of shape \(1, 2\)"),
        ([1.0, 0.0], r"encoder bad: 2 texts gave vectors of shape \(2,\)"),
        ([[1.0, 0.0], [0.0, 0.0]], "encoder bad: a vector has length zero or is not finite"),
        ([[1.0, 0.0], [float("nan"), 0.0]], "encoder bad: a vector has length zero or is not finite"),
    ],
    ids=["too few", "flat", "zero", "nan"],
)
def test_function_that_gives_no_directions_is_refused(vectors, message):
    with pytest.raises(ConfigError, match=message):
        CallableEncoder("bad", lambda texts: vectors).encode(["a", "b"])


@pytest.mark.parametrize(
    ("model", "prefix", "name"),
    [
        ("org/model", "", "org/model"),
        ("/somewhere/model", "", "model"),
        ("org/model", "query: ", "org/model with prefix 'query: '"),
    ],
    ids=["hub", "folder", "prefix"],
)
def test_name_tells_model_and_prefix(model, prefix, name):
    assert SentenceTransformerEncoder(model, prefix=prefix).name == name


def test_model_that_is_not_there_is_named_at_the_first_use(tmp_path):
    encoder = SentenceTransformerEncoder(str(tmp_path / "gone"))
    with pytest.raises(ModelLoadError, match=r"(?s)gone' cannot be loaded: .*Hint: give a hub name, or the folder"):
        encoder.encode(["a"])


def test_prefix_is_put_before_each_text(pico_folder):
    plain = SentenceTransformerEncoder(str(pico_folder), device="cpu")
    prefixed = SentenceTransformerEncoder(str(pico_folder), prefix="query: ", device="cpu")
    vectors = prefixed.encode(["one", "two"])
    np.testing.assert_allclose(vectors, plain.encode(["query: one", "query: two"]), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1], rtol=1e-5)
    assert not np.allclose(vectors, plain.encode(["one", "two"]), atol=1e-3)


# ------------------------------------------------------------------ long texts


@pytest.fixture
def encoders(pico_folder):
    """One that reads both ends of long texts and one that reads the beginning; of 40 tokens, one a byte."""
    made = {
        way: SentenceTransformerEncoder(str(pico_folder), device="cpu", long_texts=way) for way in ("ends", "head")
    }
    for encoder in made.values():
        encoder.encode(["load"])
        encoder._model.max_seq_length = 40
    return made


def test_what_fits_is_read_whole_either_way(encoders):
    texts = ["short", "x" * 30]
    np.testing.assert_allclose(encoders["ends"].encode(texts), encoders["head"].encode(texts), atol=1e-6)


def test_of_a_long_text_both_ends_are_read(encoders):
    begun, middle, ended = "classify this text: ", "words " * 50, " yes or no?"
    one, other = begun + middle + ended, begun + middle + " what year is it?"
    np.testing.assert_allclose(*encoders["head"].encode([one, other]), atol=1e-6)
    assert not np.allclose(*encoders["ends"].encode([one, other]), atol=1e-3)
    np.testing.assert_allclose(*encoders["ends"].encode([one, begun + middle + middle + ended]), atol=1e-6)


def test_the_ends_are_three_quarters_and_one(encoders):
    text = "".join(chr(97 + at % 26) for at in range(200))
    room = 40 - encoders["ends"]._model.tokenizer.num_special_tokens_to_add()
    tail = room - int(room * 0.75)
    expected = f"{text[: room - tail - 1]} {text[-tail:]}"
    np.testing.assert_allclose(encoders["ends"].encode([text]), encoders["head"].encode([expected]), atol=1e-6)
