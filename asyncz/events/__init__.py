"""Events: what happened, for listeners."""

from asyncz.events.base import SchedulerEvent, TaskEvent, TaskExecutionEvent, TaskSubmissionEvent

__all__ = ["SchedulerEvent", "TaskEvent", "TaskExecutionEvent", "TaskSubmissionEvent"]
