"""The store's server, as the protocol says it: a model to be read, and checked at each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from copy import copy
from datetime import datetime, timedelta

from asyncz.enums import Delivery, NodeState, RunKind, RunState
from asyncz.stores.cluster import (
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
)
from asyncz.tasks.base import Task
from tests.simulation.world import ORIGIN

__all__ = ["Key", "Row", "Server", "Watcher"]

Key = tuple[str, RunKind, datetime]
CLAIMED, RUNNING, LOST = RunState.CLAIMED, RunState.RUNNING, RunState.LOST


class Row:
    """A run: its head, with its followers."""

    def __init__(self, key: Key, firing: Firing, owner: str) -> None:
        self.key = key
        self.task = firing.task
        self.run_times = firing.run_times
        self.is_last = firing.forget
        self.owner: str | None = owner
        self.token = self.attempt = 1
        once = firing.task.delivery is Delivery.AT_MOST_ONCE
        self.state = CLAIMED if once else RUNNING
        self.outcomes: tuple[RunOutcome, ...] = ()
        self.again = 0
        self.retry_at: datetime | None = None
        self.asked: str | None = None

    def __repr__(self) -> str:
        return f"{self.state} of {self.owner} with token {self.token}"

    @property
    def is_open(self) -> bool:
        return self.state.is_open

    @property
    def goes_on(self) -> bool:
        """Whether it is open, and does not wait for another attempt."""
        return self.state in (CLAIMED, RUNNING)

    def waiting(self, outcome: RunOutcome) -> Row:
        """One of its occurrences, which is tried again."""
        row = copy(self)
        row.key = (*self.key[:2], outcome.scheduled_time)
        row.run_times, row.outcomes = (outcome.scheduled_time,), (outcome,)
        row.state, row.retry_at = RunState.RETRYING, outcome.retry_at
        row.asked = self.asked if row.key == self.key else None
        return row

    @property
    def ref(self) -> RunRef:
        return RunRef(*self.key, self.token)

    def seen(self) -> OpenRun:
        """What a node gets of it."""
        task = self.task.model_copy()
        return OpenRun(
            self.ref, self.state, self.attempt, self.run_times, task.delivery, task, None
        )


class Member:
    """A node."""

    def __init__(self, lease_until: datetime) -> None:
        self.state = NodeState.ALIVE
        self.lease_until = lease_until


class Watcher:
    """Is told what the server is about to do."""

    def moved(self, before: datetime | None, firing: Firing) -> None: ...
    def finished(self, row: Row, node_id: str, end: RunEnd) -> None: ...
    def buried(self, node_id: str, by: str) -> None: ...
    def renewed(self, node_id: str) -> None: ...
    def left(self, node_id: str) -> None: ...


class Server:
    """Tasks, runs and nodes. Each method is one atomic operation.

    Args:
        clock: Its time.
        watcher: Who looks on.
    """

    def __init__(self, clock: Callable[[], datetime], watcher: Watcher) -> None:
        self._clock = clock
        self._watcher = watcher
        self.tasks: dict[str, Task] = {}
        self.rows: dict[Key, Row] = {}
        self.open: dict[Key, Row] = {}
        self.unrun: list[tuple[str, RunState, datetime, datetime, int]] = []
        self.members: dict[str, Member] = {}
        self._answers: dict[str, list[Fired]] = {}

    # Tasks.

    def due(self, now: datetime, limit: int | None, exclude: Set[str]) -> list[Task]:
        due = [
            (task.next_run_time, task)
            for task_id, task in self.tasks.items()
            if task.next_run_time is not None
            and task.next_run_time <= now
            and task_id not in exclude
        ]
        due.sort(key=lambda pair: pair[0])
        return [task.model_copy() for _, task in due[:limit]]

    def next_run_time(self, after: datetime | None) -> datetime | None:
        moments = (task.next_run_time for task in self.tasks.values())
        later = (at for at in moments if at is not None and (after is None or at > after))
        return min(later, default=None)

    def look(self) -> Look:
        unowned = bool(self._unowned())
        return Look(self._clock(), self.next_run_time(None), unowned, self.attend_at())

    # Nodes.

    def nodes(self) -> list[NodeRecord]:
        """Who there is, or was."""
        now, found = self._clock(), []
        for name, member in self.members.items():
            is_stale = self.is_alive(name) and member.lease_until < now
            state = NodeState.STALE if is_stale else member.state
            node = Node(name, name, "", 0)
            found.append(NodeRecord(node, state, ORIGIN, now, member.lease_until, 0))
        return found

    def is_alive(self, node_id: str | None) -> bool:
        member = self.members.get(node_id or "")
        return member is not None and member.state is NodeState.ALIVE

    def join(self, node_id: str, lease: float) -> None:
        self.members[node_id] = Member(self._clock() + timedelta(seconds=lease))
        self._watcher.renewed(node_id)

    def renew(self, node_id: str, lease: float) -> bool:
        if not self.is_alive(node_id):
            return False
        self._watcher.renewed(node_id)
        self.members[node_id].lease_until = self._clock() + timedelta(seconds=lease)
        return True

    def leave(self, node_id: str) -> None:
        if node_id in self.members:
            self._watcher.left(node_id)
            self.members[node_id].state = NodeState.LEFT

    # Runs.

    def fire(self, node_id: str, claim: str, firings: Sequence[Firing]) -> list[Fired]:
        if claim not in self._answers:
            if not self.is_alive(node_id):
                return [Fired.FENCED] * len(firings)
            self._answers[claim] = [self._fire(node_id, firing) for firing in firings]
        return self._answers[claim]

    def _fire(self, node_id: str, firing: Firing) -> Fired:
        task_id = str(firing.task.id)
        manual = firing.kind is RunKind.MANUAL
        busy = self.active(task_id) >= firing.task.max_instances
        if manual and busy:
            return Fired.SKIPPED
        if not self._move(task_id, firing):
            return Fired.LOST
        for unrun in firing.unrun:
            self.unrun.append((task_id, unrun.state, unrun.first, unrun.last, unrun.occurrences))
        times = firing.run_times
        if not times:
            return Fired.WON
        key = (task_id, firing.kind, times[0])
        if key in self.rows:
            return Fired.REPEATED
        if busy:
            self.unrun.append((task_id, RunState.SKIPPED, times[0], times[-1], len(times)))
            return Fired.SKIPPED
        self.rows[key] = self.open[key] = Row(key, firing, node_id)
        return Fired.WON

    def active(self, task_id: str) -> int:
        return sum(row.key[0] == task_id and row.goes_on for row in self.open.values())

    def _move(self, task_id: str, firing: Firing) -> bool:
        task = self.tasks.get(task_id)
        if task is None or not self.is_expected(task, firing):
            return False
        self._watcher.moved(task.next_run_time, firing)
        if firing.forget:
            del self.tasks[task_id]
            for row in self.open.values():  # they are taken over all the same
                row.is_last = row.is_last or row.key[0] == task_id
        else:
            self.tasks[task_id] = task.model_copy(update={"next_run_time": firing.next_run_time})
        return True

    def is_expected(self, task: Task, firing: Firing) -> bool:
        """Whether the task has the next run time that the plan was made from."""
        return task.next_run_time == firing.expected

    def owned(self, node_id: str, ref: RunRef) -> Row | None:
        """The run, open or not, if its owner and token are those."""
        row = self.rows.get((ref.task_id, ref.kind, ref.scheduled_time))
        return row if row is not None and self.is_owner(row, node_id, ref.token) else None

    def is_owner(self, row: Row, node_id: str, token: int) -> bool:
        return (row.owner, row.token) == (node_id, token)

    def start(self, node_id: str, refs: Sequence[RunRef]) -> list[bool]:
        return [self._start(node_id, ref) for ref in refs]

    def _start(self, node_id: str, ref: RunRef) -> bool:
        row = self.owned(node_id, ref)
        if row is None or not row.goes_on:
            return False
        row.state = RUNNING
        return True

    def finish(self, node_id: str, ends: Sequence[RunEnd]) -> list[bool]:
        return [self._finish(node_id, end) for end in ends]

    def _finish(self, node_id: str, end: RunEnd) -> bool:
        row = self.owned(node_id, end.ref)
        if row is None:
            return False
        if row.state is LOST and end.outcomes[0].state is RunState.RETRYING:
            return False
        if row.goes_on or row.state is LOST:
            self._watcher.finished(row, node_id, end)
            self.settle(row, end.outcomes)
        return row.outcomes[0].state is end.outcomes[0].state

    def settle(self, row: Row, outcomes: tuple[RunOutcome, ...]) -> None:
        self.open.pop(row.key, None)
        row.state, row.outcomes = outcomes[0].state, outcomes
        for outcome in outcomes:
            if outcome.state is RunState.RETRYING:
                again = row.waiting(outcome)
                self.rows[again.key] = self.open[again.key] = again

    def release(self, node_id: str, refs: Sequence[RunRef]) -> None:
        for ref in refs:
            row = self.owned(node_id, ref)
            if row is not None and row.goes_on:
                row.owner, row.state, row.attempt = None, CLAIMED, max(0, row.attempt - 1)

    def own(self, node_id: str) -> list[OpenRun]:
        runs = [row.seen() for row in self._owned_by(node_id)]
        return sorted(runs, key=lambda run: run.ref.scheduled_time)

    def reap(self, node_id: str, bury: datetime | None, max_attempts: int, limit: int) -> Reaped:
        if not self.is_alive(node_id):
            return Reaped((), (), ())
        dead = self._bury(node_id, bury) if bury else ()
        taken: list[OpenRun] = []
        ended: list[tuple[RunRef, RunState]] = []
        for row in self._unowned()[:limit]:
            state = self._fate(row, max_attempts)
            if state is not None:
                ended.append((row.ref, state))
                self.settle(row, tuple(RunOutcome(at, state) for at in row.run_times))
                continue
            row.owner, row.token, row.attempt = node_id, row.token + 1, row.attempt + 1
            if row.task.delivery is Delivery.AT_LEAST_ONCE:
                row.state = RUNNING
            taken.append(row.seen())
        return Reaped(dead, tuple(taken), tuple(ended))

    def _bury(self, by: str, moment: datetime) -> tuple[str, ...]:
        dead = [
            node_id
            for node_id, member in self.members.items()
            if member.state is NodeState.ALIVE and member.lease_until < moment
        ]
        for node_id in dead:
            self._watcher.buried(node_id, by)
            self.members[node_id].state = NodeState.DEAD
        return tuple(dead)

    def _fate(self, row: Row, max_attempts: int) -> RunState | None:
        if row.task.delivery is Delivery.AT_MOST_ONCE and row.state is RUNNING:
            return LOST
        if row.attempt - row.again >= max_attempts:
            return RunState.ABANDONED
        return None if self._has_task(row) else RunState.CANCELLED

    def _has_task(self, row: Row) -> bool:
        return row.is_last or row.key[0] in self.tasks

    def _unowned(self) -> list[Row]:
        return [row for row in self.open.values() if row.goes_on and not self.is_alive(row.owner)]

    def _owned_by(self, node_id: str) -> list[Row]:
        return [row for row in self.open.values() if row.goes_on and row.owner == node_id]

    # What happens to a run on its way.

    def attend_at(self) -> datetime | None:
        """As `Look.attend_at`."""
        if any(row.asked is not None for row in self.open.values()):
            return self._clock()
        moments = [row.retry_at for row in self.open.values() if not row.goes_on]
        return min((at for at in moments if at is not None), default=None)

    def attend(self, node_id: str, limit: int) -> Attended:
        if not self.is_alive(node_id):
            return Attended((), (), ())
        taken: list[OpenRun] = []
        ended: list[RunRef] = []
        for row in self._due()[:limit]:
            if not self._has_task(row):
                ended.append(row.ref)
                self.settle(row, (RunOutcome(row.key[2], RunState.CANCELLED),))
            elif self.active(row.key[0]) < row.task.max_instances:
                row.owner, row.retry_at = node_id, None
                row.token, row.attempt, row.again = row.token + 1, row.attempt + 1, row.again + 1
                once = row.task.delivery is Delivery.AT_MOST_ONCE
                row.state = CLAIMED if once else RUNNING
                taken.append(row.seen())
        asked = ((row.ref, row.asked) for row in self._owned_by(node_id))
        said = tuple((ref, by) for ref, by in asked if by is not None)
        return Attended(tuple(taken), said, tuple(ended))

    def _due(self) -> list[Row]:
        now = self._clock()
        waiting = [row for row in self.open.values() if not row.goes_on]
        return [row for row in waiting if row.retry_at is None or row.retry_at <= now]

    def note(self, node_id: str, refs: Sequence[RunRef]) -> list[bool]:
        rows = (self.owned(node_id, ref) for ref in refs)
        return [row is not None and row.goes_on for row in rows]

    def cancel(self, task_id: str, at: datetime, by: str) -> RunState | None:
        rows = (self.rows.get((task_id, kind, at)) for kind in RunKind)
        found = [row for row in rows if row is not None]
        if not found:
            return None
        row = next((row for row in found if row.is_open), found[0])
        if row.is_open and (not row.goes_on or row.owner is None):
            self.settle(row, tuple(RunOutcome(each, RunState.CANCELLED) for each in row.run_times))
        elif row.is_open:
            row.asked = by
        return row.state
