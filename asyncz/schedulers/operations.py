"""What can be done with tasks: each operation once, as a coroutine on the engine's loop."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from asyncz.enums import SchedulerState
from asyncz.events.base import SchedulerEvent, TaskEvent
from asyncz.events.constants import ALL_TASKS_REMOVED, TASK_ADDED, TASK_MODIFIED, TASK_REMOVED
from asyncz.exceptions import (
    ConflictIdError,
    SchedulerNotRunningError,
    TaskLookupError,
    TaskOptionError,
)
from asyncz.schedulers.engine import DEFAULT, Declaration
from asyncz.schedulers.lane import StoreLane
from asyncz.schedulers.planning import plan_task
from asyncz.schedulers.queries import Queries, TaskRef
from asyncz.schedulers.submission import send
from asyncz.stores.base import is_same_instant
from asyncz.tasks.base import Task
from asyncz.triggers import BaseTrigger, DateTrigger

__all__ = ["Operations"]


class Operations(Queries):
    """The operations of one scheduler that change something."""

    # Adding.

    async def add(self, task: Task, replace_existing: bool) -> Task:
        """Add a task, or note it down until the start."""
        if task.submitted:
            raise TaskOptionError(
                f"The task {task.id!r} was added already; a Task object is added once."
            )
        if self._engine.stores_open:
            await self.add_to_store(task, replace_existing, None)
        else:
            self._note_down(task, replace_existing)
        return task

    def _note_down(self, task: Task, replace_existing: bool) -> None:
        engine = self._engine
        given = frozenset(task.model_fields_set)
        task.store_alias = task.store_alias or DEFAULT
        task.executor = task.executor or DEFAULT
        if task.id is not None:
            place = (task.store_alias, task.id)
            for declaration in list(engine.pending):
                other = declaration.task
                if (other.store_alias, other.id) == place:
                    if not replace_existing:
                        raise ConflictIdError(task.id, task.store_alias)
                    engine.pending.remove(declaration)
        else:
            task.id = self._free_id(task)
        if "id" not in given:
            given |= {"id"}
        task.scheduler = engine.facade
        task.submitted = True
        engine.pending.append(Declaration(task, replace_existing, given))

    def _free_id(self, task: Task) -> str:
        """An id for a task without one.

        In a persistent store it has to be the same after a restart, or the task would be there
        once more each time: the callable's reference, numbered where several tasks call it.
        """
        store = self._engine.stores.get(str(task.store_alias))
        if store is None or store.in_process or task.fn_reference is None:
            return os.urandom(16).hex()
        taken = {d.task.id for d in self._engine.pending if d.task.store_alias == task.store_alias}
        number, candidate = 1, task.fn_reference
        while candidate in taken:
            number += 1
            candidate = f"{task.fn_reference}#{number}"
        return candidate

    async def declare(self, declaration: Declaration) -> None:
        """Put a task that was noted down into its store, at start."""
        task, replace_existing, _ = declaration
        engine = self._engine
        earliest = None
        if engine.settings.lock_path is not None:
            earliest = engine.clock.now() + timedelta(seconds=engine.settings.startup_delay)
        try:
            await self.add_to_store(task, replace_existing, earliest)
        except ConflictIdError:
            # A persistent store has it from an earlier start; it goes on where it was.
            engine.logger.info("The task %r is in its store already; it is kept.", task.id)
            task.pending = False

    def undeclare(self, declaration: Declaration) -> None:
        """The start failed: the task is pending again, as it was declared."""
        task = declaration.task
        task.pending = True
        if "next_run_time" not in declaration.given:
            task.next_run_time = None
        task.adopt({}, set(declaration.given))

    async def add_to_store(
        self, task: Task, replace_existing: bool, earliest: datetime | None
    ) -> None:
        """Fill in what was not given, and add the task to its store. Or nothing is changed."""
        engine = self._engine
        if task.fn is None:
            raise TaskOptionError("A task without a function is a decorator; it cannot be added.")
        before, given = dict(task.__dict__), task.model_fields_set
        try:
            task.adopt(self._fill_in(task, given, earliest))
            lane = engine.lane(str(task.store_alias))
            lane.store.check_task_id(task.id)
            engine.executor(str(task.executor)).check_task(task)
            code = await self._store(lane, task, replace_existing, "next_run_time" not in given)
        except BaseException:
            task.adopt(before, given)
            raise
        if engine.events.mask & code:
            self._tell(code, task.id, lane)
        if engine.is_claiming:
            lane.wake_for(task.next_run_time)

    def _fill_in(self, task: Task, given: set[str], earliest: datetime | None) -> dict[str, Any]:
        """All that a task is to have from the scheduler: defaults, ids, its first run time."""
        engine = self._engine
        defaults = engine.settings.task_defaults
        trigger = task.trigger or DateTrigger()
        values = {
            "id": task.id or os.urandom(16).hex(),
            "store_alias": task.store_alias or DEFAULT,
            "executor": task.executor or DEFAULT,
            "scheduler": engine.facade,
            "trigger": trigger,
            "pending": False,
            "submitted": True,
        }
        if "coalesce" not in given:
            values["coalesce"] = defaults.coalesce
        if "max_instances" not in given:
            values["max_instances"] = defaults.max_instances
        if "mistrigger_grace_time" not in given:
            late = trigger.allow_mistrigger_by_default
            values["mistrigger_grace_time"] = None if late else defaults.mistrigger_grace_time
        moment = task.next_run_time
        if "next_run_time" not in given:
            moment = self._first_run(task.id, trigger)
        if earliest is not None and moment is not None:
            moment = max(moment, earliest)
        values["next_run_time"] = moment
        return values

    def _first_run(self, task_id: str | None, trigger: BaseTrigger | None) -> datetime | None:
        """The first run time from now on. Raises TaskOptionError if a trigger has none."""
        if trigger is None or trigger.alias == "shutdown":
            return None
        now = self._engine.clock.now()
        moment = trigger.get_next_trigger_time(self._engine.timezone, None, now)
        if moment is None:
            raise TaskOptionError(
                f"The trigger {trigger} of the task {task_id!r} has no run time after {now}, so "
                "the task would never run; change the trigger."
            )
        return moment

    async def _store(
        self, lane: StoreLane, task: Task, replace_existing: bool, keeps_time: bool
    ) -> int:
        if not replace_existing:
            await lane.call(lane.store.add_task(task))
            return TASK_ADDED
        async with lane.exclusive():
            stored = await lane.call(lane.store.lookup_task(str(task.id)))
            if stored is not None:
                if keeps_time and stored.trigger == task.trigger:
                    # A restart must not postpone what is due, nor resume what was paused.
                    task.next_run_time = stored.next_run_time
                await lane.call(lane.store.update_task(task))
                return TASK_MODIFIED
            try:
                await lane.call(lane.store.add_task(task))
            except ConflictIdError:
                # There is a record, but it cannot be read; the store sets it aside.
                await lane.call(lane.store.update_task(task))
                return TASK_MODIFIED
            return TASK_ADDED

    # Changing.

    async def update(self, ref: TaskRef, alias: str | None, updates: Mapping[str, Any]) -> Task:
        """Change a task. Everything is checked before anything is changed."""
        task_id, alias = self._key(ref, alias)
        engine = self._engine
        if not engine.stores_open:
            return self._update_pending(self._find_pending(task_id, alias), updates)
        lane, _ = await self._find(task_id, alias)
        async with lane.exclusive():
            _, task = await self._find(task_id, lane.alias)
            before = dict(task.__dict__)
            try:
                self._apply(task, updates)
                await lane.call(lane.store.update_task(task))
            except BaseException:
                task.__dict__.update(before)
                raise
        lane.holds.release(task_id)
        self._tell(TASK_MODIFIED, task_id, lane)
        lane.wake_for(task.next_run_time)
        return task

    def _apply(self, task: Task, updates: Mapping[str, Any]) -> None:
        engine = self._engine
        if "executor" in updates:
            engine.executor(updates["executor"])
        if updates.get("store_alias", task.store_alias) != task.store_alias:
            raise TaskOptionError(
                f"Task {task.id!r}: store_alias cannot be changed; add it to the other store."
            )
        task.update_task(**updates)
        engine.executor(str(task.executor)).check_task(task)
        if "trigger" in updates and "next_run_time" not in updates:
            task.next_run_time = self._first_run(task.id, task.trigger)

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
        moment = trigger.get_next_trigger_time(engine.timezone, None, engine.clock.now())
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
        task_id, alias = self._key(ref, alias)
        engine = self._engine
        if not engine.stores_open:
            engine.pending.remove(self._find_pending(task_id, alias))
            return
        for lane in engine.lanes_of(alias):
            try:
                await lane.call(lane.store.delete_task(task_id))
            except TaskLookupError:
                continue
            lane.holds.release(task_id)
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
                await lane.call(lane.store.remove_all_tasks())
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
        task_id, alias = self._key(ref, alias)
        lane, _ = await self._find(task_id, alias)
        async with lane.exclusive():
            _, task = await self._find(task_id, lane.alias)
            now = engine.clock.now()
            due = task.next_run_time is not None and task.next_run_time <= now
            if not due and not force:
                return task
            run_times, coalesced, following = [now], 0, self._after_manual_run(task, now)
            if due:
                plan = plan_task(task, now, engine.timezone, engine.settings.max_catchup)
                run_times, coalesced = plan.run_times or [now], plan.coalesced
                following = plan.next_run_time
            send(engine, engine.executor(str(task.executor)), task, run_times, coalesced)
            return await self._after_run(lane, task, following, remove_finished)

    def _after_manual_run(self, task: Task, now: datetime) -> datetime | None:
        trigger = task.trigger
        if trigger is None or trigger.alias == "shutdown":
            return task.next_run_time
        if isinstance(trigger, DateTrigger):
            return None  # run early, a one-off is done
        following = trigger.get_next_trigger_time(self._engine.timezone, now, now)
        return None if following is None else task.next_run_time

    async def _after_run(
        self, lane: StoreLane, task: Task, following: datetime | None, remove_finished: bool
    ) -> Task | None:
        if is_same_instant(following, task.next_run_time):
            return task
        if following is None and remove_finished:
            await lane.call(lane.store.delete_task(str(task.id)))
            self._tell(TASK_REMOVED, task.id, lane)
            return None
        task.next_run_time = following
        await lane.call(lane.store.update_task(task))
        lane.wake_for(following)
        return task

    def _tell(self, code: int, task_id: str | None, lane: StoreLane) -> None:
        engine = self._engine
        if engine.events.mask & code:
            identity = engine.identity
            event = TaskEvent(
                code=code, task_id=str(task_id), store=lane.alias, scheduler_identity=identity
            )
            engine.dispatch(event)
