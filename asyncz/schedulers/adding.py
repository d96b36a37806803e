"""Adding tasks: what is filled in, what is noted down until the start, what goes to the store."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from asyncz.events.base import TaskEvent
from asyncz.events.constants import TASK_ADDED
from asyncz.exceptions import ConflictIdError, SchedulerNotRunningError, TaskOptionError
from asyncz.schedulers.engine import DEFAULT, Declaration
from asyncz.schedulers.lane import StoreLane
from asyncz.schedulers.planning import run_time_after
from asyncz.schedulers.settling import CHANGED, PAUSED, Settling
from asyncz.schedulers.transactions import CallersConnection, callers_connection, put_task
from asyncz.stores.cluster import Unrun
from asyncz.stores.rows import Slices
from asyncz.tasks.base import Task
from asyncz.triggers import BaseTrigger, DateTrigger

__all__ = ["Adding"]

_Before = tuple[Task, dict[str, Any], set[str]]
"""A task, what it was before it was added, and which of that was given."""


class Adding(Settling):
    """The operations that add tasks."""

    async def add(self, task: Task, replace_existing: bool, connection: Any = None) -> Task:
        """Add a task, or note it down until the start."""
        within = callers_connection(connection, "aadd_task")
        if task.submitted:
            raise TaskOptionError(
                f"The task {task.id!r} was added already; a Task object is added once."
            )
        if within is not None:
            await self._add_within(task, replace_existing, within)
        elif self._engine.stores_open:
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
            earliest = engine.now_in(task.store_alias) + timedelta(
                seconds=engine.settings.startup_delay
            )
        try:
            await self.add_to_store(task, replace_existing, earliest)
        except ConflictIdError:
            # A persistent store has it from an earlier start; it goes on where it was.
            engine.logger.info("The task %r is in its store already; it is kept.", task.id)
            task.pending = False
            engine.overdue.watch(task)

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
        with self._filled_in(task, earliest) as (lane, keeps_time):
            if replace_existing:
                settle = partial(self._settle_replaced, lane, task)
                async with lane.exclusive():
                    code = await put_task(lane.store, lane.call, task, True, keeps_time, settle)
            else:
                code = await put_task(lane.store, lane.call, task, False, keeps_time)
        self._added(code, task, lane, task.next_run_time)

    async def _settle_replaced(self, lane: StoreLane, task: Task, stored: Task) -> bool:
        """Record what is owed by a task that another takes the place of."""
        due = self.due(lane, stored)
        following = task.next_run_time
        why = PAUSED if following is None else CHANGED
        return due is None or await self.settle(lane, task, due, why, following)

    async def _add_within(
        self, task: Task, replace_existing: bool, within: CallersConnection
    ) -> None:
        """Add a task in a transaction of the caller's. What follows from it waits for its end."""
        self._check_may_join()
        before, given, loop = task.field_values(), set(task.model_fields_set), self._engine.loop
        owed: list[Unrun] = []
        with self._filled_in(task, None) as (lane, keeps_time):
            store = lane.store.within(within.connection)

            def ended(code: int, committed: bool) -> None:
                if not committed:
                    task.adopt(before, given)
                elif not loop.is_closed():
                    moment = task.next_run_time
                    loop.call_soon_threadsafe(self._added, code, task, lane, moment)
                    if owed:
                        loop.call_soon_threadsafe(self.settle_soon, lane, str(task.id), owed[-1])

            async def note_owed(stored: Task) -> bool:
                if due := self.due(lane, stored):
                    unrun = self.owed(lane, task, due, CHANGED, task.next_run_time)
                    owed[:] = [] if unrun is None else [unrun]
                return True

            async def work() -> None:
                code = await put_task(
                    store, _as_it_is, task, replace_existing, keeps_time, note_owed
                )
                await store.when_ended(partial(ended, code))

            await within.run(work)

    def _check_may_join(self) -> None:
        """Raise SchedulerNotRunningError unless there are stores that could join a transaction."""
        if not self._engine.stores_open:
            raise SchedulerNotRunningError(
                "Within a transaction, tasks are added and changed by a scheduler that is running; "
                "start it first, or leave connection out."
            )

    def _added(self, code: int, task: Task, lane: StoreLane, due: datetime | None) -> None:
        engine = self._engine
        if task.expect_every is not None:
            engine.overdue.look_again(task)
        if engine.events.mask & code:
            self._tell(code, task.id, lane)
        if engine.is_claiming:
            lane.wake_for(due)

    @contextmanager
    def _filled_in(self, task: Task, earliest: datetime | None) -> Iterator[tuple[StoreLane, bool]]:
        """Fill in what was not given, and take it back if what follows fails.

        Yields the lane that the task belongs into, and whether it keeps the next run time of one
        that it replaces.
        """
        engine = self._engine
        if task.fn is None:
            raise TaskOptionError("A task without a function is a decorator; it cannot be added.")
        given = task.model_fields_set
        values = self._fill_in(task, given, earliest)
        before = task.field_values(values)
        try:
            task.adopt(values)
            lane = engine.lane(str(task.store_alias))
            lane.store.check_task_id(task.id)
            engine.executor(str(task.executor)).check_task(task)
            yield lane, "next_run_time" not in given
        except BaseException:
            task.adopt(before, given)
            raise

    async def add_many(self, tasks: Sequence[Task], connection: Any = None) -> None:
        """Add tasks to one store: all of them, or, if one is refused, none."""
        within = callers_connection(connection, "aadd_tasks")
        alias = _one_store_of(tasks)
        if within is not None:
            self._check_may_join()
        elif not self._engine.stores_open:
            self._note_all_down(tasks)
            return
        lane = self._engine.lane(alias)
        before: list[_Before] = []
        try:
            await self._fill_all_in(tasks, lane, before)
            if within is None:
                await lane.call(lane.store.add_tasks(tasks))
            else:
                await self._put_all_within(tasks, lane, before, within)
        except BaseException:
            _take_back(before)
            raise
        if within is None:
            self._all_added(tasks, lane)

    async def _fill_all_in(
        self, tasks: Sequence[Task], lane: StoreLane, before: list[_Before]
    ) -> None:
        """Fill in what was not given, and note what each was before that."""
        pause = None if lane.store.in_process else Slices()
        for task in tasks:
            if pause is not None:
                await pause()
            given = task.model_fields_set
            values = self._fill_in(task, given, None)
            before.append((task, task.field_values(values), given))
            task.adopt(values)
            lane.store.check_task_id(task.id)
            self._engine.executor(str(task.executor)).check_task(task)

    async def _put_all_within(
        self,
        tasks: Sequence[Task],
        lane: StoreLane,
        before: Sequence[_Before],
        within: CallersConnection,
    ) -> None:
        """Add tasks in a transaction of the caller's. What follows from it waits for its end."""
        store, loop = lane.store.within(within.connection), self._engine.loop

        def ended(committed: bool) -> None:
            if not committed:
                _take_back(before)
            elif not loop.is_closed():
                loop.call_soon_threadsafe(self._all_added, tasks, lane)

        async def work() -> None:
            await store.add_tasks(tasks)
            await store.when_ended(ended)

        await within.run(work)

    def _all_added(self, tasks: Sequence[Task], lane: StoreLane) -> None:
        engine = self._engine
        engine.overdue.watch_all(tasks)
        if engine.events.mask & TASK_ADDED:
            for task in tasks:
                self._tell(TASK_ADDED, task.id, lane)
        if engine.is_claiming:
            lane.wake_for(*{task.next_run_time for task in tasks})

    def _note_all_down(self, tasks: Sequence[Task]) -> None:
        pending = list(self._engine.pending)
        before = [(task, task.field_values(), task.model_fields_set) for task in tasks]
        try:
            for task in tasks:
                self._note_down(task, False)
        except BaseException:
            self._engine.pending[:] = pending
            _take_back(before)
            raise

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
            moment = self._first_run(task, trigger)
        if earliest is not None and moment is not None:
            moment = max(moment, earliest)
        values["next_run_time"] = moment
        return values

    def _first_run(self, task: Task, trigger: BaseTrigger | None) -> datetime | None:
        """The first run time from now on. Raises TaskOptionError if a trigger has none."""
        if trigger is None or trigger.alias == "shutdown":
            return None
        now = self._engine.now_in(task.store_alias)
        moment = run_time_after(task.id, trigger, None, now, self._engine.timezone)
        if moment is None:
            raise TaskOptionError(
                f"The trigger {trigger} of the task {task.id!r} has no run time after {now}, so "
                "the task would never run; change the trigger."
            )
        return moment

    def _tell(self, code: int, task_id: str | None, lane: StoreLane) -> None:
        engine = self._engine
        if engine.events.mask & code:
            identity = engine.identity
            event = TaskEvent(
                code=code, task_id=str(task_id), store=lane.alias, scheduler_identity=identity
            )
            engine.dispatch(event)


def _take_back(before: Sequence[_Before]) -> None:
    for task, values, given in before:
        task.adopt(values, given)


def _one_store_of(tasks: Sequence[Task]) -> str:
    """The alias of the store that all these tasks are for.

    Raises:
        TaskOptionError: They are for several, or one is no task that can be added.
    """
    for task in tasks:
        if not isinstance(task, Task):
            raise TaskOptionError(f"add_tasks takes Task objects, not {type(task).__name__}.")
        if task.fn is None:
            raise TaskOptionError("A task without a function is a decorator; it cannot be added.")
        if task.submitted:
            raise TaskOptionError(
                f"The task {task.id!r} was added already; a Task object is added once."
            )
    if len({id(task) for task in tasks}) < len(tasks):
        raise TaskOptionError("The same Task object is there twice; a Task object is added once.")
    aliases = {task.store_alias or DEFAULT for task in tasks} or {DEFAULT}
    if len(aliases) > 1:
        raise TaskOptionError(
            f"These tasks are for several stores ({', '.join(sorted(aliases))}); all or none can "
            "only be promised for one, so add those of each store by a call of their own."
        )
    return aliases.pop()


async def _as_it_is(operation: Awaitable[Any]) -> Any:
    return await operation
