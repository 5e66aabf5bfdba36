"""Workers that are processes of this machine. Knows processes and pipes."""

from __future__ import annotations

import atexit
import os
import pickle
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from lorauter_integrations.errors import MappingError
from lorauter_integrations.matching.crew import Crew, Death, Desk, Reply, Worker
from lorauter_integrations.matching.workers import Batch, ScorerFactory

GRACE = 5.0  # seconds for a process to end by itself
PULSE = 1.0  # seconds between two looks at processes that say nothing
LAST_WORDS = 300  # characters of a dead process' output that an error shows


@dataclass(eq=False, slots=True, kw_only=True)
class _Process(Worker):
    process: SpawnProcess
    connection: Connection
    output: Path

    def news(self) -> Reply | Death:
        """What it has sent, or how it ended. Called when it has sent something or ended."""
        with suppress(EOFError, OSError):
            if self.connection.poll():
                reply: Reply = self.connection.recv()
                return reply
        self.process.join(GRACE)
        self.process.kill()
        self.process.join()
        words = self.output.read_text(errors="replace").strip()[-LAST_WORDS:]
        return Death(f"exit code {self.process.exitcode}" + (f", after {words!r}" if words else ""))


class LocalProcesses(Crew[_Process]):
    """Worker processes of this machine; each loads a model of its own.

    They are fresh (spawned) processes: safe with CUDA and threads, and modules are imported anew. They do not hear
    Ctrl-C, write to no terminal, and end when this process does, however it ends.

    Args:
        factory: makes a worker's scorers; must be picklable.
        count: of processes.
        threads: of each process for its arithmetic (`OMP_NUM_THREADS`); None shares the cores evenly.

    Raises:
        MappingError: the factory cannot be pickled, or fewer than one process.
    """

    def __init__(self, factory: ScorerFactory, count: int, *, threads: int | None = None) -> None:
        super().__init__(count)
        self._factory = _pickled(factory)
        self._threads = threads or max(1, _cores() // count)
        self._outputs = tempfile.TemporaryDirectory(prefix="lorauter-workers-")
        self._started = 0
        # Runs before multiprocessing's own exit, which would wait for the processes to end by themselves.
        atexit.register(self.close)
        self._hire()

    def close(self) -> None:
        """End all processes, also in the middle of a batch; who does not listen is killed after five seconds."""
        super().close()
        atexit.unregister(self.close)
        self._outputs.cleanup()

    def _start(self) -> _Process:
        self._started += 1
        output = Path(self._outputs.name) / f"{self._started}.txt"
        output.touch()
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_work, args=(theirs, self._threads, output), name=f"mapping worker {self._started}"
        )
        process.start()
        theirs.close()  # now the pipe ends with the process
        with suppress(OSError):  # it has ended already, which `_listen` notices
            ours.send_bytes(self._factory)
        return _Process(process=process, connection=ours, output=output)

    def _give(self, worker: _Process, batch: Batch) -> None:
        with suppress(OSError):  # as above
            worker.connection.send(batch)

    def _listen(self, workers: Sequence[_Process]) -> Iterator[tuple[_Process, Reply | Death]]:
        heard = wait([worker.connection for worker in workers], PULSE)
        for worker in [*workers]:
            # The pipe of a dead worker stays open while a process lives that the worker had forked.
            if worker.connection in heard or worker.process.exitcode is not None:
                yield worker, worker.news()

    def _end(self, workers: Sequence[_Process]) -> None:
        for worker in workers:
            worker.process.terminate()
        end = time.monotonic() + GRACE
        for worker in workers:
            worker.process.join(max(0.0, end - time.monotonic()))
            worker.process.kill()
            worker.process.join()
            worker.process.close()
            worker.connection.close()


def _pickled(factory: ScorerFactory) -> bytes:
    try:
        return pickle.dumps(factory)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise MappingError(
            f"the scorers' factory cannot be sent to worker processes: {error}",
            hint="give a function of a module, or functools.partial of one with values that can be pickled",
        ) from error


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ------------------------------------------------------------------ within a worker


def _work(connection: Connection, threads: int, output: Path) -> None:
    """A worker's life: the factory comes first, then batches."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's affair
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # not killed, since libraries have semaphores to give back
    threading.Thread(target=_end_with_parent, args=(output.parent,), daemon=True).start()
    _write_to(output)
    desk = Desk(threads)
    with suppress(EOFError, OSError):  # the parent has gone
        connection.send(desk.start(lambda: connection.recv()()))
        while True:
            connection.send(desk.measure(connection.recv()))


def _end_with_parent(outputs: Path) -> None:
    """Also in the middle of a batch, of which nobody would take the answer."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    shutil.rmtree(outputs, ignore_errors=True)  # which the parent could not, or did
    os._exit(1)


def _write_to(output: Path) -> None:
    """All output, also of libraries in other languages, is kept for the case of a death."""
    with output.open("ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
