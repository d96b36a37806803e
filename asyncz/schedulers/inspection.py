"""Frozen snapshots of a scheduler, and how lists of task snapshots are filtered and sorted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from math import inf
from typing import Any

from pydantic import BaseModel, ConfigDict

from asyncz.enums import SchedulerState, TaskScheduleState
from asyncz.tasks.inspection import TaskInfo

__all__ = ["SchedulerInfo", "SchedulerInstanceInfo", "TaskQuery", "format_tasks"]


class SchedulerInfo(BaseModel):
    """What can be seen of a scheduler at one moment.

    `degraded` maps the alias of each store that fails at present to its error; the tasks of such
    a store are not in the counts.
    """

    model_config = ConfigDict(frozen=True)

    identity: str
    state: SchedulerState
    state_label: str
    running: bool
    standby: bool = False
    started_at: datetime | None = None
    uptime_seconds: float | None = None
    timezone: str
    executor_aliases: tuple[str, ...]
    store_aliases: tuple[str, ...]
    task_count: int
    scheduled_task_count: int
    paused_task_count: int
    pending_task_count: int
    quarantined_task_count: int
    submitted_task_count: int
    running_task_count: int
    degraded: dict[str, str]
    store_retry_interval: float
    startup_delay: float


class SchedulerInstanceInfo(BaseModel):
    """One scheduler of those that are known; today only this process's own."""

    model_config = ConfigDict(frozen=True)

    identity: str
    scope: str
    state: SchedulerState
    state_label: str
    active: bool
    stale: bool
    started_at: datetime | None = None
    last_seen_at: datetime
    uptime_seconds: float | None = None
    heartbeat_age_seconds: float
    stale_after_seconds: float
    timezone: str
    executor_aliases: tuple[str, ...]
    store_aliases: tuple[str, ...]
    task_count: int
    scheduled_task_count: int
    paused_task_count: int
    pending_task_count: int
    submitted_task_count: int


def _low(text: str | None) -> str:
    return (text or "").lower()


def _when(info: TaskInfo) -> tuple[float]:
    return (inf if info.next_run_time is None else info.next_run_time.timestamp(),)


SORTERS: dict[str, Callable[[TaskInfo], tuple[Any, ...]]] = {
    "id": lambda info: (_low(info.id),),
    "name": lambda info: (_low(info.name), _low(info.id)),
    "next_run_time": lambda info: (*_when(info), _low(info.name), _low(info.id)),
    "schedule_state": lambda info: (info.schedule_state.value, *_when(info), _low(info.id)),
    "executor": lambda info: (_low(info.executor), _low(info.id)),
    "store": lambda info: (_low(info.store_alias), _low(info.id)),
    "trigger": lambda info: (_low(info.trigger_alias or info.trigger_name), _low(info.id)),
}


class TaskQuery:
    """Which task snapshots are wanted, and in which order.

    Args:
        schedule_state: A `TaskScheduleState` or its value.
        executor: An executor's alias.
        trigger: A trigger's alias or the name of its class, in any case.
        q: Text to be found, in any case, in what names or describes the task.
        sort_by: One of `SORTERS`.
        descending: The other way round.

    Raises:
        ValueError: The state or the order is not one there is; the message lists them.
    """

    def __init__(
        self,
        schedule_state: TaskScheduleState | str | None,
        executor: str | None,
        trigger: str | None,
        q: str | None,
        sort_by: str,
        descending: bool,
    ) -> None:
        if sort_by not in SORTERS:
            raise ValueError(f"sort_by must be one of {', '.join(SORTERS)}, not {sort_by!r}.")
        self._state = _state(schedule_state)
        self._executor = executor
        self._trigger = trigger.lower() if trigger else None
        self._needle = q.strip().lower() if q else ""
        self._key = SORTERS[sort_by]
        self._descending = descending

    def apply(self, infos: Iterable[TaskInfo]) -> list[TaskInfo]:
        """The wanted ones, in order."""
        wanted = [info for info in infos if self._matches(info)]
        return sorted(wanted, key=self._key, reverse=self._descending)

    def _matches(self, info: TaskInfo) -> bool:
        return (
            (self._state is None or info.schedule_state is self._state)
            and (not self._executor or info.executor == self._executor)
            and (
                self._trigger is None
                or self._trigger in (_low(info.trigger_alias), _low(info.trigger_name))
            )
            and (not self._needle or any(self._needle in text for text in _texts(info)))
        )


def _state(value: TaskScheduleState | str | None) -> TaskScheduleState | None:
    if value is None:
        return None
    try:
        return TaskScheduleState(str(value).strip().lower())
    except ValueError:
        known = ", ".join(TaskScheduleState)
        raise ValueError(f"schedule_state must be one of {known}, not {value!r}.") from None


def _texts(info: TaskInfo) -> Iterable[str]:
    return map(
        _low,
        (
            info.id,
            info.name,
            info.callable_name,
            info.callable_reference,
            info.trigger_alias,
            info.trigger_name,
            info.trigger_description,
            info.executor,
            info.store_alias,
            info.schedule_state.value,
        ),
    )


def format_tasks(by_store: Iterable[tuple[str, list[TaskInfo]]]) -> str:
    """A list for people: each store with its tasks, one a line."""
    lines = []
    for alias, infos in by_store:
        lines.append(f"Store {alias}:")
        lines.extend(f"    {_line(info)}" for info in infos)
        if not infos:
            lines.append("    No tasks")
    return "".join(f"{_printable(line)}\n" for line in lines)


def _line(info: TaskInfo) -> str:
    when = info.schedule_state.value
    if info.schedule_state is TaskScheduleState.SCHEDULED and info.next_run_time is not None:
        when = f"next run at {info.next_run_time.isoformat(sep=' ', timespec='seconds')}"
    elif info.error is not None:
        when = f"{when}: {info.error}"
    return f"{info.name} (id: {info.id}, trigger: {info.trigger_description}, {when})"


def _printable(text: str) -> str:
    # A task's name must not be able to move the cursor of the terminal it is shown on.
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
