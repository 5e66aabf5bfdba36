"""Adapters from a real server on 127.0.0.1, which counts what it is asked and misbehaves on demand."""

import errno
import json
import os
import shutil
import threading
from contextlib import contextmanager

import huggingface_hub
import pytest
import torch
from conftest import make_adapter, pico_model
from hub_server import HOSTILE, Fault, HubServer, blob_id
from safetensors.torch import load_file

from lorauter_integrations.errors import AdapterRefusedError, PoolError
from lorauter_integrations.mixing import base_shapes
from lorauter_integrations.pool import CONFIG, PICKLED, WEIGHTS, AdapterPool
from lorauter_integrations.pool.hub import Backoff, Criteria, Hub, HubLocation, Intake

ANY = Criteria()
AT_ONCE = Backoff(base=0.0)
REPO = "ann/colours"
NAME = "ann--colours"
HEADER = 1 << 16


@pytest.fixture(scope="module")
def shapes():
    return base_shapes(pico_model())


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """An adapter of 3.7 MB, of which a header or a beginning is a small part."""
    return make_adapter(tmp_path_factory.mktemp("large") / "adapter", seed=8, r=4096)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with HubServer() as server:
        yield server
        huggingface_hub.close_session()


@pytest.fixture
def pool(tmp_path):
    return tmp_path / "pool"


@pytest.fixture
def hub(server, tmp_path):
    """Make a hub that does not wait."""

    def make(**options):
        return Hub(**({"endpoint": server.url, "cache": tmp_path / "cache", "backoff": AT_ONCE} | options))

    return make


@pytest.fixture
def add(hub, pool):
    """Add one location; returns its outcomes."""

    def run(location, criteria=ANY, **options):
        return list(Intake(pool, hub(**options), criteria).add(HubLocation.parse(location)))

    return run


def files_of(folder, below=""):
    """What a repository with this adapter holds."""
    return {below + name: (folder / name).read_bytes() for name in (CONFIG, WEIGHTS)}


def content(folder):
    return {name: (folder / name).read_bytes() for name in (CONFIG, WEIGHTS)}


def with_config(files, **changes):
    return files | {CONFIG: json.dumps(json.loads(files[CONFIG]) | changes).encode()}


def names(pool):
    """Every file in the pool but those that are on their way, and the lock."""
    paths = (path.relative_to(pool) for path in pool.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if path.parts[0] != ".hub")


def left(pool):
    """What is on its way."""
    return sorted(path.name for path in (pool / ".hub").rglob("*") if path.is_file() and path.name != "lock")


def states(outcomes):
    return {outcome.adapter: outcome.state for outcome in outcomes}


# ------------------------------------------------------------------ added


def test_adapter_is_added_whole_with_its_source(server, pool, add, shapes, pico_pool_folder):
    plain = files_of(pico_pool_folder / "plain")
    commit = server.add(REPO, plain | {"README.md": b"# colours", "optimizer.pt": b"x" * 999})
    [outcome] = add(f"hub:{REPO}", Criteria(shapes=lambda: shapes))
    assert (outcome.adapter, outcome.state, outcome.reason) == (NAME, "added", "")
    assert (outcome.commit, outcome.size) == (commit, len(plain[WEIGHTS]))
    assert names(pool) == [f"{NAME}/{file}" for file in (CONFIG, WEIGHTS, "source.json")]
    assert content(pool / NAME) == plain
    source = json.loads((pool / NAME / "source.json").read_text())
    weights = server.repos[REPO].commits[commit][WEIGHTS]
    assert source == {
        "repo": REPO,
        "revision": "main",
        "commit": commit,
        "sub": "",
        "files": {
            CONFIG: {"etag": blob_id(plain[CONFIG]), "size": len(plain[CONFIG])},
            WEIGHTS: {"sha256": source["files"][WEIGHTS]["sha256"], "size": len(weights)},
        },
    }
    assert AdapterPool.from_folder(pool, shapes)[NAME].ranks == [4]
    assert left(pool) == []
    assert not (pool.parent / "cache").exists()


def test_each_byte_is_asked_for_once_and_configurations_come_first(server, add, large):
    server.add(REPO, files_of(large) | files_of(large, "best/"))
    assert states(add(f"hub:{REPO}")) == {NAME: "added", f"{NAME}/best": "added"}
    asked = [call.what for call in server.calls]
    assert asked[:3] == [REPO, CONFIG, f"best/{CONFIG}"]
    assert server.sent(WEIGHTS) == 2 * (large / WEIGHTS).stat().st_size
    assert [call.range for call in server.calls[3:5]] == [
        f"bytes=0-{HEADER - 1}",
        f"bytes={HEADER}-{(large / WEIGHTS).stat().st_size - 1}",
    ]


