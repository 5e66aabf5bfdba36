"""The threads in which event loops let steps run; new ones in a fork, where the old ones are dead."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor


def _new() -> ThreadPoolExecutor:
    # asyncio's own pool has 6 threads on a machine with 2 cores.
    return ThreadPoolExecutor(max_workers=64, thread_name_prefix="lorauter")


_pool = _new()


def step_threads() -> ThreadPoolExecutor:
    """Threads for work that would block an event loop."""
    return _pool


def _renew() -> None:
    global _pool
    _pool = _new()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
