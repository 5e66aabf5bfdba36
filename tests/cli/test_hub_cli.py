"""`lorauter pool add` and `lorauter pool search` as a user runs them: real processes, a real server on 127.0.0.1."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import make_adapter, pico_config, pico_model
from hub_server import Fault, HubServer

from lorauter_integrations.pool import CONFIG, WEIGHTS

DOCS = Path(__file__).parents[2] / "docs" / "hub.md"
BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
LORAUTER = [
    sys.executable,
    "-c",
    "from lorauter_integrations.cli.hub import pool_app; from lorauter_integrations.cli import main; main()",
]


@pytest.fixture
def server():
    with HubServer() as server:
        yield server


@pytest.fixture
def environment(server, tmp_path):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "LORAUTER_"))}
    return kept | {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "COLUMNS": "250"}


@pytest.fixture
def lorauter(environment, tmp_path):
    """Run one command; returns (exit code, standard output, error output)."""

    def run(*arguments, text="", **variables):
        done = subprocess.run(
            [*LORAUTER, *arguments],
            cwd=tmp_path,
            env=environment | variables,
            input=text,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.returncode, done.stdout, done.stderr

    return run


def files_of(folder, below="", **changes):
    config = json.loads((folder / CONFIG).read_text()) | changes
    return {f"{below}{CONFIG}": json.dumps(config).encode(), f"{below}{WEIGHTS}": (folder / WEIGHTS).read_bytes()}


def tagged(repo, downloads, **facts):
    return {"id": repo, "downloads": downloads, "tags": [f"base_model:adapter:{BASE}"]} | facts


def test_add_prints_a_table_and_then_json(server, lorauter, pico_pool_folder, tmp_path):
    commit = server.add("ann/colours", pico_pool_folder / "plain")
    server.add("ann/gone", {CONFIG: b"{}"})
    (tmp_path / "list.txt").write_text("# my adapters\n\nhub:ann/colours\n  hub:ann/gone\n")
    code, out, err = lorauter("pool", "add", "--pool", "pool", "list.txt", "hub:ann/nothing")
    lines = [" ".join(line.replace("│", " ").split()) for line in out.splitlines()]
    assert (code, err) == (1, "")
    assert lines[0] == "1 added, 1 refused, 1 failed"
    assert f"ann--colours added 0.0 {commit[:8]}" in lines
    assert "ann--gone refused the config has no peft_type; this is not a PEFT adapter" in lines
    assert any(line.startswith("hub:ann/nothing failed there is no ann/nothing at 'main' on") for line in lines)
    code, out, _ = lorauter("pool", "add", "--pool", "pool", "--json", "-", text="hub:ann/colours\n")
    size = (pico_pool_folder / "plain" / WEIGHTS).stat().st_size
    there = {"adapter": "ann--colours", "state": "already there", "reason": "", "commit": commit, "size": size}
    assert (code, json.loads(out)) == (0, [there])


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["add", "--pool", "p", "ann/colours"], "'ann/colours' is neither a location on the Hub nor a file of them"),
        (["add", "--pool", "p", "hub:ann/colours", "hub:colours"], "'hub:colours' is not a location on the Hub"),
        (["add", "--pool", "p", "-c", "nowhere.toml", "hub:a/b"], "there is no settings file nowhere.toml"),
    ],
    ids=["no prefix", "no organisation", "settings"],
)
def test_a_mistake_is_an_error_before_anything_is_asked(server, lorauter, arguments, match):
    code, out, err = lorauter("pool", *arguments)
    flat = " ".join(err.split())
    assert (code, out, server.calls) == (1, "", [])
    assert flat.startswith(f"Error: {match}") and "Hint: " in flat


def test_settings_say_where_and_what_fits(server, lorauter, pico_folder, pico_pool_folder, tmp_path):
    server.add("ann/colours", pico_pool_folder / "plain")
    server.add("ann/wide", make_adapter(tmp_path / "wide", r=4096, model=pico_model(hidden_size=64)))
    (tmp_path / "lorauter.toml").write_text(f'[model]\nname = "{pico_folder}"\n[pool]\npath = "mine"\n')
    code, out, err = lorauter("pool", "add", "--json", "hub:ann/colours", "hub:ann/wide")
    assert (code, err) == (0, "")
    assert [row["state"] for row in json.loads(out)] == ["added", "refused"]
    assert "q_proj maps 64 to 64 numbers" in json.loads(out)[1]["reason"]
    assert (tmp_path / "mine" / "ann--colours" / WEIGHTS).exists()
    assert sum(call.sent for call in server.calls if call.what == WEIGHTS) < 100_000


@pytest.mark.parametrize("way", ["option", "variable"])
def test_offline_makes_no_call(server, lorauter, pico_pool_folder, way):
    server.add("ann/colours", pico_pool_folder / "plain")
    assert lorauter("pool", "add", "--pool", "pool", "hub:ann/colours")[0] == 0
    server.calls.clear()
    arguments = ["pool", "add", "--pool", "pool", "--json", "hub:ann/colours", "hub:ann/other"]
    if way == "option":
        code, out, _ = lorauter(*arguments, "--offline")
    else:
        code, out, _ = lorauter(*arguments, HF_HUB_OFFLINE="1")
    assert (code, [row["state"] for row in json.loads(out)]) == (1, ["already there", "failed"])
    assert server.calls == []


def test_token_of_the_environment_is_sent(server, lorauter, pico_pool_folder):
    server.add("ann/colours", pico_pool_folder / "plain")
    server.gated.add("ann/colours")
    code, out, _ = lorauter("pool", "add", "--pool", "pool", "hub:ann/colours", "--json")
    assert code == 1 and "set HF_TOKEN" in json.loads(out)[0]["reason"]
    assert lorauter("pool", "add", "--pool", "pool", "hub:ann/colours", HF_TOKEN="hf_right")[0] == 0


def test_search_lists_and_adds(server, lorauter, pico_pool_folder, tmp_path):
    server.models += [
        tagged("ann/colours", 7, likes=2, lastModified="2026-01-02T03:04:05.000Z", usedStorage=12_345_678),
        tagged("bob/sums", 90),
        tagged("bob/few", 1),
    ]
    server.add("ann/colours", pico_pool_folder / "plain")
    server.add("bob/sums", pico_pool_folder / "wide")
    code, out, err = lorauter("pool", "search", "--base", BASE, "--limit", "2")
    lines = [" ".join(line.replace("│", " ").split()) for line in out.splitlines()]
    assert (code, err, lines[0]) == (0, "", f"2 adapters of {BASE}")
    assert lines.index("bob/sums 90 0") < lines.index("ann/colours 7 2 2026-01-02 12.3")
    found = json.loads(lorauter("pool", "search", "--base", BASE, "--limit", "2", "--json")[1])
    assert found[1] == {
        "repo": "ann/colours", "downloads": 7, "likes": 2, "changed": "2026-01-02", "size": 12_345_678
    }  # fmt: skip
    code, out, _ = lorauter("pool", "search", "--base", BASE, "--limit", "2", "--add", "--pool", "pool", "--json")
    assert (code, [row["adapter"] for row in json.loads(out)]) == (0, ["bob--sums", "ann--colours"])
    assert sorted(path.name for path in (tmp_path / "pool").iterdir() if path.name != ".hub") == [
        "ann--colours",
        "bob--sums",
    ]


def test_run_killed_in_the_middle_of_the_weights_goes_on_from_there(server, lorauter, environment, tmp_path):
    """A real process, a real SIGKILL; the server's counts show that no byte on disk was asked for again."""
    adapter = make_adapter(tmp_path / "adapter", seed=8, r=16384)
    weights = (adapter / WEIGHTS).read_bytes()
    server.add("ann/colours", adapter)
    held = Fault(WEIGHTS, times=100, hold_after=2_000_000)  # of 15 MB: where the machine is slow, further tries too
    server.faults.append(held)
    command = [*LORAUTER, "pool", "add", "--pool", "pool", "hub:ann/colours"]
    killed = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60

    def arrived_so_far():
        """While the header is judged, a file of the whole size stands for the weights."""
        if not any(call.sent >= 1_000_000 for call in server.calls):
            return 0
        return max((path.stat().st_size for path in tmp_path.glob(f"pool/.hub/*/*/{WEIGHTS}")), default=0)

    while not 1_000_000 <= arrived_so_far() < len(weights):
        assert killed.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    killed.kill()
    killed.wait()
    held.released.set()
    arrived = arrived_so_far()
    assert 1_000_000 <= arrived < len(weights)
    assert not (tmp_path / "pool" / "ann--colours").exists()
    server.calls.clear()
    server.faults.clear()
    code, out, _ = lorauter("pool", "add", "--pool", "pool", "hub:ann/colours", "--json")
    assert (code, json.loads(out)[0]["state"]) == (0, "added")
    asked = [(call.route, call.what, call.range) for call in server.calls]
    assert asked == [("info", "ann/colours", ""), ("file", WEIGHTS, f"bytes={arrived}-{len(weights) - 1}")]
    assert (tmp_path / "pool" / "ann--colours" / WEIGHTS).read_bytes() == weights
    assert [path.name for path in (tmp_path / "pool" / ".hub").iterdir()] == ["lock"]


