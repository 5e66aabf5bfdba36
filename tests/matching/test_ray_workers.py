"""Workers that are actors of a real Ray cluster: this process' node of four CPUs, and another of one."""

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from functools import partial
from pathlib import Path

import pytest
import ray
import worker_scorers
from test_workers import answers, batch, begun, expected, gone, kill_one_in_the_middle, once, outcome, take, wait_for

from lorauter_integrations.errors import MappingError, TaskError
from lorauter_integrations.matching.ray_workers import RayWorkers

OBJECTS = 80 * 2**20  # bytes of Ray's object store, which nothing here uses


@pytest.fixture(scope="module", autouse=True)
def address():
    """Of a cluster that this process has started and is connected to."""
    # Not pytest's folder: Ray's sockets lie in it, and their paths may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="ray-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("RAY_health_check_period_ms", "500")  # five without an answer, and a machine is lost
        patch.setenv("RAY_AUTH_MODE", "disabled")  # else Ray writes a token into the home folder
        ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=OBJECTS)
        yield ray.get_runtime_context().gcs_address
        ray.shutdown()


@pytest.fixture(scope="module", autouse=True)
def other_machine(address):
    """A node as another machine starts it, with the command of docs/machines.md."""
    command = [Path(sys.executable).parent / "ray", "start", "--address", address, "--block", "--num-cpus", "1"]
    node = subprocess.Popen(
        [*command, "--object-store-memory", str(OBJECTS)], stdout=subprocess.DEVNULL, start_new_session=True
    )
    wait_for(lambda: machines() == 2 or node.poll() is not None)
    yield node
    if node.poll() is None:
        lose(node)


def lose(node):
    """As when its plug is pulled: Ray's processes there have no time for a farewell."""
    os.killpg(node.pid, signal.SIGKILL)
    node.wait()


def machines():
    return sum(node["Alive"] for node in ray.nodes())


@pytest.fixture
def actors(tmp_path):
    with RayWorkers(partial(worker_scorers.scorers, tmp_path), 2) as workers:
        yield workers


def test_every_batch_is_measured_once_by_its_scorer(actors, tmp_path):
    batches = [batch(number, score=("metric", "log_likelihood")[number % 2]) for number in range(20)]
    assert actors.slots == 4
    assert answers(actors, batches) == expected(batches)
    assert sorted(task for task, _ in begun(tmp_path)) == sorted(b.task.name for b in batches)
    assert os.getpid() not in {pid for _, pid in begun(tmp_path)}


def test_a_killed_actor_loses_only_the_batch_in_its_hands(actors, tmp_path):
    kill_one_in_the_middle(actors, tmp_path)


def test_a_batch_that_kills_its_actors_is_given_up_and_the_others_go_on(actors, tmp_path):
    batches = [batch(number) for number in range(2, 8)]
    for each in [batch(1, "deadly"), *batches]:
        actors.submit(each)
    outcomes = dict(outcome(actors) for _ in range(7))
    error = outcomes.pop("error")
    assert error.startswith("3 workers died one after the other with the same 6 questions of task 'deadly-1': ")
    assert error.count("its worker process has died") == 3
    assert outcomes == expected(batches)
    assert len({pid for task, pid in begun(tmp_path) if task == "deadly-1"}) == 3


def test_an_error_of_the_factory_ends_all_at_once_but_not_the_ray_that_ran_before(tmp_path):
    workers = RayWorkers(partial(worker_scorers.broken, tmp_path), 2)
    workers.submit(batch(1))
    with pytest.raises(TaskError, match="the model is too large\nHint: take a smaller one") as caught:
        workers.take()
    assert "in broken" in str(caught.value.__cause__)
    with pytest.raises(MappingError, match="the workers are closed"):
        workers.submit(batch(1))
    assert ray.is_initialized()


