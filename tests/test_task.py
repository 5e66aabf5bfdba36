import json

import pytest

from lorauter_integrations import Example, Message, Task
from lorauter_integrations.errors import TaskError
from lorauter_integrations.metrics import f1
from lorauter_integrations.task import find_task_folders, read_examples, routing_text

ROWS = [{"input": "2+2?", "target": "4"}, {"input": "3+3?", "target": "6", "system": "Be brief."}]


def write_task(folder, facts=None, rows=ROWS):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "task.json").write_text(json.dumps(facts or {"metric": "f1"}), encoding="utf-8")
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / "validation.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def task(**changes):
    return Task(**({"name": "sums", "metric": "f1", "examples": [Example("2+2?", "4")]} | changes))


# ------------------------------------------------------------------ examples


@pytest.mark.parametrize(
    ("system", "user", "text"),
    [(" Be brief. ", " hi\n", "Be brief.\n\nhi"), ("", "hi", "hi"), (" ", "hi", "hi"), ("Be", "", "Be")],
    ids=["both", "no system", "blank system", "no user"],
)
def test_routing_text_joins_system_and_user(system, user, text):
    assert routing_text(system, user) == text
    assert Example(user, "x", system).text == text


def test_example_becomes_a_conversation():
    assert Example("hi", "yo").messages == (Message("user", "hi"),)
    assert Example("hi", "yo", "Be").messages == (Message("system", "Be"), Message("user", "hi"))


# ------------------------------------------------------------------ reading a folder


def test_folder_is_read_and_named_after_itself(tmp_path):
    read = Task.from_folder(write_task(tmp_path / "sums", {"metric": "f1", "description": "Adds."}))
    assert (read.name, read.metric, read.description) == ("sums", "f1", "Adds.")
    assert read.examples == (Example("2+2?", "4"), Example("3+3?", "6", "Be brief."))


def test_name_in_the_file_wins_over_the_folder(tmp_path):
    assert Task.from_folder(write_task(tmp_path / "x", {"metric": "f1", "name": "sums"})).name == "sums"


def test_one_jsonl_file_makes_a_task_named_after_it(tmp_path):
    write_task(tmp_path)
    read = Task.from_jsonl(tmp_path / "validation.jsonl", metric=f1, description="d")
    assert (read.name, read.metric, read.description, len(read.examples)) == ("validation", "f1", "d", 2)
    assert Task.from_jsonl(tmp_path / "validation.jsonl", metric="f1", name="sums").name == "sums"


@pytest.mark.parametrize("text", ["Łódź ☕ 日本", "one\u2028two\x85three"], ids=["letters", "separators"])
def test_unicode_in_examples_is_kept(tmp_path, text):
    read = Task.from_folder(write_task(tmp_path / "t", rows=[{"input": text, "target": text}]))
    assert read.examples == (Example(text, text),)
    assert Task.from_json(read.to_json()) == read


def test_blank_lines_and_windows_line_ends_do_not_count(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'\r\n{"input": "a", "target": "b"}\r\n\r\n')
    assert read_examples(file) == [Example("a", "b")]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{oops", "JSONDecodeError"),
        ('{"input": "a"}', "KeyError: 'target'"),
        ('{"target": "a"}', "KeyError: 'input'"),
        ("[1, 2]", "TypeError"),
        ('"text"', "TypeError"),
        ("3", "TypeError"),
        ('{"input": 4, "target": "4"}', "input, target and system must be strings"),
        ('{"input": "4", "target": null}', "input, target and system must be strings"),
        ('{"input": "4", "target": "4", "system": ["a"]}', "input, target and system must be strings"),
        ('{"input": "\\ud800", "target": "4"}', "surrogates not allowed"),
    ],
    ids=[
        "broken json",
        "no target",
        "no input",
        "list",
        "text",
        "number",
        "input number",
        "target null",
        "system list",
        "half a surrogate pair",
    ],
)
def test_bad_line_is_named_with_file_and_number(tmp_path, line, why):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(ROWS[0]) + "\n\n" + line + "\n", encoding="utf-8")
    with pytest.raises(TaskError, match=rf"(?s)rows\.jsonl, line 3: .*{why}.*Hint: each line is an object"):
        read_examples(file)


def test_file_without_examples_is_refused(tmp_path):
    with pytest.raises(TaskError, match=r"(?s)validation\.jsonl has no examples.*Hint: give 20 to 200 lines"):
        Task.from_folder(write_task(tmp_path, rows=[]))


def test_file_that_is_not_utf8_is_refused(tmp_path):
    write_task(tmp_path)
    (tmp_path / "validation.jsonl").write_bytes('{"input": "café", "target": "x"}'.encode("latin-1"))
    with pytest.raises(TaskError, match=r"validation\.jsonl cannot be read: 'utf-8'.* 0xe9"):
        Task.from_folder(tmp_path)


