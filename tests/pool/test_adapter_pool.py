import json
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
    (tmp_path / "bad" / CONFIG).write_text(json.dumps(config | {"lora_bias": True}))
    pool = AdapterPool.from_folder(tmp_path, shapes)
    assert list(pool) == ["good"]
    assert list(pool.refused) == ["bad"]
    assert "bad" not in pool
    with pytest.raises(UnknownAdapterError, match="adapter 'bad' was refused: lora_bias=True is more than"):
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


def test_order_and_progress_do_not_depend_on_which_thread_is_first(tmp_path, pico_pool_folder, shapes):
    copy(pico_pool_folder, *(tmp_path / f"{i:02d}" for i in range(20)))
    for i in range(0, 20, 3):
        (tmp_path / f"{i:02d}" / CONFIG).write_text("{}")
    seen = []
    pool = AdapterPool.from_folder(tmp_path, shapes, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 20) for i in range(1, 21)]
    assert list(pool.refused) == [f"{i:02d}" for i in range(0, 20, 3)]
    assert [*pool, *pool.refused] == sorted(pool) + sorted(pool.refused)


def test_equal_parts_are_one_object_however_many_adapters_have_them(tmp_path, pico_pool_folder, shapes):
    copy(pico_pool_folder, *(tmp_path / f"{i:02d}" for i in range(9)))
    shutil.copytree(pico_pool_folder / "wide", tmp_path / "wide")
    pool = AdapterPool.from_folder(tmp_path, shapes)
    assert len({id(adapter.parts) for adapter in pool.values()}) == 2


def test_adapter_that_cannot_be_read_is_refused_and_the_others_are_not(tmp_path, pico_pool_folder, shapes):
    copy(pico_pool_folder, tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "adapter_model.safetensors").unlink()
    (tmp_path / "b" / "adapter_model.safetensors").symlink_to("adapter_model.safetensors")
    pool = AdapterPool.from_folder(tmp_path, shapes)
    assert list(pool) == ["a"]
    assert pool.refused["b"].startswith("it cannot be read: ")


def test_refused_adapters_are_grouped_by_their_reason_whatever_its_numbers_and_names():
    pool = AdapterPool(
        {},
        {
            "a": "m.0.q maps 64 to 64 numbers, the base model's 32 to 32",
            "b": "no adapter_model.safetensors",
            "c": "m.1.v maps 1,024 to 64 numbers, the base model's 32 to 16",
            "d": "layer_replication=[[0, 2]] is more",
            "e": "layer_replication=[[0, 4]] is more",
            "f": "arrow_config={'k': 1} is more",
            "h": "vocabulary 260 against the base's 258 in 'lm_head'",
            "i": "vocabulary 99 against the base's 258 in 'embed_out'",
            "g": "m.1.v maps 128 to 64 numbers, the base model's 32 to 16",
        },
    )
    assert pool.refused_by_reason() == {
        "m.0.q maps 64 to 64 numbers, the base model's 32 to 32": ["a", "c", "g"],
        "layer_replication=[[0, 2]] is more": ["d", "e"],
        "vocabulary 260 against the base's 258 in 'lm_head'": ["h", "i"],
        "no adapter_model.safetensors": ["b"],
        "arrow_config={'k': 1} is more": ["f"],
    }