def test_the_second_time_makes_one_call_and_fetches_nothing(server, pool, add, pico_pool_folder):
    commit = server.add(REPO, pico_pool_folder / "plain")
    add(f"hub:{REPO}")
    before = {path: path.stat().st_mtime_ns for path in (pool / NAME).iterdir()}
    server.calls.clear()
    [outcome] = add(f"hub:{REPO}")
    assert (outcome.state, outcome.commit) == ("already there", commit)
    assert outcome.size == (pico_pool_folder / "plain" / WEIGHTS).stat().st_size
    assert [call.route for call in server.calls] == ["info"]
    assert {path: path.stat().st_mtime_ns for path in (pool / NAME).iterdir()} == before


def test_file_that_lost_its_end_is_brought_again(server, pool, add, pico_pool_folder):
    server.add(REPO, pico_pool_folder / "plain")
    add(f"hub:{REPO}")
    os.truncate(pool / NAME / WEIGHTS, 100)
    assert states(add(f"hub:{REPO}")) == {NAME: "added"}
    assert content(pool / NAME) == files_of(pico_pool_folder / "plain")


def test_another_commit_takes_the_place_of_the_first(server, pool, add, pico_pool_folder):
    server.add(REPO, pico_pool_folder / "plain")
    add(f"hub:{REPO}")
    commit = server.add(REPO, pico_pool_folder / "rslora")
    [outcome] = add(f"hub:{REPO}")
    assert (outcome.state, outcome.commit) == ("added", commit)
    assert content(pool / NAME) == files_of(pico_pool_folder / "rslora")
    assert json.loads((pool / NAME / "source.json").read_text())["commit"] == commit
    assert left(pool) == []


def test_weights_that_another_commit_did_not_change_are_not_fetched(server, pool, add, pico_pool_folder):
    plain = files_of(pico_pool_folder / "plain")
    server.add(REPO, plain)
    add(f"hub:{REPO}")
    server.calls.clear()
    server.add(REPO, with_config(plain, lora_dropout=0.5))
    assert states(add(f"hub:{REPO}")) == {NAME: "added"}
    assert server.count("file", WEIGHTS) == 0
    assert json.loads((pool / NAME / CONFIG).read_text())["lora_dropout"] == 0.5
    assert (pool / NAME / WEIGHTS).read_bytes() == plain[WEIGHTS]


def test_a_replaced_adapter_keeps_inner_adapters_and_files_of_the_user(server, pool, add, pico_pool_folder):
    inner = files_of(pico_pool_folder / "wide", "best/")
    server.add(REPO, files_of(pico_pool_folder / "plain") | inner)
    add(f"hub:{REPO}")
    (pool / NAME / "NOTES.md").write_text("mine")
    server.add(REPO, files_of(pico_pool_folder / "rslora") | inner)
    assert states(add(f"hub:{REPO}/best")) == {f"{NAME}/best": "added"}
    assert states(add(f"hub:{REPO}")) == {f"{NAME}/best": "already there", NAME: "added"}
    assert content(pool / NAME) == files_of(pico_pool_folder / "rslora")
    assert content(pool / NAME / "best") == files_of(pico_pool_folder / "wide")
    assert (pool / NAME / "NOTES.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("location", "added"),
    [
        (f"hub:{REPO}/b", ["b"]),
        (f"hub:{REPO}/steps", ["steps/10", "steps/20"]),
        (f"hub:{REPO}", ["b", "bb", "steps/10", "steps/20"]),
    ],
)
def test_only_the_folder_that_was_asked_for_is_fetched(server, pool, add, pico_pool_folder, location, added):
    files = {}
    for sub, adapter in {"b": "plain", "bb": "wide", "steps/10": "ranks", "steps/20": "mlp"}.items():
        files |= files_of(pico_pool_folder / adapter, f"{sub}/")
    server.add(REPO, files)
    assert states(add(location)) == dict.fromkeys((f"{NAME}/{sub}" for sub in added), "added")
    fetched = {call.what for call in server.calls if call.route == "file"}
    assert fetched == {f"{sub}/{file}" for sub in added for file in (CONFIG, WEIGHTS)}


def test_revision_is_pinned_to_its_commit(server, pool, add, pico_pool_folder):
    first = server.add(REPO, pico_pool_folder / "plain", revision="v1")
    server.add(REPO, pico_pool_folder / "wide")
    assert add(f"hub:{REPO}@v1")[0].commit == first
    assert add(f"hub:{REPO}@{first}")[0].state == "already there"
    source = json.loads((pool / NAME / "source.json").read_text())
    assert (source["revision"], source["commit"]) == ("v1", first)


