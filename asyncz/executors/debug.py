"""Runs at once, in the caller: for stepping through a task with a debugger."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from asyncz.executors.asyncio import AsyncIOExecutor
from asyncz.executors.calls import call_each
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
            late = self._too_late_for(task)
            self._finish(task, call_each(fn, task.args, task.kwargs, run_times, late))
