"""Keeping track of what goes on, so that a shutdown can wait for it, cut it off, or let it go."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from asyncz.executors.base import BaseExecutor, Outcome
from asyncz.executors.calls import cut_off, failed
from asyncz.tasks.base import Task

__all__ = ["Going", "TrackingExecutor"]

CUT_OFF_GRACE = 1.0
"""Seconds that what was cut off has for its `finally` blocks, within the shutdown timeout."""


Going = tuple[Task, Sequence[datetime]]
"""What a run is for, while it goes on."""


class TrackingExecutor(BaseExecutor):
    """Base of the executors here. All of it is touched on the engine's loop only.

    `_going` maps a handle (an asyncio task, a future) to what it runs. A handle that is not in
    it has been reported already; what it still brings is ignored.
    """

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self._going: dict[Any, Going] = {}
        self._idle: asyncio.Event | None = None
        self._cuts = 0

    @property
    def going(self) -> list[object]:
        return list(self._going)

    @property
    def ends_at_once(self) -> bool:
        return not self._going

    async def drain(self, wait: bool, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        if wait:
            await self._until_idle(timeout - min(CUT_OFF_GRACE, timeout / 4))
        self._sweep()
        self._cuts += 1
        for handle in list(self._going):
            with suppress(RuntimeError):  # its loop was closed, and it has ended with it
                self._cut_off(handle)
        await self._until_idle(min(CUT_OFF_GRACE, deadline - loop.time()))
        self._let_go()

    async def shutdown(self, wait: bool = True) -> None:
        if self._host is None:
            return
        timeout = self._host.shutdown_timeout
        deadline = asyncio.get_running_loop().time() + timeout
        await self.drain(wait, timeout)
        await self._close(deadline)
        await super().shutdown(wait)

    @abstractmethod
    def _cut_off(self, handle: Any) -> None:
        """Ask a run to end at once."""

    async def _close(self, deadline: float) -> None:
        """Release threads and processes; not later than `deadline` of the loop's time."""

    def _ended(self, handle: Any, outcomes: Sequence[Outcome]) -> None:
        going = self._going.pop(handle, None)
        if going is None:
            return
        self._finish(going[0], outcomes)
        if self._idle is not None and not self._going:
            self._idle.set()

    def _watch(self, future: Future[list[Outcome]], task: Task, run_times: Any) -> None:
        """Track a future that another thread completes."""
        self._going[future] = (task, run_times)
        loop = self.host.engine_loop

        def back(done: Future[list[Outcome]]) -> None:
            with suppress(RuntimeError):  # the loop was closed; nobody is there to be told
                loop.call_soon_threadsafe(self._future_ended, done)

        future.add_done_callback(back)

    def _future_ended(self, future: Future[list[Outcome]]) -> None:
        going = self._going.get(future)
        if going is None:
            return
        if future.cancelled():
            self._ended(future, cut_off(going[1]))
        elif (error := future.exception()) is not None:
            self._ended(future, [failed(moment, error) for moment in going[1]])
        else:
            self._ended(future, future.result())

    async def _until_idle(self, timeout: float) -> None:
        if not self._going or timeout <= 0:
            return
        self._idle = asyncio.Event()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout)
        self._idle = None

    def _let_go(self) -> None:
        self._sweep()
        for handle, (task, run_times) in list(self._going.items()):
            self._logger.warning(
                "A run of the task %r did not end when it was cut off; it is left behind.", task.id
            )
            self._ended(handle, cut_off(run_times))

    def _cut_off_check(self) -> Callable[[], bool]:
        """Says whether the run that begins now has been cut off; may be asked in any thread."""
        cuts = self._cuts
        return lambda: self._cuts != cuts

    def _too_late_for(self, task: Task) -> Callable[[datetime], bool]:
        """Says of a run time whether it is too late to begin now; may be asked in any thread."""
        if task.mistrigger_grace_time is None:
            return _never
        now = self.host.clock.now
        grace = timedelta(seconds=task.mistrigger_grace_time)
        return lambda run_time: now() - run_time > grace


def _never(run_time: datetime) -> bool:
    return False
