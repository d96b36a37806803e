"""Frozen snapshots of a scheduler, and a list of its tasks for people."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from asyncz.enums import SchedulerState, TaskScheduleState
from asyncz.tasks.inspection import TaskInfo
from asyncz.text import printable

__all__ = ["Health", "SchedulerInfo", "SchedulerInstanceInfo", "TaskPage", "format_tasks"]


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
    """One of the schedulers that share stores.

    Args:
        scope: `this`: the scheduler that was asked. `store`: another one, as its store knows it.
        host, process_id: Where it runs.
        active: Whether it runs tasks.
        stale: Whether it was not heard of for longer than its lease.
        last_seen_at: Its last sign of life, by the store's clock.
        state_label: Of others: `alive`, `stale` or `dead`.
        running_task_count: How many runs went on when it was last seen.
    """

    model_config = ConfigDict(frozen=True)

    identity: str
    scope: str
    host: str = Field(default_factory=socket.gethostname)
    process_id: int = Field(default_factory=os.getpid)
    state: SchedulerState
    state_label: str
    active: bool
    stale: bool
    started_at: datetime | None = None
    last_seen_at: datetime
    uptime_seconds: float | None = None
    heartbeat_age_seconds: float
    stale_after_seconds: float
    timezone: str = ""
    executor_aliases: tuple[str, ...] = ()
    store_aliases: tuple[str, ...]
    task_count: int = 0
    scheduled_task_count: int = 0
    paused_task_count: int = 0
    pending_task_count: int = 0
    submitted_task_count: int = 0
    running_task_count: int = 0

    @property
    def node_key(self) -> tuple[str, str, int]:
        """What tells it from others."""
        return (self.identity, self.host, self.process_id)


class Health(BaseModel):
    """Whether all is well with a scheduler, as far as it knows without asking anybody.

    Args:
        status: `ok`; `degraded`: something below is not as it should be; `stopped`.
        state: The scheduler's, in a word.
        degraded: The stores that do not answer, and why.
        overdue: The tasks that have not succeeded within their `expect_every`: store and id.
    """

    model_config = ConfigDict(frozen=True)

    status: str
    state: str
    degraded: dict[str, str]
    overdue: tuple[tuple[str, str], ...]


class TaskPage(BaseModel):
    """A page of task snapshots.

    Args:
        tasks: Those of this page.
        total: How many there are on all pages.
        limit, offset: What was asked for.
    """

    model_config = ConfigDict(frozen=True)

    tasks: tuple[TaskInfo, ...]
    total: int
    limit: int
    offset: int


def format_tasks(by_store: Iterable[tuple[str, list[TaskInfo]]]) -> str:
    """A list for people: each store with its tasks, one a line."""
    lines = []
    for alias, infos in by_store:
        lines.append(f"Store {alias}:")
        lines.extend(f"    {_line(info)}" for info in infos)
        if not infos:
            lines.append("    No tasks")
    return "".join(f"{printable(line)}\n" for line in lines)


def _line(info: TaskInfo) -> str:
    when = info.schedule_state.value
    if info.schedule_state is TaskScheduleState.SCHEDULED and info.next_run_time is not None:
        when = f"next run at {info.next_run_time.isoformat(sep=' ', timespec='seconds')}"
    elif info.error is not None:
        when = f"{when}: {info.error}"
    return f"{info.name} (id: {info.id}, trigger: {info.trigger_description}, {when})"
