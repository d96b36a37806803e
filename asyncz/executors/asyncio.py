"""Runs on an asyncio event loop: the executor that a scheduler has by default."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any

from asyncz.executors.base import Outcome
from asyncz.executors.calls import await_each, cut_off
from asyncz.executors.pool import ThreadRunner
from asyncz.tasks.base import Task
from asyncz.tasks.callables import is_coroutine_callable

__all__ = ["AsyncIOExecutor"]


class AsyncIOExecutor(ThreadRunner):
    """Runs coroutine functions on the app's loop, and plain functions in threads, never on it."""

    def do_send_task(self, task: Task, run_times: Sequence[datetime]) -> None:
        if not is_coroutine_callable(task.fn):
            self._run_in_thread(task, run_times, self._plain_call(task, run_times))
        elif self.host.task_loop is self.host.engine_loop:
            handle = self.host.engine_loop.create_task(self._run(task, run_times), name=task.id)
            self._going[handle] = (task, run_times)
        else:
            self._run_on_other_loop(task, run_times)

    def _awaiting(
        self, task: Task, run_times: Sequence[datetime]
    ) -> Coroutine[Any, Any, list[Outcome]]:
        fn: Any = task.fn
        return await_each(fn, task.args, task.kwargs, run_times, self._too_late_for(task))

    async def _run(self, task: Task, run_times: Sequence[datetime]) -> None:
        outcomes = await self._awaiting(task, run_times)
        self._ended(asyncio.current_task(), outcomes)

    async def drain(self, wait: bool, timeout: float) -> None:
        # One that is cancelled before its first step would otherwise be waited for in vain.
        self._sweep()
        for handle, (_, run_times) in self._going.items():
            if isinstance(handle, asyncio.Task):
                handle.add_done_callback(partial(self._ended, outcomes=cut_off(run_times)))
        await super().drain(wait, timeout)

    def _sweep(self) -> None:
        # A coroutine that is cancelled before its first step has no chance to say that it ended.
        for handle, (_, run_times) in list(self._going.items()):
            if isinstance(handle, asyncio.Task) and handle.done():
                self._ended(handle, cut_off(run_times))

    def _run_on_other_loop(self, task: Task, run_times: Sequence[datetime]) -> None:
        remote = _RemoteRun(self, task, run_times)
        self.host.task_loop.call_soon_threadsafe(remote.begin)
        self._going[remote] = (task, run_times)

    def _cut_off(self, handle: Any) -> None:
        handle.cancel()


class _RemoteRun:
    """A run on the app's loop while the engine has a loop of its own in another thread."""

    __slots__ = ("_executor", "_handle", "_here", "_run_times", "_task", "_there")

    def __init__(
        self, executor: AsyncIOExecutor, task: Task, run_times: Sequence[datetime]
    ) -> None:
        self._executor = executor
        self._task = task
        self._run_times = run_times
        self._here = executor.host.engine_loop
        self._there = executor.host.task_loop
        self._handle: asyncio.Task[list[Outcome]] | None = None

    def begin(self) -> None:
        """Start the coroutine; on the app's loop."""
        coroutine = self._executor._awaiting(self._task, self._run_times)
        self._handle = self._there.create_task(coroutine, name=self._task.id)
        self._handle.add_done_callback(self._report)

    def cancel(self) -> None:
        """Cancel the coroutine; from the engine's loop."""
        with suppress(RuntimeError):  # the app's loop was closed, and the coroutine with it
            self._there.call_soon_threadsafe(self._cancel_there)

    def _cancel_there(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def _report(self, handle: asyncio.Task[list[Outcome]]) -> None:
        outcomes = cut_off(self._run_times) if handle.cancelled() else handle.result()
        with suppress(RuntimeError):  # the engine's loop was closed: it no longer asks
            self._here.call_soon_threadsafe(self._executor._ended, self, outcomes)
