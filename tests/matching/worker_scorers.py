"""Scorers and their factories for worker processes, which find them by importing this module.

What a scorer does beside scoring is said by the task's name: `held` waits for a file, `deadly` kills its process, and
so on. Each batch leaves a line in `FOLDER/batches` when it begins.
"""

import hashlib
import multiprocessing
import os
import signal
import sys
import time
import zlib
from pathlib import Path

from filelock import FileLock

from lorauter_integrations.errors import MappingError, TaskError

THREADS_AT_IMPORT = os.environ.get("OMP_NUM_THREADS")


class NotPortableError(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class HashScorer:
    """A score that anyone can compute again, different for each kind of scorer."""

    base_model = "none"

    def __init__(self, kind, folder):
        self.kind, self.folder = kind, Path(folder)

    def identity(self, task):
        return self.kind

    def score(self, task, pairs):
        with (self.folder / "batches").open("a") as stream:
            stream.write(f"{task.name} {os.getpid()}\n")
        getattr(self, task.name.split("-")[0], lambda: None)()
        return [value(self.kind, name, example) for name, example in pairs]

    def held(self):
        with FileLock(self.folder / f"{os.getpid()}.lock"):  # free again when this process is gone
            end = time.monotonic() + 120  # nobody lets go when a test has failed
            while not (self.folder / "go").exists() and time.monotonic() < end:
                time.sleep(0.01)

    def deaf(self):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.held()

    def deadly(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def orphaning(self):
        """Dies and leaves a process behind that has the worker's pipe open."""
        if os.fork():
            self.deadly()
        self.held()
        os._exit(0)

    def talking(self):
        print("to stdout", flush=True)
        os.write(2, b"to stderr")
        assert sys.stdin.read() == ""

    def crashing(self):
        os.write(2, b"the last words")
        os._exit(7)

    def wrong(self):
        raise MappingError("no such adapter", hint="look again")

    def strange(self):
        raise NotPortableError(1, 2)

    def unsendable(self):
        raise ValueError(lambda: None)


def value(kind, name, example):
    return hashlib.sha256(f"{kind}/{name}/{example.input}".encode()).digest()[0] / 255


def scorers(folder):
    return {kind: HashScorer(kind, folder) for kind in ("metric", "log_likelihood")}


class Constant:
    base_model = "none"

    def __init__(self, number):
        self.number = number

    def identity(self, task):
        return "constant"

    def score(self, task, pairs):
        return [self.number] * len(pairs)


def threads():
    return {"metric": Constant(float(THREADS_AT_IMPORT))}


def torch_threads():
    global lock
    import torch

    lock = multiprocessing.RLock()  # as tqdm has one: a named semaphore, which somebody must give back
    return {"metric": Constant(float(torch.get_num_threads()))}


def checksum(settings):
    """Of all that settings hold, the folder of their file too."""
    return float(zlib.crc32(f"{settings!r} {settings.locate('pool')}".encode()))


def of_settings(settings):
    return {"metric": Constant(checksum(settings))}


def broken(folder):
    starts(folder)
    raise TaskError("the model is too large", hint="take a smaller one")


def dies_at_first(folder, times):
    if starts(folder) <= times:
        os.write(2, b"out of memory")
        os._exit(9)
    return scorers(folder)


def starts(folder):
    """The number of this start."""
    with (Path(folder) / "starts").open("a") as stream:
        stream.write("\n")
        return stream.tell()


class OnlyHere:
    """A factory that other processes cannot read, like one of a module that they lack."""

    def __reduce__(self):
        return only_in, (os.getpid(),)


def only_in(pid):
    raise ImportError(f"this is for process {pid}")
