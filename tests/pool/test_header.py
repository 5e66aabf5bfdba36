import json
import os
import struct

import pytest

from lorauter_integrations.errors import AdapterRefusedError
from lorauter_integrations.pool.header import read_header


def written(tmp_path, header, data=b"", length=None):
    text = json.dumps(header).encode()
    file = tmp_path / "adapter_model.safetensors"
    file.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return file


def tensor(begin, end, dtype="F32", shape=None):
    return {"dtype": dtype, "shape": shape or [(end - begin) // 4], "data_offsets": [begin, end]}


def test_tensors_come_in_the_order_of_their_bytes_and_without_the_metadata(tmp_path):
    header = {"__metadata__": {"format": "pt"}, "late": tensor(8, 16), "early": tensor(0, 8), "none": tensor(8, 8)}
    assert list(read_header(written(tmp_path, header, bytes(16)))) == ["early", "none", "late"]


@pytest.mark.parametrize(
    ("header", "size", "message"),
    [
        ([], 0, "the header of adapter_model.safetensors is not a JSON object"),
        ({"a": 5}, 0, "does not say what tensor 'a' is"),
        ({"a": {"dtype": "F32", "shape": "4", "data_offsets": [0, 0]}}, 0, "does not say what tensor 'a' is"),
        ({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, 4, "does not say what tensor 'a' is"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, 4, "does not say what tensor 'a' is"),
        ({"a": tensor(0, 4, dtype="I32")}, 4, "tensor 'a' has type 'I32', not a floating point type"),
        ({"a": tensor(0, 4, dtype="F8_E4M3", shape=[4])}, 4, "tensor 'a' has type 'F8_E4M3', not a floating"),
        ({"a": tensor(0, 8, shape=[3])}, 8, "tensor 'a' has 8 bytes, its shape needs 12"),
        ({"a": tensor(0, 8), "b": tensor(0, 8)}, 8, "tensor 'b' begins at byte 0 of the data, .* ends at 8"),
        ({"a": tensor(0, 8), "b": tensor(4, 12)}, 12, "tensor 'b' begins at byte 4 of the data, .* ends at 8"),
        ({"a": tensor(0, 4), "b": tensor(8, 12)}, 12, "tensor 'b' begins at byte 8 of the data, .* ends at 4"),
        ({"a": tensor(4, 8)}, 8, "tensor 'a' begins at byte 4 of the data, .* ends at 0"),
        ({"a": tensor(8, 0, shape=[2])}, 8, "tensor 'a' has -8 bytes, its shape needs 8"),
        ({"a": tensor(0, 8)}, 7, "should have .* bytes and has"),
        ({"a": tensor(0, 8)}, 9, "should have .* bytes and has"),
    ],
    ids=["list", "number", "shape text", "bool", "negative", "integers", "8 bits", "few bytes", "same bytes",
         "overlap", "hole", "late start", "reversed", "cut off", "grown"],
)  # fmt: skip
def test_header_that_does_not_describe_its_file_is_refused(tmp_path, header, size, message):
    with pytest.raises(AdapterRefusedError, match=message):
        read_header(written(tmp_path, header, bytes(size)))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", r"is cut off or not a safetensors file \(0 bytes\)"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer; the weights were not downloaded"),
        (b"PK\x03\x04 some other file", "is cut off or not a safetensors file"),
        (struct.pack("<Q", 4) + b"oops", "adapter_model.safetensors cannot be read: "),
        (struct.pack("<Q", 8000) + b"[" * 8000, "adapter_model.safetensors cannot be read: "),
    ],
    ids=["empty", "LFS pointer", "other file", "broken", "nested"],
)
def test_file_that_is_no_safetensors_is_refused(tmp_path, raw, message):
    file = tmp_path / "adapter_model.safetensors"
    file.write_bytes(raw)
    with pytest.raises(AdapterRefusedError, match=message):
        read_header(file)


def test_header_of_absurd_length_is_refused_before_it_is_read(tmp_path):
    file = written(tmp_path, {}, length=40 << 30)
    os.truncate(file, 50 << 30)  # a hole: takes no room on the disk, but would in memory
    with pytest.raises(
        AdapterRefusedError, match="has a header of 42,949,672,960 bytes; 33,554,432 are read at most"
    ):
        read_header(file)