def test_redirect_and_range_go_together(server, pool, add, large):
    server.redirect = True
    server.add(REPO, large)
    assert states(add(f"hub:{REPO}")) == {NAME: "added"}
    assert content(pool / NAME) == files_of(large)
    assert server.count("redirected") == server.count("file") == 3


def test_server_that_sends_no_parts_of_files_is_enough(server, pool, add, shapes, large, pico_pool_folder):
    server.ranges = False
    server.add(REPO, large)
    server.add("ann/wide", make_adapter(pool.parent / "wide", model=pico_model(hidden_size=64)))
    assert states(add(f"hub:{REPO}", Criteria(shapes=lambda: shapes))) == {NAME: "added"}
    assert content(pool / NAME) == files_of(large)
    assert states(add("hub:ann/wide", Criteria(shapes=lambda: shapes))) == {"ann--wide": "refused"}


def test_two_at_once_fetch_an_adapter_once(server, pool, hub, large):
    server.add(REPO, large)
    outcomes = []

    def add():
        outcomes.extend(Intake(pool, hub()).add(HubLocation(REPO)))

    threads = [threading.Thread(target=add) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcome.state for outcome in outcomes) == ["added", "already there", "already there"]
    assert server.sent(WEIGHTS) == (large / WEIGHTS).stat().st_size


# ------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("changes", "criteria", "reason"),
    [
        ({"peft_type": "IA3"}, Criteria(), "peft_type is 'IA3', only 'LORA' can be mixed"),
        ({"r": "4"}, Criteria(), "r must be a whole number of at least 1, the config says '4'"),
        (
            {"base_model_name_or_path": "org/Other-7B"},
            Criteria(base="org/Pico-1B", strict_base=True),
            "it was trained on 'org/Other-7B'; the base model is 'org/Pico-1B'",
        ),
    ],
    ids=["rule", "numbers", "base"],
)
def test_adapter_refused_by_its_configuration_costs_no_weights(
    server, pool, add, pico_pool_folder, changes, criteria, reason
):
    server.add(REPO, with_config(files_of(pico_pool_folder / "plain"), **changes))
    [outcome] = add(f"hub:{REPO}", criteria)
    assert (outcome.adapter, outcome.state, outcome.reason) == (NAME, "refused", reason)
    assert server.count("file", WEIGHTS) == 0
    assert names(pool) == left(pool) == []


def test_adapter_of_another_shape_costs_its_header_only(server, pool, add, shapes):
    folder = make_adapter(pool.parent / "wide", r=4096, model=pico_model(hidden_size=64))
    server.add(REPO, folder)
    [outcome] = add(f"hub:{REPO}", Criteria(shapes=lambda: shapes))
    assert outcome.state == "refused"
    assert outcome.reason.endswith("q_proj maps 64 to 64 numbers, the base model's 32 to 32")
    assert server.sent(WEIGHTS) == HEADER
    assert (folder / WEIGHTS).stat().st_size > 100 * HEADER
    assert names(pool) == left(pool) == []


def test_header_longer_than_the_first_part_is_read_whole(server, pool, add, large):
    files = files_of(large)
    length = int.from_bytes(files[WEIGHTS][:8], "little")
    padded = length + 3 * HEADER
    files[WEIGHTS] = (
        padded.to_bytes(8, "little") + files[WEIGHTS][8 : 8 + length].ljust(padded) + files[WEIGHTS][8 + length :]
    )
    server.add(REPO, files)
    assert states(add(f"hub:{REPO}")) == {NAME: "added"}
    assert server.calls[3].range == f"bytes={HEADER}-{8 + padded - 1}"
    assert (pool / NAME / WEIGHTS).read_bytes() == files[WEIGHTS]


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
        (b"\xff" * 200_000, r"is cut off or not a safetensors file \(200000 bytes\)"),
        (b"", r"is cut off or not a safetensors file \(0 bytes\)"),
    ],
    ids=["pointer", "noise", "empty"],
)
def test_weights_that_are_none_are_refused_by_their_beginning(server, pool, add, pico_pool_folder, weights, reason):
    server.add(REPO, files_of(pico_pool_folder / "plain") | {WEIGHTS: weights})
    [outcome] = add(f"hub:{REPO}")
    assert outcome.state == "refused"
    with pytest.raises(AdapterRefusedError, match=reason):
        raise AdapterRefusedError(outcome.reason)
    assert server.sent(WEIGHTS) <= HEADER
    assert names(pool) == []


