"""What a page of firings or outcomes is on the way to a database: rows, in one order everywhere.

Each family of databases has its own way of taking many at once (`Batches`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Connection, Row

__all__ = [
    "FOUND",
    "MANY",
    "OPEN",
    "QUEUED",
    "SHOWN",
    "WAITING",
    "Batches",
    "End",
    "Ended",
    "FoundRun",
    "Going",
    "Head",
    "LockedTask",
    "Move",
    "RunName",
    "pages_of",
    "split_known",
]

MANY = 256
"""Rows that go into one statement."""

LARGE = 1024 * 1024
"""Bytes of what is said of runs, likewise: a server takes 16 MiB at a time, or 64."""

OPEN, QUEUED, WAITING = 1, 2, 3
"""What the column `active` has for a run that is claimed or running, for a queued one, and for one
that waits for its next attempt."""


class RunName(NamedTuple):
    """What a run is known by to who carries it out."""

    task: str
    run_us: int
    kind: str


class Move(NamedTuple):
    """A task that is moved on; `following` None: it is paused."""

    task: str
    following: int | None


class Head(NamedTuple):
    """A run that begins: the first of the occurrences that one call carries out.

    Args:
        task, run_us, kind: Its name.
        added: Which task of that id.
        task_id: If it is not `task`; UTF-8.
        once: Whether it is started at most once.
        followers: How many more occurrences there are.
        gone: The task's key if this run has to keep its record, since the task is removed.
    """

    task: str
    run_us: int
    kind: str
    added: int
    task_id: bytes | None
    once: bool
    followers: int
    gone: str | None

    @property
    def name(self) -> RunName:
        """What it is known by."""
        return RunName(self.task, self.run_us, self.kind)


class End(NamedTuple):
    """How an occurrence ended, on its way to the database."""

    task: str
    run_us: int
    kind: str
    token: int
    state: str
    details: bytes | None

    @property
    def name(self) -> RunName:
        """What it is known by."""
        return RunName(self.task, self.run_us, self.kind)


class Ended(NamedTuple):
    """What became of a batch of ends.

    Args:
        recorded: How many were recorded.
        may_leave_others: Whether occurrences may wait behind one of them, for which nothing was
            said.
    """

    recorded: int
    may_leave_others: bool

    @classmethod
    def of(cls, followers: Sequence[int]) -> Ended:
        """Of how many there were behind each that was recorded."""
        return cls(len(followers), any(followers))


class Going(NamedTuple):
    """The runs of a task that go on.

    Args:
        active: How many are claimed or running.
        has_waiting: Whether any waits for its next attempt.
    """

    active: int = 0
    has_waiting: bool = False


class LockedTask(NamedTuple):
    """A task whose row is locked.

    Args:
        next_run: Microseconds; None: paused.
        added: Which task of that id.
        going: Its runs; None: that was not looked at.
    """

    next_run: int | None
    added: int
    going: Going | None = None


class FoundRun(NamedTuple):
    """What is asked for of a run that is in the database."""

    task: str
    run_us: int
    kind: str
    added: int
    state: str
    active: int | None
    owner: str | None
    token: int

    @property
    def name(self) -> RunName:
        """What it is known by."""
        return RunName(self.task, self.run_us, self.kind)


def split_known(
    heads: Sequence[Head], found: Sequence[FoundRun]
) -> tuple[list[Head], set[RunName]]:
    """Those that may begin, and the names of those that may not.

    One may not if it is there already, or if one of the same name goes on, of a task that was
    removed since: outcomes could not be told apart.
    """
    there = {run.name for run in found if run.active in (OPEN, WAITING)}
    known = {(run.name, run.added) for run in found}
    there |= {head.name for head in heads if (head.name, head.added) in known}
    return [head for head in heads if head.name not in there], there


def pages_of(ends: Sequence[End]) -> list[list[End]]:
    """Ends in pages that fit into a statement, by number and by size."""
    pages: list[list[End]] = []
    room = size = 0
    for end in ends:
        size += 0 if end.details is None else len(end.details)
        if not room or size > LARGE:
            pages.append([])
            room, size = MANY, 0 if end.details is None else len(end.details)
        pages[-1].append(end)
        room -= 1
    return pages


FOUND = ", ".join(f"r.{name}" for name in FoundRun._fields)


SHOWN = (
    "task", "task_id", "run_us", "kind", "state", "occurrences", "last_us", "owner", "token",
    "attempt", "claimed_us", "started_us", "finished_us", "details", "attend_us",
)  # fmt: skip
"""The columns of a run that people are shown."""


class Batches(Protocol):
    """How one family of databases does many things at once. Each batch is in order."""

    def lock_tasks(
        self, connection: Connection, keys: Sequence[str], waits: bool
    ) -> dict[str, LockedTask]:
        """Lock the rows of tasks, by key.

        Args:
            waits: Whether rows that somebody else has locked are waited for; otherwise they are
                left out, where the server knows how to.
        """

    def count_active(self, connection: Connection, keys: Sequence[str]) -> dict[str, Going]:
        """What runs of tasks go on, by key; none is left out."""

    def begin(
        self,
        connection: Connection,
        node_id: str,
        now: int,
        moves: Sequence[Move],
        gone: Sequence[str],
        heads: Sequence[Head],
    ) -> set[RunName]:
        """Move locked tasks on, remove some, and enter the runs that begin.

        Returns:
            The runs that were not entered, since they are there already.
        """

    def find(self, connection: Connection, names: Sequence[RunName]) -> list[FoundRun]:
        """The runs of these names; several of one name if the task was added anew."""

    def find_last(self, connection: Connection, keys: Sequence[str]) -> Sequence[Row[Any]]:
        """The latest run of each of these tasks that has any, with the columns `SHOWN`."""

    def end(
        self, connection: Connection, node_id: str, now: int | None, ends: Sequence[End]
    ) -> Ended:
        """Record how occurrences ended, each if its owner and token are right and it is open, or
        lost. One that waits for its next attempt is nobody's.

        Args:
            now: The time; None: the server's.
        """

    def forget(self, connection: Connection, before: int, limit: int) -> int:
        """Forget runs that were settled before; how many."""
