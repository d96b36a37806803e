"""Tasks in a directory, one readable file each: they outlive the process and need no server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import Field, PrivateAttr

from asyncz.enums import RunState
from asyncz.exceptions import ConfigurationError, ConflictIdError, StoreError, TaskLookupError
from asyncz.runs.base import Run, RunQuery
from asyncz.serializers.json import to_microseconds
from asyncz.stores.base import NO_IDS, ExpectingTasks, QuarantinedTask, StoreHost, TaskAdvance
from asyncz.stores.cluster import (
    Attended,
    ClusterStore,
    Fired,
    Firing,
    Look,
    Node,
    NodeRecord,
    OpenRun,
    Pulse,
    Reaped,
    RunEnd,
    RunRef,
)
from asyncz.stores.file_options import FileOptions
from asyncz.stores.file_records import FileRecords
from asyncz.stores.file_runs import FileRuns
from asyncz.stores.file_thread import StoreThread
from asyncz.stores.serializing import SerializingStore
from asyncz.tasks.base import Task

__all__ = ["FileStore"]

CLOSING_TIME = 10.0
"""Seconds that `shutdown` gives a disk that does not answer."""

PORTION = 256
"""Tasks that are added under one hold of the lock between processes."""

T = TypeVar("T")


class FileStore(SerializingStore, ClusterStore):
    """Keeps each task as a JSON file in one directory on a local disk.

    Several processes may use the directory at once: each operation is made under a lock between
    them, and a step of a schedule by one of them only. A file that cannot be read is quarantined:
    it stays where it is, is listed with the reason, and counts again once it can be read. Only
    `delete_task` and `update_task` on its id move it, to `NAME.unreadable-1`, never removing it.

    Args:
        directory: Made if missing. A symbolic link is refused.
        suffix: What the files of tasks end with.
        mode: Of the directory if it is made here. The rights of an existing one are left as they
            are; wider ones are logged, since who can write there can have the app's code called.
        cleanup_directory: Remove the tasks at shutdown, and the directory if it is empty then.
        lock_timeout: Seconds to wait for another process.
        serializer, allowed_callables, max_payload: See `SerializingStore`.

    Raises:
        ConfigurationError: The directory is empty.
    """

    forbidden_characters: ClassVar[frozenset[str]] = frozenset()
    """None: file names are made of a hash of the id."""

    directory: Path
    suffix: Annotated[str, Field(pattern=r"^\.[A-Za-z0-9_-]{1,32}$")] = ".task"
    mode: Annotated[int, Field(ge=0o700, le=0o777)] = 0o700
    cleanup_directory: bool = False
    lock_timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0

    _thread: StoreThread | None = PrivateAttr(default=None)
    _records: FileRecords | None = PrivateAttr(default=None)
    _runs: FileRuns | None = PrivateAttr(default=None)
    _begun: tuple[list[Any], asyncio.Future[list[bool]]] | None = PrivateAttr(default=None)

    def __init__(self, directory: str | os.PathLike[str], **options: Any) -> None:
        if directory == "":  # a variable of the environment that is not set
            raise ConfigurationError(
                "FileStore: directory is empty; give its path, or '.' for the current directory."
            )
        options["directory"] = directory
        super().__init__(**options)

    async def start(self, scheduler: StoreHost, alias: str) -> None:
        await super().start(scheduler, alias)
        options = FileOptions(self.directory, self.suffix, self.mode, self.lock_timeout, alias)
        records = FileRecords(options, self._codec(scheduler, alias))
        self._thread = StoreThread(f"asyncz-store-{alias}")
        self._records = records
        try:
            self._runs = await self._thread.submit(partial(self._open, records))
        except BaseException:
            await self.shutdown()
            raise

    def _open(self, records: FileRecords) -> FileRuns:
        records.open()
        return FileRuns(records)

    async def shutdown(self) -> None:
        thread, self._thread = self._thread, None
        records, self._records = self._records, None
        runs, self._runs = self._runs, None
        self._begun = None
        await super().shutdown()
        if thread is not None and records is not None:
            close = partial(records.close, self.cleanup_directory, runs)
            if not await thread.end(close, CLOSING_TIME):
                records.log_stuck()

    async def add_task(self, task: Task) -> None:
        self.check_task_id(task.id)
        await self._submit(partial(self._started.add, task, self._check_room))

    async def add_tasks(self, tasks: Sequence[Task]) -> None:
        """Keep several tasks: all of them, or none.

        A process that is killed meanwhile leaves those that are there by then.
        """
        seen: set[str | None] = set()
        for task in tasks:
            self.check_task_id(task.id)
            if task.id in seen:
                raise ConflictIdError(task.id, self.alias)
            seen.add(task.id)
        begun = 0
        try:
            # In portions, so that others get at the directory, and at this thread, in between.
            for begun in range(0, len(tasks), PORTION):
                portion = tasks[begun : begun + PORTION]
                await self._submit(partial(self._started.add_all, portion, self._check_room))
        except BaseException:
            for task in tasks[:begun]:
                with suppress(TaskLookupError):
                    await self.delete_task(str(task.id))
            raise

    async def update_task(self, task: Task) -> None:
        self.check_task_id(task.id)
        await self._submit(partial(self._started.update, task))

    async def update_task_if(self, task: Task, expected: datetime | None) -> bool:
        self.check_task_id(task.id)
        moment = None if expected is None else to_microseconds(expected)
        return await self._submit(partial(self._started.update_if, task, moment))

    async def delete_task(self, task_id: str) -> None:
        """Forget a task; a record that cannot be read is set aside as `NAME.unreadable-1`.

        Args:
            task_id: An id, or `file:NAME` as `get_quarantined_tasks` lists it.

        Raises:
            TaskLookupError: There is none.
        """
        await self._submit(partial(self._started.delete, task_id))

    async def remove_all_tasks(self) -> None:
        """Forget all tasks. Records that cannot be read stay; `delete_task` sets one aside."""
        await self._submit(self._started.remove_all)

    async def lookup_task(self, task_id: str) -> Task | None:
        return await self._submit(partial(self._started.lookup, task_id))

    async def get_due_tasks(
        self, now: datetime, limit: int | None = None, exclude: Set[str] = NO_IDS
    ) -> list[Task]:
        return await self._submit(partial(self._started.due, now, limit, frozenset(exclude)))

    async def get_next_run_time(self, after: datetime | None = None) -> datetime | None:
        return await self._submit(partial(self._started.next_run_time, after))

    async def get_all_tasks(self) -> list[Task]:
        return await self._submit(self._started.all)

    async def get_expecting_tasks(self, rest: Any = None) -> ExpectingTasks:
        return ExpectingTasks(await self._submit(self._started.expecting))

    async def advance_tasks(self, advances: Sequence[TaskAdvance]) -> list[bool]:
        # The thread goes on when a caller has given up on a slow disk. Who asks for the same
        # steps again is then told what became of them: by themselves they look like another's.
        steps = [(task.id, expected, next_run_time) for task, expected, next_run_time in advances]
        begun = self._begun
        if begun is None or begun[0] != steps:
            work = partial(self._started.advance, tuple(advances))
            self._begun = begun = steps, self._begin(work)
        try:
            made = await asyncio.shield(begun[1])
        except Exception:
            self._begun = None
            raise
        self._begun = None
        return made

    async def repair_task(self, task_id: str, reference: str) -> Task:
        return await self._submit(partial(self._started.repair, task_id, reference))

    async def get_quarantined_tasks(self) -> list[QuarantinedTask]:
        """The records that are kept but cannot be read; `file:NAME` stands for an unknown id."""
        return await self._submit(self._started.quarantined)

    # Runs and nodes.

    async def join_node(self, node: Node, lease: float) -> None:
        await self._submit(partial(self._ready.join, node, lease))

    async def renew_node(self, node_id: str, lease: float, running: int) -> bool:
        return await self._submit(partial(self._ready.renew, node_id, lease, running))

    async def leave_node(self, node_id: str) -> None:
        await self._submit(partial(self._ready.leave, node_id))

    async def get_nodes(self) -> list[NodeRecord]:
        return await self._submit(self._ready.nodes)

    def pulse(self, node_id: str) -> Pulse | None:
        return self._ready.pulse(node_id)

    async def look(self) -> Look:
        return await self._submit(self._ready.look)

    async def fire(self, node_id: str, claim: str, firings: Sequence[Firing]) -> list[Fired]:
        return await self._submit(partial(self._ready.fire, node_id, claim, tuple(firings)))

    async def start_runs(self, node_id: str, refs: Sequence[RunRef]) -> list[bool]:
        return await self._submit(partial(self._ready.start, node_id, tuple(refs)))

    async def finish_runs(self, node_id: str, ends: Sequence[RunEnd]) -> list[bool]:
        return await self._submit(partial(self._ready.finish, node_id, tuple(ends)))

    async def release_runs(self, node_id: str, refs: Sequence[RunRef]) -> None:
        await self._submit(partial(self._ready.release, node_id, tuple(refs)))

    async def get_own_runs(self, node_id: str) -> list[OpenRun]:
        return await self._submit(partial(self._ready.own_runs, node_id))

    async def reap(
        self, node_id: str, *, bury: datetime | None, max_attempts: int, limit: int = 100
    ) -> Reaped:
        return await self._submit(partial(self._ready.reap, node_id, bury, max_attempts, limit))

    async def note_runs(
        self, node_id: str, notes: Sequence[tuple[RunRef, Mapping[str, Any]]]
    ) -> list[bool]:
        return await self._submit(partial(self._ready.note, node_id, tuple(notes)))

    async def attend(self, node_id: str, limit: int = 100) -> Attended:
        return await self._submit(partial(self._ready.attend, node_id, limit))

    async def cancel_run(self, task_id: str, scheduled_time: datetime, by: str) -> RunState | None:
        query = RunQuery(task_id, since=scheduled_time, until=scheduled_time, limit=1)
        while True:
            cancel = partial(self._ready.cancel, task_id, scheduled_time, by)
            state = await self._submit(cancel)
            if state is not None:
                return state
            found = await self._search(query)
            if not found:
                return None
            if not found[0].state.is_open:
                return found[0].state

    async def get_runs(self, query: RunQuery) -> list[Run]:
        """The runs that are wanted, the latest first.

        Others get at the store in between: the whole history may have to be gone through.
        """
        return await self._search(query)

    async def get_last_runs(self, task_ids: Sequence[str]) -> dict[str, Run]:
        """As `ClusterStore.get_last_runs`, in one go through the history."""
        found = await self._search(tuple(task_ids)) if task_ids else []
        return {run.task_id: run for run in found}

    async def _search(self, wanted: RunQuery | tuple[str, ...]) -> list[Run]:
        runs = self._ready
        search = await self._submit(partial(runs.begin_search, wanted))
        while (found := await self._submit(partial(runs.go_on, search))) is None:
            pass
        return found

    async def count_active(self, task_ids: Sequence[str]) -> dict[str, int]:
        return await self._submit(partial(self._ready.count_active, tuple(task_ids)))

    async def prune_runs(
        self,
        task_id: str,
        states: frozenset[RunState],
        keep: int,
        before: datetime,
        limit: int = 1_000,
    ) -> int:
        runs = self._ready
        begin = partial(runs.begin_prune, task_id, states, keep, before, limit)
        search = await self._submit(begin)
        while (count := await self._submit(partial(runs.prune_on, search))) is None:
            pass
        return count

    async def forget_runs(self, before: datetime, limit: int = 1_000) -> int:
        return await self._submit(partial(self._ready.forget, before, limit))

    @property
    def _ready(self) -> FileRuns:
        if self._runs is None:
            raise self._not_started()
        return self._runs

    @property
    def _started(self) -> FileRecords:
        if self._records is None:
            raise self._not_started()
        return self._records

    def _not_started(self) -> StoreError:
        return StoreError(f"The store {self.alias!r} (FileStore) is not started.")

    async def _submit(self, work: Callable[[], T]) -> T:
        return await self._begin(work)

    def _begin(self, work: Callable[[], T]) -> asyncio.Future[T]:
        assert self._thread is not None  # noqa: S101  # as long as there are records
        return self._thread.submit(work)
