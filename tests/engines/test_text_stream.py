import pytest
from conftest import pico_tokenizer

from lorauter_integrations.engines.text_stream import TextStream


def written(text, stop=(), finish=True):
    tokenizer = pico_tokenizer()
    stream = TextStream(tokenizer, stop)
    pieces = []
    for token in tokenizer(text, add_special_tokens=False).input_ids:
        pieces.append(stream.push(token))
        if stream.stopped:
            break
    if finish:
        pieces.append(stream.finish())
    return pieces, stream


def test_pieces_join_to_the_text():
    pieces, stream = written("a plain text")
    assert "".join(pieces) == stream.text == "a plain text"


def test_a_character_of_several_tokens_comes_whole():
    pieces, _ = written("naïve 日本 🙂!")
    assert "".join(pieces) == "naïve 日本 🙂!"
    assert all("\ufffd" not in piece for piece in pieces)
    assert "🙂" in pieces


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("hello world", ["lo wo"], "hel"),
        ("hello world", ["xyz"], "hello world"),
        ("aab", ["ab"], "a"),
        ("one\n\ntwo", ["\n\n"], "one"),
        ("first END second STOP", ["STOP", "END"], "first "),
        ("ends with par", ["partial"], "ends with par"),
        ("日本語", ["本"], "日"),
    ],
)
def test_text_ends_before_the_first_stop_string(text, stop, expected):
    pieces, stream = written(text, stop)
    assert "".join(pieces) == stream.text == expected
    assert stream.stopped == (expected != text)


def test_no_piece_holds_the_beginning_of_a_stop_string():
    pieces, _ = written("hello world", ["lo wo"])
    assert "l" not in "".join(pieces)[3:]


def test_special_tokens_never_show():
    tokenizer = pico_tokenizer()
    stream = TextStream(tokenizer)
    assert stream.push(256) + stream.push(257) + stream.finish() == ""