@pytest.mark.parametrize("missing", ["task.json", "validation.jsonl"])
def test_missing_file_is_named(tmp_path, missing):
    (write_task(tmp_path) / missing).unlink()
    with pytest.raises(TaskError, match=rf"{missing} does not exist"):
        Task.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"task\.json is not valid JSON: "),
        ("[]", r"(?s)task\.json has no metric.*Hint: write for example"),
        ('{"metric": 1}', r"task\.json has no metric"),
        ('{"metric": "f1", "name": 5}', r"task\.json: name must be a string, not 5"),
        ('{"metric": "f1", "description": null}', r"task\.json: description must be a string, not None"),
        ('{"metric": "f2"}', "unknown metric 'f2'"),
    ],
    ids=["broken", "list", "metric number", "name number", "description null", "unknown metric"],
)
def test_task_json_that_cannot_be_used_is_refused(tmp_path, text, message):
    (write_task(tmp_path) / "task.json").write_text(text, encoding="utf-8")
    with pytest.raises(TaskError, match=message):
        Task.from_folder(tmp_path)


def test_task_folders_are_found_directly_or_one_below(tmp_path):
    b, a = write_task(tmp_path / "all" / "b"), write_task(tmp_path / "all" / "a")
    c = write_task(tmp_path / "c")
    assert find_task_folders([tmp_path / "all", c]) == [a, b, c]


def test_path_without_a_task_is_refused(tmp_path):
    with pytest.raises(TaskError, match=r"(?s)holds no task.*Hint: a task is a folder with task.json"):
        find_task_folders([tmp_path])
    with pytest.raises(TaskError, match="nowhere is not a folder"):
        find_task_folders([tmp_path / "nowhere"])


# ------------------------------------------------------------------ the value


@pytest.mark.parametrize(
    "name",
    ["", "_a", "a b", "a/b", "ä", "a" * 128, "a\n"],
    ids=["empty", "_", "blank", "/", "ä", "long", "line"],
)
def test_bad_name_is_refused(name):
    with pytest.raises(TaskError, match=r"(?s)is not a task name.*Hint: use letters, digits"):
        task(name=name)


def test_name_of_127_characters_is_accepted():
    assert task(name="a" * 127).name == "a" * 127


def test_task_without_examples_is_refused():
    with pytest.raises(TaskError, match=r"(?s)task 'sums' has no examples.*Hint: give 20 to 200"):
        task(examples=[])


@pytest.mark.parametrize("bad", [Example(" \n", "4"), Example("4", "")], ids=["input", "target"])
def test_example_with_an_empty_part_is_named_by_its_number(bad):
    with pytest.raises(TaskError, match="task 'sums': example 2 has an empty input or target"):
        task(examples=[Example("a", "b"), bad])


def test_of_more_than_200_examples_the_same_200_are_drawn():
    many = [Example(f"in {i}", f"out {i}") for i in range(203)]
    kept = task(examples=many).examples
    assert len(kept) == 200
    assert set(kept) < set(many)
    assert kept == task(examples=many).examples


def test_of_many_examples_some_of_every_part_are_used():
    """Files are often sorted by label; the first 200 would hold one label only."""
    many = [Example(f"in {i}", "positive" if i < 300 else "negative") for i in range(600)]
    kept = task(examples=many).examples
    assert 60 < sum(example.target == "positive" for example in kept) < 140


@pytest.mark.parametrize(("metric", "target"), [("json", "not JSON"), ("rouge_l", "!?")], ids=["json", "rouge_l"])
def test_a_target_that_does_not_match_itself_is_refused(tmp_path, metric, target):
    (tmp_path / "validation.jsonl").write_text(json.dumps({"input": "a", "target": target}))
    with pytest.raises(TaskError, match=rf"by {metric} the target of example 1 does not match itself"):
        Task.from_jsonl(tmp_path / "validation.jsonl", metric=metric)


def test_metric_is_found_as_a_function():
    assert task(metric=f1).score("a cat", "cat") == 1.0


BASE = task(examples=[Example("a", "b"), Example("c", "d", "s")])


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"metric": "bleu"},
        {"examples": [Example("a", "b"), Example("c", "d")]},
        {"examples": [Example("a", "b"), Example("c", "D", "s")]},
        {"examples": [Example("A", "b"), Example("c", "d", "s")]},
        {"examples": [Example("c", "d", "s"), Example("a", "b")]},
    ],
    ids=["name", "metric", "system", "target", "input", "order"],
)
def test_content_hash_changes_with_the_content(changes):
    assert task(**({"examples": BASE.examples} | changes)).content_hash != BASE.content_hash


def test_content_hash_does_not_change_with_the_description():
    assert task(examples=list(BASE.examples), description="new").content_hash == BASE.content_hash


def test_json_round_trip_keeps_everything():
    whole = task(metric=f1, examples=[Example("ü", "b", "s")], description="Adds.")
    assert Task.from_json(whole.to_json()) == whole
    assert "ü" in whole.to_json()


def test_a_folder_whose_metric_cannot_be_imported_is_refused_at_once(tmp_path):
    (tmp_path / "task.json").write_text('{"metric": "no_such_module:f"}')
    (tmp_path / "validation.jsonl").write_text('{"input": "a", "target": "b"}\n')
    with pytest.raises(TaskError, match="metric 'no_such_module:f' cannot be imported"):
        Task.from_folder(tmp_path)
