"""The scheduler for ASGI apps: cron, interval and one-off tasks.

Everything public is here. Names are imported when they are first used, so that `import asyncz`
costs next to nothing, and an app pays for what it uses.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncz.clock import Clock, SystemClock
    from asyncz.enums import Delivery, RunKind, RunState, SchedulerState, TaskScheduleState
    from asyncz.events import SchedulerEvent, TaskEvent, TaskExecutionEvent, TaskSubmissionEvent
    from asyncz.exceptions import RetryAfter, Skip
    from asyncz.executors import (
        AsyncIOExecutor,
        BaseExecutor,
        DebugExecutor,
        ProcessPoolExecutor,
        ThreadPoolExecutor,
    )
    from asyncz.runs import Backoff, CurrentRun, History, Retry, Run, current_run
    from asyncz.schedulers import AsyncIOScheduler, NativeAsyncIOScheduler
    from asyncz.stores import BaseStore, FileStore, MemoryStore
    from asyncz.tasks import Task, TaskInfo, TaskRunPreview
    from asyncz.triggers import (
        AndTrigger,
        BaseTrigger,
        CalendarIntervalTrigger,
        CronTrigger,
        DateTrigger,
        IntervalTrigger,
        OrTrigger,
        ShutdownTrigger,
    )
    from asyncz.typing import undefined

__version__ = "0.1.0"

_HOMES = {
    "asyncz.clock": ("Clock", "SystemClock"),
    "asyncz.enums": ("Delivery", "RunKind", "RunState", "SchedulerState", "TaskScheduleState"),
    "asyncz.events": ("SchedulerEvent", "TaskEvent", "TaskExecutionEvent", "TaskSubmissionEvent"),
    "asyncz.executors": (
        "AsyncIOExecutor",
        "BaseExecutor",
        "DebugExecutor",
        "ProcessPoolExecutor",
        "ThreadPoolExecutor",
    ),
    "asyncz.exceptions": ("RetryAfter", "Skip"),
    "asyncz.runs": ("Backoff", "CurrentRun", "History", "Retry", "Run", "current_run"),
    "asyncz.schedulers": ("AsyncIOScheduler", "NativeAsyncIOScheduler"),
    "asyncz.stores": ("BaseStore", "FileStore", "MemoryStore"),
    "asyncz.tasks": ("Task", "TaskInfo", "TaskRunPreview"),
    "asyncz.triggers": (
        "AndTrigger",
        "BaseTrigger",
        "CalendarIntervalTrigger",
        "CronTrigger",
        "DateTrigger",
        "IntervalTrigger",
        "OrTrigger",
        "ShutdownTrigger",
    ),
    "asyncz.typing": ("undefined",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AndTrigger",
    "AsyncIOExecutor",
    "AsyncIOScheduler",
    "Backoff",
    "BaseExecutor",
    "BaseStore",
    "BaseTrigger",
    "CalendarIntervalTrigger",
    "Clock",
    "CronTrigger",
    "CurrentRun",
    "DateTrigger",
    "DebugExecutor",
    "Delivery",
    "FileStore",
    "History",
    "IntervalTrigger",
    "MemoryStore",
    "NativeAsyncIOScheduler",
    "OrTrigger",
    "ProcessPoolExecutor",
    "Retry",
    "RetryAfter",
    "Run",
    "RunKind",
    "RunState",
    "SchedulerEvent",
    "SchedulerState",
    "ShutdownTrigger",
    "Skip",
    "SystemClock",
    "Task",
    "TaskEvent",
    "TaskExecutionEvent",
    "TaskInfo",
    "TaskRunPreview",
    "TaskScheduleState",
    "TaskSubmissionEvent",
    "ThreadPoolExecutor",
    "__version__",
    "current_run",
    "undefined",
]


def __getattr__(name: str) -> Any:
    module = _HOME_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'asyncz' has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
