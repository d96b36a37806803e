"""A shared store as it should be, in plain lists: nodes, and runs from due to done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from unittest.mock import ANY

from asyncz.clock import Clock
from asyncz.enums import Delivery, NodeState, RunKind, RunState
from asyncz.runs.base import Run, RunQuery
from asyncz.stores.cluster import Fired, Firing, RunEnd, RunOutcome, RunRef, Unrun
from asyncz.testing.store_model import Kept, TaskModel, TaskView

__all__ = ["Identity", "ModelNode", "ModelRun", "RunModel", "RunView"]

LOST, CANCELLED = RunState.LOST, RunState.CANCELLED


class Identity(NamedTuple):
    """What makes an occurrence the same one; of each there is one record."""

    task_id: str
    generation: int
    kind: RunKind
    at: datetime


class RunView(NamedTuple):
    """What is compared of the record of an occurrence. Some things are a store's own affair."""

    at: datetime
    task_id: str
    kind: RunKind
    claimed: datetime | None
    token: int
    state: RunState
    attempt: int
    owner: str | None
    finished: datetime | None
    started: Any
    occurrences: int = 1
    last: datetime | None = None
    reason: Any = None
    error: str | None = None
    traceback: str | None = None

    @classmethod
    def of(cls, run: Run) -> RunView:
        """Of a run that a store knows."""
        return cls(
            run.scheduled_time, run.task_id, run.kind, run.claimed_at, run.token, run.state,
            run.attempt, run.owner, run.finished_at, run.started_at, run.occurrences,
            run.last_scheduled_time, run.reason, run.error, run.traceback,
        )  # fmt: skip


@dataclass
class ModelNode:
    """A node in the model."""

    id: str
    joined: datetime
    seen: datetime
    lease_until: datetime
    state: NodeState = NodeState.ALIVE
    running: int = 0


@dataclass
class ModelRun:
    """A run in the model, from its claim on; it is open as long as it is not finished.

    Args:
        kept: The task, if it was forgotten meanwhile by who moved it on to its end.
        outcomes: By instant, once it has ended, and when that was said.
    """

    task_id: str
    generation: int
    kind: RunKind
    times: tuple[datetime, ...]
    delivery: Delivery
    owner: str | None
    claimed: datetime
    state: RunState
    started: datetime | None
    token: int = 1
    attempt: int = 1
    finished: datetime | None = None
    kept: TaskView | None = None
    outcomes: dict[datetime, tuple[RunOutcome, datetime]] = field(default_factory=dict)
    was_lost: bool = False

    @property
    def ref(self) -> RunRef:
        """What its owner knows it by."""
        return RunRef(self.task_id, self.kind, self.times[0], self.token)

    @property
    def head_state(self) -> RunState:
        """What its head is, or ended as."""
        return self.state if self.finished is None else self.outcomes[self.times[0]][0].state

    def end(self, outcomes: dict[datetime, RunOutcome], now: datetime) -> None:
        """It has ended so. What is left out was cancelled, but if it was lost it stays so."""
        self.was_lost = self.finished is not None
        if not self.was_lost:
            self.outcomes = {at: (RunOutcome(at, CANCELLED, reason=ANY), now) for at in self.times}
        self.outcomes |= {at: (said, now) for at, said in outcomes.items()}
        self.finished = now

    def identities(self) -> Iterator[Identity]:
        """Of its occurrences."""
        return (Identity(self.task_id, self.generation, self.kind, at) for at in self.times)

    def views(self) -> Iterator[RunView]:
        """The records of its occurrences."""
        for number, at in enumerate(self.times):
            waits = RunOutcome(at, RunState.QUEUED if number else self.state)
            said, finished = self.outcomes.get(at) or (waits, None)
            yield RunView(
                at, self.task_id, self.kind, self.claimed, self.token, said.state, self.attempt,
                self.owner, finished, ANY if number else self.started,
                reason=said.reason, error=said.error, traceback=said.traceback,
            )  # fmt: skip


