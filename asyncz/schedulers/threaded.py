"""What both schedulers have in common of starting and stopping, on a loop or in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextvars import Context, copy_context
from types import TracebackType
from typing import Any, Self

from asyncz.clock import SystemClock
from asyncz.enums import SchedulerState
from asyncz.exceptions import ConfigurationError
from asyncz.runs.current import CURRENT_RUN
from asyncz.schedulers.base import BaseScheduler
from asyncz.schedulers.engine_thread import JOIN_TIME, EngineThread
from asyncz.schedulers.transition import Transition

__all__ = ["MARGIN", "ThreadedScheduler", "running_loop"]

MARGIN = 1.0
"""Seconds beyond the shutdown timeout, after which the engine's own thread is taken for blocked."""
LEAST_JOIN = 0.2


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop that runs on this thread, if one does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class ThreadedScheduler(BaseScheduler):
    """What both have of an engine that can live in a thread of its own."""

    _thread: EngineThread | None = None
    _closing: asyncio.Task[None] | None = None

    def __init__(self, global_config: Mapping[str, Any] | None = None, **options: Any) -> None:
        super().__init__(global_config, **options)
        self._transition = Transition()

    async def astart(self, paused: bool = False) -> bool:
        """Start on the running loop, or in a thread if the options ask for one.

        Args:
            paused: Hand out no runs until `resume`.

        Returns:
            Whether this call started it; False: it was running, and one more `shutdown` is
            needed to stop it.
        """
        self._bridge.check_process()
        if self._bridge.is_orphaned:
            await asyncio.to_thread(self._end_orphan)
        await self._transition.aenter()
        try:
            # Running, and yet the first: a shutdown waits for its turn, and will see that it has
            # come too late.
            if not self.inc_refcount() or self.running:
                return False
            await self._start_engine(paused)
        finally:
            self._transition.leave()
        return True

    async def _start_engine(self, paused: bool) -> None:
        try:
            self.check_uwsgi()
            app_loop = self._app_loop()
            if self._needs_thread():
                loop = await asyncio.to_thread(self._open_thread)
                begin = self._lifecycle.start(paused, app_loop)
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(begin, loop))
            else:
                await self._lifecycle.start(paused, app_loop)
        except BaseException:
            self._references = 0
            if self._thread is not None:
                await asyncio.to_thread(self._close_thread)
            raise

    async def ashutdown(self, wait: bool = True) -> bool:
        """Shut down, and return when that is done.

        Args:
            wait: Let runs finish, within `shutdown_timeout`; False: cancel them.

        Returns:
            Whether this call stopped it; False: it was started more often than that.

        Raises:
            SchedulerNotRunningError: It is not running.
        """
        self._bridge.check_process()
        if self._bridge.is_orphaned:
            await asyncio.to_thread(self._end_orphan)
            return True
        if not self.decr_refcount():
            return False
        # Who waits here may be cancelled; a shutdown that has begun goes on to its end. If it is
        # a run that waits, the context tells the executors not to wait for that run.
        await asyncio.shield(self._begin_end(wait, copy_context(), self._asker()))
        return True

    def _asker(self) -> asyncio.Task[Any] | None:
        """Who waits for the shutdown on a loop that is to end with it, if anybody does."""
        if self._thread is None or not self._bridge.is_here:
            return None
        run = CURRENT_RUN.get()
        here = run is not None and isinstance(run.handle, asyncio.Task)
        return run.handle if run is not None and here else asyncio.current_task()

    def _begin_end(
        self, wait: bool, context: Context, asker: asyncio.Task[Any] | None = None
    ) -> asyncio.Task[None]:
        name = f"asyncz shutdown of {self.identity}"
        loop = asyncio.get_running_loop()
        self._closing = loop.create_task(self._end(wait, asker), name=name, context=context)
        self._closing.add_done_callback(self._ended)
        return self._closing

    async def _end(self, wait: bool, asker: asyncio.Task[Any] | None) -> None:
        await self._transition.aenter()
        try:
            if self._references == 0 and self.running:
                await self._end_engine(wait, asker)
        finally:
            self._transition.leave()

    async def _end_engine(self, wait: bool, asker: asyncio.Task[Any] | None) -> None:
        deadline = self._join_deadline()
        blocked = False
        try:
            work = self._bridge.acall(lambda: self._lifecycle.shutdown(wait))
            if self._bridge.is_here:
                await work
            else:
                await asyncio.wait_for(work, self._engine.settings.shutdown_timeout + MARGIN)
        except TimeoutError:
            blocked = True
            self._give_up_on_thread()
        finally:
            thread, self._thread = self._thread, None
            if thread is not None and asker is not None:
                asker.add_done_callback(lambda _: thread.stop_elsewhere())
            elif thread is not None and blocked:
                thread.stop_elsewhere()
            elif thread is not None:
                await asyncio.to_thread(thread.stop, self._join_time(deadline))

    def _give_up_on_thread(self) -> None:
        engine = self._engine
        engine.state = SchedulerState.STATE_STOPPED
        engine.is_claiming = False
        engine.logger.error(
            "The shutdown of %s is not waited for any longer: something blocks the event loop in "
            "the scheduler's own thread. It goes on when that has ended. Blocking work belongs "
            "into plain functions, which run in threads.",
            self.identity,
        )

    def _join_deadline(self) -> float:
        return SystemClock().monotonic() + self._engine.settings.shutdown_timeout

    def _join_time(self, deadline: float) -> float:
        """Seconds that are left, of a shutdown, to wait for the end of the engine's thread."""
        return max(LEAST_JOIN, deadline - SystemClock().monotonic())

    def _ended(self, closing: asyncio.Task[None]) -> None:
        self._closing = None
        if not closing.cancelled() and (error := closing.exception()) is not None:
            self._engine.logger.error("The shutdown failed.", exc_info=error)

    def _needs_thread(self) -> bool:
        return self._engine.settings.isolated_event_loop

    def _app_loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop for coroutine functions, if it is not the engine's."""
        settings = self._engine.settings
        if settings.event_loop is not None:
            loop = settings.event_loop
            if not isinstance(loop, asyncio.AbstractEventLoop):
                raise ConfigurationError(
                    f"event_loop must be an event loop, not {type(loop).__name__}."
                )
            return loop
        return None if settings.isolated_event_loop else running_loop()

    def _end_orphan(self) -> None:
        """The loop was closed without a shutdown: release what is left, on a loop for that."""
        self._engine.logger.warning(
            "The event loop of the scheduler %s was closed without shutdown(); what was going on "
            "there has ended.",
            self.identity,
        )
        self._references = 0
        self._closing = None
        self._transition = Transition()  # who was in it has ended with the loop
        helper = EngineThread(f"asyncz end of {self.identity}")
        try:
            asyncio.run_coroutine_threadsafe(self._shut_down_orphan(), helper.start()).result()
        finally:
            helper.stop()
            self._close_thread()

    async def _shut_down_orphan(self) -> None:
        self._bridge.connect()
        await self._lifecycle.shutdown(wait=False)

    def _open_thread(self) -> asyncio.AbstractEventLoop:
        self._thread = EngineThread(f"asyncz {self.identity}")
        return self._thread.start()

    def _close_thread(self, timeout: float = JOIN_TIME) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop(timeout)

    async def __aenter__(self) -> Self:
        await self.astart()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.ashutdown(wait=error is None)
