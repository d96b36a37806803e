"""Frozen snapshots of tasks, for dashboards, logs and tests."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from asyncz.enums import TaskScheduleState
from asyncz.runs.base import Run

__all__ = ["TaskInfo", "TaskRunPreview"]


class TaskInfo(BaseModel):
    """What can be seen of a task at one moment; changing the task does not change it.

    `args` and `kwargs` are the task's own values, left out of the `repr` since they may hold
    secrets. `error` says why a quarantined task is not run. `active_runs` is how many of its runs
    are claimed or go on, on any worker, and `last_run` the latest that there is a record of.
    `overdue`: this scheduler has seen that it did not succeed within its `expect_every`.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    id: str | None
    name: str | None
    callable_name: str | None
    callable_reference: str | None
    trigger_alias: str | None
    trigger_name: str | None
    trigger_description: str | None
    executor: str | None
    store_alias: str | None
    schedule_state: TaskScheduleState
    next_run_time: datetime | None
    coalesce: bool
    max_instances: int
    mistrigger_grace_time: float | None
    pending: bool
    paused: bool
    submitted: bool
    tags: tuple[str, ...] = ()
    timeout: float | None = None
    args: tuple[Any, ...] = Field(default=(), repr=False)
    kwargs: dict[str, Any] = Field(default_factory=dict, repr=False)
    error: str | None = None
    active_runs: int = 0
    last_run: Run | None = None
    overdue: bool = False

    @classmethod
    def of_unreadable(cls, task_id: str, store_alias: str | None, error: str) -> TaskInfo:
        """What can be seen of a record that makes no task."""
        return cls(
            id=task_id,
            name=None,
            callable_name=None,
            callable_reference=None,
            trigger_alias=None,
            trigger_name=None,
            trigger_description=None,
            executor=None,
            store_alias=store_alias,
            schedule_state=TaskScheduleState.QUARANTINED,
            next_run_time=None,
            coalesce=True,
            max_instances=1,
            mistrigger_grace_time=None,
            pending=False,
            paused=False,
            submitted=True,
            error=error,
        )


class TaskRunPreview(BaseModel):
    """The next run times of a task, as its trigger gives them now.

    Args:
        task: The task's snapshot.
        timezone: The name of the scheduler's zone.
        generated_at: The instant the preview was made for.
        requested_count: How many run times were asked for.
        run_times: What there is of them, oldest first.
        exhausted: The trigger has no more than these.
    """

    model_config = ConfigDict(frozen=True)

    task: TaskInfo
    timezone: str
    generated_at: datetime
    requested_count: int
    run_times: tuple[datetime, ...]
    exhausted: bool
