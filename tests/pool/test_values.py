import hashlib
import json
import tracemalloc

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lorauter_integrations.errors import AdapterRefusedError
from lorauter_integrations.pool.header import read_header
from lorauter_integrations.pool.values import arithmetic, read_values

CONFIG = {"r": 2, "lora_alpha": 8}


def saved(tmp_path, **tensors):
    file = tmp_path / "adapter_model.safetensors"
    save_file({name.replace("__", "."): tensor for name, tensor in tensors.items()}, file)
    return file


def values_of(file, config=CONFIG):
    return read_values(file, read_header(file), arithmetic(config))


def test_content_hash_is_that_of_the_bytes_and_of_six_settings(tmp_path):
    file = saved(tmp_path, m__lora_A__weight=torch.ones(2, 3))
    settings = json.dumps([2, 8, None, None, None, None]).encode()
    assert values_of(file).content_hash == hashlib.sha256(file.read_bytes() + settings).hexdigest()[:16]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"base_model_name_or_path": "elsewhere"}, True),
        ({"target_modules": ["q"]}, True),
        ({"lora_alpha": 9}, False),
        ({"use_rslora": True}, False),
        ({"alpha_pattern": {"q": 3}}, False),
    ],
    ids=["nothing", "base name", "targets", "alpha", "rslora", "alpha pattern"],
)
def test_content_hash_changes_with_what_changes_the_arithmetic(tmp_path, change, same):
    file = saved(tmp_path, m__lora_A__weight=torch.ones(2, 3))
    assert (values_of(file, CONFIG | change) == values_of(file)) is same


def test_the_order_of_patterns_is_a_part_of_the_arithmetic():
    one, two = ({"alpha_pattern": dict(pairs)} for pairs in ([("a", 1), ("b", 2)], [("b", 2), ("a", 1)]))
    assert arithmetic(one) != arithmetic(two)


def test_alpha_left_out_has_the_hash_of_eight():
    assert arithmetic({"r": 2}) == arithmetic({"r": 2, "lora_alpha": 8})


def test_content_hash_changes_with_the_weights(tmp_path):
    before = values_of(saved(tmp_path, m__lora_A__weight=torch.ones(2, 3))).content_hash
    assert values_of(saved(tmp_path, m__lora_A__weight=torch.full((2, 3), 1.5))).content_hash != before


DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")], ids=str)
def test_one_bad_number_is_found_wherever_it_is(tmp_path, dtype, value):
    weight = torch.ones(700_000, 1, dtype=dtype)
    weight[-1] = value
    found = values_of(saved(tmp_path, m__lora_A__weight=torch.ones(2, 2), m__lora_B__weight=weight))
    assert found.fault == "tensor 'm.lora_B.weight' has NaN or infinite values"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_largest_and_smallest_numbers_are_finite_and_not_zero(tmp_path, dtype):
    facts = torch.finfo(dtype)
    weight = torch.tensor([[facts.max, facts.min], [0.0, facts.smallest_normal / 2]], dtype=dtype)
    found = values_of(saved(tmp_path, m__lora_A__weight=weight, m__lora_B__weight=weight[1:].clone()))
    assert (found.fault, found.zero) == ("", "")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("a", "b", "zero"), [(1, 0, "lora_B"), (0, 1, "lora_A"), (0, 0, "lora_B"), (1, 1, "")])
def test_a_side_that_is_zero_in_every_module_is_named(tmp_path, dtype, a, b, zero):
    def weight(value):
        return torch.full((2, 2), value or -0.0, dtype=dtype)

    tensors = {"m__lora_A__weight": weight(a), "m__lora_B__weight": weight(b), "n__lora_A__weight": weight(a)}
    found = values_of(saved(tmp_path, **tensors, n__lora_B__weight=weight(0)))
    assert found.zero == zero


def test_a_file_of_many_pieces_is_read_in_little_memory(tmp_path):
    file = saved(tmp_path, m__lora_A__weight=torch.from_numpy(np.ones((6_000_000, 1), np.float32)))
    header = read_header(file)
    tracemalloc.start()
    try:
        read_values(file, header, "")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert file.stat().st_size > 24_000_000
    assert peak < 6_000_000


def test_file_that_shrinks_while_it_is_read_is_refused(tmp_path):
    file = saved(tmp_path, m__lora_A__weight=torch.ones(2, 3))
    header = read_header(file)
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size - 4)
    with pytest.raises(AdapterRefusedError, match="the weights file became shorter while it was read"):
        read_values(file, header, "")
