"""The contract of a store that several schedulers may share: it keeps runs and nodes too.

The operations are those of the protocol in `docs/decisions`; each is one atomic change. A store
decides nothing: what is to be run is planned by a scheduler, which is a node of the store, and
the store says who was first. Only the store's clock counts for what is due and who is alive.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence, Set
from datetime import datetime
from typing import Any

from asyncz.enums import RunState
from asyncz.runs.base import Run, RunQuery
from asyncz.stores.base import NO_IDS
from asyncz.stores.cluster_values import (
    Attended,
    Fired,
    Firing,
    Look,
    Node,
    NodeRecord,
    OpenRun,
    Reaped,
    RunEnd,
    RunOutcome,
    RunRef,
    Unrun,
)
from asyncz.tasks.base import Task

__all__ = [
    "Attended",
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
        claimed `max_attempts` times, those by `attend` not counted, as `abandoned`. A run whose
        task cannot be read here is left to others.

        Args:
            node_id: The caller's. If it is not alive, nothing is done.
            bury: Nodes whose lease had run out at this instant become `dead` first; None: nobody.
                It is the time that the store gave when the caller looked last. Not the time at
                which this is done: a store that stands still for a while does afterwards what
                was asked of it before, when all leases have run out meanwhile.
            max_attempts: How often a run is claimed at most.
            limit: At most so many runs.
        """

    # What happens to a run on its way.

    @abstractmethod
    async def note_runs(
        self, node_id: str, notes: Sequence[tuple[RunRef, Mapping[str, Any]]]
    ) -> list[bool]:
        """Keep what runs say of themselves while they go on, as the notes of a `RunOutcome`.

        It takes the place of what was noted before. How the run ends takes the place of it.

        Returns:
            For each, whether it is kept: its owner and token are those, and it is open.
        """

    @abstractmethod
    async def attend(self, node_id: str, limit: int = 100) -> Attended:
        """Take runs whose next attempt is due, and hear which of one's own are to be cancelled.

        A run that waits, and whose `retry_at` is not after now, becomes the caller's as if it were
        fired: with the next token, one attempt more, `running` or (`at_most_once`) `claimed`; but
        only while less runs of its task are claimed or running than the task's `max_instances`.
        It keeps what is known of it. If its task was deleted meanwhile, it ends as `cancelled`. If
        the task cannot be read here, or the caller is not alive, it is left alone.

        Args:
            node_id: The caller's.
            limit: At most so many runs are taken.
        """

    @abstractmethod
    async def cancel_run(self, task_id: str, scheduled_time: datetime, by: str) -> RunState | None:
        """Cancel a run, of whatever kind.

        One that is `retrying`, or open and of nobody, ends as `cancelled`, with those behind it; a
        reason of it names who. For one that is owned by a node it is noted who has asked, until it
        ends, and its owner hears of it by `attend`; whoever takes the run over meanwhile does.

        Returns:
            `cancelled` if it is ended now; the open state of one whose owner was asked, or the
            state in which it had ended before. `queued`: nothing was done, as it waits behind
            another. None: there is no such run.
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
    async def prune_runs(
        self,
        task_id: str,
        states: frozenset[RunState],
        keep: int,
        before: datetime,
        limit: int = 1_000,
    ) -> int:
        """Forget settled runs of one task that are behind its latest, or old.

        Args:
            task_id: Whose.
            states: Only those that ended as one of these, which are settled ones.
            keep: Of these the latest so many, by scheduled time, are kept,
            before: unless they were settled before this instant.
            limit: At most so many are forgotten.

        Returns:
            How many were.
        """

    @abstractmethod
    async def forget_runs(self, before: datetime, limit: int = 1_000) -> int:
        """Forget runs that were settled before an instant; how many were forgotten."""
