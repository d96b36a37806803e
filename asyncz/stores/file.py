"""Tasks in a directory, one readable file each: they outlive the process and need no server."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence, Set
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import Field, PrivateAttr

from asyncz.exceptions import ConflictIdError, StoreError, TaskLookupError
from asyncz.stores.base import NO_IDS, QuarantinedTask, StoreHost, TaskAdvance
from asyncz.stores.file_records import FileOptions, FileRecords
from asyncz.stores.file_thread import StoreThread
from asyncz.stores.serializing import SerializingStore
from asyncz.tasks.base import Task

__all__ = ["FileStore"]

CLOSING_TIME = 10.0
"""Seconds that `shutdown` gives a disk that does not answer."""

PORTION = 256
"""Tasks that are added under one hold of the lock between processes."""

T = TypeVar("T")


class FileStore(SerializingStore):
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

    def __init__(self, directory: str | os.PathLike[str], **options: Any) -> None:
        options["directory"] = directory
        super().__init__(**options)

    async def start(self, scheduler: StoreHost, alias: str) -> None:
        await super().start(scheduler, alias)
        options = FileOptions(self.directory, self.suffix, self.mode, self.lock_timeout, alias)
        records = FileRecords(options, self._codec(scheduler, alias))
        self._thread = StoreThread(f"asyncz-store-{alias}")
        self._records = records
        try:
            await self._thread.submit(records.open)
        except BaseException:
            await self.shutdown()
            raise

    async def shutdown(self) -> None:
        thread, self._thread = self._thread, None
        records, self._records = self._records, None
        await super().shutdown()
        if thread is not None and records is not None:
            close = partial(records.close, self.cleanup_directory)
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

    async def advance_tasks(self, advances: Sequence[TaskAdvance]) -> list[bool]:
        return await self._submit(partial(self._started.advance, tuple(advances)))

    async def repair_task(self, task_id: str, reference: str) -> Task:
        return await self._submit(partial(self._started.repair, task_id, reference))

    async def get_quarantined_tasks(self) -> list[QuarantinedTask]:
        """The records that are kept but cannot be read; `file:NAME` stands for an unknown id."""
        return await self._submit(self._started.quarantined)

    @property
    def _started(self) -> FileRecords:
        if self._records is None:
            raise StoreError(f"The store {self.alias!r} (FileStore) is not started.")
        return self._records

    async def _submit(self, work: Callable[[], T]) -> T:
        assert self._thread is not None  # noqa: S101  # as long as there are records
        return await self._thread.submit(work)