def test_every_command_of_the_documentation_runs(server, environment, pico_pool_folder, tmp_path):
    """The base model's configuration comes from the same server, by its name on the Hub."""
    server.add(BASE, {"config.json": pico_config(architectures=["LlamaForCausalLM"]).to_json_string().encode()})
    plain, wide = (
        files_of(pico_pool_folder / name, below, base_model_name_or_path=BASE)
        for name, below in (("plain", ""), ("wide", "checkpoint-500/"))
    )
    server.add("ann/colours", plain | wide)
    server.add("ann/colours", plain | wide | {"README.md": b"first"}, revision="v1.0")
    server.add("bob/sums", pico_pool_folder / "rslora")
    server.models += [tagged("ann/colours", 7), tagged("bob/sums", 90)]
    (tmp_path / "lorauter.toml").write_text(f'[model]\nname = "{BASE}"\n')
    (tmp_path / "adapters.txt").write_text("hub:bob/sums\nhub:ann/colours\n")
    blocks = re.findall(r"```console\n(.*?)```", DOCS.read_text(), re.DOTALL)
    commands = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    assert len(commands) == 8
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "lorauter").write_text(f'#!/bin/sh\nexec {shlex.join(LORAUTER)} "$@"\n')
    (tmp_path / "bin" / "lorauter").chmod(0o755)
    shown = {}
    for command in commands:
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=tmp_path,
            env=environment | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (command, done.returncode, done.stderr) == (command, 0, "")
        shown[command] = done.stdout
    assert "2 adapters can be used" in shown["lorauter pool check"]
    assert "3 already there" in shown["lorauter pool add - < adapters.txt"]
    assert [*shown.values()][-2].startswith("1 added") and [*shown.values()][-1].startswith("1 already there")
    assert sorted(
        path.parent.relative_to(tmp_path / "pool").as_posix() for path in tmp_path.glob(f"pool/**/{WEIGHTS}")
    ) == [
        "ann--colours",
        "ann--colours/checkpoint-500",
        "bob--sums",
    ]


def test_python_of_the_documentation_runs(server, environment, pico_pool_folder, tmp_path):
    server.add("ann/colours", pico_pool_folder / "plain")
    [code] = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ann--colours added \n", "")
