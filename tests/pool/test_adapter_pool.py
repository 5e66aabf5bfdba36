import json
import pickle
import shutil

import pytest
from conftest import pico_model

from lorauter_integrations import AdapterPool
from lorauter_integrations.errors import PoolError, UnknownAdapterError
from lorauter_integrations.mixing import base_shapes
from lorauter_integrations.pool import CONFIG


@pytest.fixture(scope="module")
def shapes():
    return base_shapes(pico_model())


def copy(pico_pool_folder, *places):
    for place in places:
        shutil.copytree(pico_pool_folder / "plain", place)


def test_every_good_adapter_of_a_folder_is_in_the_pool(pico_pool):
    assert list(pico_pool) == ["alphas", "mlp", "plain", "ranks", "rslora", "wide"]
    assert "mlp" in pico_pool
    assert pico_pool["mlp"].name == "mlp"
    assert repr(pico_pool) == "AdapterPool(6 adapters, 0 refused)"


def test_nested_folders_are_named_with_slashes(tmp_path, pico_pool_folder, shapes):
    copy(
        pico_pool_folder,
        tmp_path / "repo" / "checkpoint-2",
        tmp_path / "repo" / "checkpoint-1",
        tmp_path / "a.b",
    )
    pool = AdapterPool.from_folder(tmp_path, shapes)
    assert list(pool) == ["a.b", "repo/checkpoint-1", "repo/checkpoint-2"]
    assert pool["repo/checkpoint-1"].folder == tmp_path / "repo" / "checkpoint-1"


def test_links_to_adapters_are_followed_but_not_in_a_circle(tmp_path, pico_pool_folder, shapes):
    (tmp_path / "linked").symlink_to(pico_pool_folder / "plain")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "back").symlink_to(tmp_path)
    assert list(AdapterPool.from_folder(tmp_path, shapes)) == ["linked"]


def test_refused_adapter_is_named_with_its_reason(tmp_path, pico_pool_folder, shapes):
    copy(pico_pool_folder, tmp_path / "good", tmp_path / "bad")
    config = json.loads((tmp_path / "bad" / CONFIG).read_text())
    (tmp_path / "bad" / CONFIG).write_text(json.dumps(config | {"use_dora": True}))
    pool = AdapterPool.from_folder(tmp_path, shapes)
    assert list(pool) == ["good"]
    assert list(pool.refused) == ["bad"]
    assert "bad" not in pool
    with pytest.raises(UnknownAdapterError, match="adapter 'bad' was refused: use_dora=True is more than"):
        pool["bad"]


def test_unknown_adapter_is_a_key_error_that_lists_the_known_ones(pico_pool):
    with pytest.raises(KeyError, match=r"(?s)no adapter 'sql'.*Hint: the pool has 'alphas', 'mlp', 'plain'"):
        pico_pool["sql"]
    assert pico_pool.get("sql") is None


def test_pool_of_refused_adapters_only_is_a_pool(tmp_path, shapes):
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "adapter_model.safetensors").touch()
    pool = AdapterPool.from_folder(tmp_path, shapes)
    assert len(pool) == 0
    assert pool.refused == {"half": "no adapter_config.json"}


def test_folder_without_adapters_is_refused(tmp_path, shapes):
    (tmp_path / "empty").mkdir()
    with pytest.raises(PoolError, match=r"(?s)holds no adapter.*Hint: an adapter is a folder with adapter_config"):
        AdapterPool.from_folder(tmp_path, shapes)


def test_missing_folder_is_refused(tmp_path, shapes):
    with pytest.raises(PoolError, match=r"(?s)gone is not a folder.*Hint: set \[pool\] path"):
        AdapterPool.from_folder(tmp_path / "gone", shapes)


def test_equal_files_have_equal_hashes_and_another_alpha_changes_it(tmp_path, pico_pool_folder, shapes):
    copy(pico_pool_folder, tmp_path / "a", tmp_path / "b", tmp_path / "c")
    config = json.loads((tmp_path / "c" / CONFIG).read_text())
    (tmp_path / "c" / CONFIG).write_text(json.dumps(config | {"lora_alpha": 9}))
    pool = AdapterPool.from_folder(tmp_path, shapes)
    assert pool["a"].content_hash == pool["b"].content_hash != pool["c"].content_hash


class Evil:
    """Unpickling it creates a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (type(self.marker).touch, (self.marker,))


def test_pickle_is_never_opened(tmp_path, pico_pool_folder, shapes):
    pool_folder, marker = tmp_path / "pool", tmp_path / "marker"
    copy(pico_pool_folder, pool_folder / "evil")
    (pool_folder / "evil" / "adapter_model.safetensors").unlink()
    raw = pickle.dumps(Evil(marker))
    (pool_folder / "evil" / "adapter_model.bin").write_bytes(raw)
    pool = AdapterPool.from_folder(pool_folder, shapes)
    assert "only adapter_model.bin (a pickle, which can run code)" in pool.refused["evil"]
    assert not marker.exists()
    pickle.loads(raw)  # noqa: S301  the trap does work
    assert marker.exists()
