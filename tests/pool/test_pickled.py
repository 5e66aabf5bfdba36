import pickle
import shutil
import zipfile

import pytest
import torch
from conftest import pico_model
from safetensors.torch import load_file
from wild_files import Evil

from lorauter_integrations import AdapterPool
from lorauter_integrations.errors import AdapterRefusedError
from lorauter_integrations.mixing import base_shapes
from lorauter_integrations.pool import PICKLED, WEIGHTS
from lorauter_integrations.pool.pickled import load_pickled

Q0 = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def shapes():
    return base_shapes(pico_model())


@pytest.fixture
def file(tmp_path):
    (tmp_path / "pool" / "a").mkdir(parents=True)
    return tmp_path / "pool" / "a" / PICKLED


def adapter_with(file, pico_pool_folder, change=lambda tensors: None):
    """The plain adapter, its weights pickled."""
    shutil.copy(pico_pool_folder / "plain" / "adapter_config.json", file.parent)
    tensors = load_file(pico_pool_folder / "plain" / WEIGHTS)
    change(tensors)
    torch.save(tensors, file)
    return tensors


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_a_pickled_adapter_is_described_as_the_same_in_safetensors(file, pico_pool_folder, shapes, dtype):
    change = lambda tensors: tensors.update({name: tensor.to(dtype) for name, tensor in tensors.items()})  # noqa: E731
    tensors = adapter_with(file, pico_pool_folder, change)
    adapter = AdapterPool.from_folder(file.parent.parent, shapes, allow_bin=True)["a"]
    plain = AdapterPool.from_folder(pico_pool_folder, shapes)["plain"]
    assert adapter.parts == plain.parts
    assert (adapter.weights_file, adapter.size, adapter.content_hash != plain.content_hash) == (
        file,
        file.stat().st_size,
        True,
    )
    loaded = load_pickled(adapter.weights_file)
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


def test_without_the_flag_it_is_refused_by_its_name(file, pico_pool_folder, shapes):
    adapter_with(file, pico_pool_folder)
    refused = AdapterPool.from_folder(file.parent.parent, shapes).refused
    assert refused == {
        "a": "only adapter_model.bin (a pickle, which can run code); save it as adapter_model.safetensors, "
        "or set allow_bin (--allow-bin)"
    }


def poisoned(tensors):
    tensors[f"{Q0}.lora_B.weight"][3, 2] = float("nan")


def without_effect(tensors):
    tensors.update({name: torch.zeros_like(tensor) for name, tensor in tensors.items() if "lora_B" in name})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (poisoned, f"tensor '{Q0}.lora_B.weight' has NaN or infinite values"),
        (without_effect, "every lora_B is zero; the adapter has no effect"),
        (lambda tensors: tensors.pop(f"{Q0}.lora_B.weight"), "has only lora_A, its partner is missing"),
        (lambda tensors: tensors.update({"x.lora_A.weight": torch.ones(4, 4).int()}), "has type torch.int32, not a"),
        (
            lambda tensors: tensors.update({"x.lora_A.weight": torch.ones(4, 4).to_sparse()}),
            "else than named tensors",
        ),
        (lambda tensors: tensors.update({3: torch.ones(4)}), "else than named tensors"),
        (lambda tensors: tensors.update({"note": "hello"}), "else than named tensors"),
        (
            lambda tensors: tensors.update({"x.lora_A.weight": torch.ones(1).expand(1 << 20, 1 << 20)}),
            "the tensors of adapter_model.bin are larger than the file",
        ),
    ],
    ids=["nan", "zero", "no partner", "integers", "sparse", "number", "text", "bomb"],
)
def test_pickle_that_is_no_good_adapter_is_refused_like_any_other(file, pico_pool_folder, shapes, change, message):
    adapter_with(file, pico_pool_folder, change)
    pool = AdapterPool.from_folder(file.parent.parent, shapes, allow_bin=True)
    assert message in pool.refused["a"]


class Hostile:
    """Inside an archive of torch: unpickling it creates a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (type(self.marker).touch, (self.marker,))


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "bare pickle"])
def test_hostile_pickle_is_refused_and_runs_nothing(file, tmp_path, archive):
    marker = tmp_path / "marker"
    if archive:
        torch.save({"a": Hostile(marker)}, file)
    else:
        file.write_bytes(pickle.dumps(Evil(marker)))
    with pytest.raises(AdapterRefusedError, match=r"adapter_model\.bin is not a file of tensors"):
        load_pickled(file)
    assert not marker.exists()
    trap = torch.load(file, weights_only=False)["a"] if archive else pickle.loads(file.read_bytes())  # noqa: S301
    assert trap is None and marker.exists()  # the trap does work


def test_compressed_archive_is_refused_before_it_unpacks(file, tmp_path):
    torch.save({"a": torch.zeros(1 << 20)}, tmp_path / "plain.bin")
    with (
        zipfile.ZipFile(tmp_path / "plain.bin") as plain,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for part in plain.infolist():
            packed.writestr(part.filename, plain.read(part))
    assert file.stat().st_size < 1 << 20
    with pytest.raises(AdapterRefusedError, match="has compressed parts, which torch does not write"):
        load_pickled(file)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "adapter_model.bin is not a file of tensors: BadZipFile"),
        (b"version https://git-lfs.github.com/spec/v1\n", "adapter_model.bin is a Git LFS pointer"),
        (b"not a pickle at all", "adapter_model.bin is not a file of tensors: BadZipFile"),
    ],
    ids=["empty", "LFS pointer", "text"],
)
def test_file_that_is_no_archive_is_refused(file, raw, message):
    file.write_bytes(raw)
    with pytest.raises(AdapterRefusedError, match=message):
        load_pickled(file)


def test_archive_that_is_cut_off_or_spoilt_is_refused(file):
    torch.save({"a": torch.ones(1000)}, file)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AdapterRefusedError, match=r"adapter_model\.bin is not a file of tensors"):
        load_pickled(file)
    start = whole.index(b"data.pkl") + 20
    file.write_bytes(whole[:start] + bytes(60) + whole[start + 60 :])
    with pytest.raises(AdapterRefusedError, match=r"adapter_model\.bin is not a file of tensors"):
        load_pickled(file)


def test_a_pickle_that_ends_within_a_word_is_refused(file, pico_pool_folder):
    adapter_with(file, pico_pool_folder)
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            cut = content[: content.index(b"X") + 2] if name.endswith("data.pkl") else content
            archive.writestr(name, cut)
    with pytest.raises(
        AdapterRefusedError, match=r"adapter_model\.bin is not a file of tensors: error: unpack requires"
    ):
        load_pickled(file)


def test_a_tensor_that_is_a_view_is_read_as_it_is(file, pico_pool_folder, shapes):
    """Some tools save transposed or sliced tensors as they are in memory."""

    def turn(tensors):
        for name, tensor in tensors.items():
            tensors[name] = tensor.T.contiguous().T

    tensors = adapter_with(file, pico_pool_folder, turn)
    assert not tensors[f"{Q0}.lora_A.weight"].is_contiguous()
    pool = AdapterPool.from_folder(file.parent.parent, shapes, allow_bin=True)
    assert torch.equal(load_pickled(pool["a"].weights_file)[f"{Q0}.lora_A.weight"], tensors[f"{Q0}.lora_A.weight"])