def test_whole_weights_are_judged_before_they_enter_the_pool(server, pool, add, shapes, pico_pool_folder):
    files = files_of(pico_pool_folder / "plain")
    files[WEIGHTS] = files[WEIGHTS][:-4] + b"\xff\xff\xff\x7f"  # a float32 NaN
    server.add(REPO, files)
    [outcome] = add(f"hub:{REPO}", Criteria(shapes=lambda: shapes))
    assert outcome.state == "refused"
    assert outcome.reason.endswith("has NaN or infinite values")
    assert names(pool) == left(pool) == []


@pytest.mark.parametrize("shaped", [True, False], ids=["base known", "base unknown"])
def test_another_base_model_of_the_same_shape_is_a_remark(server, add, shapes, pico_pool_folder, shaped):
    server.add(REPO, with_config(files_of(pico_pool_folder / "plain"), base_model_name_or_path="org/Other-7B"))
    [outcome] = add(f"hub:{REPO}", Criteria(base="org/Pico-1B", shapes=(lambda: shapes) if shaped else None))
    assert (outcome.state, outcome.reason) == (
        "added",
        "it was trained on 'org/Other-7B'; the base model is 'org/Pico-1B'",
    )


def test_adapter_that_is_used_alone_says_so(server, add, shapes, tmp_path):
    server.add(REPO, make_adapter(tmp_path / "dora", use_dora=True))
    [outcome] = add(f"hub:{REPO}", Criteria(shapes=lambda: shapes))
    assert outcome.state == "added"
    assert outcome.reason.startswith("alone only: ") and "DoRA" in outcome.reason


def test_pickle_is_refused_unless_it_is_allowed(server, pool, add, shapes, pico_pool_folder, tmp_path):
    torch.save(load_file(pico_pool_folder / "plain" / WEIGHTS), tmp_path / PICKLED)
    files = {CONFIG: files_of(pico_pool_folder / "plain")[CONFIG], PICKLED: (tmp_path / PICKLED).read_bytes()}
    server.add(REPO, files)
    [outcome] = add(f"hub:{REPO}")
    assert (outcome.state, server.count("file", PICKLED)) == ("refused", 0)
    assert outcome.reason.startswith("only adapter_model.bin (a pickle, which can run code)")
    [outcome] = add(f"hub:{REPO}", Criteria(shapes=lambda: shapes, allow_bin=True))
    assert (outcome.state, outcome.reason) == ("added", "")
    assert {name: (pool / NAME / name).read_bytes() for name in files} == files
    assert AdapterPool.from_folder(pool, shapes, allow_bin=True)[NAME].ranks == [4]


def test_pickle_of_something_else_is_refused_once_it_is_there(server, pool, add, shapes, pico_pool_folder):
    server.add(REPO, {CONFIG: files_of(pico_pool_folder / "plain")[CONFIG], PICKLED: b"not a pickle"})
    [outcome] = add(f"hub:{REPO}", Criteria(shapes=lambda: shapes, allow_bin=True))
    assert outcome.state == "refused"
    assert outcome.reason.startswith("adapter_model.bin is not a file of tensors")
    assert names(pool) == left(pool) == []


def test_safetensors_are_taken_where_both_are_there(server, pool, add, pico_pool_folder):
    server.add(REPO, files_of(pico_pool_folder / "plain") | {PICKLED: b"a pickle"})
    assert states(add(f"hub:{REPO}", Criteria(allow_bin=True))) == {NAME: "added"}
    assert server.count("file", PICKLED) == 0


def test_configuration_without_weights_is_refused_and_the_others_are_added(server, add, pico_pool_folder):
    server.add(REPO, {"a/" + CONFIG: b"{}", "b/" + CONFIG: files_of(pico_pool_folder / "plain")[CONFIG]}
               | files_of(pico_pool_folder / "mlp", "c/"))  # fmt: skip
    outcomes = add(f"hub:{REPO}")
    assert states(outcomes) == {f"{NAME}/a": "refused", f"{NAME}/b": "refused", f"{NAME}/c": "added"}
    assert [outcome.reason for outcome in outcomes[:2]] == [
        "the config has no peft_type; this is not a PEFT adapter",
        f"no {WEIGHTS}",
    ]


def test_enormous_configuration_is_not_fetched(server, add):
    server.add(REPO, {CONFIG: b" " * (9 << 20)})
    [outcome] = add(f"hub:{REPO}")
    assert (outcome.state, server.count("file")) == ("refused", 0)
    assert outcome.reason == f"its {CONFIG} has {9 << 20} bytes, more than {8 << 20}"


# ------------------------------------------------------------------ the Hub has a bad day


