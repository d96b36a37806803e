"""The two schedulers: one with a synchronous start, one that lives in coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import Future
from contextvars import copy_context
from types import TracebackType
from typing import Any, Self

from asyncz.exceptions import (
    ConfigurationError,
    SchedulerAlreadyRunningError,
    SchedulerNotRunningError,
)
from asyncz.executors.tracking import context_of_no_run
from asyncz.schedulers.bridge import drive
from asyncz.schedulers.config import read_options
from asyncz.schedulers.threaded import MARGIN, ThreadedScheduler, running_loop

__all__ = ["AsyncIOScheduler", "NativeAsyncIOScheduler"]


class AsyncIOScheduler(ThreadedScheduler):
    """A scheduler that is started and stopped by ordinary calls.

    Started in a running event loop, with stores that live in this process, it lives on that loop.
    With a store that needs I/O, without a running loop, or with `isolated_event_loop=True`, it
    lives on a loop in a thread of its own; coroutine functions then run on the loop that was
    running at `start`, if there was one and it is not isolated. `event_loop=` overrides that.
    """

    def __init__(self, global_config: Mapping[str, Any] | None = None, **options: Any) -> None:
        super().__init__(global_config, **options)

    def start(self, paused: bool = False) -> bool:
        """Start; returns whether this call did, see `astart`."""
        self._bridge.check_process()
        if self._closing is not None:
            raise SchedulerAlreadyRunningError(
                "The scheduler is still shutting down; await ashutdown() before start()."
            )
        if self._bridge.is_orphaned:
            self._end_orphan()
        if self._transition.is_mine:  # a listener, or a signal handler, within a start
            self.inc_refcount()
            return False
        if not self._transition.enter(self._longest_wait()):
            raise SchedulerAlreadyRunningError(
                "The scheduler is being started or shut down somewhere else; "
                "'await scheduler.astart()' waits for that."
            )
        try:
            if not self.inc_refcount() or self.running:
                return False
            self._start_engine_here(paused)
        finally:
            self._transition.leave()
        return True

    def _start_engine_here(self, paused: bool) -> None:
        try:
            self.check_uwsgi()
            app_loop = self._app_loop()
            if self._needs_thread():
                begin = self._lifecycle.start(paused, app_loop)
                asyncio.run_coroutine_threadsafe(begin, self._open_thread()).result()
            else:
                drive(self._lifecycle.start(paused, app_loop), "astart")
        except BaseException:
            self._references = 0
            self._close_thread()
            raise

    def _longest_wait(self) -> float:
        """Seconds to wait for another thread's start or shutdown; a loop must not stand still."""
        settings = self._engine.settings
        if running_loop() is not None:
            return 0
        return max(settings.shutdown_timeout, settings.store_timeout) + 2 * MARGIN

    def shutdown(self, wait: bool = True) -> bool:
        """Shut down; returns whether this call did, see `ashutdown`.

        On a loop that tasks run on, waiting for them would be waiting for itself: there the
        shutdown is begun and goes on by itself. `await scheduler.ashutdown()` waits for it.
        """
        self._bridge.check_process()
        if self._bridge.is_orphaned:
            self._end_orphan()
            return True
        if not self.decr_refcount():
            return False
        if not (self._transition.enter() or self._has_waited_for_turn()):
            self._begin_end(wait, context_of_no_run())
        elif self._references or not self.running:
            self._transition.leave()  # started anew meanwhile; or its start has failed
        elif self._bridge.is_here:
            self._shut_down_here(wait)
        else:
            self._shut_down_there(wait)
        return True

    def _has_waited_for_turn(self) -> bool:
        """Wait until a start on another thread is done. False: on the engine's loop, nobody may."""
        if self._bridge.is_here:
            return False
        if self._transition.is_mine or not self._transition.enter(self._longest_wait()):
            self.inc_refcount()
            raise SchedulerNotRunningError(
                "The scheduler is still being started or shut down; "
                "'await scheduler.ashutdown()' waits for that."
            )
        return True

    def _shut_down_there(self, wait: bool) -> None:
        deadline = self._join_deadline()
        would_wait_for_itself = self._engine.task_loop is running_loop()
        context = context_of_no_run() if would_wait_for_itself else copy_context()
        begin = self._lifecycle.shutdown(wait)
        ending = context.run(asyncio.run_coroutine_threadsafe, begin, self._engine.loop)
        if would_wait_for_itself:
            self._leave_when(ending)
            return
        try:
            ending.result(self._engine.settings.shutdown_timeout + MARGIN)
        except TimeoutError:
            if not ending.done():
                self._give_up_on_thread()
                self._leave_when(ending)
                return
            self._transition.leave()
            raise
        except BaseException:
            self._leave_when(ending)
            raise
        self._close_thread(self._join_time(deadline))
        self._transition.leave()

    def _leave_when(self, ending: Future[None]) -> None:
        thread, self._thread = self._thread, None

        def leave(_: object) -> None:
            if thread is not None:
                thread.stop_elsewhere()
            self._transition.leave()

        self._transition.hand_over()
        ending.add_done_callback(leave)

    def _shut_down_here(self, wait: bool) -> None:
        try:
            idle = self._engine.is_idle
            if idle and not drive(self._operations.shutdown_tasks_wait(), "ashutdown"):
                drive(self._lifecycle.shutdown(wait), "ashutdown")
                self._close_thread()
                return
        finally:
            self._transition.leave()
        self._begin_end(wait, context_of_no_run())

    def _needs_thread(self) -> bool:
        engine = self._engine
        return (
            engine.settings.isolated_event_loop
            or running_loop() is None
            or not all(store.in_process for store in engine.stores.values())
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.shutdown(wait=error is None)


class NativeAsyncIOScheduler(ThreadedScheduler):
    """A scheduler that lives on the running loop: `await start()`, `await shutdown()`.

    With `isolated_event_loop=True` it, and its coroutine functions, live on a loop in a thread of
    their own.
    """

    def __init__(self, global_config: Mapping[str, Any] | None = None, **options: Any) -> None:
        super().__init__(global_config, **options)
        self._refuse_loop(self._engine.settings.event_loop)

    def setup(
        self,
        global_config: Mapping[str, Any] | None = None,
        prefix: str | None = "asyncz.",
        **options: Any,
    ) -> None:
        self._refuse_loop(read_options(global_config, prefix, options).event_loop)
        super().setup(global_config, prefix, **options)

    def _refuse_loop(self, event_loop: object) -> None:
        if event_loop is not None:
            raise ConfigurationError(
                "NativeAsyncIOScheduler lives on the loop that start() is awaited on; "
                "event_loop is an option of AsyncIOScheduler."
            )

    async def start(self, paused: bool = False) -> bool:
        """The same as `astart`."""
        return await self.astart(paused)

    async def shutdown(self, wait: bool = True) -> bool:
        """The same as `ashutdown`."""
        return await self.ashutdown(wait)
