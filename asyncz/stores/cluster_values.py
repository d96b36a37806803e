"""What is said between a scheduler and a store that several schedulers share."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any, NamedTuple

from asyncz.enums import Delivery, NodeState, RunKind, RunState
from asyncz.tasks.base import Task

__all__ = [
    "Attended",
    "Fired",
    "Firing",
    "Look",
    "Node",
    "NodeRecord",
    "OpenRun",
    "Reaped",
    "RunEnd",
    "RunOutcome",
    "RunRef",
    "Unrun",
]


class Node(NamedTuple):
    """A scheduler as a member of one store.

    Args:
        id: New at each start.
        identity: The scheduler's, for people.
        host, process_id: Where it runs.
    """

    id: str
    identity: str
    host: str
    process_id: int


class NodeRecord(NamedTuple):
    """What a store knows of a node; instants by the store's clock."""

    node: Node
    state: NodeState
    joined_at: datetime
    seen_at: datetime
    lease_until: datetime
    running: int


class Look(NamedTuple):
    """What there is to do in a store.

    Args:
        now: The store's time.
        next_run_time: The earliest there is, past ones included; of a record that cannot be read
            too, perhaps. None: no task is scheduled.
        has_unowned: Whether there are open runs that nobody has, which `reap` would give.
        attend_at: From when on `attend` has something to give: the earliest `retry_at` of those
            that wait for their next attempt; some time in the past if somebody has asked to cancel
            a run that is open still. None: nothing.
    """

    now: datetime
    next_run_time: datetime | None
    has_unowned: bool
    attend_at: datetime | None = None

    @property
    def is_due(self) -> bool:
        """Whether a task is due."""
        return self.next_run_time is not None and self.next_run_time <= self.now


class Unrun(NamedTuple):
    """Occurrences that are not run, recorded as one.

    Args:
        state: Missed or coalesced.
        first, last: The first and the last of them.
        occurrences: How many there are.
        reason: Why, in words.
    """

    state: RunState
    first: datetime
    last: datetime
    occurrences: int
    reason: str


class Firing(NamedTuple):
    """What a scheduler wants to do about one task.

    Args:
        task: As the store gave it.
        expected: The next run time that it has, or None if it is paused; the change is made only
            if it still has that one.
        next_run_time: When it is due after this; None: never.
        forget: Whether the store forgets the task, which has no run times any more.
        kind: Scheduled, or asked for by somebody.
        run_times: The occurrences that are to be run, oldest first, one after the other as one
            run of `max_instances`. May be empty.
        unrun: Those that are not.
    """

    task: Task
    expected: datetime | None
    next_run_time: datetime | None
    forget: bool
    kind: RunKind
    run_times: tuple[datetime, ...]
    unrun: tuple[Unrun, ...] = ()


class Fired(Enum):
    """What became of a `Firing`."""

    WON = "the change was made, and its run times are ours to run"
    SKIPPED = (
        "as many runs go on as max_instances allows: recorded as skipped, the schedule moved on; "
        "but of a manual run nothing was changed"
    )
    REPEATED = "the change was made, but these run times of this task have been run before"
    LOST = "somebody changed the task meanwhile, or is about to: nothing was changed"
    FENCED = "this node is not alive any more: nothing was changed"


class RunRef(NamedTuple):
    """Names a run, and what its owner knows of it.

    Args:
        task_id, kind, scheduled_time: Whose, which. Of several occurrences that are run one after
            the other, the first, the head; the others follow it in everything.
        token: The fence: 1 for the first owner, 1 more for each that took it over.
    """

    task_id: str
    kind: RunKind
    scheduled_time: datetime
    token: int


class RunOutcome(NamedTuple):
    """How one occurrence ended, or one attempt at it.

    Args:
        scheduled_time: Which.
        state: A settled one; or `retrying`: it is tried again.
        error, traceback: At most `MAX_ERROR` and `MAX_TRACEBACK` characters.
        reason: In words.
        notes: What else is kept of it, by fields of `Run`: `NOTES`; JSON values. A store keeps it
            with the texts, and encrypts it if it encrypts those.
        retry_at: Of a `retrying` one: when, by the store's clock.
    """

    scheduled_time: datetime
    state: RunState
    error: str | None = None
    traceback: str | None = None
    reason: str | None = None
    notes: Mapping[str, Any] | None = None
    retry_at: datetime | None = None


class RunEnd(NamedTuple):
    """How a run ended: an outcome for the head and each follower.

    Any left out is cancelled; of a run that was lost, it stays so. Those that are `retrying` go on
    waiting, each as a run of its own without followers: they are nobody's, and do not count for
    `max_instances`, until `attend` gives them to somebody.
    """

    ref: RunRef
    outcomes: tuple[RunOutcome, ...]


class OpenRun(NamedTuple):
    """A run that its new owner has to see to.

    Args:
        ref: With the token of now.
        state: Claimed or running.
        attempt: How often it was claimed, this time included.
        run_times: The head's and its followers', oldest first.
        delivery: The task's when it was claimed.
        task: The task: as it was when it was claimed if the store has forgotten it since,
            otherwise as it is now. None if it cannot be read here, or was deleted.
        error: Why there is no task, in words.
    """

    ref: RunRef
    state: RunState
    attempt: int
    run_times: tuple[datetime, ...]
    delivery: Delivery
    task: Task | None
    error: str | None


class Attended(NamedTuple):
    """What `attend` came to.

    Args:
        taken: Runs whose next attempt is the caller's.
        asked: Open runs that the caller owns and somebody has asked to cancel, and who.
        ended: Runs that waited for an attempt, and whose task was deleted meanwhile: cancelled.
    """

    taken: tuple[OpenRun, ...]
    asked: tuple[tuple[RunRef, str], ...]
    ended: tuple[RunRef, ...]


class Reaped(NamedTuple):
    """What `reap` came to.

    Args:
        dead: The ids of nodes that were alive until now.
        taken: Runs that are the caller's now.
        ended: Runs that nobody may start again, and what they ended as: lost or abandoned.
    """

    dead: tuple[str, ...]
    taken: tuple[OpenRun, ...]
    ended: tuple[tuple[RunRef, RunState], ...]