@pytest.mark.parametrize("on", ["info", CONFIG, WEIGHTS])
@pytest.mark.parametrize(
    "fault",
    [
        {"status": 429, "headers": {"Retry-After": "0"}},
        {"status": 503},
        {"status": 500},
        {"cut_after": 100},
    ],
    ids=["429", "503", "500", "cut"],
)
def test_passing_failure_is_tried_again(server, pool, add, pico_pool_folder, on, fault):
    server.add(REPO, pico_pool_folder / "plain")
    server.faults.append(Fault(on, times=3, **fault))
    assert states(add(f"hub:{REPO}")) == {NAME: "added"}
    assert content(pool / NAME) == files_of(pico_pool_folder / "plain")
    assert server.count("info") + server.count("file", on) == (4 if on == "info" else 5)


@pytest.mark.parametrize(
    ("headers", "pauses"),
    [
        ({}, [(0.5, 1.0), (1.0, 2.0), (2.0, 4.0)]),
        ({"Retry-After": "7"}, [(7, 7)] * 3),
        ({"RateLimit": '"api";r=0;t=55'}, [(55, 55)] * 3),
        ({"RateLimit": '"api";r=3;t=55'}, [(0.5, 1.0), (1.0, 2.0), (2.0, 4.0)]),
        ({"Retry-After": "soon"}, [(0.5, 1.0), (1.0, 2.0), (2.0, 4.0)]),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, [(0.5, 1.0), (1.0, 2.0), (2.0, 4.0)]),
    ],
    ids=["none", "seconds", "window", "window open", "words", "past date"],
)
def test_pauses_double_and_are_never_shorter_than_the_server_asks(server, add, pico_pool_folder, headers, pauses):
    server.add(REPO, pico_pool_folder / "plain")
    server.faults.append(Fault("info", times=3, status=429, headers=headers))
    slept = []
    assert states(add(f"hub:{REPO}", backoff=Backoff(), sleep=slept.append)) == {NAME: "added"}
    assert all(low <= pause <= high for pause, (low, high) in zip(slept, pauses, strict=True))


@pytest.mark.parametrize(
    ("fault", "calls", "reason"),
    [
        ({"status": 503}, 3, "answered 503 to ann/colours at 'main'"),
        ({"status": 429, "headers": {"Retry-After": "301"}}, 1, "answered 429 .*HF_TOKEN has a higher limit"),
        ({"status": 418}, 1, "answered 418 to ann/colours at 'main'"),
    ],
    ids=["always", "too long", "final"],
)
def test_failure_that_does_not_pass_is_given_up(server, pool, add, fault, calls, reason):
    server.add(REPO, {})
    server.faults.append(Fault("info", times=99, **fault))
    [outcome] = add(f"hub:{REPO}", backoff=Backoff(tries=3, base=0.0))
    assert (outcome.adapter, outcome.state, server.count("info")) == (f"hub:{REPO}", "failed", calls)
    with pytest.raises(PoolError, match=f"^{server.url} {reason}"):
        raise PoolError(outcome.reason)


def test_endpoint_that_nobody_serves_is_an_error(server, add):
    [outcome] = add(f"hub:{REPO}", endpoint="http://127.0.0.1:9")
    assert outcome.state == "failed"
    assert outcome.reason.startswith("http://127.0.0.1:9 does not give ann/colours at 'main': ")


def test_connection_that_breaks_goes_on_where_it_broke(server, pool, add, large):
    server.add(REPO, large)
    size = (large / WEIGHTS).stat().st_size
    server.faults += [Fault(WEIGHTS, cut_after=1000), Fault(WEIGHTS, times=3, cut_after=1_000_000)]
    assert states(add(f"hub:{REPO}")) == {NAME: "added"}
    assert content(pool / NAME) == files_of(large)
    starts = [int(call.range[6:].split("-")[0]) for call in server.calls if call.what == WEIGHTS]
    assert starts == sorted(starts)
    assert starts[-1] > 1_500_000
    assert server.sent(WEIGHTS) < size + 3 * HEADER  # what was on its way when it broke


def test_server_that_sends_no_parts_begins_anew(server, pool, add, large):
    server.ranges = False
    server.add(REPO, large)
    server.faults += [Fault(WEIGHTS), Fault(WEIGHTS, cut_after=1_000_000)]  # all is well with the header
    assert states(add(f"hub:{REPO}")) == {NAME: "added"}
    assert content(pool / NAME) == files_of(large)
    assert server.count("file", WEIGHTS) == 3


def test_progress_makes_new_tries(server, add, large):
    server.add(REPO, large)
    server.faults.append(Fault(WEIGHTS, times=3, cut_after=1_150_000))
    assert states(add(f"hub:{REPO}", backoff=Backoff(tries=2, base=0.0))) == {NAME: "added"}


