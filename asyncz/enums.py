"""States that the public API reports."""

from __future__ import annotations

from enum import IntEnum, StrEnum

__all__ = [
    "Delivery",
    "NodeState",
    "RunKind",
    "RunState",
    "SchedulerState",
    "TaskScheduleState",
]


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


class RunState(StrEnum):
    """What became of one occurrence of a task.

    Open: `queued` (waits behind an earlier occurrence that the same call carries out), `claimed`
    (a scheduler has it, and may not have started it), `running`, `retrying` (it failed, and waits
    for its next attempt). Settled: `succeeded`, `failed`;
    `lost` (its worker was killed, and it may have been started: `at_most_once`), `abandoned` (it
    was started as often as is allowed, and its worker was killed each time), `cancelled`;
    and those that were not run: `missed` (too late), `coalesced` (folded into a later one),
    `skipped` (as many runs went on as `max_instances` allows).
    """

    QUEUED = "queued"
    CLAIMED = "claimed"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    LOST = "lost"
    ABANDONED = "abandoned"
    CANCELLED = "cancelled"
    MISSED = "missed"
    COALESCED = "coalesced"
    SKIPPED = "skipped"

    @property
    def is_open(self) -> bool:
        """Whether it may still change."""
        return self in (RunState.QUEUED, RunState.CLAIMED, RunState.RUNNING, RunState.RETRYING)


class RunKind(StrEnum):
    """Why a run was made: its schedule said so, or somebody (`run_task`)."""

    SCHEDULED = "scheduled"
    MANUAL = "manual"


class Delivery(StrEnum):
    """What happens to a run whose worker is killed.

    `at_least_once`: another worker starts it again. `at_most_once`: it is not started again if it
    may have been started; it is `lost`.
    """

    AT_LEAST_ONCE = "at_least_once"
    AT_MOST_ONCE = "at_most_once"


class NodeState(StrEnum):
    """Where a scheduler stands in its store.

    `alive`: it has a lease. `stale`: its lease has run out, and nobody has taken its runs over
    yet. `dead`: its runs were taken over. `left`: it was shut down.
    """

    ALIVE = "alive"
    STALE = "stale"
    DEAD = "dead"
    LEFT = "left"
