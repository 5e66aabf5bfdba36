import json
import os

import pytest

from lorauter_integrations.errors import AdapterRefusedError
from lorauter_integrations.pool import CONFIG, PICKLED, WEIGHTS
from lorauter_integrations.pool.files import find_weights, is_adapter_folder, openable, read_config


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "pool" / "adapter"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("files", "is_one"),
    [
        ([CONFIG], True),
        ([WEIGHTS, "README.md"], True),
        ([PICKLED], True),
        (["adapters.safetensors"], True),
        (["lora.gguf"], True),
        (["config.json", "model.safetensors"], True),
        (["README.md", "config.json", "optimizer.pt"], False),
        ([], False),
    ],
    ids=["config", "weights", "pickle", "MLX", "GGUF", "model", "others", "empty"],
)
def test_folder_is_an_adapter_by_the_names_of_its_files(files, is_one):
    assert is_adapter_folder(files) is is_one


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "^no adapter_config.json$"),
        (["adapters.npz"], "^an adapter in MLX format, not PEFT's$"),
        (["config.json", "model.safetensors.index.json"], "^a whole model, not an adapter$"),
        (["pytorch_lora_weights.safetensors"], "^a diffusers LoRA, not PEFT's$"),
        (["lora-f16.gguf"], "^a GGUF adapter, not PEFT's$"),
    ],
    ids=["nothing", "MLX", "model", "diffusers", "GGUF"],
)
def test_what_stands_in_the_place_of_a_config_is_named(folder, files, message):
    for name in files:
        (folder / name).touch()
    with pytest.raises(AdapterRefusedError, match=message):
        read_config(folder)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"{oops", "adapter_config.json cannot be read: "),
        (b"\xff", "adapter_config.json cannot be read: "),
        (b"[]", "adapter_config.json is not a JSON object"),
        (b"[" * 100_000, "adapter_config.json cannot be read: "),
        (b'{"r": ' + b"1" * 5000 + b"}", "adapter_config.json cannot be read: "),
        (b"version https://git-lfs.github.com/spec/v1\n", "adapter_config.json is a Git LFS pointer"),
        (b" " * (8 << 20) + b"{}", "adapter_config.json is larger than 8,388,608 bytes"),
    ],
    ids=["broken", "not UTF-8", "list", "nested", "long number", "LFS pointer", "large"],
)
def test_config_that_cannot_be_read_is_refused(folder, raw, message):
    (folder / CONFIG).write_bytes(raw)
    with pytest.raises(AdapterRefusedError, match=message):
        read_config(folder)


def test_folder_that_is_not_there_has_no_config(tmp_path):
    with pytest.raises(AdapterRefusedError, match=r"^no adapter_config\.json$"):
        read_config(tmp_path / "nowhere")


def test_safetensors_go_before_a_pickle(folder):
    (folder / PICKLED).touch()
    with pytest.raises(AdapterRefusedError, match=r"only adapter_model.bin \(a pickle, .* set allow_bin"):
        find_weights(folder)
    assert find_weights(folder, allow_bin=True) == folder / PICKLED
    (folder / WEIGHTS).touch()
    assert find_weights(folder, allow_bin=True) == find_weights(folder) == folder / WEIGHTS


@pytest.mark.parametrize("allow_bin", [False, True])
def test_weights_that_are_not_there_are_refused(folder, allow_bin):
    with pytest.raises(AdapterRefusedError, match=r"^no adapter_model\.safetensors$"):
        find_weights(folder, allow_bin=allow_bin)


# ------------------------------------------------------------------ links


def write(file, value):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"at": value}))
    return file


def test_link_within_the_pool_is_followed(folder):
    (folder / CONFIG).symlink_to(write(folder.parent / "shared" / "c.json", "pool"))
    assert read_config(folder, folder.parent) == {"at": "pool"}
    with pytest.raises(AdapterRefusedError, match=r"adapter_config\.json is a link to a file outside the pool"):
        read_config(folder)


def test_link_out_of_the_pool_is_refused(folder, tmp_path):
    (folder / CONFIG).symlink_to(write(tmp_path / "secret.json", "outside"))
    with pytest.raises(AdapterRefusedError, match="is a link to a file outside the pool; copy the file, or link the"):
        read_config(folder, folder.parent)


def test_link_through_another_link_counts_by_where_it_ends(folder, tmp_path):
    write(tmp_path / "secret.json", "outside")
    (folder / "inner.json").symlink_to(tmp_path / "secret.json")
    (folder / CONFIG).symlink_to("inner.json")
    with pytest.raises(AdapterRefusedError, match="is a link to a file outside the pool"):
        read_config(folder, folder.parent)


def test_folder_that_is_linked_into_the_pool_keeps_its_files(tmp_path):
    write(tmp_path / "elsewhere" / "adapter" / "real.json", "elsewhere")
    (tmp_path / "elsewhere" / "adapter" / CONFIG).symlink_to("real.json")
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "linked").symlink_to(tmp_path / "elsewhere" / "adapter")
    assert read_config(tmp_path / "pool" / "linked", tmp_path / "pool") == {"at": "elsewhere"}


def test_snapshot_of_the_hugging_face_cache_keeps_its_blobs(tmp_path):
    repo = tmp_path / "hub" / "models--a--b"
    write(repo / "blobs" / "0123", "blob")
    snapshot = repo / "snapshots" / "abc" / "checkpoint-1"
    snapshot.mkdir(parents=True)
    (snapshot / CONFIG).symlink_to("../../../blobs/0123")
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "linked").symlink_to(snapshot)
    assert read_config(tmp_path / "pool" / "linked", tmp_path / "pool") == {"at": "blob"}


def test_blobs_that_are_themselves_a_link_elsewhere_are_no_excuse(tmp_path):
    write(tmp_path / "home" / "secret.json", "secret")
    snapshot = tmp_path / "pool" / "evil" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "pool" / "evil" / "blobs").symlink_to(tmp_path / "home")
    (snapshot / CONFIG).symlink_to("../../blobs/secret.json")
    with pytest.raises(AdapterRefusedError, match="is a link to a file outside the pool"):
        read_config(snapshot, tmp_path / "pool")


def test_link_that_leads_nowhere_or_in_a_circle_is_no_file(folder):
    (folder / WEIGHTS).symlink_to("nowhere")
    with pytest.raises(AdapterRefusedError, match=r"^no adapter_model\.safetensors$"):
        find_weights(folder)
    (folder / CONFIG).symlink_to(CONFIG)
    with pytest.raises(AdapterRefusedError, match=r"adapter_config\.json cannot be read: .*symbolic links"):
        read_config(folder)


def test_pipe_device_and_folder_are_not_opened(folder):
    os.mkfifo(folder / CONFIG)
    (folder / WEIGHTS).mkdir()
    for name in (CONFIG, WEIGHTS):
        with pytest.raises(AdapterRefusedError, match=f"{name} is not an ordinary file"):
            openable(folder, name)
    (folder / PICKLED).symlink_to("/dev/zero")
    with pytest.raises(AdapterRefusedError, match=r"adapter_model\.bin is not an ordinary file"):
        openable(folder, PICKLED)
