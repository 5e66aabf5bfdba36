"""Workers in this process and in processes of this machine: real processes, real kills."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import worker_scorers
from filelock import FileLock, Timeout
from worker_scorers import value

from lorauter_integrations import Example, Settings, Task
from lorauter_integrations.errors import MappingError, TaskError
from lorauter_integrations.matching import local_processes
from lorauter_integrations.matching.local_processes import LocalProcesses
from lorauter_integrations.matching.workers import Batch, InProcess


def batch(number, task="plain", score="metric", examples=3):
    """The adapter `ad` and the base model on some examples of a task that is named after the number too."""
    questions = [Example(f"question {number}-{i}", "answer") for i in range(examples)]
    pairs = tuple((name, example) for example in questions for name in ("", "ad"))
    return Batch(number, score, Task(f"{task}-{number}", "exact_match", questions), pairs)


def expected(batches):
    return {b.number: [value(b.score, name, example) for name, example in b.pairs] for b in batches}


def answers(workers, batches):
    """All answers by the batches' numbers, asked as a matcher asks: never more than `slots` at once."""
    waiting, found = list(batches), {}
    for _ in batches:
        while waiting and len(batches) - len(waiting) - len(found) < workers.slots:
            workers.submit(waiting.pop(0))
        done, scores = workers.take()
        assert found.setdefault(done.number, scores) is scores
    return found


def take(workers, count):
    return {done.number: scores for done, scores in (workers.take() for _ in range(count))}


def begun(folder):
    """(task, process) of each batch that was begun."""
    file = folder / "batches"
    return [(task, int(pid)) for task, pid in map(str.split, file.read_text().splitlines())] if file.exists() else []


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "waited for a minute"
        time.sleep(0.01)


def gone(pid, folder):
    """Of a worker with a `held` batch, which has a lock until it ends; a pid may live on as a zombie."""
    try:
        with FileLock(folder / f"{pid}.lock", timeout=0):
            return True
    except Timeout:
        return False


@contextmanager
def once(condition, act):
    """A friend who acts once something is so, while this thread waits for answers."""
    friend = threading.Thread(target=lambda: (wait_for(condition), act()))
    friend.start()
    yield
    friend.join()


@pytest.fixture
def processes(tmp_path):
    with LocalProcesses(partial(worker_scorers.scorers, tmp_path), 2) as workers:
        yield workers


# ------------------------------------------------------------------ answers


@pytest.mark.parametrize("place", ["here", "processes"])
def test_every_batch_is_measured_once_by_its_scorer(tmp_path, place):
    factory = partial(worker_scorers.scorers, tmp_path)
    batches = [batch(number, score=("metric", "log_likelihood")[number % 2]) for number in range(20)]
    with InProcess(factory()) if place == "here" else LocalProcesses(factory, 3) as workers:
        assert workers.slots == (1 if place == "here" else 6)
        assert answers(workers, batches) == expected(batches)
    assert sorted(task for task, _ in begun(tmp_path)) == sorted(b.task.name for b in batches)
    assert (os.getpid() in {pid for _, pid in begun(tmp_path)}) == (place == "here")


def test_a_batch_larger_than_a_pipe_comes_and_goes_whole(processes):
    large = batch(1, examples=200)
    large = Batch(
        1, "metric", large.task, tuple((f"adapter {i}" + "x" * 500, e) for i in range(100) for _, e in large.pairs)
    )
    assert answers(processes, [large]) == expected([large])


def test_batches_are_measured_at_the_same_time(processes, tmp_path):
    batches = [batch(1, "held"), batch(2, "held")]

    # Both wait for the file, so neither worker has done both.
    with once(lambda: len(begun(tmp_path)) == 2, (tmp_path / "go").touch):
        assert answers(processes, batches) == expected(batches)
    assert len({pid for _, pid in begun(tmp_path)}) == 2


@pytest.mark.parametrize("place", ["here", "processes"])
def test_nothing_in_flight_is_not_waited_for(tmp_path, place):
    factory = partial(worker_scorers.scorers, tmp_path)
    with InProcess(factory()) if place == "here" else LocalProcesses(factory, 1) as workers:
        with pytest.raises(IndexError, match="no batch is in flight"):
            workers.take()
        assert answers(workers, [batch(1)]) == expected([batch(1)])
        with pytest.raises(IndexError, match="no batch is in flight"):
            workers.take()
    workers.close()
    with pytest.raises(MappingError, match="the workers are closed"):
        workers.submit(batch(2))


# ------------------------------------------------------------------ what a worker is given