def test_what_arrived_before_it_was_given_up_is_kept(server, pool, add, shapes, large):
    server.add(REPO, large)
    server.faults.append(Fault(WEIGHTS, times=99, cut_after=500_000))
    [outcome] = add(f"hub:{REPO}", backoff=Backoff(tries=1))
    assert outcome.state == "failed"
    assert "what has arrived is kept and the same command goes on from there" in outcome.reason
    assert names(pool) == []
    assert left(pool) == [CONFIG, WEIGHTS]
    with pytest.raises(PoolError, match="holds no adapter"):
        AdapterPool.from_folder(pool, shapes)
    server.faults.clear()
    server.calls.clear()
    assert states(add(f"hub:{REPO}")) == {NAME: "added"}
    assert [(call.route, call.what) for call in server.calls] == [("info", REPO), ("file", WEIGHTS)]
    assert int(server.calls[1].range[6:].split("-")[0]) >= 400_000
    assert content(pool / NAME) == files_of(large)
    assert left(pool) == []


def test_body_that_is_announced_too_short_is_completed(server, pool, add, large):
    server.add(REPO, large)
    server.faults.append(Fault(WEIGHTS, times=2, short=30_000))
    assert states(add(f"hub:{REPO}")) == {NAME: "added"}
    assert content(pool / NAME) == files_of(large)


def test_more_bytes_than_the_file_has_are_not_taken(server, pool, add, pico_pool_folder):
    server.add(REPO, pico_pool_folder / "plain")
    server.faults.append(Fault(WEIGHTS, times=9, extra=300_000))
    assert states(add(f"hub:{REPO}")) == {NAME: "added"}
    assert content(pool / NAME) == files_of(pico_pool_folder / "plain")


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_file_that_arrives_damaged_is_fetched_again(server, pool, add, large, name):
    server.add(REPO, large)
    server.faults.append(Fault(name, times=1, spoil=True))
    assert states(add(f"hub:{REPO}")) == {NAME: "added"}
    assert content(pool / NAME) == files_of(large)


def test_file_that_is_damaged_again_never_enters_the_pool(server, pool, add, large, pico_pool_folder):
    server.add(REPO, pico_pool_folder / "plain")
    add(f"hub:{REPO}")
    server.add(REPO, large)
    server.faults.append(Fault(WEIGHTS, times=99, spoil=True))
    [outcome] = add(f"hub:{REPO}")
    size = (large / WEIGHTS).stat().st_size
    assert outcome.state == "failed"
    assert outcome.reason.startswith(
        f"{WEIGHTS} of {REPO} arrived damaged 2 times: its {size} bytes do not have the hash "
    )
    assert server.sent(WEIGHTS) < 3 * size
    assert content(pool / NAME) == files_of(pico_pool_folder / "plain")


@pytest.mark.parametrize(
    "body",
    [b"<html>Log in to this hotel's network</html>", b"[]", b"{}", b'{"id": 1, "siblings": [{}]}'],
    ids=["html", "list", "empty", "nameless"],
)
def test_answer_that_is_no_listing_is_an_error(server, add, body):
    server.faults.append(Fault("info", body=body))
    [outcome] = add(f"hub:{REPO}")
    assert outcome.state == "failed"
    assert outcome.reason == f"{server.url} answered something that is not a list of {REPO}'s files"


def test_answer_with_a_commit_that_is_a_path_is_an_error(server, pool, add):
    server.faults.append(Fault("info", body=b'{"id": "a", "sha": "../../../up", "siblings": []}'))
    assert add(f"hub:{REPO}")[0].reason == f"the Hub does not say which commit {REPO} at 'main' is"


# ------------------------------------------------------------------ no such thing, no permission


def test_gated_repository_names_the_token_and_the_page(server, pool, add, hub, pico_pool_folder):
    server.add(REPO, pico_pool_folder / "plain")
    server.gated.add(REPO)
    for token in ("hf_wrong", "hf_right"):
        [outcome] = add(f"hub:{REPO}", token=token)
        if token == "hf_wrong":
            assert outcome.state == "failed"
            assert outcome.reason == (
                f"{CONFIG} of {REPO} at 'main' is gated or private (403); accept the licence at {server.url}/{REPO}, "
                "and set HF_TOKEN to a token that may read it (https://huggingface.co/settings/tokens)"
            )
            assert server.count("file") == 1
    assert outcome.state == "added"


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("hub:ann/nothing", "there is no ann/nothing at 'main' on .* \\(404\\); if it is private, set HF_TOKEN"),
        (f"hub:{REPO}@v9", "there is no ann/colours at 'v9': no such revision \\(404\\); branches and tags: "),
        (
            f"hub:{REPO}/inner",
            f"ann/colours at 'main' below 'inner' has no {CONFIG}; it has adapters in the folders 'a', 'b'",
        ),
        ("hub:ann/text", f"ann/text at 'main' has no {CONFIG}; this is no PEFT adapter"),
    ],
    ids=["repository", "revision", "folder", "no adapter"],
)
def test_what_is_not_there_is_named(server, pool, add, location, reason):
    server.add(REPO, {f"a/{CONFIG}": b"{}", f"b/{CONFIG}": b"{}"})
    server.add("ann/text", {"README.md": b""})
    [outcome] = add(location)
    assert (outcome.adapter, outcome.state, outcome.commit) == (location, "failed", "")
    with pytest.raises(PoolError, match=reason):
        raise PoolError(outcome.reason)
    assert server.count("file") == 0
    assert not pool.exists()


