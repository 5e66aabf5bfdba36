import json
import logging
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import make_adapter, pico_model
from safetensors.torch import load_file, save_file

from lorauter_integrations import AdapterPool
from lorauter_integrations.mixing import base_shapes
from lorauter_integrations.pool import CONFIG, WEIGHTS
from lorauter_integrations.pool.cache import ValuesCache
from lorauter_integrations.pool.values import Values


@pytest.fixture(scope="module")
def shapes():
    return base_shapes(pico_model())


@pytest.fixture
def pool(tmp_path, pico_pool_folder):
    return shutil.copytree(pico_pool_folder, tmp_path / "pool")


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "state" / "pool.json"


def facts_of(pool):
    return {a.name: (a.content_hash, a.parts, a.size, a.changed) for a in pool.values()}, pool.refused


def forge(cache, pool, name, **changes):
    """Change what is remembered of an adapter, which shows whether it is looked at."""
    stored = json.loads(cache.read_text())
    entry = stored["files"][str(pool / name / WEIGHTS)]
    for place, value in changes.items():
        entry[{"hash": 5, "fault": 6, "zero": 7}[place]] = value
    cache.write_text(json.dumps(stored))


def test_second_check_finds_the_same_and_reads_no_weights(pool, cache, shapes):
    first = AdapterPool.from_folder(pool, shapes, cache=cache)
    assert facts_of(AdapterPool.from_folder(pool, shapes, cache=cache)) == facts_of(first)
    forge(cache, pool, "plain", hash="forged")
    forge(cache, pool, "wide", fault="forged fault")
    forge(cache, pool, "mlp", zero="lora_A")
    second = AdapterPool.from_folder(pool, shapes, cache=cache)
    assert second["plain"].content_hash == "forged"
    assert second.refused == {
        "wide": "forged fault",
        "mlp": "every lora_A is zero; the adapter has no effect",
    }
    assert AdapterPool.from_folder(pool, shapes)["plain"].content_hash == first["plain"].content_hash


def rewrite(pool, shapes):
    tensors = load_file(pool / "plain" / WEIGHTS)
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, pool / "plain" / WEIGHTS)


def spoil_in_place(pool, shapes):
    file = pool / "plain" / WEIGHTS
    before = file.stat()
    with file.open("r+b") as stream:
        stream.seek(-4, os.SEEK_END)
        stream.write(b"\x00\x00\xc0\x7f")  # NaN
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(pool, shapes):
    shutil.copy2(pool / "plain" / WEIGHTS, pool / "copy")
    os.replace(pool / "copy", pool / "plain" / WEIGHTS)


def change_alpha(pool, shapes):
    config = json.loads((pool / "plain" / CONFIG).read_text())
    (pool / "plain" / CONFIG).write_text(json.dumps(config | {"lora_alpha": 3}))


@pytest.mark.parametrize("change", [rewrite, spoil_in_place, replace, change_alpha], ids=lambda f: f.__name__)
def test_file_that_was_touched_is_read_again(pool, cache, shapes, change):
    AdapterPool.from_folder(pool, shapes, cache=cache)
    forge(cache, pool, "plain", hash="forged")
    change(pool, shapes)
    again = AdapterPool.from_folder(pool, shapes, cache=cache)
    assert facts_of(again) == facts_of(AdapterPool.from_folder(pool, shapes))


def test_rules_on_config_and_base_are_applied_anew(pool, cache, shapes):
    AdapterPool.from_folder(pool, shapes, cache=cache)
    config = json.loads((pool / "plain" / CONFIG).read_text())
    (pool / "plain" / CONFIG).write_text(json.dumps(config | {"lora_bias": True}))
    other = base_shapes(pico_model(num_hidden_layers=1))
    assert "lora_bias=True" in AdapterPool.from_folder(pool, shapes, cache=cache).refused["plain"]
    assert "not in the base model" in AdapterPool.from_folder(pool, other, cache=cache).refused["mlp"]