def test_a_factory_that_cannot_be_read_in_an_actor_is_told():
    with RayWorkers(worker_scorers.OnlyHere(), 1) as workers:
        workers.submit(batch(1))
        with pytest.raises(MappingError, match=f"cannot read what it was sent: .*this is for process {os.getpid()}"):
            workers.take()


def test_an_error_of_a_scorer_arrives_with_its_traceback_and_the_others_go_on(actors):
    actors.submit(batch(1, "wrong"))
    with pytest.raises(MappingError, match=r"^no such adapter\nHint: look again$") as caught:
        actors.take()
    assert "in wrong" in str(caught.value.__cause__)
    assert answers(actors, [batch(2)]) == expected([batch(2)])


def test_an_actor_that_fits_on_no_machine_is_refused():
    with pytest.raises(MappingError, match="none of the 2 machines of the Ray cluster has 1 CPU and 1 GPU"):
        RayWorkers(worker_scorers.threads, 1, num_gpus=1)


def test_threads_are_the_cpus_that_ray_keeps():
    with RayWorkers(worker_scorers.threads, 1, num_cpus=2) as workers:
        assert answers(workers, [batch(1)]) == {1: [2.0] * 6}


def test_close_ends_actors_in_the_middle_of_a_batch(actors, tmp_path):
    for each in (batch(1, "held"), batch(2), batch(3)):
        actors.submit(each)
    take(actors, 2)
    actors.close()
    actors.close()
    [pid] = [pid for task, pid in begun(tmp_path) if task == "held-1"]
    wait_for(lambda: gone(pid, tmp_path))


def script(folder, text, *arguments):
    program = folder / "program.py"
    start = """
        import sys
        from functools import partial
        sys.path.insert(0, sys.argv[1])
        import ray, worker_scorers
        from test_workers import answers, batch, expected
        from lorauter_integrations.errors import MappingError
        from lorauter_integrations.matching.ray_workers import RayWorkers
        factory = partial(worker_scorers.scorers, sys.argv[2])
        """
    program.write_text(textwrap.dedent(start) + textwrap.dedent(text))
    return subprocess.Popen([sys.executable, program, Path(__file__).parent, folder, *arguments])


def test_ray_is_connected_or_started_when_it_is_not_there_and_ends_with_close(tmp_path, address):
    text = """
        try:
            RayWorkers(factory, 1, address="127.0.0.1:9")
        except MappingError as error:
            assert "no Ray at '127.0.0.1:9' can be used: [Errno 111] Connection refused" in str(error)
        for address in (sys.argv[3], None):
            with RayWorkers(factory, 1, address=address) as workers:
                assert (ray.get_runtime_context().gcs_address == sys.argv[3]) == (address == sys.argv[3])
                assert answers(workers, [batch(1)]) == expected([batch(1)])
            assert not ray.is_initialized()
        """
    assert script(tmp_path, text, address).wait(100) == 0


def test_actors_end_with_a_killed_caller(tmp_path, address):
    caller = script(
        tmp_path,
        """
        workers = RayWorkers(factory, 1, address=sys.argv[3])
        workers.submit(batch(1, "held"))
        workers.take()
        """,
        address,
    )
    wait_for(lambda: begun(tmp_path) or caller.poll() is not None)
    caller.kill()
    caller.wait()
    [(_, pid)] = begun(tmp_path)
    wait_for(lambda: gone(pid, tmp_path))


def test_a_lost_machine_loses_only_the_batches_in_its_hands(actors, tmp_path, other_machine):
    batches = [batch(1, "held"), batch(2, "held")]

    def lose_one():
        lose(other_machine)
        wait_for(lambda: any(gone(pid, tmp_path) for _, pid in begun(tmp_path)))
        (tmp_path / "go").touch()

    with once(lambda: len(begun(tmp_path)) == 2, lose_one):
        assert answers(actors, batches) == expected(batches)
    assert len(begun(tmp_path)) == 3
    wait_for(lambda: machines() == 1)
