"""What listeners receive."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from asyncz.events.constants import NAMES

__all__ = ["SchedulerEvent", "TaskEvent", "TaskExecutionEvent", "TaskSubmissionEvent"]


class SchedulerEvent(BaseModel):
    """Something happened to a scheduler, or to a store or executor of it.

    Args:
        code: One of `asyncz.events.constants`.
        alias: The store or executor it happened to, if any.
        detail: What happened, in words, for the codes that need them.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)

    code: int
    alias: str | None = None
    detail: str | None = None

    @property
    def code_name(self) -> str:
        """The code's name, for example `TASK_EXECUTED`."""
        return NAMES.get(self.code, str(self.code))

    def __repr__(self) -> str:
        # Arguments, return values and errors may hold secrets; an event in a log must not.
        return f"<{type(self).__name__} {self.code_name}>"

    __str__ = __repr__


class TaskEvent(SchedulerEvent):
    """Something happened to a task.

    Args:
        task_id: The task's id.
        store: The alias of its store.
        scheduler_identity: The identity of the scheduler that says so.
    """

    task_id: str
    store: str | None = None
    scheduler_identity: str | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.code_name} task={self.task_id!r}>"

    __str__ = __repr__


class TaskSubmissionEvent(TaskEvent):
    """A task was handed to its executor, or was refused there (`TASK_MAX_INSTANCES`).

    Args:
        scheduled_run_times: The run times that the submission stands for, oldest first.
        source: `scheduled`, or `manual` for `run_task`.
        coalesced_run_count: How many earlier run times were folded into this one.
    """

    scheduled_run_times: list[datetime]
    source: str | None = None
    coalesced_run_count: int = 0


class TaskExecutionEvent(TaskEvent):
    """A run ended: it succeeded, failed, was cut off, or was missed.

    Args:
        scheduled_run_time: When it was due. For missed runs: the first of them.
        return_value: What the callable returned.
        exception: What it raised.
        traceback: That exception's traceback as text.
        run_count: How many run times this stands for; more than 1 only for missed ones.
        last_scheduled_run_time: The last of them.
    """

    scheduled_run_time: datetime
    return_value: Any = Field(default=None, repr=False)
    exception: BaseException | None = Field(default=None, repr=False)
    traceback: str | None = Field(default=None, repr=False)
    run_count: int = 1
    last_scheduled_run_time: datetime | None = None
