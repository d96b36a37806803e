"""What is owed before a schedule is changed: occurrences that are due and that nobody has run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from asyncz.enums import RunKind, RunState
from asyncz.events.base import TaskExecutionEvent
from asyncz.events.constants import TASK_CANCELLED
from asyncz.exceptions import StoreError
from asyncz.schedulers.lane import StoreLane
from asyncz.schedulers.planning import ONE_MICROSECOND, Missed, count_owed
from asyncz.schedulers.queries import Queries
from asyncz.schedulers.submission import report_missed
from asyncz.stores.cluster import Fired, Firing, Unrun
from asyncz.tasks.base import Task
from asyncz.triggers.base import BaseTrigger, in_utc

__all__ = ["CHANGED", "PAUSE", "PAUSED", "TRIES", "Due", "Settling", "changed_by_others"]

TRIES = 5
PAUSE = 0.01
"""Seconds to leave a task to whoever is about to move it on."""


class Why(NamedTuple):
    """What becomes of occurrences that are owed, in words too."""

    state: RunState
    reason: str


CHANGED = Why(RunState.MISSED, "its schedule was changed before it was run")
PAUSED = Why(RunState.CANCELLED, "it was paused before it was run")
DELETED = Why(RunState.CANCELLED, "its task was deleted before it was run")


class Due(NamedTuple):
    """The schedule of a task that is due, before anything is changed."""

    first: datetime
    trigger: BaseTrigger


class Settling(Queries):
    """Gives what a change would make forgotten its record, before the change is made."""

    def due(self, lane: StoreLane, task: Task) -> Due | None:
        """The schedule of a task that has occurrences to be run; None: it has none."""
        first, trigger = task.next_run_time, task.trigger
        if first is None or trigger is None or in_utc(first) > lane.now():
            return None
        return Due(first, trigger)

    def owed(
        self, lane: StoreLane, task: Task, due: Due, why: Why, following: datetime | None
    ) -> Unrun | None:
        """What a task does not run any more when it is due at another time; None: nothing.

        Args:
            lane: Of its store.
            task: With the trigger that it is to have.
            due: What it was due for.
            why: What changes it.
            following: When it is to be due next; None: never.
        """
        until = lane.now()
        if following is not None and in_utc(following) <= until:
            if in_utc(following) > in_utc(due.first):
                until = in_utc(following) - ONE_MICROSECOND
            elif task.trigger == due.trigger or in_utc(following) == in_utc(due.first):
                return None  # all of it is run now, or what stands in its place
        try:
            missed = count_owed(due.first, due.trigger, until, self._engine.timezone)
        except Exception:  # it is the user's trigger, which must not keep a task from being paused
            self._engine.logger.exception(
                "How many runs of the task %r were due is not known; one is noted.", task.id
            )
            missed = Missed(1, due.first, due.first)
        return Unrun(why.state, missed.first, missed.last, missed.total, why.reason)

    async def settle(
        self, lane: StoreLane, task: Task, due: Due, why: Why, following: datetime | None
    ) -> bool:
        """Record what a task owes, and have it be due at another time, or never, from now on.

        Returns:
            Whether that was done. False: somebody has moved it on meanwhile.
        """
        unrun = self.owed(lane, task, due, why, following)
        if unrun is None:
            return True
        firing = _settled(task, due, following, unrun)
        (fired,) = await lane.ledger.settle([firing])
        if fired is Fired.WON:
            self._report(task, unrun)
        return fired is Fired.WON

    def settle_soon(self, lane: StoreLane, task_id: str, unrun: Unrun) -> None:
        """Record what a task owed that was changed in a transaction of another's, now committed."""
        name = f"asyncz record of what {task_id} owed"
        self._engine.background(self._settle_changed(lane, task_id, unrun), name)

    async def _settle_changed(self, lane: StoreLane, task_id: str, unrun: Unrun) -> None:
        for attempt in range(TRIES):
            await asyncio.sleep(PAUSE * attempt)
            async with lane.exclusive():
                _, task = await self._find(task_id, lane.alias)
                moment = task.next_run_time
                firing = Firing(task, moment, moment, False, RunKind.SCHEDULED, (), (unrun,))
                if await lane.ledger.settle([firing]) == [Fired.WON]:
                    self._report(task, unrun)
                    return
        raise changed_by_others(task_id)

    async def settle_one(self, lane: StoreLane, task_id: str) -> None:
        """Record what a task owes that is about to be deleted."""
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(PAUSE * attempt)
            task = await lane.call(lane.store.lookup_task(task_id))
            due = None if task is None else self.due(lane, task)
            if task is None or due is None:
                return
            if await self.settle(lane, task, due, DELETED, None):
                return
        raise changed_by_others(task_id)

    async def settle_all(self, lane: StoreLane) -> None:
        """Record what all tasks of a store owe that are about to be deleted, page by page."""
        in_vain = 0
        while in_vain < TRIES:  # what somebody else has in hand then, that one accounts for
            tasks = await lane.call(lane.store.get_due_tasks(lane.now(), lane.store.due_page))
            if not tasks:
                return
            if await self._settle_page(lane, tasks):
                in_vain = 0
            else:
                in_vain += 1
                await asyncio.sleep(PAUSE * in_vain)

    async def _settle_page(self, lane: StoreLane, tasks: Sequence[Task]) -> int:
        firings = []
        for task in tasks:
            due = self.due(lane, task)
            unrun = None if due is None else self.owed(lane, task, due, DELETED, None)
            if due is not None and unrun is not None:
                firings.append(_settled(task, due, None, unrun))
        fired = await lane.ledger.settle(firings)
        won = [firing for firing, what in zip(firings, fired, strict=True) if what is Fired.WON]
        for firing in won:
            self._report(firing.task, firing.unrun[0])
        return len(won)

    def _report(self, task: Task, unrun: Unrun) -> None:
        engine = self._engine
        missed = Missed(unrun.occurrences, unrun.first, unrun.last)
        if unrun.state is RunState.MISSED:
            report_missed(engine, task, missed, unrun.reason)
            return
        engine.logger.info(
            "%d run(s) of the task %r, due %s to %s, are cancelled: %s.",
            missed.total,
            task.id,
            missed.first,
            missed.last,
            unrun.reason,
        )
        if engine.events.mask & TASK_CANCELLED:
            engine.dispatch(
                TaskExecutionEvent(
                    code=TASK_CANCELLED,
                    task_id=str(task.id),
                    store=task.store_alias,
                    scheduler_identity=engine.identity,
                    scheduled_run_time=missed.first,
                    run_count=missed.total,
                    last_scheduled_run_time=missed.last,
                )
            )


def _settled(task: Task, due: Due, following: datetime | None, unrun: Unrun) -> Firing:
    return Firing(task, due.first, following, False, RunKind.SCHEDULED, (), (unrun,))


def changed_by_others(task_id: str) -> StoreError:
    """The error for a task that is moved on, and on, by others."""
    return StoreError(
        f"The task {task_id!r} was moved on by others each time that it was to be changed; try "
        "again."
    )