def test_settings_reach_a_worker_whole(tmp_path):
    file = tmp_path / "lorauter.toml"
    file.write_text('[model]\nname = "some/model"\n[pool]\npin = ["one", "two"]\n')
    settings = Settings.read(file, {"routing": {"k": 2}})
    with LocalProcesses(partial(worker_scorers.of_settings, settings), 1) as workers:
        assert answers(workers, [batch(1)]) == {1: [worker_scorers.checksum(settings)] * 6}


@pytest.mark.parametrize(("cores", "threads", "expected"), [(8, None, 4), (1, None, 1), (8, 3, 3)])
def test_processes_share_the_cores_before_the_factorys_modules_are_imported(monkeypatch, cores, threads, expected):
    monkeypatch.setattr(local_processes, "_cores", lambda: cores)
    with LocalProcesses(worker_scorers.threads, 2, threads=threads) as workers:
        assert answers(workers, [batch(1)]) == {1: [expected] * 6}


def test_a_factory_that_cannot_travel_is_refused_at_once():
    with pytest.raises(
        MappingError, match=r"factory cannot be sent to worker processes: .*\nHint: .*functools.partial"
    ):
        LocalProcesses(lambda: worker_scorers.threads(), 1)


def test_a_factory_that_cannot_be_read_in_a_worker_is_told():
    with LocalProcesses(worker_scorers.OnlyHere(), 1) as workers:
        workers.submit(batch(1))
        with pytest.raises(ImportError, match=f"this is for process {os.getpid()}"):
            workers.take()


def test_at_least_one_worker_is_needed():
    with pytest.raises(MappingError, match="0 workers cannot measure anything"):
        LocalProcesses(worker_scorers.threads, 0)


def test_workers_neither_read_nor_write_where_this_process_does(capfd, tmp_path):
    with LocalProcesses(partial(worker_scorers.scorers, tmp_path), 1) as workers:
        assert answers(workers, [batch(1, "talking")]) == expected([batch(1)])
    assert capfd.readouterr() == ("", "")


# ------------------------------------------------------------------ what goes wrong


def kill_one_in_the_middle(workers, tmp_path):
    """Only the batch in the hands of the killed one is measured twice, and all answers are right."""
    batches = [batch(1, "held"), *map(batch, range(2, 12))]
    for each in batches:
        workers.submit(each)
    found = take(workers, 10)  # those of the other worker
    [victim] = [pid for task, pid in begun(tmp_path) if task == "held-1"]
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: gone(victim, tmp_path))
    (tmp_path / "go").touch()
    assert found | take(workers, 1) == expected(batches)
    assert sorted(task for task, _ in begun(tmp_path)) == sorted(["held-1", *(b.task.name for b in batches)])


def test_a_killed_worker_loses_only_the_batch_in_its_hands(processes, tmp_path):
    kill_one_in_the_middle(processes, tmp_path)


def test_a_worker_killed_while_it_is_idle_costs_nothing(processes, tmp_path):
    answers(processes, [batch(1)])
    os.kill(begun(tmp_path)[0][1], signal.SIGKILL)
    batches = [batch(number) for number in range(2, 8)]
    assert answers(processes, batches) == expected(batches)


def test_a_batch_that_kills_its_workers_is_given_up_and_the_others_go_on(processes, tmp_path):
    batches = [batch(number) for number in range(2, 8)]
    for each in [batch(1, "deadly"), *batches]:
        processes.submit(each)
    outcomes = dict(outcome(processes) for _ in range(7))
    assert outcomes.pop("error").startswith(
        "3 workers died one after the other with the same 6 questions of task 'deadly-1': "
        "exit code -9; exit code -9; exit code -9\nHint: "
    )
    assert outcomes == expected(batches)
    assert len({pid for task, pid in begun(tmp_path) if task == "deadly-1"}) == 3


def outcome(workers):
    try:
        done, scores = workers.take()
    except MappingError as error:
        return "error", str(error)
    return done.number, scores


def test_the_death_of_a_worker_whose_child_lives_on_is_noticed(processes, tmp_path):
    processes.submit(batch(1, "orphaning"))
    with pytest.raises(MappingError, match="3 workers died one after the other"):
        processes.take()
    (tmp_path / "go").touch()


def test_the_last_words_of_a_dead_worker_are_told(processes):
    processes.submit(batch(1, "crashing"))
    with pytest.raises(MappingError, match="exit code 7, after 'the last words'"):
        processes.take()


def test_an_error_of_the_factory_ends_all_at_once(tmp_path):
    workers = LocalProcesses(partial(worker_scorers.broken, tmp_path), 2)
    workers.submit(batch(1))
    with pytest.raises(TaskError, match="the model is too large\nHint: take a smaller one") as caught:
        workers.take()
    assert "in broken" in str(caught.value.__cause__)
    assert multiprocessing.active_children() == []
    assert worker_scorers.starts(tmp_path) <= 2 + 1
    with pytest.raises(MappingError, match="the workers are closed"):
        workers.submit(batch(1))


