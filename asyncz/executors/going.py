"""A run while it goes on: where it is, what it says, when its time is up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from asyncz.clock import Timer
from asyncz.executors.base import ExecutorHost, Outcome, with_result
from asyncz.executors.calls import timed_out
from asyncz.runs.current import CurrentRun
from asyncz.tasks.base import Task

__all__ = ["Going"]

FIRST = (1, 1)


class Going:
    """A run while it goes on.

    Args:
        task: What it is a run of.
        run_times: Those it stands for, oldest first.
        handle: The asyncio task or future it is carried out by.
        host: The scheduler; None: nobody is to be told anything.
    """

    # Of most runs none of this is ever asked for, and 5,000 may begin at once: what is the same for
    # all of them is the class's.
    said: CurrentRun | None = None
    done: tuple[Outcome, ...] = ()
    cut_after: float | None = None
    """Seconds of its timeout, once they are over for the run time that it is at."""
    is_cut_off = False
    """Whether somebody else has cut it off; then its time does not matter any more."""
    is_let_go = False
    """Whether it has ended for the scheduler, and what is left of it is to begin no further one."""
    has_left = False
    """Whether it has been reported; what it says from then on would be of another attempt."""
    is_timed = False
    """Whether it has had a timer."""
    _at: datetime | None = None
    _cut: Callable[[Going], None] | None = None
    _timer: Timer | None = None
    _loop: asyncio.AbstractEventLoop

    def __init__(
        self,
        task: Task,
        run_times: Sequence[datetime],
        handle: Any = None,
        host: ExecutorHost | None = None,
    ) -> None:
        self.task = task
        self.run_times = run_times
        self.handle = handle
        self.host = host
        # Now: asked when it was let go, the answer would be that of the next attempt.
        self.numbers = FIRST if host is None else host.numbers_of(task, run_times[0])

    @property
    def at(self) -> datetime:
        """The run time that it is at."""
        return self._at or self.run_times[0]

    @property
    def current(self) -> CurrentRun:
        """The run as its own code sees it."""
        if self.said is None or self.said.scheduled_time is not self.at:
            task_id, store = str(self.task.id), self.task.store_alias
            attempt, fence = self.numbers
            self.said = CurrentRun(task_id, store, self.at, attempt, self._tell, fence)
        return self.said

    def _tell(self, run: CurrentRun) -> None:
        if self.host is not None and not self.has_left:
            self.host.run_says(self.task, self.run_times[0], run)

    # Its run times, one after the other, in whatever thread it goes on.

    def begin(self, run_time: datetime) -> None:
        """The function is about to be called for this one."""
        self._at = run_time
        if self._cut is not None:
            self._loop.call_soon_threadsafe(self.arm)

    def end(self, outcome: Outcome) -> Outcome:
        """What it has said goes with its outcome; one that was cut off for its time has failed."""
        if self.cut_after is not None:  # whatever it has made of being cancelled
            late = timed_out(outcome.run_time, self.cut_after, "it was cancelled")
            outcome = late._replace(traceback=outcome.traceback)
            self.cut_after = None
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
        outcome = with_result(self.task, self.noted(outcome))
        if len(self.run_times) > 1:
            self.done += (outcome,)
        return outcome

    def noted(self, outcome: Outcome) -> Outcome:
        """The outcome of the run time that it is at, with what it has said."""
        said = self.said
        if said is not None and said.scheduled_time is self.at and (notes := said.notes()):
            return outcome._replace(notes=notes)
        return outcome

    # Its time, on the engine's loop.

    def limit(self, loop: asyncio.AbstractEventLoop, cut: Callable[[Going], None]) -> None:
        """Have it cut off when it takes longer than its task's timeout, once `arm` was called."""
        if self.task.timeout is not None:
            self._loop, self._cut, self.is_timed = loop, cut, True

    def arm(self, times: int = 1) -> None:
        """From now on it may take that long, or so many times that."""
        timeout, cut, host = self.task.timeout, self._cut, self.host
        self.disarm()
        if cut is not None and timeout is not None and host is not None:
            self._timer = host.clock.call_later(self._loop, timeout * times, lambda: cut(self))

    def give(
        self, loop: asyncio.AbstractEventLoop, seconds: float, then: Callable[[Going], None]
    ) -> None:
        """It has so many seconds to end by itself."""
        self.disarm()
        if self.host is not None:
            self.is_timed = True
            self._timer = self.host.clock.call_later(loop, seconds, lambda: then(self))

    def disarm(self) -> None:
        """It may take as long as it wants."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def left(self) -> None:
        """It has ended."""
        self._cut = None
        self.disarm()
