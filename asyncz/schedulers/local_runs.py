"""Runs of a store that keeps none, such as the one in memory: their account, in this process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from asyncz.enums import RunKind, RunState
from asyncz.events.constants import TASK_ERROR, TASK_EXECUTED
from asyncz.exceptions import MaximumInstancesError
from asyncz.executors.base import BaseExecutor, Outcome
from asyncz.runs.base import Run, RunQuery
from asyncz.runs.current import CurrentRun
from asyncz.schedulers.accounts import Claim, as_recorded, as_unrun
from asyncz.schedulers.ledger import Ledger, Step
from asyncz.schedulers.local_attempts import LocalAttempts, Waiting
from asyncz.schedulers.local_history import LocalHistory, Special, said_of
from asyncz.schedulers.starting import Start
from asyncz.schedulers.submission import report_cancelled, send, submit
from asyncz.stores.base import BaseStore, TaskAdvance, is_same_instant
from asyncz.stores.cluster import Fired, Firing, RunOutcome, Unrun
from asyncz.tasks.base import Task

if TYPE_CHECKING:
    from asyncz.schedulers.engine import Engine

__all__ = ["LocalRuns"]

TASK_DELETED = "its task was deleted"


class LocalRuns(Ledger):
    """The runs of a store that this scheduler has for itself.

    All of it costs about a microsecond a run: an entry when it is handed over, and one when it
    has ended. Records are made of these when somebody asks.

    Args:
        engine, alias, store: Whose.
        ask: Awaits an operation of the store, within the store timeout.
        wake_for: Has the store looked at by that instant.
    """

    def __init__(
        self,
        engine: Engine,
        alias: str,
        store: BaseStore,
        ask: Callable[[Awaitable[Any]], Awaitable[Any]],
        wake_for: Callable[[datetime | None], None],
    ) -> None:
        self._engine = engine
        self._alias = alias
        self._store = store
        self._ask = ask
        self._now = engine.clock.now
        self._wake_for = wake_for
        self._attempts = LocalAttempts(engine, self._begin_again)
        self._put_off = self._attempts.waiting
        self._orphans: set[tuple[str, datetime]] = set()
        """The runs that go on of tasks that were deleted since."""
        self._failing: dict[tuple[str, datetime], Task] = {}
        self._sayings: dict[tuple[str, datetime], CurrentRun] = {}
        self._cancelled_by: dict[tuple[str, datetime], str] = {}
        # The one open run that a task mostly has: its instant, and since when. In two dictionaries,
        # since no object has to be made for that.
        self._open: dict[str, datetime] = {}
        self._since: dict[str, datetime] = {}
        self._special: dict[tuple[str, datetime], Special] = {}
        self._history = LocalHistory(engine, alias)

    def now(self) -> datetime:
        return self._now()

    async def fire(self, steps: Sequence[Step]) -> list[Fired]:
        advances = [
            TaskAdvance(task, task.next_run_time, plan.next_run_time)  # type: ignore[arg-type]
            for task, plan, _ in steps
        ]
        # Before the store moves the tasks on, which may be these very objects.
        now, most = self._now(), self._engine.settings.max_catchup
        not_run = {
            str(task.id): as_unrun(task, plan, now, most)
            for task, plan, _ in steps
            if plan.coalesced or plan.missed is not None
        }
        made = await self._ask(self._store.advance_tasks(advances))
        now = self._now()
        for (task, plan, _), won in zip(steps, made, strict=True):
            if won:
                self._history.meet(task, plan.next_run_time is not None)
                self._begin(str(task.id), plan.run_times, now)
                for unrun in not_run.get(str(task.id), ()) if not_run else ():
                    self._history.not_run(str(task.id), unrun, now)
        return [Fired.WON if won else Fired.LOST for won in made]

    def _begin_again(self, waiting: Waiting) -> None:
        key = waiting.key
        self._special[key] = Special(waiting.since, waiting.kind, (key[1],))

    def _begin(self, task_id: str, run_times: Sequence[datetime], now: datetime) -> None:
        if len(run_times) == 1 and task_id not in self._open:
            self._open[task_id] = run_times[0]
            self._since[task_id] = now
        elif run_times:
            run = Special(now, RunKind.SCHEDULED, tuple(run_times))
            self._special[task_id, run_times[0]] = run

    async def fire_by_hand(self, firing: Firing, executor: BaseExecutor) -> Fired:
        task, task_id = firing.task, str(firing.task.id)
        executor.sweep()
        if self._engine.instances.get((self._alias, task_id), 0) >= task.max_instances:
            return Fired.SKIPPED
        key = (task_id, firing.run_times[0])
        if key in self._special or self._open.get(task_id) == key[1]:
            return Fired.REPEATED
        if firing.forget:
            await self._ask(self._store.delete_task(task_id))
        elif not is_same_instant(firing.expected, firing.next_run_time):
            task.next_run_time = firing.next_run_time
            await self._ask(self._store.update_task(task))
        now = self._now()
        self._special[key] = Special(now, firing.kind, firing.run_times)
        self._history.meet(task, not firing.forget)
        for unrun in firing.unrun:
            self._history.not_run(task_id, unrun, now)
        return Fired.WON

    async def settle(self, firings: Sequence[Firing]) -> list[Fired]:
        for task, _, following, _, _, _, unrun in firings:
            task.next_run_time = following
            await self._ask(self._store.update_task(task))
            for each in unrun:
                self._history.not_run(str(task.id), each, self._now())
        return [Fired.WON] * len(firings)

    async def start(self, starts: Sequence[Start]) -> None:
        for executor, task, run_times, coalesced, by_hand in starts:
            (send if by_hand else submit)(self._engine, executor, task, run_times, coalesced)

    def _wake_for_attempts(self) -> None:
        """What is to be tried again may have waited for a run to end."""
        moment = self._attempts.next_at
        if moment is not None and moment <= self._now():
            self._engine.loop.call_soon(self._wake_for, self._now())

    def run_succeeded(self, task_id: str, run_time: datetime) -> None:
        if self._put_off:
            self._wake_for_attempts()
        if self._sayings or self._cancelled_by or self._orphans:
            self._forget_of((task_id, run_time))
        if self._open.get(task_id) == run_time:
            del self._open[task_id]
            self._history.succeeded(task_id, run_time, self._since.pop(task_id))
        elif run := self._special.pop((task_id, run_time), None):
            attempt = self.attempt_of(task_id, run_time)
            self._attempts.ended((task_id, run_time))
            for moment in run.run_times:
                outcome = RunOutcome(moment, RunState.SUCCEEDED)
                self._history.ended(task_id, run, outcome, attempt)

    def run_ended(self, task_id: str, outcomes: Sequence[Outcome]) -> None:
        first = outcomes[0].run_time
        one = outcomes[0]
        if len(outcomes) == 1 and one.code == TASK_EXECUTED and one.value is one.notes is None:
            self.run_succeeded(task_id, first)
            return
        if self._put_off:
            self._wake_for_attempts()
        key, now = (task_id, first), self._now()
        by = self._cancelled_by.get(key)
        # Not the exceptions themselves, which keep alive all that was on the stack.
        said = [as_recorded(outcome, now, by) for outcome in outcomes]
        is_orphan = key in self._orphans
        task, _ = self._failing.pop(key, None), self._forget_of(key)
        attempt = self.attempt_of(task_id, first)
        self._attempts.ended(key)
        if run := self._taken_out(task_id, first):
            for outcome in said:
                if task is not None and outcome.retry_at is not None:
                    self._attempts.wait(task, run.kind, run.since, attempt, outcome)
                    self._wake_for(outcome.retry_at)
                    if is_orphan:
                        waiting = self._put_off[task_id, outcome.scheduled_time]
                        self._end_waiting(waiting, TASK_DELETED)
                elif outcome.retry_at is None:
                    self._history.ended(task_id, run, outcome, attempt)

    def _forget_of(self, key: tuple[str, datetime]) -> str | None:
        """A run has ended. Who has asked to cancel it, if anybody has."""
        self._sayings.pop(key, None)
        self._orphans.discard(key)
        return self._cancelled_by.pop(key, None)

    # Attempts.

    @property
    def attend_at(self) -> datetime | None:  # type: ignore[override]  # it is worked out
        return self._attempts.next_at

    async def try_again(self) -> None:
        await self._attempts.try_again(
            self._now(), lambda task_id: self._ask(self._store.lookup_task(task_id))
        )

    def attempt_of(self, task_id: str, head: datetime) -> int:
        return self._attempts.number_of((task_id, head))

    def claim_of(self, task_id: str, head: datetime) -> Claim:
        attempt, run = self.attempt_of(task_id, head), self._special.get((task_id, head))
        kind, since = (run.kind, run.since) if run else (Claim().kind, self._since.get(task_id))
        return Claim(kind, attempt, attempt, since, since)

    def is_to_be_cancelled(self, task_id: str, head: datetime) -> bool:
        return (task_id, head) in self._cancelled_by

    def will_be_tried_again(self, task: Task, head: datetime) -> None:
        self._failing[str(task.id), head] = task

    async def task_deleted(self, task_id: str | None) -> None:
        self._history.forget_successes(task_id)
        for waiting in self._attempts:
            if task_id in (None, waiting.key[0]):
                self._end_waiting(waiting, TASK_DELETED)
        is_open = [*self._open.items(), *self._special]
        self._orphans.update(key for key in is_open if task_id in (None, key[0]))

    def _end_waiting(self, waiting: Waiting, why: str) -> None:
        self._attempts.take_out(waiting.key)
        run = Special(waiting.since, waiting.kind, (waiting.key[1],))
        said = waiting.said._replace(state=RunState.CANCELLED, retry_at=None, reason=why)
        self._history.ended(waiting.key[0], run, said, waiting.attempt)
        report_cancelled(self._engine, self._alias, *waiting.key, why)

    # What runs say, and being cancelled.

    def run_says(self, task_id: str, head: datetime, run: CurrentRun) -> None:
        self._sayings[task_id, head] = run

    async def cancel_run(self, task_id: str, moment: datetime, by: str) -> RunState | None:
        key = (task_id, moment)
        for waiting in self._attempts:
            if waiting.key == key:
                self._end_waiting(waiting, f"cancelled by {by}")
                return RunState.CANCELLED
        found = [run for run in self._all() if (run.task_id, run.scheduled_time) == key]
        states = {run.state for run in found}
        if RunState.RUNNING in states:
            self._cancelled_by[key] = by
            for executor in self._engine.executors.values():
                if executor.cancel_run(self._alias, task_id, moment):
                    break
            return RunState.RUNNING
        return next((run.state for run in found), None)

    def unknown_run_ended(self, task_id: str, code: int) -> None:
        moments = [moment for known, moment in self._special if known == task_id]
        if task_id in self._open:
            moments.append(self._open[task_id])
        if moments:
            error = RuntimeError("The executor could not run it.") if code == TASK_ERROR else None
            self.run_ended(task_id, [Outcome(code, min(moments), exception=error)])

    def run_refused(self, task: Task, run_times: Sequence[datetime], error: Exception) -> None:
        task_id = str(task.id)
        if not isinstance(error, MaximumInstancesError):
            failed = [Outcome(TASK_ERROR, moment, exception=error) for moment in run_times]
            self.run_ended(task_id, failed)
        elif self._taken_out(task_id, run_times[0]):
            unrun = Unrun(RunState.SKIPPED, run_times[0], run_times[-1], len(run_times), str(error))
            self._history.not_run(task_id, unrun, self._now())

    def _taken_out(self, task_id: str, run_time: datetime) -> Special | None:
        """An open run, which is not open any more; None: it was not."""
        if self._open.get(task_id) == run_time:
            moment = self._open.pop(task_id)
            return Special(self._since.pop(task_id), RunKind.SCHEDULED, (moment,))
        return self._special.pop((task_id, run_time), None)

    # History.

    async def last_success(self, task_id: str) -> datetime | None:
        return self._history.last_success(task_id) or await super().last_success(task_id)

    async def get_runs(self, query: RunQuery) -> list[Run]:
        return query.select(self._all())

    async def count_active(self, task_ids: Sequence[str]) -> dict[str, int]:
        instances, alias = self._engine.instances, self._alias
        return {task_id: instances.get((alias, task_id), 0) for task_id in task_ids}

    async def get_last_runs(self, task_ids: Sequence[str]) -> dict[str, Run]:
        wanted = set(task_ids)
        last: dict[str, Run] = {}
        for run in self._all():
            if run.task_id in wanted:
                before = last.get(run.task_id)
                if before is None or before.scheduled_time <= run.scheduled_time:
                    last[run.task_id] = run
        return last

    def _all(self) -> Iterator[Run]:
        yield from self._history.runs()
        for waiting in self._attempts:
            yield self._of_waiting(waiting)
        for task_id, moment in self._open.items():
            since = self._since[task_id]
            yield self._run(task_id, RunKind.SCHEDULED, moment, RunState.RUNNING, since)
        for (task_id, head), special in self._special.items():
            for moment in special.run_times:
                state = RunState.RUNNING if moment is head else RunState.QUEUED
                yield self._run(task_id, special.kind, moment, state, special.since)

    def _of_waiting(self, waiting: Waiting) -> Run:
        task_id, moment = waiting.key
        run = self._run(task_id, waiting.kind, moment, RunState.RETRYING, waiting.since)
        numbers = {"attempt": waiting.attempt, "token": waiting.attempt}
        said = {"retry_at": waiting.retry_at, **numbers, **said_of(waiting.said)}
        return run.model_copy(update=said)

    def _run(
        self, task_id: str, kind: RunKind, moment: datetime, state: RunState, since: datetime
    ) -> Run:
        make = self._history.make_run
        if state is not RunState.RUNNING:
            return make(task_id, kind, moment, state, since)
        attempt, saying = self.attempt_of(task_id, moment), self._sayings.get((task_id, moment))
        notes = None if saying is None else saying.notes()
        return make(task_id, kind, moment, state, since, attempt, notes)
