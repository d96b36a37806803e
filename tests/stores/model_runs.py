"""Runs and nodes in memory: the protocol of `ClusterStore` for one process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from datetime import datetime, timedelta
from typing import Any

from asyncz.enums import Delivery, NodeState, RunKind, RunState
from asyncz.stores.base import is_same_instant
from asyncz.stores.cluster import (
    Fired,
    Firing,
    Node,
    NodeRecord,
    OpenRun,
    Reaped,
    RunEnd,
    RunOutcome,
    RunRef,
    Unrun,
)
from asyncz.stores.fates import why_ended
from asyncz.tasks.base import Task

__all__ = [
    "CANCELLED",
    "CLAIMED",
    "KEPT_KEYS",
    "RETRYING",
    "RUNNING",
    "ModelRuns",
    "OpenedRun",
    "all_as",
]

KEPT_RUNS = 1_000
"""Settled runs that are remembered, of all tasks."""
KEPT_CLAIMS = 8
KEPT_KEYS = 10_000

RUNNING, CLAIMED, LOST = RunState.RUNNING, RunState.CLAIMED, RunState.LOST
RETRYING, CANCELLED = RunState.RETRYING, RunState.CANCELLED

Key = tuple[str, RunKind, datetime]


class OpenedRun:
    """An open run with its followers."""

    __slots__ = (
        "again", "asked", "attempt", "claimed_at", "generation", "is_last", "key", "notes",
        "outcomes", "owner", "retry_at", "run_times", "started_at", "state", "task", "token",
    )  # fmt: skip

    def __init__(
        self, key: Key, generation: int, firing: Firing, owner: str, now: datetime
    ) -> None:
        self.key = key
        self.generation = generation
        self.task = task = firing.task
        self.run_times = firing.run_times
        self.is_last = firing.forget
        self.owner: str | None = owner
        self.claimed_at = now
        once = task.delivery is Delivery.AT_MOST_ONCE
        self.state = CLAIMED if once else RUNNING
        self.started_at = None if once else now
        self.attempt = self.token = 1
        self.again = 0
        self.asked: str | None = None
        self.retry_at: datetime | None = None
        self.notes: Mapping[str, Any] | None = None
        self.outcomes: tuple[RunOutcome, ...] = ()
        """How it ended; or its last attempt, while it is open."""

    def waiting(self, outcome: RunOutcome, now: datetime) -> OpenedRun:
        """One of its occurrences, which is tried again."""
        run = copy(self)
        run.key = (*self.key[:2], outcome.scheduled_time)
        run.run_times = (outcome.scheduled_time,)
        run.state, run.retry_at = RETRYING, outcome.retry_at or now
        run.outcomes, run.notes = (outcome,), None
        if outcome.scheduled_time != self.key[2]:
            run.asked = None
        return run

    @property
    def ref(self) -> RunRef:
        task_id, kind, moment = self.key
        return RunRef(task_id, kind, moment, self.token)


class Settled:
    """What became of a run, or of occurrences that were not run."""

    __slots__ = ("finished_at", "owner", "run", "task_id", "unrun")

    def __init__(
        self,
        task_id: str,
        finished_at: datetime,
        owner: str,
        run: OpenedRun | None,
        unrun: Unrun | None,
    ) -> None:
        self.task_id = task_id
        self.finished_at = finished_at
        self.owner = owner
        self.run = run
        self.unrun = unrun


class Member:
    """A node."""

    __slots__ = ("joined_at", "lease_until", "node", "running", "seen_at", "state")

    def __init__(self, node: Node, now: datetime, lease: float) -> None:
        self.node = node
        self.state = NodeState.ALIVE
        self.joined_at = self.seen_at = now
        self.lease_until = now + timedelta(seconds=lease)
        self.running = 0


class ModelRuns:
    """The runs and nodes of a store in memory.

    Args:
        alias: Of the store.
        now: The time.
        find: The task of an id, if the store still has it, and its order of insertion.
        move: Move a task on as a firing says; False: it is another by now.
    """

    def __init__(
        self,
        alias: str | None,
        now: Callable[[], datetime],
        find: Callable[[str], tuple[Task, int] | None],
        move: Callable[[Firing], bool],
    ) -> None:
        self._alias = alias
        self._now = now
        self._find = find
        self._move = move
        self._members: dict[str, Member] = {}
        self._open: dict[Key, OpenedRun] = {}
        self._active: dict[str, int] = {}
        self._waiting: dict[Key, OpenedRun] = {}
        self._marked: dict[Key, OpenedRun] = {}
        self._settled: deque[Settled] = deque(maxlen=KEPT_RUNS)
        self._known: dict[tuple[Key, int], None] = {}
        self._answers: dict[str, list[Fired]] = {}

    # Nodes.

    def join(self, node: Node, lease: float) -> None:
        self._members[node.id] = Member(node, self._now(), lease)

    def renew(self, node_id: str, lease: float, running: int) -> bool:
        member = self._members.get(node_id)
        if member is None or member.state is not NodeState.ALIVE:
            return False
        member.seen_at, member.running = self._now(), running
        member.lease_until = member.seen_at + timedelta(seconds=lease)
        return True

    def leave(self, node_id: str) -> None:
        if self._is_alive(node_id):
            self._members[node_id].state = NodeState.LEFT

    def nodes(self) -> list[NodeRecord]:
        now = self._now()
        return [
            NodeRecord(
                member.node,
                NodeState.STALE
                if member.state is NodeState.ALIVE and member.lease_until < now
                else member.state,
                member.joined_at,
                member.seen_at,
                member.lease_until,
                member.running,
            )
            for member in self._members.values()
        ]

    def _is_alive(self, node_id: str | None) -> bool:
        member = self._members.get(node_id or "")
        return member is not None and member.state is NodeState.ALIVE

    # Claims.

    def fire(self, node_id: str, claim: str, firings: Sequence[Firing]) -> list[Fired]:
        answer = self._answers.get(claim)
        if answer is None:
            if not self._is_alive(node_id):
                return [Fired.FENCED] * len(firings)
            now = self._now()
            answer = [self._fire(node_id, firing, now) for firing in firings]
            self._answers[claim] = answer
            if len(self._answers) > KEPT_CLAIMS:
                del self._answers[next(iter(self._answers))]
        return answer

    def _fire(self, node_id: str, firing: Firing, now: datetime) -> Fired:
        task, run_times = firing.task, firing.run_times
        task_id: str = task.id  # type: ignore[assignment]  # it came out of this store
        manual = firing.kind is RunKind.MANUAL
        busy = self._active.get(task_id, 0) >= task.max_instances
        found = self._find(task_id)
        if found is None or not is_same_instant(found[0].next_run_time, firing.expected):
            return Fired.LOST
        if manual and busy:
            return Fired.SKIPPED
        if not self._move(firing):
            return Fired.LOST
        if firing.forget:
            self._come_to_the_end_of(task_id, found[1])
        for unrun in firing.unrun:
            self._know((task_id, RunKind.SCHEDULED, unrun.first), found[1])
            self._settled.append(Settled(task_id, now, node_id, None, unrun))
        if not run_times:
            return Fired.WON
        key = (task_id, firing.kind, run_times[0])
        if key in self._open or (key, found[1]) in self._known:
            return Fired.REPEATED
        for moment in run_times:
            self._know((task_id, firing.kind, moment), found[1])
        if busy:
            reason = f"{task.max_instances} run(s) went on, as many as max_instances allows"
            unrun = Unrun(RunState.SKIPPED, run_times[0], run_times[-1], len(run_times), reason)
            self._settled.append(Settled(task_id, now, node_id, None, unrun))
            return Fired.SKIPPED
        self._open[key] = OpenedRun(key, found[1], firing, node_id, now)
        self._active[task_id] = self._active.get(task_id, 0) + 1
        return Fired.WON

    def _know(self, key: Key, generation: int) -> None:
        """It has a record, and is not run again."""
        self._known[key, generation] = None
        if len(self._known) > KEPT_KEYS:
            del self._known[next(iter(self._known))]

    def _come_to_the_end_of(self, task_id: str, generation: int) -> None:
        """Its open runs are taken over all the same: nobody has deleted it."""
        if task_id in self._active or self._waiting:
            for run in self._open.values():
                its = (run.key[0], run.generation) == (task_id, generation)
                run.is_last = run.is_last or its

    def start(self, node_id: str, refs: Sequence[RunRef]) -> list[bool]:
        return [self._start(node_id, ref) for ref in refs]

    def _start(self, node_id: str, ref: RunRef) -> bool:
        run = self._owned(node_id, ref)
        if run is None:
            return False
        if run.state is CLAIMED:
            run.state, run.started_at = RUNNING, self._now()
        return True

    def finish(self, node_id: str, ends: Sequence[RunEnd]) -> list[bool]:
        now = self._now()
        return [self._finish(node_id, end, now) for end in ends]

    def _finish(self, node_id: str, end: RunEnd, now: datetime) -> bool:
        run = self._owned(node_id, end.ref)
        if run is not None:
            self._settle(run, end.outcomes, now)
            return True
        head = next((each for each in end.outcomes if each.scheduled_time == end.ref[2]), None)
        state = CANCELLED if head is None else head.state
        run = self._open.get(end.ref[:3])
        if run is not None and (run.owner, run.token) == (node_id, end.ref.token):
            return state is RETRYING
        for settled in reversed(self._settled):
            run = settled.run
            if run is not None and run.ref == end.ref and run.owner == node_id:
                return self._finish_late(run, end, state)
        return False

    def _finish_late(self, run: OpenedRun, end: RunEnd, state: RunState) -> bool:
        said = {outcome.scheduled_time: outcome for outcome in run.outcomes}
        before = said[end.ref.scheduled_time].state if end.ref.scheduled_time in said else None
        if before is not LOST:
            return before is state
        if state is RETRYING:
            return False
        late = {each.scheduled_time: each for each in end.outcomes if each.state is not RETRYING}
        run.outcomes = tuple((said | late).values())
        return True

    def _owned(self, node_id: str, ref: RunRef) -> OpenedRun | None:
        run = self._open.get((ref.task_id, ref.kind, ref.scheduled_time))
        if run is None or run.state is RETRYING:
            return None
        return run if (run.owner, run.token) == (node_id, ref.token) else None

    def _settle(self, run: OpenedRun, outcomes: tuple[RunOutcome, ...], now: datetime) -> None:
        del self._open[run.key]
        self._marked.pop(run.key, None)
        if self._waiting.pop(run.key, None) is None:
            self._discount(run.key[0])
        said = {outcome.scheduled_time: outcome for outcome in outcomes}
        for outcome in outcomes:
            if outcome.state is RETRYING:
                again = run.waiting(outcome, now)
                self._open[again.key] = self._waiting[again.key] = again
                if again.asked is not None:
                    self._marked[again.key] = again
        ended = tuple(
            said.get(moment) or RunOutcome(moment, CANCELLED)
            for moment in run.run_times
            if moment not in said or said[moment].state is not RETRYING
        )
        if ended:
            run.run_times = tuple(outcome.scheduled_time for outcome in ended)
            run.outcomes = ended
            self._settled.append(Settled(run.key[0], now, run.owner or "", run, None))

    def _discount(self, task_id: str) -> None:
        left = self._active.pop(task_id) - 1
        if left:
            self._active[task_id] = left

    def release(self, node_id: str, refs: Sequence[RunRef]) -> None:
        for ref in refs:
            if run := self._owned(node_id, ref):
                run.owner, run.state, run.started_at = None, CLAIMED, None
                run.attempt = max(0, run.attempt - 1)

    # What somebody else left.

    def has_unowned(self) -> bool:
        return any(self._is_unowned(run) for run in self._open.values())

    def _is_unowned(self, run: OpenedRun) -> bool:
        return run.state is not RETRYING and not self._is_alive(run.owner)

    def own_runs(self, node_id: str) -> list[OpenRun]:
        owned = [
            run for run in self._open.values() if run.owner == node_id and run.state is not RETRYING
        ]
        return sorted(map(self._open_run, owned), key=lambda run: run.ref.scheduled_time)

    def _open_run(self, run: OpenedRun) -> OpenRun:
        task, delivery = self._task_of(run), run.task.delivery
        error = None if task else "its task was deleted"
        return OpenRun(run.ref, run.state, run.attempt, run.run_times, delivery, task, error)

    def _task_of(self, run: OpenedRun) -> Task | None:
        """What a run is carried out by; None: its task was deleted."""
        if run.is_last:
            return run.task
        found = self._find(run.key[0])
        return found[0] if found is not None and found[1] == run.generation else None

    def reap(self, node_id: str, bury: datetime | None, max_attempts: int, limit: int) -> Reaped:
        if not self._is_alive(node_id):
            return Reaped((), (), ())
        now = self._now()
        dead = [
            member
            for member in self._members.values()
            if bury
            and member.state is NodeState.ALIVE
            and member.lease_until < bury
            and member.node.id != node_id
        ]
        for member in dead:
            member.state = NodeState.DEAD
        taken: list[OpenRun] = []
        ended: list[tuple[RunRef, RunState]] = []
        left = [run for run in self._open.values() if self._is_unowned(run)]
        for run in left[:limit]:
            state = self._fate(run, max_attempts)
            if state is None:
                run.owner, run.token, run.attempt = node_id, run.token + 1, run.attempt + 1
                if run.task.delivery is Delivery.AT_LEAST_ONCE:
                    run.state, run.started_at = RUNNING, now
                taken.append(self._open_run(run))
            else:
                ended.append((run.ref, state))
                why = why_ended(state, run.owner, run.attempt)
                self._settle(run, all_as(run, state, why), now)
        return Reaped(tuple(member.node.id for member in dead), tuple(taken), tuple(ended))

    def _fate(self, run: OpenedRun, max_attempts: int) -> RunState | None:
        """What an ownerless run ends as; None: it can be taken over."""
        once = run.task.delivery is Delivery.AT_MOST_ONCE
        if once and run.state is RUNNING:
            return LOST
        if run.attempt - run.again >= max_attempts:
            return RunState.ABANDONED
        return RunState.CANCELLED if self._task_of(run) is None else None


def all_as(run: OpenedRun, state: RunState, why: str | None = None) -> tuple[RunOutcome, ...]:
    """What is said of a run that others have ended: what it has said itself is kept."""
    before = run.outcomes[0] if run.outcomes else None
    head = RunOutcome(
        run.run_times[0],
        state,
        error=before and before.error,
        traceback=before and before.traceback,
        reason=why,
        notes=(before and before.notes) if run.notes is None else run.notes,
    )
    others = (RunOutcome(moment, state, reason=why) for moment in run.run_times[1:])
    return (head, *others)
