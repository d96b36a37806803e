"""A shared store as it should be, in plain lists: nodes, and runs from due to done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import ANY

from asyncz.clock import Clock
from asyncz.enums import Delivery, NodeState, RunKind, RunState
from asyncz.runs.base import RunQuery
from asyncz.stores.cluster import Fired, Firing, RunEnd, RunOutcome, RunRef, Unrun
from asyncz.testing.store_model import Kept, TaskModel, TaskView
from asyncz.testing.store_model_values import Identity, ModelNode, ModelRun, RunView

__all__ = ["RunModel"]

LOST, CANCELLED, RETRYING = RunState.LOST, RunState.CANCELLED, RunState.RETRYING


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
        return sum(run.task_id == task_id and not run.waits for run in self.open())

    # How they end.

    def open(self) -> list[ModelRun]:
        """Those that are."""
        return [run for run in self.runs if run.finished is None]

    def owned(self, node_id: str, ref: RunRef) -> ModelRun | None:
        """The open run of a reference, if it is that node's and the token is right."""
        for run in self.open():
            if run.ref == ref and run.owner == node_id and not run.waits:
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
            run.is_vague = run.is_vague or run.is_attempt

    def finish(self, node_id: str, end: RunEnd) -> bool:
        """As `ClusterStore.finish_runs`."""
        outcomes = {said.scheduled_time: said for said in end.outcomes}
        run = self.owned(node_id, end.ref)
        late = self.settled(node_id, end.ref)
        if run is None and late and late[-1].head_state is LOST:
            run = late[-1]
        if run is not None:
            self._end(run, outcomes)
            return True
        if any(each.waits and each.ref == end.ref for each in self.runs if each.owner == node_id):
            return end.outcomes[0].state is RETRYING
        said = outcomes.get(end.ref.scheduled_time) or RunOutcome(end.ref.scheduled_time, CANCELLED)
        return bool(late) and late[-1].head_state is said.state

    def _end(self, run: ModelRun, outcomes: dict[datetime, RunOutcome]) -> None:
        """What is tried again goes on as a run of its own."""
        waits = [said for said in outcomes.values() if said.state is RETRYING]
        for said in waits:
            at = said.scheduled_time
            asked = run.asked if at == run.times[0] else None
            self.runs.append(
                replace(
                    run, times=(at,), state=RETRYING, retry_at=said.retry_at, said=said,
                    noted=None, asked=asked, outcomes={},
                )
            )  # fmt: skip
            del outcomes[at]
        left = tuple(at for at in run.times if at not in {said.scheduled_time for said in waits})
        run.is_part = left[:1] != run.times[:1]
        run.times = left
        if left:
            run.end(outcomes, self._clock.now())
        else:
            self.runs.remove(run)

    def settled(self, node_id: str, ref: RunRef) -> list[ModelRun]:
        """The runs of a reference that node has had, and which have ended."""
        ended = (run for run in self.runs if run.finished is not None and not run.is_part)
        return [run for run in ended if run.ref == ref and run.owner == node_id]

    # What somebody else left.

    def unowned(self) -> list[ModelRun]:
        """The open runs that are anybody's."""
        return [run for run in self.open() if not run.waits and not self.is_alive(run.owner)]

    def task_of(self, run: ModelRun) -> TaskView | None:
        """What a run is carried out by; None: its task was deleted."""
        kept = self.tasks.get(run.task_id)
        current = kept.view if kept and kept.generation == run.generation else None
        return run.kept or current

    def fates_of(self, run: ModelRun, max_attempts: int) -> set[RunState | None]:
        """What a run of nobody may end as; None: it is taken over."""
        if run.delivery is Delivery.AT_MOST_ONCE and run.state is RunState.RUNNING:
            return {LOST}
        left = CANCELLED if self.task_of(run) is None else None
        claims = run.attempt - run.again
        least, most = claims, claims + run.is_vague
        fates: set[RunState | None] = {left} if least < max_attempts else set()
        return fates | ({RunState.ABANDONED} if most >= max_attempts else set())

    def take(self, node_id: str, run: ModelRun, fate: RunState | None) -> None:
        """Let it be so."""
        if fate is not None:
            self.end_by_others(run, fate)
            return
        run.owner, run.token, run.attempt = node_id, run.token + 1, run.attempt + 1
        run.is_attempt = False
        if run.delivery is Delivery.AT_LEAST_ONCE:
            run.state, run.started = RunState.RUNNING, self._clock.now()

    def try_again(self, node_id: str, run: ModelRun) -> None:
        """The next attempt of a run that waits is that node's."""
        once, now = run.delivery is Delivery.AT_MOST_ONCE, self._clock.now()
        run.state, run.started = (RunState.CLAIMED, None) if once else (RunState.RUNNING, now)
        run.owner, run.retry_at, run.is_attempt = node_id, None, True
        run.token, run.attempt, run.again = run.token + 1, run.attempt + 1, run.again + 1

    def end_by_others(self, run: ModelRun, state: RunState) -> None:
        """It ends so, without a word of its owner's. What is kept of it is up to the store."""
        said = RunOutcome(run.times[0], state, ANY, ANY, ANY, ANY)
        run.end({at: said._replace(scheduled_time=at) for at in run.times}, self._clock.now())

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
            and (query.until is None or view.at <= query.until)
        ]

    def settled_before(self, moment: datetime) -> set[Identity]:
        """What may be forgotten."""
        return {
            identity
            for identity, view in self.records().items()
            if view.finished is not None and view.finished < moment
        }
