"""The runs that one scheduler carries out for a store that it may share: from claim to outcome."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncz.enums import Delivery, RunState, SchedulerState
from asyncz.events.constants import TASK_CANCELLED, TASK_ERROR, TASK_MAX_INSTANCES
from asyncz.exceptions import MaximumInstancesError
from asyncz.executors.base import Outcome
from asyncz.runs.base import Run, RunQuery
from asyncz.runs.current import CurrentRun
from asyncz.schedulers.accounts import Claim, as_recorded
from asyncz.schedulers.ledger import Ledger
from asyncz.schedulers.outcomes import HEAVY, Outcomes, weight_of
from asyncz.schedulers.pruning import Pruner
from asyncz.schedulers.sayings import Sayings
from asyncz.schedulers.store_time import StoreTime
from asyncz.schedulers.submission import report_cancelled
from asyncz.stores.cluster import ClusterStore, Node, OpenRun, RunEnd, RunOutcome, RunRef
from asyncz.stores.quarantine import reason
from asyncz.tasks.base import Task

if TYPE_CHECKING:
    from asyncz.schedulers.engine import Engine

__all__ = ["Ask", "Own", "OwnRuns", "RunKey"]

Ask = Callable[[Awaitable[Any]], Awaitable[Any]]
AT_ONCE = 1_000
"""Waiting runs of a deleted task that are looked for at a time."""
DELETION = "the deletion of its task"
RunKey = tuple[str, datetime]
"""Names a run in this process: its task, and the first of its run times."""


class Own(NamedTuple):
    """A run that is carried out here."""

    node_id: str
    ref: RunRef
    delivery: Delivery
    task: Task | None
    attempt: int = 1


class OwnRuns(Ledger):
    """What a scheduler has claimed in one store, and is to tell it of.

    Args:
        engine: The scheduler's.
        alias, store: The store.
        ask: Awaits an operation of the store, within the store timeout.
        wake_for: Has the store looked at by that instant, or now.
    """

    def __init__(
        self,
        engine: Engine,
        alias: str,
        store: ClusterStore,
        ask: Ask,
        wake_for: Callable[[datetime | None], None],
    ) -> None:
        self._engine = engine
        self._alias = alias
        self._store = store
        self._ask = ask
        self._wake_for = wake_for
        self._owned: dict[RunKey, Own] = {}
        self._cancelled_by: dict[RunKey, str] = {}
        self._outcomes = Outcomes(engine, alias, store, ask)
        self._sayings = Sayings(engine, alias, self._note)
        self._pruner = Pruner(engine, alias, store, ask, self.now)
        self._time = StoreTime(engine.clock)
        self._claiming: tuple[RunRef, ...] = ()
        self.attend_at: datetime | None = None
        """When the store may have something for `attend`, as far as this scheduler knows."""
        self._ends = 0
        self.node = Node("", "", "", 0)

    def now(self) -> datetime:
        return self._time.now()

    def owns(self, task_id: str, moment: datetime) -> bool:
        """Whether that run is to be carried out here, by the node that this is now."""
        own = self._owned.get((task_id, moment))
        return own is not None and own.node_id == self.node.id

    def disown(self, key: RunKey) -> None:
        """A run that has not begun here is somebody else's."""
        self._owned.pop(key, None)
        if self._cancelled_by:
            self._cancelled_by.pop(key, None)

    def delivery_of(self, key: RunKey) -> Delivery:
        """What holds for a run that is owned."""
        return self._owned[key].delivery

    def attempt_of(self, task_id: str, head: datetime) -> int:
        own = self._owned.get((task_id, head))
        return 1 if own is None else own.attempt

    def numbers_of(self, task_id: str, head: datetime) -> tuple[int, int]:
        own = self._owned.get((task_id, head))
        return (1, 1) if own is None else (own.attempt, own.ref.token)

    def claim_of(self, task_id: str, head: datetime) -> Claim:
        own = self._owned.get((task_id, head))
        return Claim() if own is None else Claim(own.ref.kind, own.attempt, own.ref.token)

    knows_records = False

    async def record_of(self, run: Run) -> Run | None:
        at = run.scheduled_time
        try:
            found = await self.get_runs(RunQuery(run.task_id, since=at, until=at))
        except Exception as exc:
            self._engine.logger.warning(
                "The record of a run of the task %r cannot be read from the store %r: %s",
                run.task_id,
                self._alias,
                reason(exc),
            )
            return run
        of_its_kind = [record for record in found if record.kind is run.kind]
        if any(record.token > run.token for record in of_its_kind):
            return None
        same = (run.token, run.state)
        return next((each for each in of_its_kind if (each.token, each.state) == same), run)

    async def mark_started(self, keys: Sequence[RunKey]) -> set[RunKey]:
        """Note in the store, before the first instruction of the user's, that runs begin.

        May be repeated after an error: a run of this node's that is noted as begun is still its.

        Returns:
            Those that may begin. The others are somebody else's, and not owned any more.
        """
        node_id, refs = self.node.id, [self._owned[key].ref for key in keys]
        answers: list[bool] = await self._ask(self._store.start_runs(node_id, refs))
        begun = set()
        for key, ref, may in zip(keys, refs, answers, strict=True):
            own = self._owned.get(key)
            if own is None or own.ref != ref:
                continue  # taken over meanwhile, perhaps by the node that this has become
            if may:
                begun.add(key)
            else:
                self.disown(key)
        return begun

    def adopt(self, run: OpenRun) -> bool:
        """A run is carried out here from now on.

        Returns:
            Whether it has to be started: not if it goes on here already, begun by the node that
            this scheduler was before it was taken for dead.
        """
        ref = run.ref
        key = (ref.task_id, ref.scheduled_time)
        goes_on = key in self._owned
        self._owned[key] = Own(self.node.id, ref, run.delivery, run.task, run.attempt)
        return not goes_on

    async def give_back(self, run: OpenRun) -> None:
        """A run is not carried out here after all."""
        self.disown((run.ref.task_id, run.ref.scheduled_time))
        await self._ask(self._store.release_runs(self.node.id, [run.ref]))

    def known_runs(self) -> set[RunRef]:
        """The runs that go on here, are being claimed, or whose outcome is still to be recorded."""
        known = {own.ref for own in self._owned.values()}
        known.update(self._claiming)
        return known | self._outcomes.runs()

    def release_all(self) -> None:
        """What has not ended here is for others."""
        for own in self._owned.values():
            self._outcomes.note_release(own.node_id, own.ref)
        self._owned.clear()
        self._cancelled_by.clear()

    # What runs say of themselves.

    def run_says(self, task_id: str, head: datetime, run: CurrentRun) -> None:
        self._sayings.add((task_id, head), run)

    async def _note(self, said: dict[RunKey, dict[str, Any]]) -> None:
        """Keep it in the store, for those runs that go on."""
        node_id = self.node.id
        notes = [
            (own.ref, said[key])
            for key, own in self._owned.items()
            if key in said and own.node_id == node_id
        ]
        while notes:
            weight, some = 0, list[tuple[RunRef, dict[str, Any]]]()
            while notes and (not some or weight < HEAVY):
                some.append(notes.pop())
                weight += weight_of(some[-1][1])
            await self._ask(self._store.note_runs(node_id, some))

    # Being cancelled.

    def cancel(self, ref: RunRef, by: str) -> bool:
        """Somebody has asked to cancel a run; whether it is owned here and was not known to."""
        key = (ref.task_id, ref.scheduled_time)
        own = self._owned.get(key)
        if own is None or own.ref != ref or key in self._cancelled_by:
            return False
        self._cancelled_by[key] = by
        task = own.task
        executor = None if task is None else self._engine.executors.get(str(task.executor))
        was_going = executor is not None and executor.cancel_run(self._alias, *key)
        # Otherwise it goes on in an executor that cannot do that, or has not begun yet.
        if not was_going and not self._goes_on(own):
            self.end_unbegun(key, [ref.scheduled_time])
        elif not was_going:
            self._wake_for(self.now())
        return True

    def end_unbegun(self, key: RunKey, run_times: Sequence[datetime]) -> None:
        """A run that is to be cancelled has not begun, and does not."""
        by = self._cancelled_by[key]
        self.run_ended(key[0], [Outcome(TASK_CANCELLED, moment) for moment in run_times])
        report_cancelled(self._engine, self._alias, *key, f"by {by}")

    def is_to_be_cancelled(self, task_id: str, head: datetime) -> bool:
        return (task_id, head) in self._cancelled_by

    def _goes_on(self, own: Own) -> bool:
        task = own.task
        return task is not None and (self._alias, task.id) in self._engine.instances

    async def cancel_run(self, task_id: str, moment: datetime, by: str) -> RunState | None:
        await self.flush()
        state: RunState | None = await self._ask(self._store.cancel_run(task_id, moment, by))
        if state is not None and state.is_open:
            for own in list(self._owned.values()):
                if own.ref.task_id == task_id and own.ref.scheduled_time == moment:
                    self.cancel(own.ref, by)
        if state is RunState.CANCELLED:
            report_cancelled(self._engine, self._alias, task_id, moment, f"by {by}")
        return state

    async def task_deleted(self, task_id: str | None) -> None:
        waiting = RunQuery(task_id, frozenset({RunState.RETRYING}), limit=AT_ONCE)
        try:
            while True:
                found = await self.get_runs(waiting)
                ends = [
                    await self.cancel_run(run.task_id, run.scheduled_time, DELETION)
                    for run in found
                ]
                if len(found) < AT_ONCE or RunState.CANCELLED not in ends:
                    return
        except Exception as exc:  # they end when their time comes
            self._engine.logger.warning(
                "What waits for another attempt of %r, deleted from the store %r, waits on: %s",
                task_id or "all tasks",
                self._alias,
                reason(exc),
            )

    # Outcomes.

    def run_ended(self, task_id: str, outcomes: Sequence[Outcome]) -> None:
        """A run has ended here; its outcome is recorded as soon as possible."""
        key = (task_id, outcomes[0].run_time)
        own = self._owned.get(key)
        if own is None:
            return
        by, now = self._cancelled_by.get(key), self.now()
        said = tuple([as_recorded(outcome, now, by) for outcome in outcomes])
        self.disown(key)
        if self._is_to_be_released(own, outcomes, by):
            self._outcomes.note_release(own.node_id, own.ref)
            return
        self._note_end(own, RunEnd(own.ref, said))
        for outcome in said:
            if outcome.retry_at is not None:
                self.expect(outcome.retry_at)
                self._wake_for(outcome.retry_at)

    def _note_end(self, own: Own, end: RunEnd) -> None:
        self._outcomes.note_end(own.node_id, end)
        self._sayings.forget((end.ref.task_id, end.ref.scheduled_time))
        self._pruner.note(own.task)
        self._ends += 1
        self._wake_for_attempts()

    def _wake_for_attempts(self) -> None:
        """What is to be tried again may have waited for a run to end."""
        if self.attend_at is not None and self.attend_at <= (now := self.now()):
            self._wake_for(now)

    def expect(self, moment: datetime | None) -> None:
        """The store will have something for `attend` then."""
        if moment is not None:
            self.attend_at = moment if self.attend_at is None else min(moment, self.attend_at)

    def run_succeeded(self, task_id: str, run_time: datetime) -> None:
        own = self._owned.pop((task_id, run_time), None)
        if own is not None:
            outcome = RunOutcome(run_time, RunState.SUCCEEDED)
            self._note_end(own, RunEnd(own.ref, (outcome,)))
            if self._cancelled_by:
                self._cancelled_by.pop((task_id, run_time), None)

    def run_refused(self, task: Task, run_times: Sequence[datetime], error: Exception) -> None:
        code = TASK_MAX_INSTANCES if isinstance(error, MaximumInstancesError) else TASK_ERROR
        outcomes = [Outcome(code, moment, exception=error) for moment in run_times]
        self.run_ended(str(task.id), outcomes)

    def unknown_run_ended(self, task_id: str, code: int) -> None:
        """The first run of a task has ended, by an executor that says no more than that."""
        moments = sorted(moment for known, moment in self._owned if known == task_id)
        if moments:
            error = RuntimeError("The executor could not run it.") if code == TASK_ERROR else None
            self.run_ended(task_id, [Outcome(code, moments[0], exception=error)])

    def _is_to_be_released(self, own: Own, outcomes: Sequence[Outcome], by: str | None) -> bool:
        """Whether a shutdown has cut it off, and somebody else is to run it again."""
        return (
            self._engine.state is SchedulerState.STATE_STOPPED
            and by is None
            and own.delivery is Delivery.AT_LEAST_ONCE
            and all(outcome.code == TASK_CANCELLED for outcome in outcomes)
        )

    @property
    def is_recording(self) -> bool:
        return self._outcomes.is_recording

    async def flush(self) -> None:
        """Record the outcomes that are not recorded yet."""
        await self._outcomes.flush()
