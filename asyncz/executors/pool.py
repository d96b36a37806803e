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
from asyncz.executors.calls import await_each, call_each
from asyncz.executors.tracking import CURRENT_RUN, Going, TrackingExecutor
from asyncz.executors.workers import WorkerPool, check_pool_options
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

    def _run_in_thread(
        self, task: Task, run_times: Sequence[datetime], call: Callable[[], list[Outcome]]
    ) -> None:
        if self._workers is None:
            self._workers = self._make_workers()
        going = Going(task, run_times)
        # The thread sees the context variables of whoever scheduled, as asyncio.to_thread does.
        context = copy_context()
        context.run(CURRENT_RUN.set, going)
        self._watch(going, self._workers.submit(partial(context.run, call)))

    def _plain_call(self, task: Task, run_times: Sequence[datetime]) -> Callable[[], Any]:
        fn: Any = task.fn
        late, is_cut_off = self._too_late_for(task), self._cut_off_check()
        return partial(call_each, fn, task.args, task.kwargs, run_times, late, is_cut_off)

    def _cut_off(self, going: Going) -> None:
        # Keeps what has not begun from beginning. A thread itself cannot be stopped.
        going.handle.cancel()

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
        call = self._plain_call(task, run_times)
        if is_coroutine_callable(task.fn):
            call = partial(self._run_own_loop, task, run_times)
        self._run_in_thread(task, run_times, call)

    def _run_own_loop(self, task: Task, run_times: Sequence[datetime]) -> list[Outcome]:
        fn: Any = task.fn
        return asyncio.run(
            await_each(fn, task.args, task.kwargs, run_times, self._too_late_for(task))
        )

    def _make_workers(self) -> WorkerPool:
        options = {"thread_name_prefix": f"asyncz {self._alias}", **self.pool_kwargs}
        return WorkerPool(self.max_workers, **options)
