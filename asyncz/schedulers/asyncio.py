"""The two schedulers: one with a synchronous start, one that lives in coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextvars import Context, copy_context
from types import TracebackType
from typing import Any, Self

from asyncz.exceptions import ConfigurationError, SchedulerAlreadyRunningError
from asyncz.executors.tracking import CURRENT_RUN, context_of_no_run
from asyncz.schedulers.base import BaseScheduler
from asyncz.schedulers.bridge import EngineThread, drive
from asyncz.schedulers.config import read_options

__all__ = ["AsyncIOScheduler", "NativeAsyncIOScheduler"]


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class _ThreadedScheduler(BaseScheduler):
    """What both have of an engine that can live in a thread of its own."""

    _thread: EngineThread | None = None
    _closing: asyncio.Task[None] | None = None

    async def astart(self, paused: bool = False) -> bool:
        """Start on the running loop, or in a thread if the options ask for one.

        Args:
            paused: Hand out no runs until `resume`.

        Returns:
            Whether this call started it; False: it was running, and one more `shutdown` is
            needed to stop it.
        """
        if self._closing is not None:
            await asyncio.wait([self._closing])
        if self._bridge.is_orphaned:
            await asyncio.to_thread(self._end_orphan)
        if not self.inc_refcount():
            return False
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
            self.decr_refcount()
            if self._thread is not None:
                await asyncio.to_thread(self._close_thread)
            raise
        return True

    async def ashutdown(self, wait: bool = True) -> bool:
        """Shut down, and return when that is done.

        Args:
            wait: Let runs finish, within `shutdown_timeout`; False: cancel them.

        Returns:
            Whether this call stopped it; False: it was started more often than that.

        Raises:
            SchedulerNotRunningError: It is not running.
        """
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
        try:
            await self._bridge.acall(lambda: self._lifecycle.shutdown(wait))
        finally:
            # Taken now: the next start, with a thread of its own, need not wait for this end.
            thread, self._thread = self._thread, None
            if thread is not None and asker is not None:
                asker.add_done_callback(lambda _: thread.stop_elsewhere())
            elif thread is not None:
                await asyncio.to_thread(thread.stop)

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
        return None if settings.isolated_event_loop else _running_loop()

    def _end_orphan(self) -> None:
        """The loop was closed without a shutdown: release what is left, on a loop for that."""
        self._engine.logger.warning(
            "The event loop of the scheduler %s was closed without shutdown(); what was going on "
            "there has ended.",
            self.identity,
        )
        self._references = 0
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

    def _close_thread(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()

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


class AsyncIOScheduler(_ThreadedScheduler):
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
        if self._closing is not None:
            raise SchedulerAlreadyRunningError(
                "The scheduler is still shutting down; await ashutdown() before start()."
            )
        if self._bridge.is_orphaned:
            self._end_orphan()
        if not self.inc_refcount():
            return False
        try:
            self.check_uwsgi()
            app_loop = self._app_loop()
            if self._needs_thread():
                begin = self._lifecycle.start(paused, app_loop)
                asyncio.run_coroutine_threadsafe(begin, self._open_thread()).result()
            else:
                drive(self._lifecycle.start(paused, app_loop), "astart")
        except BaseException:
            self.decr_refcount()
            self._close_thread()
            raise
        return True

    def shutdown(self, wait: bool = True) -> bool:
        """Shut down; returns whether this call did, see `ashutdown`.

        On a loop that tasks run on, waiting for them would be waiting for itself: there the
        shutdown is begun and goes on by itself. `await scheduler.ashutdown()` waits for it.
        """
        if self._bridge.is_orphaned:
            self._end_orphan()
            return True
        if not self.decr_refcount():
            return False
        loop = self._bridge.loop
        if self._bridge.is_here:
            self._shut_down_here(wait)
        elif loop is not None:
            # Asked first: the engine may have ended, and have no loop, before the next line.
            would_wait_for_itself = self._engine.task_loop is _running_loop()
            context = context_of_no_run() if would_wait_for_itself else copy_context()
            begin = self._lifecycle.shutdown(wait)
            ending = context.run(asyncio.run_coroutine_threadsafe, begin, loop)
            if would_wait_for_itself:
                thread, self._thread = self._thread, None
                if thread is not None:
                    ending.add_done_callback(lambda _: thread.stop_elsewhere())
            else:
                ending.result()
                self._close_thread()
        return True

    def _shut_down_here(self, wait: bool) -> None:
        if self._engine.is_idle and not drive(self._operations.shutdown_tasks_wait(), "ashutdown"):
            drive(self._lifecycle.shutdown(wait), "ashutdown")
            self._close_thread()
            return
        self._begin_end(wait, context_of_no_run())

    def _needs_thread(self) -> bool:
        engine = self._engine
        return (
            engine.settings.isolated_event_loop
            or _running_loop() is None
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


class NativeAsyncIOScheduler(_ThreadedScheduler):
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
