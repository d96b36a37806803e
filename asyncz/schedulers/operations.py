"""What can be done with tasks: each operation once, as a coroutine on the engine's loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from asyncz.enums import RunKind, SchedulerState
from asyncz.events.base import SchedulerEvent
from asyncz.events.constants import ALL_TASKS_REMOVED, TASK_MODIFIED, TASK_REMOVED
from asyncz.exceptions import (
    BlockingCallError,
    MaximumInstancesError,
    SchedulerNotRunningError,
    SomeTasksError,
    StoreError,
    TaskLookupError,
    TaskOptionError,
)
from asyncz.executors.base import BaseExecutor
from asyncz.schedulers.accounts import as_unrun
from asyncz.schedulers.adding import Adding
from asyncz.schedulers.engine import Declaration
from asyncz.schedulers.lane import StoreLane
from asyncz.schedulers.planning import plan_task, run_time_after
from asyncz.schedulers.queries import TaskRef
from asyncz.schedulers.settling import CHANGED, PAUSE, PAUSED, TRIES, changed_by_others
from asyncz.schedulers.starting import Start
from asyncz.schedulers.submission import report_refused
from asyncz.schedulers.transactions import CallersConnection, callers_connection
from asyncz.stores.base import BaseStore, is_same_instant
from asyncz.stores.cluster import Fired, Firing, Unrun
from asyncz.tasks.base import Task
from asyncz.tasks.options import checked_tag
from asyncz.triggers import BaseTrigger, DateTrigger

__all__ = ["Operations"]


class Operations(Adding):
    """The operations of one scheduler that change something."""

    async def update(
        self, ref: TaskRef, alias: str | None, updates: Mapping[str, Any], connection: Any = None
    ) -> Task:
        """Change a task. Everything is checked before anything is changed."""
        within = callers_connection(connection, "aupdate_task")
        task_id, alias = self.key(ref, alias)
        engine = self._engine
        if within is not None:
            return await self._update_within(task_id, alias, updates, within)
        if not engine.stores_open:
            return self._update_pending(self._find_pending(task_id, alias), updates)
        lane, _ = await self._find(task_id, alias)
        async with lane.exclusive():
            for attempt in range(TRIES):
                _, task = await self._find(task_id, lane.alias)
                if await self._update_in(lane, task, updates):
                    break
                await asyncio.sleep(PAUSE * attempt)
            else:
                raise changed_by_others(task_id)
        self._updated(task, lane)
        return task

    async def _update_in(self, lane: StoreLane, task: Task, updates: Mapping[str, Any]) -> bool:
        """Change a task in its store. False: others have moved it on, and nothing was changed."""
        before, given, expected = task.field_values(), task.model_fields_set, task.next_run_time
        due = None
        if "trigger" in updates or "next_run_time" in updates:
            due = self.due(lane, task)
        try:
            self._apply(task, updates)
            following = task.next_run_time
            why = PAUSED if following is None else CHANGED
            if due is not None and not await self.settle(lane, task, due, why, following):
                task.adopt(before, given)
                return False
            if due is not None:
                await lane.call(lane.store.update_task(task))
            elif not await lane.call(lane.store.update_task_if(task, expected)):
                task.adopt(before, given)
                return False
        except BaseException:
            task.adopt(before, given)
            raise
        return True

    async def _update_within(
        self, task_id: str, alias: str | None, updates: Mapping[str, Any], within: CallersConnection
    ) -> Task:
        """Change a task in a transaction of the caller's. What follows from it waits for its end.

        Without `exclusive`: a pass may hold that, and wait for rows that the transaction has.
        """
        self._check_may_join()
        lane, store = self._joining(task_id, alias, within)
        task = await within.run(lambda: store.lookup_task(task_id))
        if task is None:
            raise TaskLookupError(task_id, lane.alias)
        before, given, loop = task.field_values(), set(task.model_fields_set), self._engine.loop

        def ended(committed: bool) -> None:
            if not committed:
                task.adopt(before, given)
            elif not loop.is_closed():
                loop.call_soon_threadsafe(self._updated, task, lane)

        async def work() -> None:
            await store.update_task(task)
            await store.when_ended(ended)

        try:
            self._apply(task, updates)
            await within.run(work)
        except BaseException:
            task.adopt(before, given)
            raise
        return task

    def _joining(
        self, task_id: str, alias: str | None, within: CallersConnection
    ) -> tuple[StoreLane, BaseStore]:
        """The lane whose store can join a transaction of the caller's, and that store within it."""
        joined, refusals = [], []
        for lane in self._engine.lanes_of(alias):
            try:
                joined.append((lane, lane.store.within(within.connection)))
            except StoreError as exc:
                refusals.append(exc)
        if not joined:
            raise refusals[0]
        if len(joined) > 1:
            names = ", ".join(repr(lane.alias) for lane, _ in joined)
            raise TaskOptionError(
                f"Task {task_id!r}: the transaction may be of several stores ({names}); give store."
            )
        return joined[0]

    def _updated(self, task: Task, lane: StoreLane) -> None:
        task_id = str(task.id)
        lane.holds.release(task_id)
        self._engine.overdue.look_again(task)
        self._tell(TASK_MODIFIED, task_id, lane)
        if self._engine.is_claiming:  # a transaction may end after the shutdown
            lane.wake_for(task.next_run_time)

    def _apply(self, task: Task, updates: Mapping[str, Any]) -> None:
        engine = self._engine
        if "executor" in updates:
            engine.executor(updates["executor"])
        if updates.get("store_alias", task.store_alias) != task.store_alias:
            raise TaskOptionError(
                f"Task {task.id!r}: store_alias cannot be changed; add it to the other store."
            )
        task.update_task(**updates)
        # One that is gone says nothing against a pause, nor against another name.
        executor = engine.executors.get(str(task.executor))
        if executor is not None:
            executor.check_task(task)
        if "trigger" in updates and "next_run_time" not in updates:
            task.next_run_time = self._first_run(task, task.trigger)

    def _update_pending(self, declaration: Declaration, updates: Mapping[str, Any]) -> Task:
        task, replace_existing, given = declaration
        task.update_task(**updates)
        changed = Declaration(task, replace_existing, given | updates.keys())
        self._engine.pending[self._engine.pending.index(declaration)] = changed
        return task

    async def resume(self, ref: TaskRef, alias: str | None) -> Task | None:
        """Give a paused task its next run time again; delete it if there is none."""
        task, store = await self.lookup(ref, alias)
        if task.next_run_time is not None:
            return task
        engine = self._engine
        trigger: BaseTrigger = task.trigger or DateTrigger()
        moment = run_time_after(task.id, trigger, None, engine.now_in(store), engine.timezone)
        if moment is None and trigger.alias != "shutdown":
            await self.delete(str(task.id), store)
            return None
        return await self.update(str(task.id), store, {"next_run_time": moment})

    async def repair(self, task_id: str, reference: str, alias: str | None) -> Task:
        """Put another callable into a record that cannot be read."""
        engine = self._engine
        if not engine.stores_open:
            raise SchedulerNotRunningError()
        for lane in engine.lanes_of(alias):
            try:
                async with lane.exclusive():
                    task = await lane.call(lane.store.repair_task(task_id, reference))
            except TaskLookupError:
                continue
            self._tell(TASK_MODIFIED, task_id, lane)
            lane.wake_for(task.next_run_time)
            return task
        raise TaskLookupError(task_id, alias)

    async def delete(self, ref: TaskRef, alias: str | None) -> None:
        """Delete a task, also one that cannot be read."""
        task_id, alias = self.key(ref, alias)
        engine = self._engine
        if not engine.stores_open:
            engine.pending.remove(self._find_pending(task_id, alias))
            return
        for lane in engine.lanes_of(alias):
            try:
                async with lane.exclusive():
                    await self.settle_one(lane, task_id)
                    await lane.call(lane.store.delete_task(task_id))
            except TaskLookupError:
                continue
            lane.holds.release(task_id)
            await lane.ledger.task_deleted(task_id)
            self._tell(TASK_REMOVED, task_id, lane)
            return
        raise TaskLookupError(task_id, alias)

    async def delete_all(self, alias: str | None) -> None:
        """Delete all tasks of a store, or of all stores."""
        engine = self._engine
        if not engine.stores_open:
            engine.pending[:] = [
                d for d in engine.pending if alias not in (None, d.task.store_alias)
            ]
        else:
            for lane in engine.lanes_of(alias):
                async with lane.exclusive():
                    await self.settle_all(lane)
                    await lane.call(lane.store.remove_all_tasks())
                await lane.ledger.task_deleted(None)
        engine.dispatch(SchedulerEvent(code=ALL_TASKS_REMOVED, alias=alias))

    # Running.

    async def run(
        self, ref: TaskRef, alias: str | None, force: bool, remove_finished: bool
    ) -> Task | None:
        """Run a task now; its schedule goes on as if nothing had happened.

        What is due is run and moves the schedule on. A task whose trigger has nothing more after
        now is deleted, or paused when `remove_finished` is false.
        """
        engine = self._engine
        if engine.state is SchedulerState.STATE_STOPPED:
            raise SchedulerNotRunningError()
        task_id, alias = self.key(ref, alias)
        lane, _ = await self._find(task_id, alias)
        async with lane.exclusive():
            for attempt in range(TRIES):
                _, task = await self._find(task_id, lane.alias)
                # Two runs by hand may be asked for within a microsecond; an instant has one.
                now = lane.now() + timedelta(microseconds=attempt)
                due = task.next_run_time is not None and task.next_run_time <= now
                if not due and not force:
                    return task
                executor = engine.executor(str(task.executor))
                firing, coalesced = self._by_hand(task, now, due, remove_finished)
                if await self._claim(lane, firing, coalesced, executor):
                    start = Start(executor, task, firing.run_times, coalesced, by_hand=True)
                    await lane.ledger.start([start])
                    return self._after_run(lane, firing)
        raise changed_by_others(task_id)

    def _by_hand(
        self, task: Task, now: datetime, due: bool, remove_finished: bool
    ) -> tuple[Firing, int]:
        """What running a task now does to it, and how many run times are folded into one."""
        run_times, coalesced, following = [now], 0, self._after_manual_run(task, now)
        unrun: tuple[Unrun, ...] = ()
        if due:
            engine = self._engine
            plan = plan_task(task, now, engine.timezone, engine.settings.max_catchup)
            run_times, coalesced = plan.run_times or [now], plan.coalesced
            following, unrun = (
                plan.next_run_time,
                as_unrun(task, plan, now, engine.settings.max_catchup),
            )
        before = task.next_run_time
        forget = before is not None and following is None and remove_finished
        firing = Firing(task, before, following, forget, RunKind.MANUAL, tuple(run_times), unrun)
        return firing, coalesced

    async def _claim(
        self, lane: StoreLane, firing: Firing, coalesced: int, executor: BaseExecutor
    ) -> bool:
        """Move a task on, and have its run be ours. False: it was changed meanwhile.

        Raises:
            MaximumInstancesError: As many runs go on as are allowed; nothing was changed.
        """
        task = firing.task
        fired = await lane.ledger.fire_by_hand(firing, executor)
        if fired is Fired.SKIPPED:
            report_refused(self._engine, task, firing.run_times, coalesced)
            raise MaximumInstancesError(str(task.id), task.max_instances)
        return fired is Fired.WON

    def _after_manual_run(self, task: Task, now: datetime) -> datetime | None:
        trigger = task.trigger
        if trigger is None or trigger.alias == "shutdown":
            return task.next_run_time
        if isinstance(trigger, DateTrigger):
            return None  # run early, a one-off is done
        following = run_time_after(task.id, trigger, now, now, self._engine.timezone)
        return None if following is None else task.next_run_time

    def _after_run(self, lane: StoreLane, firing: Firing) -> Task | None:
        task, following = firing.task, firing.next_run_time
        if firing.forget:
            self._tell(TASK_REMOVED, task.id, lane)
            return None
        if not is_same_instant(firing.expected, following):
            task.next_run_time = following
            lane.wake_for(following)
        return task

    # Those that belong together.

    async def each_tagged(
        self,
        tag: str,
        alias: str | None,
        change: Callable[[str, str | None], Awaitable[Task | None]],
    ) -> list[Task]:
        """Change each task with this tag; those that were. One that is gone is passed over.

        Raises:
            SomeTasksError: Not all could be changed. The others were.
        """
        tag = checked_tag(tag)
        changed: list[Task] = []
        errors: dict[str, Exception] = {}
        for task in await self.all(alias):
            if tag not in task.tags:
                continue
            try:
                done = await change(str(task.id), task.store_alias)
            except TaskLookupError:
                continue
            except (StoreError, SchedulerNotRunningError, BlockingCallError):
                raise  # it would be so for each of them
            except Exception as exc:
                errors[str(task.id)] = exc
            else:
                changed += [] if done is None else [done]
        if errors:
            raise SomeTasksError(tag, [str(task.id) for task in changed], errors)
        return changed

    async def pause(self, task_id: str, alias: str | None) -> Task:
        """Take a task's next run time."""
        return await self.update(task_id, alias, {"next_run_time": None})

    async def run_if_possible(self, task_id: str, alias: str | None) -> Task | None:
        """Run a task now, unless as many runs go on as are allowed; None: they do."""
        task, _ = await self.lookup(task_id, alias)
        try:
            await self.run(task_id, alias, force=True, remove_finished=True)
        except MaximumInstancesError:
            return None
        return task

    async def delete_known(self, task_id: str, alias: str | None) -> Task:
        """Delete a task that can be read."""
        task, _ = await self.lookup(task_id, alias)
        await self.delete(task_id, alias)
        return task
