"""The contract of a store that several schedulers may share: it keeps runs and nodes too.

The operations are those of the protocol in `docs/decisions`; each is one atomic change. A store
decides nothing: what is to be run is planned by a scheduler, which is a node of the store, and
the store says who was first. Only the store's clock counts for what is due and who is alive.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence, Set
from datetime import datetime
from enum import Enum
from typing import NamedTuple

from asyncz.enums import Delivery, NodeState, RunKind, RunState
from asyncz.runs.base import Run, RunQuery
from asyncz.stores.base import NO_IDS
from asyncz.tasks.base import Task

__all__ = [
    "ClusterStore",
    "Fired",
    "Firing",
    "Look",
    "Node",
    "NodeRecord",
    "OpenRun",
    "Pulse",
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
    """

    now: datetime
    next_run_time: datetime | None
    has_unowned: bool


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
    """How one occurrence ended; `error` is at most `MAX_ERROR` long, as `MAX_TRACEBACK` says."""

    scheduled_time: datetime
    state: RunState
    error: str | None = None
    traceback: str | None = None
    reason: str | None = None


class RunEnd(NamedTuple):
    """How a run ended: an outcome for the head and each follower.

    Any left out is cancelled; of a run that was lost, it stays so.
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


class Pulse(ABC):
    """A node's heartbeat and ear: connections of its own, on an event loop of its own.

    A blocked loop of the app's must not look like a node that has died.
    """

    @abstractmethod
    async def open(self) -> None:
        """Connect. Called on the loop that `beat` is called on."""

    @abstractmethod
    async def beat(self, lease: float, running: int) -> bool:
        """As `ClusterStore.renew_node` for this node."""

    async def listen(self, heard: Callable[[], None]) -> None:
        """Call `heard` as soon as this listens, and at each `announce` of another node.

        It goes on until it is cancelled. Raises whatever the driver does when the connection is
        lost; then it is called again. This one returns at once: the store announces nothing.
        """
        return

    @abstractmethod
    async def close(self) -> None:
        """Close the connections; also after an `open` that failed."""


class ClusterStore(ABC):
    """What a store adds to `BaseStore` so that several schedulers may share it.

    "Now" is the store's time: its server's clock; or the host's, if that is not the system's
    (`asyncz.testing.VirtualClock`). Every operation may be repeated after an error whose outcome
    is not known, with the same arguments: it is made once, and answers as the first time.
    """

    # Nodes.

    @abstractmethod
    async def join_node(self, node: Node, lease: float) -> None:
        """Enter a node: alive, with a lease of so many seconds from now."""

    @abstractmethod
    async def renew_node(self, node_id: str, lease: float, running: int) -> bool:
        """Renew a node's lease, also one that has run out, and note how many runs go on there.

        Returns:
            False if it is not alive any more: somebody has taken its runs over.
        """

    @abstractmethod
    async def leave_node(self, node_id: str) -> None:
        """A node is shut down. Runs that it still owns are anybody's at once."""

    @abstractmethod
    async def get_nodes(self) -> list[NodeRecord]:
        """The nodes there are, in the order in which they joined."""

    @abstractmethod
    def pulse(self, node_id: str) -> Pulse | None:
        """The heartbeat of a node. None: this store is of one process, which needs none."""

    @property
    def announces(self) -> bool:
        """Whether `announce` tells anybody anything. Not before the store is open."""
        return False

    async def announce(self, node_id: str) -> None:
        """Tell the other nodes, which listen, that there may be something due soon.

        Nothing depends on it, since all look from time to time; so it is tried once.
        """
        return

    # Runs.

    async def get_due_tasks_behind(
        self, now: datetime, skip: int, limit: int, exclude: Set[str] = NO_IDS
    ) -> list[Task]:
        """As `get_due_tasks`, but without the first `skip` of those that are due.

        Nodes that hand over one backlog begin at different places, so as not to ask for the same
        tasks. None if there are not so many; this one has none: they all begin at the front.
        """
        return []

    @property
    def hands_out(self) -> bool:
        """Whether `get_due_tasks_apart` is what several who hand over one backlog are to ask."""
        return False

    async def get_due_tasks_apart(
        self, now: datetime, limit: int, exclude: Set[str] = NO_IDS
    ) -> tuple[list[Task], bool]:
        """As `get_due_tasks`, but while a backlog is handed over by several, each gets others.

        Returns:
            Tasks; and whether all that are due were looked at for them. None of them and False:
            somebody else has what is left, or none of this page is wanted. After a short while
            without a question all can be had again.
        """
        return [], False

    @abstractmethod
    async def look(self) -> Look:
        """What there is to do. Cheap: it is asked every second."""

    @abstractmethod
    async def fire(self, node_id: str, claim: str, firings: Sequence[Firing]) -> list[Fired]:
        """Move tasks on, and claim and record their occurrences; each as one change, or not.

        A task is moved on only if it has the next run time that was expected and the node is
        alive. Its run times are the node's if less runs of it are claimed or running, on any
        node, than its `max_instances`: the head becomes `running`, or `claimed` for
        `at_most_once`, with token 1, and the others `queued`. An occurrence of which there is a
        record, whatever became of it, is not run again; nor is one that is open of another task
        that had this id before, since nobody could tell the two apart.

        Args:
            node_id: The node's.
            claim: An id of this call, new each time, the same when it is repeated after an error.
            firings: No task is in it twice.
        """

    @abstractmethod
    async def start_runs(self, node_id: str, refs: Sequence[RunRef]) -> list[bool]:
        """Mark claimed runs as running, before the first instruction of the user's.

        Returns:
            For each, whether it may be started: its owner and token are those.
        """

    @abstractmethod
    async def finish_runs(self, node_id: str, ends: Sequence[RunEnd]) -> list[bool]:
        """Record how runs ended.

        Returns:
            For each, whether it counts: its owner and token are those, and it was open, or lost
            (it was late, but it is true), or this was recorded before.
        """

    @abstractmethod
    async def release_runs(self, node_id: str, refs: Sequence[RunRef]) -> None:
        """Give open runs back that will not be finished here: claimed, by nobody. No attempt."""

    @abstractmethod
    async def get_own_runs(self, node_id: str) -> list[OpenRun]:
        """The open runs that a node owns, oldest first."""

    @abstractmethod
    async def reap(
        self, node_id: str, *, bury: datetime | None, max_attempts: int, limit: int = 100
    ) -> Reaped:
        """Take over the open runs of nodes that are not alive, and of nobody.

        Each becomes the caller's with the next token; `claimed` and `at_least_once` ones count
        one attempt more. One that is `running` and `at_most_once` ends as `lost`; one that was
        claimed `max_attempts` times as `abandoned`. A run whose task cannot be read here is left
        to others.

        Args:
            node_id: The caller's. If it is not alive, nothing is done.
            bury: Nodes whose lease had run out at this instant become `dead` first; None: nobody.
                It is the time that the store gave when the caller looked last. Not the time at
                which this is done: a store that stands still for a while does afterwards what
                was asked of it before, when all leases have run out meanwhile.
            max_attempts: How often a run is claimed at most.
            limit: At most so many runs.
        """

    @abstractmethod
    async def get_runs(self, query: RunQuery) -> list[Run]:
        """The runs that are wanted, the latest first."""

    @abstractmethod
    async def count_active(self, task_ids: Sequence[str]) -> dict[str, int]:
        """How many runs of these tasks are claimed or running, on any node; none is left out."""

    async def get_last_runs(self, task_ids: Sequence[str]) -> dict[str, Run]:
        """The latest run of each of these tasks, by scheduled time; none where there is none.

        Of several of one instant, any. This one asks for each task in turn; a store that can,
        asks its server once.
        """
        found = {}
        for task_id in dict.fromkeys(task_ids):
            for run in await self.get_runs(RunQuery(task_id, limit=1)):
                found[task_id] = run
        return found

    @abstractmethod
    async def forget_runs(self, before: datetime, limit: int = 1_000) -> int:
        """Forget runs that were settled before an instant; how many were forgotten."""
