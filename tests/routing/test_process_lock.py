import os
import subprocess
import sys

import pytest

from lorauter_integrations import TaskIndex
from lorauter_integrations.errors import IndexLockedError, TaskIndexError
from lorauter_integrations.routing.process_lock import ProcessLock

HOLD = """
import sys
from pathlib import Path
from lorauter_integrations.errors import IndexLockedError
from lorauter_integrations.routing.process_lock import ProcessLock
try:
    lock = ProcessLock(Path(sys.argv[1]))
except IndexLockedError as error:
    print(error)
else:
    print("held", flush=True)
    sys.stdin.read()
    lock.release()
    print("released")
"""


@pytest.fixture
def other_process():
    """Start a process that holds a folder until its standard input is closed."""
    started = []

    def start(folder):
        command = [sys.executable, "-c", HOLD, str(folder)]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_second_process_is_refused_until_the_first_releases(tmp_path, other_process):
    lock = ProcessLock(tmp_path)
    refused, _ = other_process(tmp_path).communicate()
    assert f"the index {tmp_path} is open in another process (process {os.getpid()})" in refused
    assert "Hint: close it there, or run a Chroma server" in refused
    lock.release()
    process = other_process(tmp_path)
    assert process.stdout.readline() == "held\n"


def test_error_names_the_process_that_holds_the_folder(tmp_path, other_process, encoder):
    process = other_process(tmp_path)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(IndexLockedError, match=rf"open in another process \(process {process.pid}\)"):
        TaskIndex.embedded(tmp_path, encoder)
    assert process.communicate()[0] == "released\n"
    TaskIndex.embedded(tmp_path, encoder).close()


def test_opening_that_fails_gives_the_folder_back(tmp_path, other_process, encoder):
    with pytest.raises(TaskIndexError, match="could not open the collection") as caught:
        TaskIndex.embedded(tmp_path, encoder, collection="a")
    assert other_process(tmp_path).stdout.readline() == "held\n"
    del caught  # until here it kept the lock from being released by the garbage collector


def test_folder_of_a_killed_process_is_free(tmp_path, other_process):
    process = other_process(tmp_path)
    assert process.stdout.readline() == "held\n"
    process.kill()
    process.wait()
    ProcessLock(tmp_path).release()


def test_same_process_may_hold_a_folder_twice(tmp_path, other_process):
    first, second = ProcessLock(tmp_path), ProcessLock(tmp_path / ".")
    first.release()
    first.release()  # does nothing, else the second one's right would be gone
    assert "open in another process" in other_process(tmp_path).communicate()[0]
    second.release()
    assert other_process(tmp_path).stdout.readline() == "held\n"