# ------------------------------------------------------------------ hostile names, and what lies in the way


@pytest.mark.parametrize("sub", HOSTILE)
def test_hostile_folder_never_leaves_the_pool(server, pool, add, pico_pool_folder, sub):
    server.add(REPO, files_of(pico_pool_folder / "mlp", f"{sub}/") | files_of(pico_pool_folder / "plain"))
    outcomes = add(f"hub:{REPO}")
    assert [outcome.state for outcome in outcomes].count("added") == 1
    [refused] = [outcome for outcome in outcomes if outcome.state == "refused"]
    assert refused.reason.startswith("this cannot be a folder of the pool: ")
    assert refused.adapter.isprintable() and len(refused.adapter) <= 120
    assert server.count("file", WEIGHTS) == 1
    assert names(pool) == [f"{NAME}/{file}" for file in (CONFIG, WEIGHTS, "source.json")]
    assert sorted(path.name for path in pool.parent.iterdir()) == ["pool"]


def test_link_that_leads_out_of_the_pool_is_not_followed(server, pool, add, pico_pool_folder, tmp_path):
    server.add(REPO, pico_pool_folder / "plain")
    (tmp_path / "elsewhere").mkdir()
    pool.mkdir()
    (pool / NAME).symlink_to(tmp_path / "elsewhere")
    [outcome] = add(f"hub:{REPO}")
    assert outcome.state == "failed"
    assert outcome.reason == f"{pool / NAME} leads out of the pool, to {tmp_path / 'elsewhere'}"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_adapter_that_is_not_from_the_hub_is_left_alone(server, pool, add, pico_pool_folder):
    server.add(REPO, pico_pool_folder / "plain")
    shutil.copytree(pico_pool_folder / "wide", pool / NAME)
    [outcome] = add(f"hub:{REPO}")
    assert outcome.state == "failed"
    assert outcome.reason.startswith(f"{pool / NAME} holds an adapter that was not added from the Hub; move it away")
    assert content(pool / NAME) == files_of(pico_pool_folder / "wide")


class Killed(BaseException):
    """As a SIGKILL: nothing that is made for errors runs."""


@pytest.fixture
def second_step_fails(pool, monkeypatch):
    """Once the old content has left its place, the new one does not get there."""

    @contextmanager
    def arrange(error):
        replace = os.replace

        def failing(source, target):
            if target == pool / NAME and source.name != "old":
                raise error
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", failing)
            yield

    return arrange


def test_replacement_that_fails_leaves_the_old_adapter(server, pool, add, second_step_fails, pico_pool_folder):
    server.add(REPO, pico_pool_folder / "plain")
    add(f"hub:{REPO}")
    server.add(REPO, pico_pool_folder / "wide")
    with second_step_fails(OSError(errno.ENOSPC, "No space left on device")):
        [outcome] = add(f"hub:{REPO}")
    assert outcome.state == "failed"
    assert outcome.reason == "the pool cannot be written: [Errno 28] No space left on device"
    assert content(pool / NAME) == files_of(pico_pool_folder / "plain")


def test_replacement_that_was_killed_in_its_middle_is_undone_by_the_next_run(
    server, pool, add, second_step_fails, pico_pool_folder
):
    inner = files_of(pico_pool_folder / "mlp", "best/")
    server.add(REPO, files_of(pico_pool_folder / "plain") | inner)
    add(f"hub:{REPO}")
    server.add(REPO, files_of(pico_pool_folder / "wide") | inner)
    with second_step_fails(Killed("by SIGKILL")), pytest.raises(Killed, match="by SIGKILL"):
        add(f"hub:{REPO}")
    assert names(pool) == []
    assert states(add(f"hub:{REPO}", offline=True)) == {NAME: "already there", f"{NAME}/best": "already there"}
    assert content(pool / NAME) == files_of(pico_pool_folder / "plain")
    assert content(pool / NAME / "best") == files_of(pico_pool_folder / "mlp")


