"""Runs at once, in the caller: for stepping through a task with a debugger."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import copy_context
from datetime import datetime
from functools import partial
from typing import Any

from asyncz.executors.asyncio import AsyncIOExecutor
from asyncz.executors.calls import call_each
from asyncz.executors.going import Going
from asyncz.runs.current import CURRENT_RUN
from asyncz.tasks.base import Task
from asyncz.tasks.callables import is_coroutine_callable

__all__ = ["DebugExecutor"]


class DebugExecutor(AsyncIOExecutor):
    """Calls plain functions directly, on the event loop, which stands still meanwhile.

    Coroutine functions run as with the `AsyncIOExecutor`: a loop cannot run another to its end.
    """

    def do_send_task(self, task: Task, run_times: Sequence[datetime]) -> None:
        fn: Any = task.fn
        if is_coroutine_callable(fn):
            super().do_send_task(task, run_times)
        else:
            going = Going(task, run_times, None, self._host)
            context = copy_context()
            context.run(CURRENT_RUN.set, going)
            late = self._too_late_for(going)
            call = partial(call_each, fn, task.args, task.kwargs, run_times, late, None, going)
            self._finish(task, context.run(call))