def test_fault_is_remembered_too(tmp_path, cache, shapes):
    make_adapter(tmp_path / "pool" / "nan")
    tensors = load_file(tmp_path / "pool" / "nan" / WEIGHTS)
    save_file({name: tensor * torch.nan for name, tensor in tensors.items()}, tmp_path / "pool" / "nan" / WEIGHTS)
    first = AdapterPool.from_folder(tmp_path / "pool", shapes, cache=cache)
    assert "has NaN or infinite values" in first.refused["nan"]
    assert AdapterPool.from_folder(tmp_path / "pool", shapes, cache=cache).refused == first.refused


def first_entry(change):
    def damage(text):
        stored = json.loads(text)
        key = next(iter(stored["files"]))
        stored["files"][key] = change(stored["files"][key])
        return json.dumps(stored)

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[" * 100_000,
        lambda text: "[]",
        lambda text: json.dumps(json.loads(text) | {"version": "older"}),
        lambda text: json.dumps(json.loads(text) | {"files": 3}),
        first_entry(lambda entry: entry[:5]),
        first_entry(lambda entry: 7),
        first_entry(lambda entry: [*entry[:5], 1, 2, 3]),
    ],
    ids=["empty", "cut off", "nested", "list", "version", "no files", "short entry", "number", "numbers"],
)
def test_damaged_cache_counts_as_empty_and_is_written_anew(pool, cache, shapes, damage):
    first = AdapterPool.from_folder(pool, shapes, cache=cache)
    whole = json.loads(cache.read_text())
    cache.write_text(damage(cache.read_text()))
    assert facts_of(AdapterPool.from_folder(pool, shapes, cache=cache)) == facts_of(first)
    assert json.loads(cache.read_text()) == whole


def test_cache_that_is_no_text_counts_as_empty(pool, cache, shapes):
    cache.parent.mkdir()
    cache.write_bytes(b"\xff\xfe\x00")
    AdapterPool.from_folder(pool, shapes, cache=cache)
    assert len(json.loads(cache.read_text())["files"]) == 6


def test_what_is_gone_is_forgotten_and_other_pools_are_not(pool, cache, shapes, tmp_path):
    shutil.copytree(pool / "plain", tmp_path / "other" / "plain")
    AdapterPool.from_folder(tmp_path / "other", shapes, cache=cache)
    AdapterPool.from_folder(pool, shapes, cache=cache)
    shutil.rmtree(pool / "mlp")
    shutil.copytree(pool / "plain", pool / "new")
    AdapterPool.from_folder(pool, shapes, cache=cache)
    kept = {os.path.relpath(file, tmp_path) for file in json.loads(cache.read_text())["files"]}
    inside = {f"pool/{name}/{WEIGHTS}" for name in ("alphas", "new", "plain", "ranks", "rslora", "wide")}
    assert kept == inside | {f"other/plain/{WEIGHTS}"}


def test_nothing_is_written_when_nothing_is_new(pool, cache, shapes):
    AdapterPool.from_folder(pool, shapes, cache=cache)
    before = cache.stat()
    AdapterPool.from_folder(pool, shapes, cache=cache)
    assert (cache.stat().st_ino, cache.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_many_writers_leave_a_whole_file(pool, cache):
    """Whoever comes last wins; nobody ever reads a torn file, and nothing else is left behind."""
    file, torn = pool / "plain" / WEIGHTS, []

    def write(i):
        for _ in range(20):
            known = ValuesCache(cache)
            known.put(file, file.stat(), f"settings {i}", Values("hash" * 1000))
            known.save(pool)
            torn.append(json.loads(cache.read_text())["files"].keys() != {str(file)})

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(8)))
    assert len(torn) == 160 and not any(torn)
    assert [left.name for left in cache.parent.iterdir()] == ["pool.json"]


def test_cache_that_cannot_be_written_is_a_warning_in_the_log(pool, tmp_path, shapes, caplog):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with caplog.at_level(logging.WARNING):
        assert len(AdapterPool.from_folder(pool, shapes, cache=tmp_path / "file" / "pool.json")) == 6
        assert len(AdapterPool.from_folder(pool, shapes, cache=tmp_path / "folder")) == 6
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        f"the pool's cache {tmp_path / 'file' / 'pool.json'} cannot be written",
        f"the pool's cache {tmp_path / 'folder'} cannot be written",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "pool"]
