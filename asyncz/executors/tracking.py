"""Keeping track of what goes on, so that a shutdown can wait for it, cut it off, or let it go."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context, copy_context
from datetime import datetime, timedelta
from logging import INFO
from typing import Any, ClassVar

from asyncz.events.constants import TASK_EXECUTED
from asyncz.executors.base import BaseExecutor, ExecutorHost, Outcome
from asyncz.executors.calls import cut_off, failed
from asyncz.executors.going import Going
from asyncz.runs.current import CURRENT_RUN

__all__ = ["TrackingExecutor", "context_of_no_run"]

CUT_OFF_GRACE = 1.0
"""Seconds that what was cut off has for its `finally` blocks, within the shutdown timeout."""


def context_of_no_run() -> Context:
    """The current context, but not that of a run: a shutdown in it waits for all of them."""
    context = copy_context()
    context.run(CURRENT_RUN.set, None)
    return context


class TrackingExecutor(BaseExecutor):
    """Base of the executors here. All of it is touched on the engine's loop only.

    `_going` has the runs that go on. One that is not in it has been reported already; what it
    still brings is ignored.
    """

    _knows_its_runs: ClassVar[bool] = True

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self._going: set[Going] = set()
        self._idle: asyncio.Event | None = None
        self._asking: Going | None = None
        self._cuts = 0

    def start(self, scheduler: ExecutorHost, alias: str) -> None:
        super().start(scheduler, alias)
        # They stay the same until the shutdown, and finding them takes a chain of properties.
        self._loop = scheduler.engine_loop
        self._task_loop = scheduler.task_loop

    @property
    def going(self) -> list[object]:
        return [going.handle for going in self._going]

    @property
    def ends_at_once(self) -> bool:
        return not self._going

    async def drain(self, wait: bool, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        self._asking = CURRENT_RUN.get()
        if wait:
            await self._until_idle(timeout - min(CUT_OFF_GRACE, timeout / 4))
        self.sweep()
        self._cuts += 1
        for going in self._others():
            with suppress(RuntimeError):  # its loop was closed, and it has ended with it
                self._cut_off(going)
        await self._until_idle(min(CUT_OFF_GRACE, deadline - loop.time()))
        self._let_go()

    async def shutdown(self, wait: bool = True) -> None:
        if self._host is None:
            return
        timeout = self._host.shutdown_timeout
        deadline = asyncio.get_running_loop().time() + timeout
        await self.drain(wait, timeout)
        await self._close(deadline)
        for going in list(self._going):  # the run that asked for the shutdown
            self._leave(going)
            self._release((going.task.store_alias, str(going.task.id)))
        await super().shutdown(wait)

    @abstractmethod
    def _cut_off(self, going: Going) -> None:
        """Ask a run to end at once."""

    async def _close(self, deadline: float) -> None:
        """Release threads and processes; not later than `deadline` of the loop's time."""

    def _succeeded(self, going: Going, value: Any) -> None:
        """A run for a single run time has ended well."""
        host, task = self._host, going.task
        if (
            host is None
            or host.wants_event(TASK_EXECUTED)
            or self._logger.isEnabledFor(INFO)
            or (value is not None and task.store_result)
            or going.said is not None
            or going.cut_after is not None
            or task.on_success is not None
        ):
            self._ended(going, [going.end(Outcome(TASK_EXECUTED, going.run_times[0], value))])
        elif self._leave(going):
            task_id: str = task.id  # type: ignore[assignment]  # it has one
            if host is not None:
                host.run_succeeded(task.store_alias, task_id, going.run_times[0])
            self._release((task.store_alias, task_id))

    def _ended(self, going: Going, outcomes: Sequence[Outcome]) -> None:
        if self._leave(going):
            self._finish(going.task, outcomes)

    def _leave(self, going: Going) -> bool:
        """Take a run out. False: it was reported before."""
        if going not in self._going:
            return False
        self._going.remove(going)
        going.has_left = True
        if going.is_timed:
            going.left()
        if self._idle is not None and not self._others():
            self._idle.set()
        return True

    def _others(self) -> list[Going]:
        """What goes on, without the run that has asked for the shutdown."""
        return [going for going in self._going if going is not self._asking]

    def _watch(self, going: Going, future: Future[list[Outcome]]) -> None:
        """Track a run in a future that another thread completes."""
        going.handle = future
        self._going.add(going)
        loop = self._loop

        def back(done: Future[list[Outcome]]) -> None:
            with suppress(RuntimeError):  # the loop was closed; nobody is there to be told
                loop.call_soon_threadsafe(self._future_ended, going, done)

        future.add_done_callback(back)

    @abstractmethod
    def _time_is_up(self, going: Going) -> None:
        """A run takes longer than its task's timeout."""

    def cancel_run(self, store: str | None, task_id: str, head: datetime) -> bool:
        for going in self._going:
            task = going.task
            is_its = task.id == task_id and task.store_alias == store
            if is_its and going.run_times[0] == head:
                self._cut_off_one(going)
                return True
        return False

    def _cut_off_one(self, going: Going) -> None:
        """Cut off this run and, as far as that can be, no other."""
        self._cut_off(going)

    def _future_ended(self, going: Going, future: Future[list[Outcome]]) -> None:
        if going not in self._going or going.handle is not future:
            return
        if future.cancelled():
            self._ended(going, cut_off(going.run_times))
        elif (error := future.exception()) is not None:
            self._ended(going, [failed(moment, error) for moment in going.run_times])
        else:
            self._ended(going, future.result())

    async def _until_idle(self, timeout: float) -> None:
        if timeout <= 0 or not self._others():
            return
        self._idle = asyncio.Event()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout)
        self._idle = None

    def _let_go(self) -> None:
        self.sweep()
        for going in self._others():
            self._logger.warning(
                "A run of the task %r did not end when it was cut off; it is left behind.",
                going.task.id,
            )
            self._ended(going, self._last_word(going))

    def _last_word(self, going: Going) -> list[Outcome]:
        """What becomes of a run that is left behind."""
        return cut_off(going.run_times)

    def _cut_off_check(self, going: Going | None = None) -> Callable[[], bool]:
        """Says whether the run that begins now has been cut off; may be asked in any thread."""
        cuts = self._cuts
        return lambda: self._cuts != cuts or (going is not None and going.is_let_go)

    def _too_late_for(self, going: Going) -> Callable[[datetime], bool]:
        """Says of a run time whether it is too late to begin now; may be asked in any thread."""
        seconds = self._grace_of(going.task)
        if seconds is None:
            return _never
        now = self.host.clock.now
        grace = timedelta(seconds=seconds)
        return lambda run_time: now() - run_time > grace


def _never(run_time: datetime) -> bool:
    return False
