"""The progress bar of a mapping run: rung, survivors, cost so far, time left. Knows rich only."""

from __future__ import annotations

from types import TracebackType

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from lorauter_integrations.cli.output import console, errors
from lorauter_integrations.matching import Progress as MappingProgress


class MappingBar:
    """Shows a run while the block is open.

    Args:
        quiet: keep the standard output free for JSON: the bar goes to the error stream.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = errors if quiet else console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(20),
            TaskProgressColumn(),
            console=self._console,
        )
        self._line = self._bar.add_task("loading the model", total=None)
        self._state: MappingProgress | None = None
        self._said = (-1, False)  # tasks done, and whether the pool was being screened

    def __enter__(self) -> MappingBar:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._bar.stop()
        if kind is KeyboardInterrupt:
            answered = self._state.answered if self._state else 0
            errors.print(f"stopped; {answered} answers are kept, the same command goes on from there")

    def update(self, state: MappingProgress) -> None:
        """Draw where the run stands; a plain line a task when the output is not a terminal."""
        self._state = state
        done, total = (state.screened, state.pool) if state.pool else (state.answered, state.total)
        self._bar.update(self._line, description=_words(state), completed=done, total=total)
        if not self._console.is_terminal and (state.tasks_done, bool(state.pool)) != self._said:
            self._said = (state.tasks_done, bool(state.pool))
            self._console.print(_words(state), highlight=False, markup=False)

    def summary(self) -> str:
        """One line on what the run cost."""
        state = self._state
        if state is None:
            return "nothing was asked"
        return (
            f"{state.answered} adapter-example questions in {state.seconds:.0f} s, "
            f"{state.reused} of them answered by the ledger"
        )


def _words(state: MappingProgress) -> str:
    if state.pool:
        return f"screening: {state.screened}/{state.pool} adapters"
    left = state.seconds_left
    time_left = f", about {_clock(left)} left" if left is not None else ""
    return (
        f"{state.tasks_done} of {state.tasks} tasks done; {state.task}: "
        f"rung {state.rung}/{state.rungs}, {state.survivors} adapters, "
        f"{state.answered}/{state.total} questions{time_left}"
    )


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
