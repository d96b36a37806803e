"""Runs in threads."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextvars import copy_context
from datetime import datetime
from functools import partial
from typing import Any

from pydantic import Field

from asyncz.executors.base import ExecutorHost, Outcome
from asyncz.executors.calls import await_each, call_each, cut_off, timed_out
from asyncz.executors.going import Going
from asyncz.executors.tracking import TrackingExecutor
from asyncz.executors.workers import WorkerPool, check_pool_options
from asyncz.runs.current import CURRENT_RUN
from asyncz.tasks.base import Task
from asyncz.tasks.callables import is_coroutine_callable

__all__ = ["ThreadPoolExecutor", "ThreadRunner"]

DEFAULT_WORKERS = min(32, (os.cpu_count() or 1) + 4)
JOIN_TIME = 0.005
"""Seconds that the event loop may stand still for threads that are ending."""
POOL_OPTIONS = frozenset({"thread_name_prefix", "initializer", "initargs"})


class ThreadRunner(TrackingExecutor):
    """Base of the executors that have threads. The threads start when they are needed."""

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self._workers: WorkerPool | None = None

    def _make_workers(self) -> WorkerPool:
        return WorkerPool(DEFAULT_WORKERS, f"asyncz {self._alias}")

    def _run_in_thread(self, going: Going, call: Callable[[], list[Outcome]]) -> None:
        if self._workers is None:
            self._workers = self._make_workers()
        going.limit(self._loop, self._time_is_up)
        # The thread sees the context variables of whoever scheduled, as asyncio.to_thread does.
        context = copy_context()
        context.run(CURRENT_RUN.set, going)
        self._watch(going, self._workers.submit(partial(context.run, call)))

    def _plain_call(self, going: Going) -> Callable[[], Any]:
        task = going.task
        fn: Any = task.fn
        late, is_cut_off = self._too_late_for(going), self._cut_off_check(going)
        times = going.run_times
        return partial(call_each, fn, task.args, task.kwargs, times, late, is_cut_off, going)

    def _cut_off(self, going: Going) -> None:
        # Keeps what has not begun from beginning. A thread itself cannot be stopped.
        going.handle.cancel()

    def _cut_off_one(self, going: Going) -> None:
        self._let_one_go(going, cut_off(going.run_times, going.done))

    def _time_is_up(self, going: Going) -> None:
        if going in self._going:
            why = "its thread, which cannot be stopped, was left alone"
            late = going.noted(timed_out(going.at, going.task.timeout, why))
            done = [*going.done, late]
            self._let_one_go(going, cut_off(going.run_times, done))

    def _let_one_go(self, going: Going, outcomes: Sequence[Outcome]) -> None:
        """A run ends, for us: whatever its thread does goes on, but begins no further run time."""
        going.is_let_go = True
        if not going.handle.cancel():
            self._logger.warning(
                "A run of the task %r was cut off; its thread goes on until the function returns.",
                going.task.id,
            )
            if self._workers is not None and not self._workers.give_up(going.handle):
                self._logger.error(
                    "Too many threads of the executor %r go on with runs that were cut off; the "
                    "next runs wait until one of them returns.",
                    self._alias,
                )
        self._ended(going, outcomes)

    async def _close(self, deadline: float) -> None:
        workers, self._workers = self._workers, None
        if workers is not None:
            workers.close()
            # Idle threads end at once; a blocked one is a daemon and holds up nobody.
            workers.join(JOIN_TIME)


class ThreadPoolExecutor(ThreadRunner):
    """Runs every task in a thread of a pool; a coroutine function in a loop of that thread's own.

    Args:
        max_workers: How many runs go on at once; more wait in line.
        pool_kwargs: `thread_name_prefix`, `initializer`, `initargs`, as for the standard pool.
    """

    max_workers: int = Field(default=DEFAULT_WORKERS, ge=1)
    pool_kwargs: dict[str, Any] = Field(default_factory=dict)

    def start(self, scheduler: ExecutorHost, alias: str) -> None:
        check_pool_options(alias, self.pool_kwargs, POOL_OPTIONS)
        super().start(scheduler, alias)

    def do_send_task(self, task: Task, run_times: Sequence[datetime]) -> None:
        going = Going(task, run_times, None, self._host)
        call = self._plain_call(going)
        if is_coroutine_callable(task.fn):
            call = partial(self._run_own_loop, going)
        self._run_in_thread(going, call)

    def _run_own_loop(self, going: Going) -> list[Outcome]:
        task, late = going.task, self._too_late_for(going)
        fn: Any = task.fn
        return asyncio.run(await_each(fn, task.args, task.kwargs, going.run_times, late, going))

    def _make_workers(self) -> WorkerPool:
        options = {"thread_name_prefix": f"asyncz {self._alias}", **self.pool_kwargs}
        return WorkerPool(self.max_workers, **options)
