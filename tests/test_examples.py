"""The parts of the examples that need no long training; the whole of each is run by hand."""

import importlib.util
from datetime import date
from pathlib import Path

import pytest
from conftest import pico_tokenizer


@pytest.fixture(scope="module")
def new_adapter():
    file = Path(__file__).parents[1] / "examples" / "new_adapter" / "new_adapter.py"
    spec = importlib.util.spec_from_file_location("new_adapter", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_new_tasks_answers_are_right_and_differ_from_what_is_trained_on(new_adapter):
    trained, validation = new_adapter.examples(2000, seed=1), new_adapter.examples(24, seed=2)
    for row in validation:
        day = date.fromisoformat(row["target"])
        assert str(day.year) in row["input"] and str(day.day) in row["input"]
        assert day.strftime("%b") in row["input"]
    assert validation == new_adapter.examples(24, seed=2)
    assert sum(row in trained for row in validation) == 0


def test_the_loss_is_taken_on_the_answers_only(new_adapter):
    tokenizer = pico_tokenizer()
    rows = [{"input": "a", "target": "one"}, {"input": "a longer question", "target": "2"}]
    batch = new_adapter.batch(tokenizer, rows)
    for row, ids, mask, labels in zip(
        rows, batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True
    ):
        answer = [int(label) for label in labels if label != -100]
        assert tokenizer.decode(answer) == row["target"] + tokenizer.eos_token
        last = int(mask.sum())
        assert ids[last - len(answer) : last].tolist() == answer
        assert not mask[last:].any()


def test_the_settings_of_the_example_have_state_of_their_own(new_adapter, tmp_path, monkeypatch):
    monkeypatch.setattr(new_adapter, "STATE", tmp_path)
    settings = new_adapter.settings_of_this_example()
    assert sorted(path.name for path in (tmp_path / "pool").iterdir())[:2] == ["ag_news", "atis_intent"]
    assert Path(settings.index.path).parent == Path(settings.mapping.ledger).parent == tmp_path
    assert new_adapter.overrides(settings)["pool"] == {"path": str(tmp_path / "pool")}
