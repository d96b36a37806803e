"""One store's part of the engine: its timer, its passes, and what is held back in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from asyncz.clock import Timer
from asyncz.enums import SchedulerState
from asyncz.events.base import SchedulerEvent, TaskEvent
from asyncz.events.constants import (
    STORE_DEGRADED,
    STORE_RECOVERED,
    TASK_REMOVED,
)
from asyncz.exceptions import StoreError, StoreTimeoutError
from asyncz.executors.base import BaseExecutor
from asyncz.schedulers.holds import HoldBook
from asyncz.schedulers.planning import Plan, plan_task
from asyncz.schedulers.quarantine import report_quarantined, report_recovered
from asyncz.schedulers.submission import report_missed, submit
from asyncz.stores.base import BaseStore, TaskAdvance
from asyncz.stores.quarantine import reason
from asyncz.tasks.base import Task

if TYPE_CHECKING:
    from asyncz.schedulers.engine import Engine

__all__ = ["StoreLane"]

R = TypeVar("R")

PAGE = 64
"""Tasks that are taken at a time from a store in this process. What they start lives at once, and
few enough objects do not set off the garbage collector, whose pauses are longer than ours."""
IO_PAGE = 256
"""The same for other stores, where each page costs a round trip or two."""
SLICE = 0.005
"""Seconds of work before the event loop gets its turn."""
STANDBY_RETRY = 1.0
SILENCE = 5.0
"""Seconds without an answer after which people are told, though there may still be one."""
CUT_OFF = 0.5
"""Seconds that a call that is cut off may take to end."""


Step = tuple[Task, Plan, BaseExecutor]
"""A due task with its plan and the executor that will run it."""


class StoreLane:
    """Takes the due tasks of one store through plan, record and hand-over.

    Each store has a lane of its own, so that one that hangs holds up nobody else. There is no
    background task while nothing is due: a timer starts a turn, and each turn arms it again.
    """

    def __init__(self, engine: Engine, alias: str, store: BaseStore) -> None:
        self.alias = alias
        self.store = store
        self.holds = HoldBook()
        self.error: str | None = None
        self._engine = engine
        self._failures = 0
        self._guard = None if store.in_process else asyncio.Lock()
        self._timer: Timer | None = None
        self._wake_at = float("inf")  # of the clock's `monotonic`: the wall clock may be set
        self._due_meanwhile = float("inf")
        self._turn: asyncio.Task[None] | None = None
        self._again = False
        self._stopped = False
        self._unanswered: list[Step] = []

    def wakeup(self) -> None:
        """Look at the store now, or once more if it is being looked at."""
        if self._stopped:
            return
        self._again = True
        if self._turn is None:
            self.stop_timer()
            name = f"asyncz pass over {self.alias}"
            # Not in the context of whoever happened to wake it: a run must not see the variables
            # of a request that has nothing to do with it.
            context = self._engine.context.copy()
            self._turn = self._engine.loop.create_task(
                self._take_turn(), name=name, context=context
            )

    def wake_for(self, moment: datetime | None) -> None:
        """A task is due at `moment` now: make sure that the lane is awake by then."""
        if moment is None:
            return
        if self._turn is not None:
            # Not a pass more for each of many tasks that are added one after the other.
            self._due_meanwhile = min(self._due_meanwhile, moment.timestamp())
            return
        clock = self._engine.clock
        if moment.timestamp() - clock.now().timestamp() < self._wake_at - clock.monotonic():
            self.wakeup()

    def start_timer(self, delay: float | None) -> None:
        """Wake up in `delay` seconds; None: only when called."""
        self.stop_timer()
        if delay is not None:
            clock = self._engine.clock
            self._wake_at = clock.monotonic() + delay
            self._timer = clock.call_later(self._engine.loop, delay, self.wakeup)

    def stop_timer(self) -> None:
        """Forget the timer."""
        self._wake_at = float("inf")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def is_resting(self) -> bool:
        """Whether no turn is going on."""
        return self._turn is None

    async def stop(self, timeout: float) -> None:
        """Stop for good. A page that is being handed over is finished, not torn apart."""
        self._stopped = True
        self.stop_timer()
        turn = self._turn
        if turn is None or turn.get_loop() is not asyncio.get_running_loop():
            return
        if not self.store.in_process:  # the others pause between pages only
            await asyncio.wait([turn], timeout=max(0.0, timeout))
            if not turn.done():
                turn.cancel()
                await asyncio.wait([turn], timeout=CUT_OFF)
        turn.cancel()

    async def _take_turn(self) -> None:
        delay: float | None = self._engine.settings.store_retry_interval
        try:
            while self._again:
                self._again = False
                delay = await self.process()
        except Exception:
            self._engine.logger.exception("A pass over the store %r failed.", self.alias)
        finally:
            # Whatever happened, the scheduler must not sleep for ever.
            self._turn = None
            if not self._stopped:
                self.start_timer(self._until_next(delay))

    def _until_next(self, delay: float | None) -> float | None:
        """The delay that a pass asks for, shorter if a task added meanwhile is due sooner."""
        moment, self._due_meanwhile = self._due_meanwhile, float("inf")
        if delay is None or moment == float("inf"):
            return delay
        return min(delay, max(0.0, moment - self._engine.clock.now().timestamp()))

    async def process(self) -> float | None:
        """One pass. Returns the seconds until the next one is needed; None: not by time."""
        engine = self._engine
        if engine.state is not SchedulerState.STATE_RUNNING or not engine.is_claiming:
            return None
        engine.watch_clock()
        if not engine.is_active():
            return STANDBY_RETRY
        try:
            await self._drain(engine.clock.now())
            delay = await self._sleep_time()
        except Exception as exc:
            return self._degrade(exc)
        self._recover()
        return delay

    async def call(self, operation: Awaitable[R]) -> R:
        """Await an operation of the store, not longer than the store timeout."""
        if self._guard is None:
            return await operation
        timeout = self._engine.settings.store_timeout
        try:
            async with asyncio.timeout(timeout):
                return await operation
        except StoreError:
            raise  # some of these are timeouts too, of the store's own
        except TimeoutError as exc:
            raise StoreTimeoutError(
                f"The store {self.alias!r} did not answer within {timeout} s (store_timeout)."
            ) from exc

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Keep the other operations of this scheduler out, between reading and writing a task.

        Raises:
            StoreTimeoutError: Another one has waited for the store for so long.
        """
        guard = self._guard
        if guard is None:
            yield
            return
        await self.call(guard.acquire())
        try:
            yield
        finally:
            guard.release()

    async def _ask(self, operation: Awaitable[R]) -> R:
        """`call` for a pass: a store that says nothing is called degraded before it is given up."""
        if self._guard is None:
            return await operation
        alarm = self._engine.loop.call_later(SILENCE, self._tell_of_silence)
        try:
            return await self.call(operation)
        finally:
            alarm.cancel()

    def _tell_of_silence(self) -> None:
        self._say_degraded(f"It has not answered for {SILENCE:g} s.", None)

    async def _drain(self, now: datetime) -> None:
        """Hand over everything that is due at `now`, page by page.

        The event loop gets its turn after each page, and sooner when planning one takes long.
        """
        engine = self._engine
        passed_over = self.holds.held_at(engine.clock.monotonic()) if self.holds else set()
        page = PAGE if self.store.in_process else IO_PAGE
        while engine.is_claiming:
            async with self.exclusive():
                if self._unanswered:
                    await self._hand_over(self._unanswered, passed_over)
                due = await self._ask(self.store.get_due_tasks(now, page, passed_over))
                steps, planned = self._plan_page(due, now, passed_over)
                await self._hand_over(steps, passed_over)
            if planned < page and planned == len(due):
                return
            await asyncio.sleep(0)

    def _plan_page(
        self, due: list[Task], now: datetime, passed_over: set[str]
    ) -> tuple[list[Step], int]:
        """The steps for the tasks of a page, and how many of them were looked at."""
        engine = self._engine
        executors, timezone = engine.executors, engine.timezone
        max_catchup, time = engine.settings.max_catchup, engine.loop.time
        deadline = time() + SLICE
        steps: list[Step] = []
        for planned, task in enumerate(due, 1):
            try:
                executor = executors.get(task.executor) or engine.executor(str(task.executor))  # type: ignore[arg-type]  # None is none of them
                steps.append((task, plan_task(task, now, timezone, max_catchup), executor))
            except KeyboardInterrupt:
                raise
            except BaseException as exc:
                # A trigger's SystemExit would end the app, its CancelledError the pass.
                self._hold(str(task.id), exc)
                passed_over.add(str(task.id))
            if time() > deadline:
                return steps, planned
        return steps, len(due)

    async def _hand_over(self, steps: list[Step], passed_over: set[str]) -> None:
        if not steps:
            return
        advances = [
            TaskAdvance(task, task.next_run_time, plan.next_run_time)  # type: ignore[arg-type]
            for task, plan, _ in steps
        ]
        # If no answer comes they are asked for again: a store that was able to write, but not to
        # say so, would otherwise have forgotten runs that nobody has started.
        self._unanswered = steps
        made = await self._ask(self.store.advance_tasks(advances))
        self._unanswered = []
        for step, won in zip(steps, made, strict=True):
            if won:
                self._submit(*step)
            else:
                # Changed by somebody else between reading and writing: the next pass sees how.
                passed_over.add(str(step[0].id))
                self._again = True

    def _submit(self, task: Task, plan: Plan, executor: BaseExecutor) -> None:
        engine = self._engine
        run_times, coalesced, missed, next_run_time = plan
        if self.holds and self.holds.release(str(task.id)):
            report_recovered(engine, self.alias, str(task.id))
        if missed is not None:
            report_missed(engine, task, missed)
        if run_times:
            submit(engine, executor, task, run_times, coalesced)
        if next_run_time is None and engine.events.mask & TASK_REMOVED:
            engine.dispatch(
                TaskEvent(
                    code=TASK_REMOVED,
                    task_id=str(task.id),
                    store=self.alias,
                    scheduler_identity=engine.identity,
                )
            )

    def _hold(self, task_id: str, error: BaseException) -> None:
        engine = self._engine
        text = f"{type(error).__name__}: {reason(error)}"
        if self.holds.hold(task_id, text, engine.clock.monotonic()):
            engine.logger.error(
                "The task %r of the store %r cannot be run; it is kept and tried again: %s",
                task_id,
                self.alias,
                text,
                exc_info=error,
            )
            report_quarantined(engine, self.alias, task_id, text)

    async def _sleep_time(self) -> float:
        clock = self._engine.clock
        delay = clock.longest_wait
        after = None
        if self.holds:
            # Those that are held back are due all the time; what counts is when they are tried.
            after = clock.now()
            retry = self.holds.next_try()
            if retry is not None:
                delay = min(delay, max(0.0, retry - clock.monotonic()))
        moment = await self._ask(self.store.get_next_run_time(after))
        if moment is not None:
            delay = min(delay, max(0.0, (moment - clock.now()).total_seconds()))
        return delay

    def _degrade(self, error: Exception) -> float:
        self._say_degraded(f"{type(error).__name__}: {reason(error)}", error)
        self._failures += 1
        back_off = 0.1 * 2.0 ** min(self._failures - 1, 10)
        return min(back_off, self._engine.settings.store_retry_interval)

    def _say_degraded(self, text: str, error: Exception | None) -> None:
        engine = self._engine
        news, self.error = self.error is None, text
        if news:
            engine.logger.error(
                "The store %r failed; it is tried again with back-off: %s",
                self.alias,
                text,
                exc_info=error,
            )
            engine.dispatch(SchedulerEvent(code=STORE_DEGRADED, alias=self.alias, detail=text))

    def _recover(self) -> None:
        if self.error is not None:
            self.error = None
            self._failures = 0
            self._engine.logger.info("The store %r answers again.", self.alias)
            self._engine.dispatch(SchedulerEvent(code=STORE_RECOVERED, alias=self.alias))
