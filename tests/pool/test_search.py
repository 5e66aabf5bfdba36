import os

import pytest

from lorauter_integrations.pool import CONFIG
from lorauter_integrations.pool.search import find_adapters


def adapter(folder):
    folder.mkdir(parents=True)
    (folder / CONFIG).touch()
    return folder


def found(pool):
    return {place.name: place.refused for place in find_adapters(pool)}


@pytest.fixture
def pool(tmp_path):
    (tmp_path / "pool").mkdir()
    return tmp_path / "pool"


def test_adapters_are_found_at_every_depth_and_inside_one_another(pool):
    for name in ("repo", "repo/checkpoint-500", "repo/checkpoint-500/deep/er", "a.b", "lora"):
        adapter(pool / name)
    (pool / "empty").mkdir()
    assert list(found(pool)) == ["a.b", "lora", "repo", "repo/checkpoint-500", "repo/checkpoint-500/deep/er"]


def test_hidden_folders_and_the_pool_itself_are_no_adapters(pool):
    adapter(pool / ".cache" / "huggingface" / "a")
    (pool / CONFIG).touch()
    assert found(pool) == {}


def test_link_right_in_the_pool_is_followed_to_all_that_lies_there(pool, tmp_path):
    adapter(tmp_path / "mine" / "one")
    adapter(tmp_path / "mine" / "two" / "checkpoint-1")
    (pool / "mine").symlink_to(tmp_path / "mine")
    assert found(pool) == {"mine/one": "", "mine/two/checkpoint-1": ""}


def test_link_further_down_is_followed_to_an_adapter_only(pool, tmp_path):
    adapter(tmp_path / "home" / "one" / "inner")
    adapter(tmp_path / "home" / "two")
    (pool / "repo").mkdir()
    (pool / "repo" / "two").symlink_to(tmp_path / "home" / "two")
    (pool / "repo" / "home").symlink_to(tmp_path / "home")
    reason = "a link to a folder outside the pool that is no adapter"
    assert found(pool) == {"repo/two": "", "repo/home": reason}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_folder_that_may_not_be_read_is_named(pool):
    adapter(pool / "one")
    (pool / "closed").mkdir(mode=0)
    assert found(pool) == {"one": "", "closed": "the folder cannot be read: Permission denied"}


def test_links_in_circles_end(pool):
    adapter(pool / "one")
    (pool / "one" / "up").symlink_to(pool)
    (pool / "up").symlink_to(pool.parent)
    (pool / "self").symlink_to("self")
    assert found(pool) == {"one": ""}


def test_links_between_many_folders_do_not_multiply(pool):
    for i in range(12):
        adapter(pool / "group" / f"{i:02d}")
    for i in range(12):
        for j in range(12):
            (pool / "group" / f"{i:02d}" / f"to-{j:02d}").symlink_to(f"../{j:02d}")
    names = found(pool)
    assert len(names) == 12 + 12 * 12
    assert set(names.values()) == {""}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"a\x1b[31m", r"a\x1b[31m"),
        (b"a\nb", r"a\nb"),
        (b"\xff\xfe", r"\udcff\udcfe"),
        ("a\u202eb".encode(), r"a\u202eb"),
    ],
    ids=["escape", "newline", "no text", "right to left"],
)
def test_name_that_does_not_print_is_shown_escaped_and_refused(pool, name, shown):
    adapter(pool / os.fsdecode(name))
    assert found(pool) == {shown: "its name has characters that do not print"}


def test_name_in_any_script_is_a_name(pool):
    adapter(pool / "переводчик 翻訳")
    assert found(pool) == {"переводчик 翻訳": ""}
