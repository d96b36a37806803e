"""The scheduler's public operations that only look at tasks: each in both forms."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any, TextIO

from asyncz.enums import TaskScheduleState
from asyncz.exceptions import TaskLookupError
from asyncz.schedulers.bridge import Bridge, blocking, on_engine
from asyncz.schedulers.engine import Engine
from asyncz.schedulers.inspection import TaskPage, format_tasks
from asyncz.schedulers.operations import Operations
from asyncz.tasks.base import Task
from asyncz.tasks.inspection import TaskInfo, TaskRunPreview
from asyncz.tasks.options import checked_tag
from asyncz.tasks.query import TaskQuery
from asyncz.timezones import zone_name

__all__ = ["TaskInspection"]

MAX_PREVIEW = 1000


class TaskInspection:
    """Finding tasks and looking at them. See `TaskOperations` for what holds for all of these."""

    _bridge: Bridge
    _engine: Engine
    _operations: Operations

    @on_engine
    async def aget_tasks(self, store: str | None = None, *, tag: str | None = None) -> list[Task]:
        """The tasks, by next run time, paused last; before the start, those declared so far.

        Args:
            store: A store's alias.
            tag: Only tasks with this tag.
        """
        tasks = await self._operations.all(store)
        if tag is None:
            return tasks
        tag = checked_tag(tag)
        return [task for task in tasks if tag in task.tags]

    get_tasks = blocking(aget_tasks)

    @on_engine
    async def aget_task(self, task_id: Task | str, store: str | None = None) -> Task | None:
        """The task of that id, or None."""
        try:
            return (await self._operations.lookup(task_id, store))[0]
        except TaskLookupError:
            return None

    get_task = blocking(aget_task)

    @on_engine
    async def alookup_task(
        self, task_id: Task | str, store_alias: str | None = None
    ) -> tuple[Task, str | None]:
        """The task and the alias of its store."""
        return await self._operations.lookup(task_id, store_alias)

    lookup_task = blocking(alookup_task)

    @on_engine
    async def aget_task_info(
        self, task_id: Task | str, store: str | None = None
    ) -> TaskInfo | None:
        """A snapshot of the task, or None."""
        try:
            task, _ = await self._operations.lookup(task_id, store)
        except TaskLookupError:
            return None
        return (await self._operations.with_runs([self._operations.info(task)]))[0]

    get_task_info = blocking(aget_task_info)

    @on_engine
    async def aget_task_infos(
        self,
        store: str | None = None,
        *,
        schedule_state: TaskScheduleState | str | None = None,
        executor: str | None = None,
        trigger: str | None = None,
        q: str | None = None,
        sort_by: str = "next_run_time",
        descending: bool = False,
        limit: int | None = None,
        offset: int = 0,
        tag: str | None = None,
    ) -> list[TaskInfo]:
        """Snapshots of tasks, filtered and sorted. Up to 200 of them have their `last_run`.

        Args:
            store: A store's alias.
            schedule_state: `scheduled`, `paused`, `pending` or `quarantined`.
            executor: An executor's alias.
            trigger: A trigger's alias or class name.
            q: Text in the id, name, callable, trigger, executor, store or state.
            sort_by: `id`, `name`, `next_run_time`, `schedule_state`, `executor`, `store` or
                `trigger`.
            descending: The other way round.
            limit: At most so many, which is all that a store with a server then sends.
            offset: Leave out so many at the beginning.
            tag: Only tasks with this tag. Every task is looked at for it.

        Raises:
            ValueError: `schedule_state` or `sort_by` is not one of these, or a number is negative.
        """
        query = TaskQuery(
            schedule_state, executor, trigger, q, sort_by, descending, limit, offset, tag
        )
        return (await self._operations.find(store, query)).infos

    get_task_infos = blocking(aget_task_infos)

    @on_engine
    async def aget_task_page(
        self, /, store: str | None = None, *, limit: int = 50, offset: int = 0, **wanted: Any
    ) -> TaskPage:
        """One page of `get_task_infos`, with the number of tasks on all pages.

        Args:
            store, limit, offset: As there.
            wanted: The filters and the order, as there.
        """
        query = TaskQuery(**wanted, limit=limit, offset=offset)
        found = await self._operations.find(store, query)
        return TaskPage(tasks=tuple(found.infos), total=found.total, limit=limit, offset=offset)

    get_task_page = blocking(aget_task_page)

    @on_engine
    async def apreview_task_runs(
        self,
        task_id: Task | str,
        store: str | None = None,
        *,
        count: int = 5,
        now: datetime | None = None,
    ) -> TaskRunPreview | None:
        """The next run times of a task, without changing it; None if there is no such task.

        Args:
            task_id, store: The task.
            count: How many, 1 to 1000.
            now: Preview from this instant (aware) instead of from the next run time.

        Raises:
            ValueError: `count` is out of range, or `now` has no time zone.
        """
        if not 1 <= count <= MAX_PREVIEW:
            raise ValueError(f"count must be between 1 and {MAX_PREVIEW}, not {count}.")
        if now is not None and now.tzinfo is None:
            raise ValueError(f"now must have a time zone, {now!r} has none.")
        try:
            task, _ = await self._operations.lookup(task_id, store)
        except TaskLookupError:
            return None
        engine = self._engine
        start = now if now is not None else engine.clock.now()
        run_times = self._operations.preview(task, now, start, count)
        return TaskRunPreview(
            task=self._operations.info(task),
            timezone=zone_name(engine.timezone),
            generated_at=start,
            requested_count=count,
            run_times=tuple(run_times),
            exhausted=len(run_times) < count,
        )

    preview_task_runs = blocking(apreview_task_runs)

    @on_engine
    async def aprint_tasks(self, store: str | None = None, out: TextIO | None = None) -> None:
        """Print the tasks, store by store, to `out` (standard output by default)."""
        aliases = [store] if store is not None else self._operations.aliases()
        lists = [(alias, await self._operations.infos(alias)) for alias in aliases]
        (out or sys.stdout).write(format_tasks(lists))

    print_tasks = blocking(aprint_tasks)