def test_a_worker_that_dies_while_it_starts_is_started_three_times(tmp_path):
    with LocalProcesses(partial(worker_scorers.dies_at_first, tmp_path, 2), 1) as workers:
        assert answers(workers, [batch(1)]) == expected([batch(1)])
    with LocalProcesses(partial(worker_scorers.dies_at_first, tmp_path, 9), 1) as workers:
        workers.submit(batch(1))
        death = "exit code 9, after 'out of memory'"
        with pytest.raises(MappingError, match=f"ended 3 times before it was ready: {death}; {death}; {death}\n"):
            workers.take()
    assert worker_scorers.starts(tmp_path) == 3 + 3 + 1
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("task", "kind", "said"),
    [
        ("wrong", MappingError, "^no such adapter\nHint: look again$"),
        ("strange", MappingError, "^NotPortableError in a worker: 1 and 2$"),
        ("unsendable", MappingError, "^ValueError in a worker: <function HashScorer.unsendable.<locals>.<lambda>"),
    ],
)
def test_an_error_of_a_scorer_arrives_with_its_traceback_and_the_others_go_on(processes, task, kind, said):
    processes.submit(batch(1, task))
    with pytest.raises(kind, match=said) as caught:
        processes.take()
    assert f"in {task}" in str(caught.value.__cause__)
    assert answers(processes, [batch(2)]) == expected([batch(2)])


# ------------------------------------------------------------------ the end


@pytest.mark.parametrize("task", ["held", "deaf"])
def test_close_ends_workers_in_the_middle_of_a_batch(tmp_path, monkeypatch, task):
    workers = LocalProcesses(partial(worker_scorers.scorers, tmp_path), 2)
    workers.submit(batch(1, task))
    workers.submit(batch(2))
    workers.take()
    pids = {child.pid for child in multiprocessing.active_children()}
    assert len(pids) == 2
    monkeypatch.setattr(local_processes, "GRACE", 10 if task == "held" else 0.5)
    workers.close()
    workers.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError, match="No such process"):
            os.kill(pid, 0)


def test_workers_do_not_hear_control_c(processes, tmp_path):
    def interrupt():
        os.kill(begun(tmp_path)[0][1], signal.SIGINT)
        (tmp_path / "go").touch()

    with once(lambda: begun(tmp_path), interrupt):
        assert answers(processes, [batch(1, "held")]) == expected([batch(1)])
    assert len(begun(tmp_path)) == 1


PARENT = """
    import signal, sys
    from functools import partial
    sys.path.insert(0, sys.argv[2])
    import test_workers, worker_scorers
    from lorauter_integrations.matching.local_processes import LocalProcesses

    if __name__ == "__main__":
        signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
        with LocalProcesses(partial(worker_scorers.scorers, sys.argv[1]), 2) as workers:
            workers.submit(test_workers.batch(1, "held"))
            workers.submit(test_workers.batch(2, "held"))
            try:
                workers.take()
            except KeyboardInterrupt:
                print("interrupted")
    """


@pytest.mark.parametrize(("sign", "status", "said"), [(signal.SIGKILL, -9, ""), (signal.SIGINT, 0, "interrupted\n")])
def test_workers_end_with_their_parent(tmp_path, sign, status, said):
    """Killed alone, or interrupted together with its workers, as a terminal does on Ctrl-C."""
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PARENT))
    parent = subprocess.Popen(
        [sys.executable, program, tmp_path, Path(__file__).parent],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    with parent:
        wait_for(lambda: len(begun(tmp_path)) == 2 or parent.poll() is not None)
        os.killpg(parent.pid, sign) if sign == signal.SIGINT else parent.send_signal(sign)
        assert parent.communicate(timeout=60) == (said, "")
    assert parent.returncode == status
    wait_for(lambda: all(gone(pid, tmp_path) for _, pid in begun(tmp_path)))
    assert list(tmp_path.glob("lorauter-workers-*")) == []


def test_a_script_that_forgets_to_close_ends_cleanly_and_has_the_threads_that_it_asked_for(tmp_path):
    script = """
        import sys
        import torch
        sys.path.insert(0, sys.argv[1])
        import test_workers, worker_scorers
        from lorauter_integrations.matching.local_processes import LocalProcesses

        if __name__ == "__main__":
            workers = LocalProcesses(worker_scorers.torch_threads, 1, threads=3)
            print(test_workers.answers(workers, [test_workers.batch(1)]))
        """
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(script))
    run = subprocess.run(
        [sys.executable, program, Path(__file__).parent], capture_output=True, text=True, timeout=120, check=False
    )
    assert (run.stdout, run.stderr) == (f"{ {1: [3.0] * 6} }\n", "")
