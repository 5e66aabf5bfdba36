import json

import pytest

from lorauter_integrations.errors import TaskError
from lorauter_integrations.evaluation.tested_task import read_tested_tasks


@pytest.fixture
def folder(tmp_path):
    def make(name, splits=("validation", "test"), **facts):
        task = tmp_path / name
        task.mkdir()
        (task / "task.json").write_text(json.dumps({"metric": "exact_match", **facts}))
        for split in splits:
            rows = [{"input": f"{name} {split} {n}", "target": str(n)} for n in range(25)]
            (task / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        return tmp_path

    return make


def test_a_task_has_its_domain_its_tests_and_training_inputs(folder):
    folder("b", ("validation", "test", "train"), domain="letters")
    found = read_tested_tasks([folder("a")], limit=3)
    assert [(one.name, one.domain) for one in found] == [("a", "a"), ("b", "letters")]
    assert [example.input for example in found[1].tests] == ["b test 0", "b test 1", "b test 2"]
    assert len(found[1].task.examples) == 25
    assert found[1].training == [f"b train {n}" for n in range(20)]
    assert found[0].training == [f"a validation {n}" for n in range(20)]


def test_a_task_without_test_examples_is_refused(folder):
    with pytest.raises(TaskError, match=r"has no test.jsonl\nHint: an evaluation needs examples"):
        read_tested_tasks([folder("a", ("validation",))])


def test_empty_training_data_are_none(folder):
    root = folder("a")
    (root / "a" / "train.jsonl").touch()
    assert read_tested_tasks([root])[0].training[0] == "a validation 0"