class RunModel(TaskModel):
    """The tasks, nodes and runs of a store.

    Args:
        clock: The host's.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.nodes: dict[str, ModelNode] = {}
        self.runs: list[ModelRun] = []
        self.unrun: dict[Identity, RunView] = {}
        self.forgotten: set[Identity] = set()

    # Nodes.

    def join(self, node_id: str, lease: float) -> None:
        """As `ClusterStore.join_node`."""
        now = self._clock.now()
        self.nodes[node_id] = ModelNode(node_id, now, now, now + timedelta(seconds=lease))

    def renew(self, node_id: str, lease: float, running: int) -> bool:
        """As `ClusterStore.renew_node`."""
        if not self.is_alive(node_id):
            return False
        node = self.nodes[node_id]
        node.seen, node.running = self._clock.now(), running
        node.lease_until = node.seen + timedelta(seconds=lease)
        return True

    def leave(self, node_id: str) -> None:
        """As `ClusterStore.leave_node`; who was buried stays so."""
        if self.is_alive(node_id):
            self.nodes[node_id].state = NodeState.LEFT

    def bury(self, node_id: str, moment: datetime) -> set[str]:
        """Nodes become dead whose lease had run out, but not the one that asks. Says which."""
        late = {
            node.id
            for node in self.nodes.values()
            if self.is_alive(node.id) and node.lease_until < moment and node.id != node_id
        }
        for each in late:
            self.nodes[each].state = NodeState.DEAD
        return late

    def is_alive(self, node_id: str | None) -> bool:
        """Whether nobody has buried it, and it has not left."""
        node = self.nodes.get(node_id or "")
        return node is not None and node.state is NodeState.ALIVE

    # Claims.

    def fire(self, node_id: str, firings: Sequence[Firing]) -> list[Fired]:
        """As `ClusterStore.fire`."""
        if not self.is_alive(node_id):
            return [Fired.FENCED] * len(firings)
        return [self._fire(node_id, firing) for firing in firings]

    def _fire(self, node_id: str, firing: Firing) -> Fired:
        kept, task, times = self.tasks.get(str(firing.task.id)), firing.task, firing.run_times
        if kept is None or kept.due != firing.expected:
            return Fired.LOST
        is_busy = self.count_active(kept.id) >= task.max_instances
        if is_busy and firing.kind is RunKind.MANUAL:
            return Fired.SKIPPED
        if firing.forget:
            self._forget_task(kept)
        kept.due = firing.next_run_time
        for unrun in firing.unrun:
            self._note(kept, node_id, unrun, unrun.reason)
        if not times:
            return Fired.WON
        if self.was_run(kept, firing.kind, times[0]):
            return Fired.REPEATED
        if is_busy:
            skipped = Unrun(RunState.SKIPPED, times[0], times[-1], len(times), "")
            self._note(kept, node_id, skipped, ANY)
            return Fired.SKIPPED
        once, now = task.delivery is Delivery.AT_MOST_ONCE, self._clock.now()
        state, started = (RunState.CLAIMED, None) if once else (RunState.RUNNING, now)
        run = ModelRun(
            kept.id, kept.generation, firing.kind, times, task.delivery, node_id, now, state,
            started,
        )  # fmt: skip
        run.kept = kept.view if firing.forget else None
        self.runs.append(run)
        return Fired.WON

    def _forget_task(self, kept: Kept) -> None:
        del self.tasks[kept.id]
        for run in self.open():
            if (run.task_id, run.generation) == (kept.id, kept.generation):
                run.kept = kept.view

    def _note(self, kept: Kept, node_id: str, unrun: Unrun, reason: Any) -> None:
        identity, now = self.identity_of_unrun(kept, unrun), self._clock.now()
        last = unrun.last if unrun.occurrences > 1 else None
        self.unrun[identity] = RunView(
            unrun.first, kept.id, identity.kind, now, 0, unrun.state, 0, node_id, now, None,
            unrun.occurrences, last, reason,
        )  # fmt: skip

    def identity_of_unrun(self, kept: Kept, unrun: Unrun) -> Identity:
        """Of what is left out, by hand or not: it was its schedule that asked for it."""
        return Identity(kept.id, kept.generation, RunKind.SCHEDULED, unrun.first)

    def was_run(self, kept: Kept, kind: RunKind, at: datetime) -> bool:
        """Whether there is a record of an occurrence, or an open run that is called the same."""
        identity = Identity(kept.id, kept.generation, kind, at)
        known = {*self.unrun, *(each for run in self.runs for each in run.identities())}
        called = {(run.task_id, run.kind, time) for run in self.open() for time in run.times}
        return identity in known - self.forgotten or (kept.id, kind, at) in called

    def count_active(self, task_id: str) -> int:
        """As `ClusterStore.count_active`."""
        return sum(run.task_id == task_id for run in self.open())

    # How they end.

    def open(self) -> list[ModelRun]:
        """Those that are."""
        return [run for run in self.runs if run.finished is None]

    def owned(self, node_id: str, ref: RunRef) -> ModelRun | None:
        """The open run of a reference, if it is that node's and the token is right."""
        for run in self.open():
            if run.ref == ref and run.owner == node_id:
                return run
        return None

    def start(self, node_id: str, ref: RunRef) -> bool:
        """As `ClusterStore.start_runs`."""
        run = self.owned(node_id, ref)
        if run is not None and run.state is RunState.CLAIMED:
            run.state, run.started = RunState.RUNNING, self._clock.now()
        return run is not None

    def release(self, node_id: str, ref: RunRef) -> None:
        """As `ClusterStore.release_runs`."""
        if run := self.owned(node_id, ref):
            run.owner, run.state, run.started = None, RunState.CLAIMED, None
            run.attempt = max(0, run.attempt - 1)

    def finish(self, node_id: str, end: RunEnd) -> bool:
        """As `ClusterStore.finish_runs`."""
        outcomes = {said.scheduled_time: said for said in end.outcomes}
        run = self.owned(node_id, end.ref)
        late = self.settled(node_id, end.ref)
        if run is None and late and late[-1].head_state is LOST:
            run = late[-1]
        if run is not None:
            run.end(outcomes, self._clock.now())
            return True
        said = outcomes.get(end.ref.scheduled_time) or RunOutcome(end.ref.scheduled_time, CANCELLED)
        return bool(late) and late[-1].head_state is said.state

    def settled(self, node_id: str, ref: RunRef) -> list[ModelRun]:
        """The runs of a reference that node has had, and which have ended."""
        ended = (run for run in self.runs if run.finished is not None)
        return [run for run in ended if run.ref == ref and run.owner == node_id]

    # What somebody else left.

    def unowned(self) -> list[ModelRun]:
        """The open runs that are anybody's."""
        return [run for run in self.open() if not self.is_alive(run.owner)]

    def task_of(self, run: ModelRun) -> TaskView | None:
        """What a run is carried out by; None: its task was deleted."""
        kept = self.tasks.get(run.task_id)
        current = kept.view if kept and kept.generation == run.generation else None
        return run.kept or current

    def fate_of(self, run: ModelRun, max_attempts: int) -> RunState | None:
        """What a run of nobody ends as; None: it is taken over."""
        if run.delivery is Delivery.AT_MOST_ONCE and run.state is RunState.RUNNING:
            return LOST
        if run.attempt >= max_attempts:
            return RunState.ABANDONED
        return CANCELLED if self.task_of(run) is None else None

    def take(self, node_id: str, run: ModelRun, fate: RunState | None) -> None:
        """Let it be so."""
        now = self._clock.now()
        if fate is not None:
            run.end({at: RunOutcome(at, fate, reason=ANY) for at in run.times}, now)
            return
        run.owner, run.token, run.attempt = node_id, run.token + 1, run.attempt + 1
        if run.delivery is Delivery.AT_LEAST_ONCE:
            run.state, run.started = RunState.RUNNING, now

    # History.

    def records(self) -> dict[Identity, RunView]:
        """What is known of each occurrence."""
        known = dict(self.unrun)
        for run in self.runs:
            known.update(zip(run.identities(), run.views(), strict=True))
        return {each: view for each, view in known.items() if each not in self.forgotten}

    def find(self, query: RunQuery) -> list[RunView]:
        """The records that a query is for, without its limit."""
        return [
            view
            for view in self.records().values()
            if query.task_id in (None, view.task_id)
            and (not query.states or view.state in query.states)
            and (query.since is None or view.at >= query.since)
        ]

    def settled_before(self, moment: datetime) -> set[Identity]:
        """What may be forgotten."""
        return {
            identity
            for identity, view in self.records().items()
            if view.finished is not None and view.finished < moment
        }
