"""Runs on an asyncio event loop: the executor that a scheduler has by default."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from contextvars import copy_context
from datetime import datetime
from functools import partial
from typing import Any

from asyncz.events.constants import TASK_CANCELLED
from asyncz.executors.base import Outcome
from asyncz.executors.calls import await_each, cut_off, is_torn_down, raised, timed_out
from asyncz.executors.going import Going
from asyncz.executors.pool import ThreadRunner
from asyncz.runs.current import CURRENT_RUN
from asyncz.tasks.base import Task
from asyncz.tasks.callables import is_coroutine_callable

__all__ = ["AsyncIOExecutor"]

GRACE = 5.0
"""Seconds that a coroutine has for its `finally` blocks, once it was cancelled alone."""


class AsyncIOExecutor(ThreadRunner):
    """Runs coroutine functions on the app's loop, and plain functions in threads, never on it."""

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        # Coroutines that go on for nobody. A loop alone does not keep a task from being collected.
        self._alone: set[asyncio.Task[Any] | _RemoteRun] = set()

    def do_send_task(self, task: Task, run_times: Sequence[datetime]) -> None:
        going = Going(task, run_times, None, self._host)
        if not is_coroutine_callable(task.fn):
            self._run_in_thread(going, self._plain_call(going))
            return
        if task.timeout is not None:
            going.limit(self._loop, self._time_is_up)
            going.arm()
        if self._task_loop is self._loop:
            going.handle = self._task_loop.create_task(self._run(going), name=task.id)
        else:
            going.handle = remote = _RemoteRun(self, going)
            self._task_loop.call_soon_threadsafe(remote.begin)
        self._going.add(going)

    async def _run(self, going: Going) -> None:
        task, run_times = going.task, going.run_times
        CURRENT_RUN.set(going)
        grace = task.mistrigger_grace_time
        if len(run_times) > 1 or (grace is not None and self._too_late_for(going)(run_times[0])):
            self._ended(going, await self._awaiting(going))
            return
        # By far the most frequent case, without the bookkeeping of several run times.
        try:
            value = await task.fn(*task.args, **task.kwargs)  # type: ignore[misc]  # a coroutine's
        except BaseException as exc:
            if is_torn_down(exc, going.handle):
                raise
            self._ended(going, [going.end(raised(run_times[0], exc))])
        else:
            self._succeeded(going, value)

    def _awaiting(self, going: Going) -> Coroutine[Any, Any, list[Outcome]]:
        task = going.task
        fn: Any = task.fn
        late, times = self._too_late_for(going), going.run_times
        return await_each(fn, task.args, task.kwargs, times, late, going, lambda: going.is_let_go)

    async def drain(self, wait: bool, timeout: float) -> None:
        # One that is cancelled before its first step would otherwise be waited for in vain.
        self.sweep()
        for going in self._going:
            self._hear_of(going)
        await super().drain(wait, timeout)

    def _hear_of(self, going: Going) -> None:
        """Be told that a coroutine has ended, also of one that is cancelled before its first step:
        that has no chance to say so."""
        if isinstance(going.handle, asyncio.Task):
            going.handle.add_done_callback(partial(self._left_early, going))

    def _left_early(self, going: Going, _: object) -> None:
        if going in self._going:
            self._ended(going, _unbegun(going))

    def sweep(self) -> None:
        for going in list(self._going):
            if isinstance(going.handle, asyncio.Task) and going.handle.done():
                self._left_early(going, None)

    async def _close(self, deadline: float) -> None:
        for handle in list(self._alone):
            handle.cancel()
        await super()._close(deadline)

    def _cut_off(self, going: Going) -> None:
        going.is_cut_off = True
        going.handle.cancel()

    def _is_coroutine(self, going: Going) -> bool:
        return isinstance(going.handle, asyncio.Task | _RemoteRun)

    def _cut_off_one(self, going: Going) -> None:
        if self._is_coroutine(going):
            self._hear_of(going)
            self._cut_off(going)
            going.give(self._loop, GRACE, self._leave_alone)
        else:
            super()._cut_off_one(going)

    def _time_is_up(self, going: Going) -> None:
        if not self._is_coroutine(going):
            super()._time_is_up(going)
        elif going in self._going and not going.is_cut_off:
            going.cut_after = going.task.timeout
            self._hear_of(going)
            going.handle.cancel()
            going.give(self._loop, GRACE, self._leave_alone)

    def _leave_alone(self, going: Going) -> None:
        """A run ends, for us, that did not when it was cancelled."""
        if going not in self._going:
            return
        outcomes, handle = self._last_word(going), going.handle
        going.is_let_go, going.cut_after = True, None
        self._alone.add(handle)
        if isinstance(handle, asyncio.Task):
            handle.add_done_callback(self._alone.discard)
        self._logger.warning(
            "A run of the task %r did not end within %g s of being cancelled; its coroutine is "
            "left alone.",
            going.task.id,
            GRACE,
        )
        self._ended(going, outcomes)

    def _last_word(self, going: Going) -> list[Outcome]:
        if going.cut_after is None:
            return cut_off(going.run_times, going.done)
        late = timed_out(going.at, going.cut_after, "it was cancelled, and did not end")
        return cut_off(going.run_times, [*going.done, going.noted(late)])

    def _ended_there(self, remote: _RemoteRun, going: Going, outcomes: list[Outcome]) -> None:
        self._alone.discard(remote)
        self._ended(going, outcomes)


def _unbegun(going: Going) -> list[Outcome]:
    """The outcomes of a coroutine that was cancelled before its first step."""
    return cut_off(going.run_times, [going.end(Outcome(TASK_CANCELLED, going.at))])


class _RemoteRun:
    """A run on the app's loop while the engine has a loop of its own in another thread."""

    __slots__ = ("_executor", "_going", "_handle", "_here", "_there")

    def __init__(self, executor: AsyncIOExecutor, going: Going) -> None:
        self._executor = executor
        self._going = going
        self._here = executor._loop
        self._there = executor._task_loop
        self._handle: asyncio.Task[list[Outcome]] | None = None

    def begin(self) -> None:
        """Start the coroutine; on the app's loop."""
        context = copy_context()
        context.run(CURRENT_RUN.set, self._going)
        coroutine = self._executor._awaiting(self._going)
        name = self._going.task.id
        self._handle = self._there.create_task(coroutine, name=name, context=context)
        self._handle.add_done_callback(self._report)

    def cancel(self) -> None:
        """Cancel the coroutine; from the engine's loop."""
        with suppress(RuntimeError):  # the app's loop was closed, and the coroutine with it
            self._there.call_soon_threadsafe(self._cancel_there)

    def _cancel_there(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def _report(self, handle: asyncio.Task[list[Outcome]]) -> None:
        outcomes = _unbegun(self._going) if handle.cancelled() else handle.result()
        with suppress(RuntimeError):  # the engine's loop was closed: it no longer asks
            self._here.call_soon_threadsafe(
                self._executor._ended_there, self, self._going, outcomes
            )
