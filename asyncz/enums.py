"""States that the public API reports."""

from __future__ import annotations

from enum import IntEnum, StrEnum

__all__ = ["SchedulerState", "TaskScheduleState"]


class SchedulerState(IntEnum):
    """What a scheduler is doing. Only a `STATE_RUNNING` one hands work to its executors."""

    STATE_STOPPED = 0
    STATE_RUNNING = 1
    STATE_PAUSED = 2

    @property
    def label(self) -> str:
        """The state as a word for people: `stopped`, `running`, `paused`."""
        return self.name.removeprefix("STATE_").lower()


class TaskScheduleState(StrEnum):
    """Where a task stands with its scheduler.

    `pending`: declared, its scheduler has not started. `scheduled`: it has a next run time.
    `paused`: in a store, with no next run time. `quarantined`: kept, but not run, because its
    record cannot be read or it may not run here; it recovers by itself once that is mended.
    """

    PENDING = "pending"
    PAUSED = "paused"
    SCHEDULED = "scheduled"
    QUARANTINED = "quarantined"
