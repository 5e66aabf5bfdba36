import threading

import numpy as np
from conftest import WordEncoder

from lorauter_integrations.routing import Encoder, RememberingEncoder


def test_a_text_is_encoded_once_and_the_vectors_are_the_encoders():
    inner = WordEncoder()
    encoder = RememberingEncoder(inner, 10)
    texts = ["red", "blue", "red"]
    expected = WordEncoder().encode(texts)
    np.testing.assert_array_equal(encoder.encode(texts), expected)
    np.testing.assert_array_equal(encoder.encode(["blue"]), expected[1:2])
    assert inner.calls == 1
    assert (encoder.name, isinstance(encoder, Encoder)) == ("words", True)


def test_only_new_texts_are_asked_for():
    asked = []

    class Asked(WordEncoder):
        def encode(self, texts):
            asked.append(list(texts))
            return super().encode(texts)

    encoder = RememberingEncoder(Asked(), 10)
    encoder.encode(["a", "b"])
    encoder.encode(["b", "c", "c"])
    assert asked == [["a", "b"], ["c"]]


def test_the_longest_unused_text_goes_first():
    inner = WordEncoder()
    encoder = RememberingEncoder(inner, 2)
    for text in ("a", "b", "a", "c", "a"):
        encoder.encode([text])
    assert inner.calls == 3
    encoder.encode(["b"])
    assert inner.calls == 4


def test_many_threads_get_what_one_would():
    encoder, expected = RememberingEncoder(WordEncoder(), 3), WordEncoder().encode([f"word {n}" for n in range(8)])
    wrong = []

    def work(number):
        for turn in range(50):
            at = (number + turn) % 8
            if not np.array_equal(encoder.encode([f"word {at}"])[0], expected[at]):
                wrong.append(at)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_odd_characters_are_texts_too():
    class Same:
        name = "same"

        def encode(self, texts):
            return np.ones((len(texts), 1), dtype=np.float32)

    assert RememberingEncoder(Same(), 4).encode(["\ud800 lone"]).shape == (1, 1)
