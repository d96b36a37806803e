"""Finding tasks and looking at them, as coroutines on the engine's loop."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Any

from asyncz.enums import RunState, TaskScheduleState
from asyncz.exceptions import (
    AsynczException,
    RunLookupError,
    SchedulerNotRunningError,
    TaskLookupError,
    TaskOptionError,
)
from asyncz.runs.base import Run, RunQuery
from asyncz.schedulers.engine import Declaration, Engine
from asyncz.schedulers.lane import StoreLane
from asyncz.schedulers.planning import run_time_after
from asyncz.stores.cluster import ClusterStore, NodeRecord
from asyncz.stores.quarantine import reason
from asyncz.tasks.base import Task
from asyncz.tasks.inspection import TaskInfo
from asyncz.tasks.query import FoundTasks, TaskCounts, TaskQuery

__all__ = ["Queries", "TaskRef"]

TaskRef = Task | str

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
"""Seconds between two looks at a run that goes on elsewhere."""
PAGE = 200
"""Snapshots that are shown with their last runs, each of which may cost the store a look."""


class Queries:
    """What can be asked of the tasks of one scheduler."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def key(self, ref: TaskRef, alias: str | None) -> tuple[str, str | None]:
        """The id that a task is named by, and the alias of its store, as far as that is known."""
        if isinstance(ref, Task):
            if ref.id is None:
                raise TaskOptionError("This task has no id: it was not added yet.")
            return ref.id, alias or ref.store_alias
        if not isinstance(ref, str):
            raise TaskOptionError(f"A task is named by its id or a Task, not {ref!r}.")
        return ref, alias

    def _find_pending(self, task_id: str, alias: str | None) -> Declaration:
        for declaration in self._engine.pending:
            task = declaration.task
            if task.id == task_id and alias in (None, task.store_alias):
                return declaration
        raise TaskLookupError(task_id, alias)

    async def _find(self, task_id: str, alias: str | None) -> tuple[StoreLane, Task]:
        for lane in self._engine.lanes_of(alias):
            task = await lane.call(lane.store.lookup_task(task_id))
            if task is not None:
                return lane, task
        raise TaskLookupError(task_id, alias)

    async def lookup(self, ref: TaskRef, alias: str | None) -> tuple[Task, str | None]:
        """The task and the alias of its store. Raises TaskLookupError if there is none."""
        task_id, alias = self.key(ref, alias)
        if not self._engine.stores_open:
            task = self._find_pending(task_id, alias).task
            return task, task.store_alias
        lane, task = await self._find(task_id, alias)
        return task, lane.alias

    async def all(self, alias: str | None) -> list[Task]:
        """The tasks of a store, or of all, each store's in its order."""
        engine = self._engine
        if not engine.stores_open:
            return [d.task for d in engine.pending if alias in (None, d.task.store_alias)]
        tasks: list[Task] = []
        for lane in engine.lanes_of(alias):
            tasks.extend(await lane.call(lane.store.get_all_tasks()))
        return tasks

    async def find(self, alias: str | None, query: TaskQuery) -> FoundTasks:
        """A page of snapshots, of tasks that cannot be read or run too, and how many there are.

        Each store is asked for its part, so that none has to give all of its tasks.
        """
        engine = self._engine
        if not engine.stores_open:
            return query.select([self.info(task) for task in await self.all(alias)])
        parts: list[TaskInfo] = []
        total = 0
        for lane in engine.lanes_of(alias):
            # What a task is held back for only this scheduler knows, not the store.
            held = lane.holds.ids()
            found = await lane.call(lane.store.find_tasks(query.up_to_page(), held))
            tasks = [await lane.call(lane.store.lookup_task(task_id)) for task_id in held]
            infos = [self.info(task) for task in tasks if task is not None]
            extra = [info for info in infos if query.matches(info)]
            parts += found.infos + extra
            total += found.total + len(extra)
        return FoundTasks(await self.with_runs(query.page(parts)), total)

    async def infos(self, alias: str | None) -> list[TaskInfo]:
        """All snapshots, by next run time."""
        return (await self.find(alias, TaskQuery())).infos

    async def with_runs(self, infos: list[TaskInfo]) -> list[TaskInfo]:
        """The same snapshots, with what is known of their runs."""
        engine = self._engine
        by_store: dict[str, list[str]] = {}
        overdue = frozenset(engine.overdue.tasks)
        for info in infos:
            if info.id is not None and info.store_alias in engine.lanes:
                by_store.setdefault(info.store_alias, []).append(info.id)
        known: dict[tuple[str | None, str | None], dict[str, Any]] = {}
        for alias, task_ids in by_store.items():
            lane = engine.lane(alias)
            active = await lane.ledger.count_active(task_ids)
            last = await lane.ledger.get_last_runs(task_ids if len(infos) <= PAGE else [])
            for task_id in task_ids:
                is_overdue = (alias, task_id) in overdue
                if active.get(task_id) or task_id in last or is_overdue:
                    known[alias, task_id] = {
                        "active_runs": active.get(task_id, 0),
                        "last_run": last.get(task_id),
                        "overdue": is_overdue,
                    }
        if not known:
            return infos
        return [
            info.model_copy(update=known.get((info.store_alias, info.id), {})) for info in infos
        ]

    def info(self, task: Task) -> TaskInfo:
        """A task's snapshot, with why it is held back if it is."""
        info = task.snapshot()
        lane = self._engine.lanes.get(str(task.store_alias))
        hold = lane.holds.get(str(task.id)) if lane is not None and lane.holds else None
        if hold is None:
            return info
        quarantined = TaskScheduleState.QUARANTINED
        return info.model_copy(update={"schedule_state": quarantined, "error": hold.error})

    async def counts_of_healthy(self) -> tuple[TaskCounts, dict[str, str]]:
        """The tasks of the stores that answer, and the errors of those that do not."""
        engine = self._engine
        if not engine.stores_open:
            return TaskCounts(pending=len(engine.pending)), {}
        counts = TaskCounts()
        degraded = {lane.alias: lane.error for lane in engine.lanes.values() if lane.error}
        for alias in engine.lanes.keys() - degraded.keys():
            lane = engine.lane(alias)
            held = len(lane.holds)
            try:
                counts += await lane.call(lane.store.count_tasks())
            except (AsynczException, OSError) as exc:
                degraded[alias] = f"{type(exc).__name__}: {reason(exc)}"
            else:
                counts += TaskCounts(scheduled=-held, quarantined=held)
        return counts, degraded

    async def runs(self, alias: str | None, query: RunQuery) -> list[Run]:
        """Runs of a store, or of all that keep them."""
        engine = self._engine
        found: list[Run] = []
        for lane in engine.lanes_of(alias) if engine.stores_open else []:
            found += await lane.ledger.get_runs(query)
        return query.select(found)

    async def run_of(self, alias: str | None, run_id: str) -> tuple[StoreLane, Run]:
        """The run of that id, and the lane of its store.

        Raises:
            RunLookupError: There is no record of it.
            SchedulerNotRunningError: No store is open to have one.
        """
        task_id, moment = _parts_of(run_id)
        if not self._engine.stores_open:
            raise SchedulerNotRunningError()
        query = RunQuery(task_id, since=moment, until=moment)
        for lane in self._engine.lanes_of(alias):
            for run in await lane.ledger.get_runs(query):
                return lane, run
        raise RunLookupError(run_id, alias)

    async def cancel_run(self, alias: str | None, run_id: str, by: str) -> Run:
        """Cancel a run, or have its worker do it; the run as it is then."""
        lane, run = await self.run_of(alias, run_id)
        if run.state is RunState.QUEUED:
            raise TaskOptionError(
                f"The run {run_id!r} waits behind an earlier one that the same call carries out; "
                "cancel that one, and this one with it."
            )
        if run.state.is_open:
            await lane.ledger.cancel_run(run.task_id, run.scheduled_time, by)
            lane.announce()
            _, run = await self.run_of(lane.alias, run_id)
        return run

    async def end_of_run(self, alias: str | None, run_id: str, timeout: float | None) -> Run:
        """The run, once it has ended.

        Raises:
            TimeoutError: It has not, within that many seconds.
            RunLookupError: There is no record of it.
        """
        engine = self._engine
        clock = engine.clock
        deadline = float("inf") if timeout is None else clock.monotonic() + timeout
        lane, run = await self.run_of(alias, run_id)
        pause = FIRST_PAUSE
        if run.state.is_open:
            engine.bridge.check_may_wait(f"Waiting for the run {run_id!r}", "may take long")
        while run.state.is_open:
            left = deadline - clock.monotonic()
            if left <= 0:
                raise TimeoutError(f"The run {run_id!r} has not ended within {timeout:g} s.")
            # One that ends here is noticed at once; of others the store is asked.
            await engine.until_a_run_ends(min(pause, left))
            pause = min(1.5 * pause, LONGEST_PAUSE)
            _, run = await self.run_of(lane.alias, run_id)
        return run

    async def nodes(self) -> list[tuple[str, NodeRecord]]:
        """The schedulers of each store, as far as it answers, with its alias."""
        engine = self._engine
        found: list[tuple[str, NodeRecord]] = []
        for lane in engine.lanes_of(None) if engine.stores_open else []:
            if isinstance(lane.store, ClusterStore):
                with suppress(AsynczException, OSError):
                    records = await lane.call(lane.store.get_nodes())
                    found += [(lane.alias, record) for record in records]
        return found

    def aliases(self) -> list[str]:
        """The aliases of the stores, those that only pending tasks name included."""
        engine = self._engine
        named = [str(declaration.task.store_alias) for declaration in engine.pending]
        return list(dict.fromkeys([*engine.stores, *named]))

    def preview(
        self, task: Task, after: datetime | None, start: datetime, count: int
    ) -> list[datetime]:
        """The next `count` run times of a task: from its next run time, or from an instant."""
        engine = self._engine
        if task.trigger is None:
            return []
        run_times: list[datetime] = []
        moment = task.next_run_time if after is None else None
        if moment is None:
            moment = run_time_after(task.id, task.trigger, None, start, engine.timezone)
        while moment is not None and len(run_times) < count:
            run_times.append(moment)
            moment = run_time_after(task.id, task.trigger, moment, start, engine.timezone)
        return run_times

    async def shutdown_tasks_wait(self) -> bool:
        """Whether there are tasks that run at shutdown, in stores of this process."""
        for lane in self._engine.lanes.values():
            if await self.shutdown_tasks(lane):
                return True
        return False

    async def shutdown_tasks(self, lane: StoreLane) -> list[Task]:
        """The tasks of a store that run at shutdown."""
        if lane.store.in_process:
            tasks: list[Task | None] = [*await lane.store.get_all_tasks()]
        else:
            # Of what may be a million tasks, the server picks these.
            query = TaskQuery(trigger="shutdown")
            found = await lane.call(lane.store.find_tasks(query))
            tasks = [await lane.call(lane.store.lookup_task(str(i.id))) for i in found.infos]
        return [
            task
            for task in tasks
            if task is not None and task.trigger is not None and task.trigger.alias == "shutdown"
        ]


def _parts_of(run_id: str) -> tuple[str, datetime]:
    task_id, _, instant = str(run_id).rpartition("@")
    try:
        moment = datetime.fromisoformat(instant)
    except ValueError:
        moment = datetime.min
    if not task_id or moment.tzinfo is None:
        raise TaskOptionError(
            f"A run's id is like 'task@2026-01-01T00:00:00+00:00', not {run_id!r}."
        )
    return task_id, moment
