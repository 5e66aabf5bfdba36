import pytest
import torch
from conftest import make_adapter, pico_model
from safetensors.torch import load_file

from lorauter_integrations import AdapterPool
from lorauter_integrations.errors import OptionError
from lorauter_integrations.mixing import base_shapes
from lorauter_integrations.mixing.averaging import write_averaged


@pytest.fixture
def pool(tmp_path):
    folder = tmp_path / "pool"
    make_adapter(folder / "a", seed=1)
    make_adapter(folder / "b", seed=2)
    make_adapter(folder / "wide", seed=3, r=6)
    make_adapter(folder / "loud", seed=4, lora_alpha=32)
    return AdapterPool.from_folder(folder, base_shapes(pico_model()))


def test_factors_are_averaged_one_by_one(pool, tmp_path):
    folder = write_averaged([pool["a"], pool["b"]], tmp_path / "made" / "mean")
    found = load_file(folder / "adapter_model.safetensors")
    one, other = (load_file(pool[name].weights_file) for name in "ab")
    assert found.keys() == one.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, (one[name] + other[name]) / 2)
    made = AdapterPool.from_folder(tmp_path / "made", base_shapes(pico_model()))
    assert dict(made["mean"].parts).keys() == dict(pool["a"].parts).keys()


def test_an_average_of_one_is_itself(pool, tmp_path):
    folder = write_averaged([pool["a"]], tmp_path / "same")
    for name, tensor in load_file(folder / "adapter_model.safetensors").items():
        torch.testing.assert_close(tensor, load_file(pool["a"].weights_file)[name])


@pytest.mark.parametrize("other", ["wide", "loud"])
def test_adapters_of_other_ranks_or_scalings_are_refused(pool, tmp_path, other):
    with pytest.raises(OptionError, match=f"'a', '{other}' cannot be averaged factor by factor"):
        write_averaged([pool["a"], pool[other]], tmp_path / "mean")