# ------------------------------------------------------------------ offline


def test_offline_the_pool_is_used_as_it_is_pinned(server, pool, add, pico_pool_folder):
    commit = server.add(REPO, files_of(pico_pool_folder / "plain") | files_of(pico_pool_folder / "mlp", "best/"))
    add(f"hub:{REPO}")
    server.add(REPO, pico_pool_folder / "wide")
    server.calls.clear()
    both = {NAME: "already there", f"{NAME}/best": "already there"}
    assert states(add(f"hub:{REPO}", offline=True)) == both
    assert states(add(f"hub:{REPO}@{commit}", offline=True)) == both
    assert states(add(f"hub:{REPO}/best", offline=True)) == {f"{NAME}/best": "already there"}
    [outcome] = add(f"hub:{REPO}@v2", offline=True)
    assert outcome.state == "failed"
    assert outcome.reason == (
        f"offline, and neither the pool nor huggingface_hub's cache holds hub:{REPO}@v2; "
        "run the same command once with a network"
    )
    assert server.calls == []


def test_offline_the_cache_of_huggingface_hub_is_used(server, pool, add, large, tmp_path):
    commit = server.add(REPO, files_of(large) | files_of(large, "best/"))
    for name in (CONFIG, WEIGHTS, f"best/{CONFIG}"):
        huggingface_hub.hf_hub_download(REPO, name, endpoint=server.url, cache_dir=tmp_path / "cache")
    server.calls.clear()
    outcomes = add(f"hub:{REPO}", offline=True)
    assert states(outcomes) == {f"{NAME}/best": "failed", NAME: "added"}
    assert outcomes[0].reason == f"offline, and best/{WEIGHTS} of {REPO} is not in huggingface_hub's cache"
    assert (outcomes[1].commit, server.calls) == (commit, [])
    assert content(pool / NAME) == files_of(large)
    assert (pool / NAME / WEIGHTS).stat().st_nlink == 2  # the weights are not stored twice


def test_online_a_file_of_the_cache_is_not_fetched_and_a_damaged_one_is_not_used(server, pool, add, large, tmp_path):
    server.add(REPO, large)
    cached = huggingface_hub.hf_hub_download(REPO, WEIGHTS, endpoint=server.url, cache_dir=tmp_path / "cache")
    server.calls.clear()
    assert states(add(f"hub:{REPO}")) == {NAME: "added"}
    assert server.sent(WEIGHTS) <= HEADER
    shutil.rmtree(pool)
    with open(cached, "r+b") as stream:
        stream.write(b"spoilt")
    assert states(add(f"hub:{REPO}")) == {NAME: "added"}
    assert content(pool / NAME) == files_of(large)


def test_huggingface_hub_offline_is_obeyed(server, pool, add, hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    [outcome] = add(f"hub:{REPO}")
    assert outcome.reason.startswith("offline, and neither the pool nor")
    assert not pool.exists()
    with pytest.raises(PoolError, match="offline, so the Hub cannot be searched"):
        hub().search("org/base", 3)
    assert server.calls == []


# ------------------------------------------------------------------ search


def model(name, downloads, base="org/Pico-1B", **facts):
    return {"id": name, "downloads": downloads, "tags": [f"base_model:adapter:{base}"]} | facts


def test_search_gives_the_adapters_of_a_base_by_downloads(server, hub):
    server.page = 2
    server.models += [
        model("ann/few", 3, likes=9),
        model("bob/many", 500, lastModified="2026-01-02T03:04:05.000Z", usedStorage=12_000),
        model("ann/some", 40),
        model("eve/\x1b[2J", 50),
        model("bob/other", 900, base="org/Other-7B"),
        model("ann/none", 0),
    ]
    found = hub().search("org/Pico-1B", 4)
    assert [(it.repo, it.downloads) for it in found] == [("bob/many", 500), ("ann/some", 40), ("ann/few", 3)]
    assert (found[0].changed, found[0].size, found[0].likes) == ("2026-01-02", 12_000, 0)
    assert (found[2].changed, found[2].size, found[2].likes) == ("", None, 9)
    assert server.count("search") == 2
    assert hub().search("org/Nothing", 4) == []


def test_search_that_is_refused_or_no_list_is_an_error(server, hub):
    server.faults += [Fault("Pico", status=401), Fault("search", status=401), Fault("search", body=b"<html>")]
    with pytest.raises(PoolError, match=r"the search for base_model:adapter:org/Pico is gated or private \(401\)"):
        hub().search("org/Pico", 4)
    with pytest.raises(PoolError, match=f"^{server.url} answered something that is not a list of models"):
        hub().search("org/Pico", 4)
