"""Start and shutdown of an engine: the order, and what happens when a part of it fails."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

from asyncz.enums import Delivery, RunKind, SchedulerState
from asyncz.events.base import SchedulerEvent
from asyncz.events.constants import SCHEDULER_SHUTDOWN, SCHEDULER_STARTED
from asyncz.exceptions import (
    AsynczException,
    StoreError,
    StoreFormatError,
    StoreInUseError,
    StoreTimeoutError,
)
from asyncz.executors.base import BaseExecutor
from asyncz.schedulers.engine import DEFAULT, Declaration, Engine, finished
from asyncz.schedulers.operations import Operations
from asyncz.schedulers.own_runs import OwnRuns
from asyncz.schedulers.submission import submit
from asyncz.stores.base import BaseStore
from asyncz.stores.cluster import Fired, Firing
from asyncz.stores.quarantine import reason
from asyncz.tasks.base import Task

if TYPE_CHECKING:
    from asyncz.schedulers.lane import StoreLane

__all__ = ["Lifecycle"]

FIRST_PAUSE = 0.1
"""Seconds between the first two tries of a store that cannot be reached at start."""
LAST_TRY = 0.5
"""Seconds that a try gets, however little of the startup timeout is left."""
FAREWELL = 1.0
"""Seconds kept back, of the shutdown timeout, for the steps after the runs were ended."""


class Lifecycle:
    """Starts and stops one engine."""

    def __init__(self, engine: Engine, operations: Operations) -> None:
        self._engine = engine
        self._operations = operations
        self._declared: set[tuple[str | None, str | None]] = set()

    async def start(self, paused: bool, app_loop: asyncio.AbstractEventLoop | None) -> None:
        """Start executors, then stores, then declare the pending tasks, then run.

        When one of them fails, what had started is stopped again, and the error is raised.
        """
        engine = self._engine
        engine.live_on(app_loop)
        begun: list[BaseExecutor] = []
        try:
            engine.check_lock_path()
            await self._start_executors(begun)
            await self._start_stores()
            await self._declare_pending()
        except BaseException:
            await self._undo(begun)
            raise
        engine.pending.clear()
        engine.is_claiming = True
        engine.started_at = engine.clock.now()
        engine.state = SchedulerState.STATE_PAUSED if paused else SchedulerState.STATE_RUNNING
        engine.clock.attach(engine.facade)
        engine.overdue.start()
        engine.logger.info("Scheduler %s started.", engine.identity)
        engine.dispatch(SchedulerEvent(code=SCHEDULER_STARTED))
        engine.wakeup()

    async def _start_executors(self, begun: list[BaseExecutor]) -> None:
        engine = self._engine
        if DEFAULT not in engine.executors:
            await engine.add_executor(DEFAULT, engine.facade.create_default_executor())
            begun.append(engine.executors[DEFAULT])
        for alias, executor in engine.executors.items():
            # Not `in`: to Pydantic two executors with the same options are equal.
            if not any(executor is one for one in begun):
                await finished(executor.start(engine.facade, alias))  # type: ignore[func-returns-value]
                begun.append(executor)

    async def _start_stores(self) -> None:
        engine = self._engine
        if DEFAULT not in engine.stores:
            await engine.add_store(DEFAULT, engine.facade.create_default_store())
        deadline = engine.loop.time() + engine.settings.startup_timeout
        for alias, store in engine.stores.items():
            await self._open_store(alias, store, deadline)
        engine.stores_open = True

    async def _open_store(self, alias: str, store: BaseStore, deadline: float) -> None:
        """Start a store; again, with back-off, while it cannot be reached, until the deadline."""
        engine = self._engine
        settings, pause, limit = engine.settings, FIRST_PAUSE, engine.settings.store_timeout
        while True:
            try:
                await self._open_once(alias, store, limit)
                return
            except (StoreInUseError, StoreFormatError):
                raise  # it would be the same the next time
            except (StoreError, OSError) as exc:
                left = self._left(deadline)
                if not left or store.in_process:
                    if settings.startup_timeout:
                        tried = (
                            f"It was tried for {settings.startup_timeout:g} s (startup_timeout)."
                        )
                        exc.add_note(tried)
                    raise
                engine.logger.warning("The start waits for the store %r: %s", alias, reason(exc))
            await store.shutdown()
            await asyncio.sleep(min(pause, left))
            pause = min(2 * pause, settings.store_retry_interval)
            limit = max(LAST_TRY, self._left(deadline, settings.store_timeout))

    async def _open_once(self, alias: str, store: BaseStore, limit: float) -> None:
        try:
            await self._engine.open_store(alias, store, limit)
        except TimeoutError as exc:
            if isinstance(exc, StoreError):
                raise
            raise StoreTimeoutError(
                f"The store {alias!r} did not start within {limit:g} s (store_timeout)."
            ) from exc

    async def _declare_pending(self) -> None:
        for declaration in list(self._engine.pending):
            await self._operations.declare(declaration)
            self._declared.add((declaration.task.store_alias, declaration.task.id))

    async def _undo(self, begun: list[BaseExecutor]) -> None:
        engine = self._engine
        for executor in reversed(begun):
            await finished(executor.shutdown(False))
        for declaration in engine.pending:
            self._operations.undeclare(declaration)
        await self._close_stores(engine.loop.time() + engine.settings.store_timeout)
        engine.bridge.disconnect()

    async def shutdown(self, wait: bool) -> None:
        """Stop claiming, end the runs, run the shutdown tasks, close the stores."""
        engine = self._engine
        deadline = engine.loop.time() + engine.settings.shutdown_timeout
        engine.state = SchedulerState.STATE_STOPPED
        engine.is_claiming = False
        engine.overdue.stop()
        try:
            await self._end_work(wait, deadline)
        except asyncio.CancelledError:
            # Whoever cancels a shutdown is done waiting; a scheduler half shut down helps nobody.
            wait = False
            raise
        finally:
            await self._release(wait, deadline)

    async def _end_work(self, wait: bool, deadline: float) -> None:
        await self._stop_lanes(deadline)
        # On a clock that stands still, a run that sleeps on it would never end.
        drain = min(self._left(deadline), self._engine.clock.patience)
        await self._drain(wait, drain - min(FAREWELL, drain / 4))
        await self._run_shutdown_tasks(deadline)

    async def _stop_lanes(self, deadline: float) -> None:
        """Let passes end. A store that hangs must not use up the time that the runs are given."""
        limit = self._left(deadline, self._engine.settings.store_timeout) / 2
        stops = []
        for lane in list(self._engine.lanes.values()):
            if lane.is_resting or lane.store.in_process:
                await lane.stop(limit)
            else:
                stops.append(lane.stop(limit))
        if stops:
            await asyncio.gather(*stops)

    async def _release(self, wait: bool, deadline: float) -> None:
        engine = self._engine
        for executor in list(engine.executors.values()):
            await self._step(_ended(executor, wait), self._left(deadline) + 0.1)
        engine.logger.info("Scheduler %s has been shut down.", engine.identity)
        engine.dispatch(SchedulerEvent(code=SCHEDULER_SHUTDOWN))
        await engine.finish_spawned(min(FAREWELL, self._left(deadline)))
        engine.reaction_threads.close()
        await self._keep_declared()
        await self._close_stores(deadline)
        engine.started_at = None
        engine.forget_clock()
        engine.release_machine()
        engine.clock.detach(engine.facade)
        engine.bridge.disconnect()

    def _left(self, deadline: float, at_most: float = float("inf")) -> float:
        return max(0.0, min(at_most, deadline - self._engine.loop.time()))

    async def _drain(self, wait: bool, timeout: float) -> None:
        drains = [
            executor.drain(wait, timeout)
            for executor in self._engine.executors.values()
            if executor.going
        ]
        if drains:
            await asyncio.gather(*drains)

    async def _run_shutdown_tasks(self, deadline: float) -> None:
        engine = self._engine
        found = 0
        for lane in engine.lanes.values():
            limit = None if lane.store.in_process else self._left(deadline) / 2
            with suppress(AsynczException, TimeoutError, OSError):
                async with nullcontext() if limit is None else asyncio.timeout(limit):
                    for task in await self._operations.shutdown_tasks(lane):
                        found += await self._run_last(lane, task)
        if found:
            await self._drain(True, self._left(deadline, engine.clock.patience))

    async def _run_last(self, lane: StoreLane, task: Task) -> bool:
        """Run a task that is forgotten with it; False: it is not run."""
        engine, ledger = self._engine, lane.ledger
        try:
            executor = engine.executor(str(task.executor))
        except AsynczException as exc:
            engine.logger.error("The shutdown task %r cannot be run: %s", task.id, exc)
            return False
        expected, times = task.next_run_time, (ledger.now(),)
        task.mistrigger_grace_time = None
        firing = Firing(task, expected, None, True, RunKind.SCHEDULED, times)
        fired = await ledger.fire_by_hand(firing, executor)
        key = (str(task.id), times[0])
        if fired is not Fired.WON:
            engine.logger.warning("The shutdown task %r is not run: %s.", task.id, fired.value)
            return False
        if (
            task.delivery is Delivery.AT_MOST_ONCE
            and isinstance(ledger, OwnRuns)
            and key not in await ledger.mark_started([key])
        ):
            return False
        submit(engine, executor, task, times, 0)
        return True

    async def _keep_declared(self) -> None:
        """Tasks declared in code are declared again at the next start of this scheduler.

        The memory store forgets them at its shutdown; their schedules go on where they were.
        """
        engine = self._engine
        for lane in engine.lanes.values():
            if lane.store.in_process:
                for task in await lane.store.get_all_tasks():
                    if (lane.alias, task.id) in self._declared:
                        task.pending = True
                        given = frozenset(type(task).model_fields)
                        engine.pending.append(Declaration(task, True, given))
        self._declared.clear()

    async def _close_stores(self, deadline: float) -> None:
        engine = self._engine
        engine.stores_open = False
        for lane in reversed(list(engine.lanes.values())):
            lane.stop_timer()
            # A store in this process never waits; a timeout would make it, where nothing may.
            at_most = self._left(deadline, engine.settings.store_timeout) + 0.1
            limit = None if lane.store.in_process else at_most
            # A store that does not answer must not use up the time for closing it.
            await self._step(lane.leave(), None if limit is None else limit / 2)
            await self._step(lane.store.shutdown(), limit)
        engine.lanes.clear()

    async def _step(self, work: Any, timeout: float | None) -> None:
        """One step of a shutdown: it may fail or hang, the next ones are made all the same."""
        try:
            if timeout is None or self._engine.is_idle:
                await work
            else:
                await asyncio.wait_for(work, timeout)
        except TimeoutError:
            self._engine.logger.error("A step of the shutdown, %s, took too long.", _name_of(work))
        except Exception:
            self._engine.logger.exception("A step of the shutdown failed.")


async def _ended(executor: BaseExecutor, wait: bool) -> None:
    """Shut an executor down, whether its `shutdown` is a coroutine function or not."""
    await finished(executor.shutdown(wait))


def _name_of(work: Any) -> str:
    return str(getattr(work, "__qualname__", work))
