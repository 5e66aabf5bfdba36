"""`lorauter pool check` as a person meets it: what to do with a pool, however large, and the whole of it as JSON."""

import json
import shutil
import sys

import pytest
import torch
from conftest import make_adapter
from safetensors.torch import load_file

from lorauter_integrations import AdapterPool
from lorauter_integrations.cli import main
from lorauter_integrations.cli.output import print_pool
from lorauter_integrations.pool import CONFIG, PICKLED, WEIGHTS


@pytest.fixture
def place(tmp_path, pico_folder, pico_pool_folder, monkeypatch):
    """A pool with good adapters, one with a warning, one for use alone, one pickled and three broken ones."""
    shutil.copytree(pico_pool_folder, tmp_path / "pool")
    make_adapter(tmp_path / "pool" / "dora", use_dora=True)
    change(
        shutil.copytree(tmp_path / "pool" / "plain", tmp_path / "pool" / "chat"), base_model_name_or_path="org/chat"
    )
    for name, rank in (("five", 5), ("six", 6)):
        change(shutil.copytree(tmp_path / "pool" / "plain", tmp_path / "pool" / name), r=rank)
    empty = shutil.copytree(tmp_path / "pool" / "plain", tmp_path / "pool" / "empty")
    (empty / WEIGHTS).write_bytes(b"")
    old = shutil.copytree(tmp_path / "pool" / "plain", tmp_path / "pool" / "old")
    torch.save(load_file(old / WEIGHTS), old / PICKLED)
    (old / WEIGHTS).unlink()
    (tmp_path / "lorauter.toml").write_text(f'[model]\nname = "{pico_folder}"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    return tmp_path


def change(folder, **changes):
    (folder / CONFIG).write_text(json.dumps(json.loads((folder / CONFIG).read_text()) | changes))


@pytest.fixture
def check(capsys, monkeypatch):
    """Run `lorauter pool check`; returns (exit code, standard output)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["lorauter", "pool", "check", *arguments])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        return code, capsys.readouterr().out

    return run


def test_a_small_pool_is_shown_whole_under_a_summary(place, check):
    code, out = check()
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "7 usable, 1 alone only, 4 refused"
    assert {"7 adapters can be used", "1 can be used alone only, with weight 1", "4 refused"} <= set(
        map(str.strip, lines)
    )
    rows = {cells[0]: cells[1:] for line in lines if len(cells := [c.strip() for c in line.split("│")[1:-1]]) > 1}
    assert rows["ranks"][:3] == ["4,7", "q up", "0.0"]
    assert rows["dora"][4] == "it uses DoRA"
    assert rows["five"] == ["'model.layers.0.self_attn.q_proj': the file has rank 4, the config says 5"]
    assert rows["empty"] == ["adapter_model.safetensors is cut off or not a safetensors file (0 bytes)"]
    assert "--all" not in out.replace("--allow-bin", "")


def test_json_has_everything(place, check):
    code, out = check("--json")
    report = json.loads(out)
    assert code == 0
    assert report["summary"] == {"usable": 7, "alone": 1, "refused": 4}
    assert sorted(report["adapters"]) == ["alphas", "chat", "dora", "mlp", "plain", "ranks", "rslora", "wide"]
    assert sorted(report["refused"]) == ["empty", "five", "old", "six"]
    assert report["adapters"]["dora"]["alone"] == "it uses DoRA"
    plain = report["adapters"]["plain"]
    assert (plain["ranks"], plain["targets"], plain["alone"], plain["warnings"]) == (
        [4],
        ["q_proj", "v_proj"],
        "",
        [],
    )


def test_flags_take_pickles_and_refuse_other_bases(place, check, pico_folder):
    report = json.loads(check("--json", "--allow-bin")[1])
    assert report["adapters"]["old"]["targets"] == ["q_proj", "v_proj"]
    code, out = check("--json", "--strict-base")
    report = json.loads(out)
    assert code == 1  # none of them says that it was trained on the pico model
    assert report["refused"]["chat"] == f"it was trained on 'org/chat'; the base model is {str(pico_folder)!r}"
    assert report["refused"]["plain"].startswith("it does not say on which base model it was trained")


@pytest.mark.parametrize(("arguments", "code"), [((), 0), (("--strict",), 1)], ids=["plain", "strict"])
def test_strict_fails_when_one_is_refused(place, check, arguments, code):
    assert check(*arguments)[0] == code


def test_second_check_uses_what_the_first_has_read(place, check):
    first = json.loads(check("--json")[1])
    stored = (place / ".lorauter" / "pool.json").read_text()
    forged = stored.replace(first["adapters"]["plain"]["hash"], "forged")
    (place / ".lorauter" / "pool.json").write_text(forged)
    assert json.loads(check("--json")[1])["adapters"]["plain"]["hash"] == "forged"


def test_nothing_is_left_behind_without_settings(place, check, pico_folder):
    (place / "lorauter.toml").unlink()
    code, out = check("pool", "--model", str(pico_folder))
    assert (code, out.splitlines()[0]) == (0, "7 usable, 1 alone only, 4 refused")
    assert sorted(path.name for path in place.iterdir()) == ["pool"]


# ------------------------------------------------------------------ a large pool


@pytest.fixture
def large(pico_pool):
    """30 usable adapters, and 76 that are refused for three reasons."""
    refused = {
        f"cut-{i:02d}": f"adapter_model.safetensors should have {900 + i} bytes and has 300" for i in range(60)
    }
    refused |= {
        f"dora-{i}": f"the config says use_dora, the file has no magnitude vector for 'm.{i}'" for i in range(9)
    }
    refused |= {f"old-{i}": "no adapter_config.json" for i in range(7)}
    return AdapterPool({f"ok-{i:02d}": pico_pool["plain"] for i in range(30)}, refused)


def test_a_large_pool_is_cut_and_its_refusals_are_grouped(large, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    print_pool(large)
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "30 usable, 0 alone only, 76 refused"
    assert "and 10 more; --all shows them" in out
    assert out.count("\n") < 45
    table = out[out.rindex("76 refused") :]
    groups = [[c.strip() for c in line.split("│")[1:-1]] for line in table.splitlines() if line.startswith("│")]
    assert groups == [
        ["60", "adapter_model.safetensors should have 900 bytes and has 300", "cut-00, cut-01, cut-02 and 57 more"],
        [
            "9",
            "the config says use_dora, the file has no magnitude vector for 'm.0'",
            "dora-0, dora-1, dora-2 and 6 more",
        ],
        ["7", "no adapter_config.json", "old-0, old-1, old-2 and 4 more"],
    ]


def test_all_of_a_large_pool_is_every_adapter_with_its_own_reason(large, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    print_pool(large, everything=True)
    out = capsys.readouterr().out
    assert "should have 959 bytes" in out and "more" not in out
    assert sum(line.startswith("│") for line in out.splitlines()) == 30 + 76
