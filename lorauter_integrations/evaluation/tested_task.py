"""Tasks with test examples, read from folders. Knows tasks and files; no models."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorauter_integrations.errors import TaskError
from lorauter_integrations.task import Example, Task, find_task_folders, read_examples

RETRIEVER_INPUTS = 20  # of an adapter's training data, from which LoraRetriever makes its vector


@dataclass(frozen=True, slots=True)
class TestedTask:
    """A task, and what only an evaluation may look at.

    Attributes:
        task: with its validation examples, all that routers and mapping see.
        domain: the family it belongs to; scores are averaged over domains.
        tests: test examples.
        training: the first inputs of its adapter's training data, for methods that need them; of its validation
            examples where there is no `train.jsonl`.
    """

    __test__ = False  # for pytest

    task: Task
    domain: str
    tests: Sequence[Example]
    training: Sequence[str]

    @property
    def name(self) -> str:
        """The task's name."""
        return self.task.name


def read_tested_tasks(folders: Iterable[str | Path], limit: int | None = None) -> list[TestedTask]:
    """The tasks of some folders, sorted by name.

    Args:
        folders: of tasks, each with `task.json`, `validation.jsonl` and `test.jsonl`, or folders of such folders.
            `task.json` may name a "domain"; else the task is a domain of its own. `train.jsonl` is read where it is.
        limit: test examples that are taken of each task, from the first on; all when None.

    Raises:
        TaskError: a folder holds no task, or a task's files cannot be read.
    """
    found = [_read(folder, limit) for folder in find_task_folders(folders)]
    return sorted(found, key=lambda tested: tested.name)


def _read(folder: Path, limit: int | None) -> TestedTask:
    task = Task.from_folder(folder)
    if not (folder / "test.jsonl").is_file():
        raise TaskError(f"{folder} has no test.jsonl", hint="an evaluation needs examples that no router has seen")
    tests = read_examples(folder / "test.jsonl")[:limit]
    training = folder / "train.jsonl"
    has_training = training.is_file() and training.stat().st_size > 0
    examples = read_examples(training) if has_training else task.examples
    domain = json.loads((folder / "task.json").read_text(encoding="utf-8")).get("domain") or task.name
    return TestedTask(task, str(domain), tests, [example.text for example in examples[:RETRIEVER_INPUTS]])
