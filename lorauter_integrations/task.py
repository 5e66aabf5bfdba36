"""A task as a value: a named skill with a metric and labelled examples. Knows nothing of models or Chroma."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorauter_integrations.digests import digest
from lorauter_integrations.errors import TaskError
from lorauter_integrations.generation import Message
from lorauter_integrations.metrics import METRICS, Metric, find_metric, metric_name

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,126}")
MOST_EXAMPLES = 200  # the paper's upper bound of validation examples a task


def routing_text(system: str, user: str) -> str:
    """The text whose meaning routes: the system message, then the user's message.

    One rule for validation examples and for live queries, so that both meet in one space.
    """
    return "\n\n".join(part for part in (system.strip(), user.strip()) if part)


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled example: what the user says (after an optional system message), and the right answer."""

    input: str
    target: str
    system: str = ""

    @property
    def text(self) -> str:
        """The text that is embedded."""
        return routing_text(self.system, self.input)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation that the model is asked to continue."""
        user = Message("user", self.input)
        return (Message("system", self.system), user) if self.system else (user,)

    @property
    def content_hash(self) -> str:
        """Changes when anything of the example does."""
        return digest([self.system, self.input, self.target])


@dataclass(frozen=True, slots=True)
class Task:
    """A named skill.

    Attributes:
        name: letters, digits, `_`, `.` and `-`; at most 127 characters.
        metric: a name of `metrics.METRICS`, `package.module:function`, or a top-level function.
        examples: labelled examples; the paper takes 20 to 200. Of more, 200 are drawn (always the same).
        description: one sentence for people.

    Raises:
        TaskError: a bad name or metric, no examples, or an example without input or target.
    """

    name: str
    metric: str | Metric
    examples: Sequence[Example] = field(repr=False)
    description: str = ""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise TaskError(
                f"{self.name!r} is not a task name",
                hint="use letters, digits, '_', '.', '-'; start with a letter or digit",
            )
        if not self.examples:
            raise TaskError(f"task {self.name!r} has no examples", hint="give 20 to 200 labelled examples")
        for number, example in enumerate(self.examples, 1):
            if not example.input.strip() or not example.target.strip():
                raise TaskError(f"task {self.name!r}: example {number} has an empty input or target")
        object.__setattr__(self, "metric", metric_name(self.metric))
        object.__setattr__(self, "examples", _sample(self.examples))

    @property
    def score(self) -> Metric:
        """The metric as a function."""
        return find_metric(str(self.metric))

    @property
    def content_hash(self) -> str:
        """Changes when the metric or any example does; not with the description."""
        return digest([self.name, str(self.metric), *(example.content_hash for example in self.examples)])

    def to_json(self) -> str:
        """The whole task as one JSON text, for `from_json`."""
        examples = [{"system": e.system, "input": e.input, "target": e.target} for e in self.examples]
        facts = {"name": self.name, "description": self.description, "metric": str(self.metric)}
        return json.dumps({**facts, "examples": examples}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Task:
        """Read what `to_json` wrote."""
        facts = json.loads(text)
        examples = [Example(**example) for example in facts["examples"]]
        return cls(facts["name"], facts["metric"], examples, facts["description"])

    @classmethod
    def from_folder(cls, folder: str | Path) -> Task:
        """Read `task.json` ({"metric": ..., "description": ..., "name": ...}) and `validation.jsonl`.

        The name is the folder's unless `task.json` has one.

        Raises:
            TaskError: a file is missing or cannot be read; the message names the line.
        """
        folder = Path(folder)
        facts = _read_facts(folder / "task.json")
        examples = read_examples(folder / "validation.jsonl")
        name = facts.get("name", folder.resolve().name)
        return _scorable(cls(name, facts["metric"], examples, facts.get("description", "")))

    @classmethod
    def from_jsonl(cls, file: str | Path, *, metric: str | Metric, name: str = "", description: str = "") -> Task:
        """Read examples from one JSONL file; the name is the file's unless given.

        Raises:
            TaskError: as `from_folder`.
        """
        file = Path(file)
        return _scorable(cls(name or file.stem, metric, read_examples(file), description))


def read_examples(file: Path) -> list[Example]:
    """Examples of a JSONL file, `{"input", "target"}` and optionally `"system"` a line.

    Raises:
        TaskError: the file is missing, empty or not UTF-8, or a line is not such an object.
    """
    examples = []
    # Not splitlines(): JSON strings may hold other line separators, such as U+2028, as they are.
    for number, line in enumerate(_read_text(file).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            example = Example(row["input"], row["target"], row.get("system") or "")
            if not all(isinstance(part, str) for part in (example.input, example.target, example.system)):
                raise TypeError("input, target and system must be strings")
            (example.text + example.target).encode()  # half a surrogate pair can be read but not stored
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TaskError(
                f"{file}, line {number}: {type(error).__name__}: {error}",
                hint='each line is an object such as {"input": "2+2?", "target": "4"}',
            ) from error
        examples.append(example)
    if not examples:
        raise TaskError(f"{file} has no examples", hint='give 20 to 200 lines of {"input": ..., "target": ...}')
    return examples


def find_task_folders(paths: Iterable[str | Path]) -> list[Path]:
    """The task folders among paths: a path that holds `task.json`, else its sub-folders that do.

    Raises:
        TaskError: a path holds none.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        inner = [path] if (path / "task.json").is_file() else sorted(p.parent for p in path.glob("*/task.json"))
        if not inner:
            raise TaskError(
                f"{path} holds no task" if path.is_dir() else f"{path} is not a folder",
                hint="a task is a folder with task.json and validation.jsonl",
            )
        found += inner
    return found


def _sample(examples: Sequence[Example]) -> tuple[Example, ...]:
    """At most 200 of the examples, from all over them: files are often sorted by label."""
    if len(examples) <= MOST_EXAMPLES:
        return tuple(examples)
    kept = sorted(random.Random(0).sample(range(len(examples)), MOST_EXAMPLES))
    return tuple(examples[place] for place in kept)


def _scorable(task: Task) -> Task:
    """Refuse a target that does not even score against itself: it would make every adapter look useless."""
    if str(task.metric) not in METRICS:
        find_metric(str(task.metric))  # now, while the person who wrote it looks on
        return task
    for number, example in enumerate(task.examples, 1):
        if task.score(example.target, example.target) < 0.99:
            raise TaskError(
                f"task {task.name!r}: by {task.metric} the target of example {number} does not match itself: "
                f"{example.target[:80]!r}",
                hint="choose another metric, or mend the target (for json it must be JSON)",
            )
    return task


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise TaskError(f"{file} does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{file} cannot be read: {error}") from error


def _read_facts(file: Path) -> dict[str, Any]:
    try:
        facts = json.loads(_read_text(file))
    except ValueError as error:
        raise TaskError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(facts, dict) or not isinstance(facts.get("metric"), str):
        raise TaskError(f"{file} has no metric", hint='write for example {"metric": "exact_match"}')
    for key in ("name", "description"):
        if not isinstance(facts.get(key, ""), str):
            raise TaskError(f"{file}: {key} must be a string, not {facts[key]!r}")
    return facts
