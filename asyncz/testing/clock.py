"""A clock for tests: a week passes in milliseconds, and nothing happens in between unasked."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from typing import Any

from asyncz.clock import ClockUser
from asyncz.events.base import SchedulerEvent, TaskExecutionEvent
from asyncz.events.constants import TASK_CANCELLED, TASK_ERROR, TASK_EXECUTED, TASK_MISSED

__all__ = ["VirtualClock"]

OUTCOMES = TASK_EXECUTED | TASK_ERROR | TASK_MISSED | TASK_CANCELLED
MICROSECOND = timedelta(microseconds=1)
QUIET_TURNS = 3
"""Turns of the event loop without anything to do, before it counts as quiet: a worker thread's
result and a listener's coroutine take a turn or two to come back."""
POLL = 0.001


class _Timer:
    """A call on the virtual clock."""

    __slots__ = ("callback", "cancelled", "deadline", "loop", "order")

    def __init__(
        self,
        deadline: int,
        order: int,
        loop: asyncio.AbstractEventLoop,
        callback: Callable[[], object],
    ) -> None:
        self.deadline = deadline
        self.order = order
        self.loop = loop
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def __lt__(self, other: _Timer) -> bool:
        return (self.deadline, self.order) < (other.deadline, other.order)


class VirtualClock:
    """Give it to a scheduler (`clock=`), and time is yours.

    ```python
    clock = VirtualClock("2026-03-02T00:00:00Z")
    async with NativeAsyncIOScheduler(clock=clock, timezone="UTC") as scheduler:
        scheduler.add_task(send_report, "cron", day_of_week="mon", hour=9)
        fired = await clock.advance(weeks=1)
    assert [run.task_id for run in fired] == […]
    ```

    Args:
        start: The time it shows first: aware, or ISO text with an offset.
        patience: Real seconds to wait, at each stop, for runs that wait for something other than
            this clock: a worker thread, a socket, an event that the test sets. A shutdown waits
            no longer than that for runs that sleep on this clock.
        longest_wait: As for the machine's clock, in virtual seconds; by default schedulers sleep
            until something is due.

    Raises:
        ValueError: `start` has no time zone.
    """

    def __init__(
        self,
        start: datetime | str = "2026-01-01T00:00:00Z",
        *,
        patience: float = 1.0,
        longest_wait: float = math.inf,
    ) -> None:
        moment = datetime.fromisoformat(start) if isinstance(start, str) else start
        if moment.tzinfo is None:
            raise ValueError(f"A clock needs a time zone; {moment.isoformat()} has none.")
        self.longest_wait = longest_wait
        self.patience = patience
        self._zero = moment.astimezone(UTC)
        self._elapsed = 0
        self._timers: list[_Timer] = []
        self._made = 0
        self._users: list[ClockUser] = []
        self._parked: set[object] = set()
        self._fired: list[TaskExecutionEvent] = []

    def now(self) -> datetime:
        return self._zero + self._elapsed * MICROSECOND

    def monotonic(self) -> float:
        return self._elapsed / 1e6

    def call_later(
        self, loop: asyncio.AbstractEventLoop, delay: float, callback: Callable[[], object]
    ) -> _Timer:
        self._made += 1
        timer = _Timer(self._after(delay), self._made, loop, callback)
        if delay < math.inf:
            heappush(self._timers, timer)
        return timer

    def attach(self, user: ClockUser) -> None:
        self._users.append(user)
        user.add_listener(self._record, OUTCOMES)

    def detach(self, user: ClockUser) -> None:
        self._users.remove(user)
        user.remove_listener(self._record)

    async def sleep(self, seconds: float) -> None:
        """For the code under test: sleep in this clock's time."""
        loop = asyncio.get_running_loop()
        awake = asyncio.Event()
        timer = self.call_later(loop, seconds, awake.set)
        sleeper = asyncio.current_task()
        self._parked.add(sleeper)
        try:
            await awake.wait()
        finally:
            self._parked.discard(sleeper)
            timer.cancel()

    async def advance(
        self, delta: timedelta | float = 0, **parts: float
    ) -> list[TaskExecutionEvent]:
        """Let time pass, and everything that is due in it happen in order.

        Args:
            delta: How long, as a timedelta or in seconds.
            parts: The same as `timedelta` takes it: `weeks=1`, `hours=2`, …

        Returns:
            The runs that ended meanwhile, in the order in which they did: each with its
            `task_id`, `scheduled_run_time`, `code_name`, `return_value` and `exception`.

        Raises:
            ValueError: Time does not go back; that is `jump`.
        """
        length = delta if isinstance(delta, timedelta) else timedelta(seconds=delta)
        length += timedelta(**parts)
        if length < timedelta(0):
            raise ValueError("Time only goes on; to set the wall clock back, use jump().")
        target = self._elapsed + length // MICROSECOND
        await self._settle()
        while self._timers and self._timers[0].deadline <= target:
            self._elapsed = max(self._elapsed, self._timers[0].deadline)
            self._fire_due()
            await self._settle()
        self._elapsed = target
        fired, self._fired = self._fired, []
        return fired

    async def advance_to(self, moment: datetime | str) -> list[TaskExecutionEvent]:
        """Let time pass until an instant; see `advance`."""
        target = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
        return await self.advance(target - self.now())

    def jump(self, delta: timedelta | float = 0, **parts: float) -> None:
        """Set the wall clock, forward or back, with no time passing: what NTP and people do."""
        length = delta if isinstance(delta, timedelta) else timedelta(seconds=delta)
        self._zero += length + timedelta(**parts)

    def _after(self, delay: float) -> int:
        if delay == math.inf:
            return 1 << 62
        # Rounded first: a delay that comes from two datetimes is whole microseconds, but for the
        # float in between.
        return self._elapsed + max(0, math.ceil(round(delay * 1e6, 3)))

    def _fire_due(self) -> None:
        while self._timers and self._timers[0].deadline <= self._elapsed:
            timer = heappop(self._timers)
            if not timer.cancelled and not timer.loop.is_closed():
                timer.loop.call_soon_threadsafe(timer.callback)

    def _record(self, event: SchedulerEvent) -> None:
        if isinstance(event, TaskExecutionEvent):
            self._fired.append(event)

    async def _settle(self) -> None:
        here = asyncio.get_running_loop()
        for user in list(self._users):
            quiet = self._until_quiet(user)
            if user.engine_loop is here:
                await quiet
            else:
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(quiet, user.engine_loop))
        if not self._users:
            await asyncio.sleep(0)

    async def _until_quiet(self, user: ClockUser) -> None:
        """Return when the scheduler has nothing to do and its runs have gone as far as they can."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self.patience
        turns = 0
        while turns < QUIET_TURNS:
            await asyncio.sleep(0)
            waiting = [run for run in user.going if run not in self._parked]
            if user.is_resting and not waiting:
                turns += 1
            elif user.is_resting and all(map(_is_blocked, waiting)):
                if loop.time() >= give_up:
                    return
                await asyncio.sleep(POLL)
            else:
                turns = 0


def _is_blocked(run: Any) -> bool:
    """Whether a run waits for something; one that does not gets another turn of its loop."""
    if not isinstance(run, asyncio.Task):
        return True
    # There is no public way to ask; anyio's wait_all_tasks_blocked() looks at the same attribute.
    waiter = getattr(run, "_fut_waiter", None)
    return waiter is not None and not waiter.done()
