"""What the stores with a server have in common: tasks as rows, read and written in pages.

A subclass moves rows; everything about tasks is here. Its operations are those that raise
`NotImplementedError` below, and each is one atomic change on the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence, Set
from datetime import datetime
from typing import Any

from asyncz.exceptions import ConflictIdError, TaskLookupError, UnreadableRecordError
from asyncz.serializers.base import Record
from asyncz.serializers.json import to_microseconds
from asyncz.serializers.values import is_clean_text
from asyncz.stores.base import NO_IDS, QuarantinedTask, QuarantineNews, StoreHost, TaskAdvance
from asyncz.stores.quarantine import QuarantineBook, reason
from asyncz.stores.row_store import RowStore
from asyncz.stores.rows import Place, Row, Slices, Step, StoredRow, is_moment, key_there_twice
from asyncz.stores.serializing import Codec
from asyncz.tasks.base import Task
from asyncz.tasks.inspection import TaskInfo
from asyncz.tasks.query import FoundTasks, TaskCounts, TaskQuery, TaskSummary

__all__ = ["Place", "RecordStore", "Row", "Step", "StoredRow"]

PAGE = 256
COUNTED_FOR = 1.0
"""Seconds that a count is believed for, as to `max_tasks`."""


class RecordStore(RowStore):
    """Base of the stores with a server.

    A row whose record cannot be read is quarantined: it stays as it is, no step is made on it,
    and it counts again once it can be read. Replacing or deleting it by its id sets the record
    aside, where people can find it.
    """

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self._quarantine = QuarantineBook()
        self._last_order = 0
        self._counted = 0
        self._count_again_at = float("-inf")
        self._codec_in_use: Codec | None = None

    # What stores are.

    async def start(self, scheduler: StoreHost, alias: str) -> None:
        await super().start(scheduler, alias)
        self._codec_in_use = self._codec(scheduler, alias)
        try:
            await self._open()
        except BaseException:
            await self.shutdown()
            raise

    async def shutdown(self) -> None:
        was_started = self._codec_in_use is not None
        self._codec_in_use = None
        self._quarantine.clear()
        await super().shutdown()
        if was_started:
            await self._close()

    async def add_task(self, task: Task) -> None:
        await self._add([self._row_of(task)], [task])

    async def add_tasks(self, tasks: Sequence[Task]) -> None:
        await self._add([row async for row in self._rows_of(tasks)], tasks)

    async def _add(self, rows: Sequence[Row], tasks: Sequence[Task]) -> None:
        by_key = {row.key: task.id for row, task in zip(rows, tasks, strict=True)}
        if self.max_tasks is not None:
            await self._make_room(len(rows))
        taken = await self._insert(rows) if len(by_key) == len(rows) else key_there_twice(rows)
        if taken is not None:
            self._count_again_at = float("-inf")
            raise ConflictIdError(by_key[taken], self.alias)

    async def _make_room(self, adding: int) -> None:
        # Counting takes long when there are many, and a flood must not make it worse.
        if self._monotonic() >= self._count_again_at:
            self._counted = sum(await self._count())
            self._count_again_at = self._monotonic() + COUNTED_FOR
        self._check_room(self._counted, adding)
        self._counted += adding

    async def update_task(self, task: Task) -> None:
        row = self._row_of(task)
        before = await self._fetch(row.key)
        if before is not None and self._read(before) is None and await self._set_aside(before):
            # It is somebody's task still; only its place was taken.
            await self._insert([row._replace(order=before.order)])
            self._recover(row.key)
            return
        if before is None or not await self._replace(row):
            raise TaskLookupError(task.id, self.alias)

    async def update_task_if(self, task: Task, expected: datetime | None) -> bool:
        row = self._row_of(task)
        before = await self._fetch(row.key)
        if before is None:
            raise TaskLookupError(task.id, self.alias)
        if before.next_run != (None if expected is None else to_microseconds(expected)):
            return False
        if self._read(before) is None:
            await self.update_task(task)
            return True
        return await self._replace(row, before)

    async def delete_task(self, task_id: str) -> None:
        self._count_again_at = float("-inf")
        row = await self._fetch(self.key_of(task_id)) if is_clean_text(task_id) else None
        if row is None:
            raise TaskLookupError(task_id, self.alias)
        if self._read(row) is None:
            await self._set_aside(row)
            self._quarantine.forget(row.key)
        elif not await self._remove([row.key]):
            raise TaskLookupError(task_id, self.alias)

    async def repair_task(self, task_id: str, reference: str) -> Task:
        row = await self._fetch(self.key_of(task_id)) if is_clean_text(task_id) else None
        if row is None:
            raise TaskLookupError(task_id, self.alias)
        codec = self._started_codec
        try:
            record = self._unpack(row)
        except UnreadableRecordError as exc:
            raise codec.left_alone(task_id, reason(exc)) from None
        record, task = codec.repair(record, reference)
        summary = None if self.keeps_secret else TaskSummary.of(task)
        if not await self._replace(
            Row(row.key, row.next_run, row.order, codec.pack(record), summary)
        ):
            raise TaskLookupError(task_id, self.alias)
        self._recover(row.key)
        return task

    async def remove_all_tasks(self) -> None:
        """Forget all tasks. Records that cannot be read stay; `delete_task` sets one aside."""
        self._count_again_at = float("-inf")
        async for rows in self._pages():
            readable = [row.key async for row, task in self._tasks_of(rows) if task is not None]
            await self._remove(readable)

    async def lookup_task(self, task_id: str) -> Task | None:
        if not is_clean_text(task_id):
            return None
        row = await self._fetch(self.key_of(task_id))
        return None if row is None else self._read(row)

    async def get_due_tasks(
        self, now: datetime, limit: int | None = None, exclude: Set[str] = NO_IDS
    ) -> list[Task]:
        due: list[Task] = []
        if limit == 0:
            return due
        passed_over = set(map(self.key_of, exclude))
        size = PAGE if limit is None else min(limit + len(passed_over), PAGE)
        async for rows in self._pages(to_microseconds(now), size):
            due += await self._tasks_but(passed_over, rows)
            # Reading them was one piece of work; what is done with them is another.
            await asyncio.sleep(0)
            if limit is not None and len(due) >= limit:
                return due[:limit]
        return due

    async def get_due_tasks_behind(
        self, now: datetime, skip: int, limit: int, exclude: Set[str] = NO_IDS
    ) -> list[Task]:
        """See `ClusterStore`."""
        until = to_microseconds(now)
        place = await self._find_place(skip, until)
        rows = await self._fetch_page(place, min(limit, PAGE), until) if place else []
        return await self._tasks_but(set(map(self.key_of, exclude)), rows)

    async def _tasks_but(self, keys: Set[str], rows: Sequence[StoredRow]) -> list[Task]:
        """The tasks of those rows that have none of these keys."""
        wanted = [row for row in rows if row.key not in keys]
        return [task async for _, task in self._tasks_of(wanted) if task is not None]

    async def get_next_run_time(self, after: datetime | None = None) -> datetime | None:
        place = None if after is None else Place(to_microseconds(after) + 1, -1, "")
        size = 1 + min(len(self._quarantine), PAGE)
        async for rows in self._pages(size=size, after=place):
            for row in rows:
                if row.next_run is None:
                    return None
                task = self._read(row)
                if task is not None:
                    return task.next_run_time
        return None

    async def get_all_tasks(self) -> list[Task]:
        return [
            task
            async for rows in self._pages()
            async for _, task in self._tasks_of(rows)
            if task is not None
        ]

    async def advance_tasks(self, advances: Sequence[TaskAdvance]) -> list[bool]:
        steps = [
            Step(
                self.key_of(str(task.id)),
                to_microseconds(expected),
                None if next_run_time is None else to_microseconds(next_run_time),
            )
            for task, expected, next_run_time in advances
        ]
        bad = {step.key for step in steps if self._quarantine and step.key in self._quarantine}
        if any(step.next_run is None for step in steps):
            self._count_again_at = float("-inf")
        if not bad:
            return await self._advance(steps)
        made = iter(await self._advance([step for step in steps if step.key not in bad]))
        return [step.key not in bad and next(made) for step in steps]

    async def get_quarantined_tasks(self) -> list[QuarantinedTask]:
        found = []
        self._quarantine.try_all_again()
        async for rows in self._pages():
            async for row, task in self._tasks_of(rows):
                if task is None:
                    found.append(QuarantinedTask(row.key, self._quarantine.error_of(row.key)))
        return found

    async def find_tasks(self, query: TaskQuery, exclude: Set[str] = NO_IDS) -> FoundTasks:
        found = None
        if not self.keeps_secret and query.is_for_a_server:
            found = await self._find(query, {self.key_of(task_id) for task_id in exclude})
        if found is not None:
            rows, total = found
            infos = [self._info(row, task) async for row, task in self._tasks_of(rows)]
            return FoundTasks(infos, total)
        # Everything has to be looked at, but not to be kept.
        page: list[TaskInfo] = []
        total = 0
        best = query.up_to_page()
        async for rows in self._pages():
            infos = [self._info(row, task) async for row, task in self._tasks_of(rows)]
            wanted = [info for info in infos if info.id not in exclude and query.matches(info)]
            page = best.page([*page, *wanted])
            total += len(wanted)
        return FoundTasks(page[query.offset :], total)

    async def count_tasks(self) -> TaskCounts:
        """How many there are. Unreadable ones count as such once they have been come across."""
        scheduled, paused = await self._count()
        return TaskCounts(
            scheduled - len(self._quarantine), paused, quarantined=len(self._quarantine)
        )

    # Rows and tasks.

    def key_of(self, task_id: str) -> str:
        """What the row of a task is known by on the server. As good as unique for each id."""
        return task_id

    def _row_of(self, task: Task) -> Row:
        self.check_task_id(task.id)
        codec = self._started_codec
        record = codec.serializer.to_record(task)
        self._last_order = max(self._last_order + 1, to_microseconds(self.host.clock.now()))
        moment = record["next_run_time"]
        return Row(
            self.key_of(record["id"]), moment, self._last_order, codec.pack(record),
            None if self.keeps_secret else TaskSummary.of(task),
        )  # fmt: skip

    async def _rows_of(self, tasks: Sequence[Task]) -> AsyncIterator[Row]:
        pause = Slices()
        for task in tasks:
            await pause()
            yield self._row_of(task)

    def _read(self, row: StoredRow) -> Task | None:
        """The task of a row; None if it cannot be read, which the quarantine then knows."""
        if self._quarantine and self._quarantine.is_known(row.key, row.data, self._monotonic()):
            return None
        try:
            task = self._started_codec.build(self._unpack(row))
        except UnreadableRecordError as exc:
            why = reason(exc)
            if self._quarantine.note(row.key, row.data, why, self._monotonic()):
                self._tell(row.key, why)
            return None
        self._recover(row.key)
        return task

    def _unpack(self, row: StoredRow) -> Record:
        """The record of a row, with the row's next run time."""
        record = self._started_codec.unpack(row.data)
        if not isinstance(record.get("id"), str) or self.key_of(record["id"]) != row.key:
            raise UnreadableRecordError("The id in the record is not that of its place.")
        if row.next_run is None or is_moment(record.get("next_run_time")):
            # The row's is newer: a step changes only that.
            record["next_run_time"] = row.next_run
        return record

    def _recover(self, key: str) -> None:
        if self._quarantine and self._quarantine.forget(key):
            self._tell(key, None)

    def _tell(self, key: str, error: str | None) -> None:
        self.host.quarantine_changed(self.alias or "", [QuarantineNews(key, error)])

    async def _tasks_of(
        self, rows: Sequence[StoredRow]
    ) -> AsyncIterator[tuple[StoredRow, Task | None]]:
        pause = Slices()
        for row in rows:
            await pause()
            yield row, self._read(row)

    async def _pages(
        self, until: int | None = None, size: int = PAGE, after: Place | None = None
    ) -> AsyncIterator[list[StoredRow]]:
        """The rows behind a place in order, page by page."""
        while True:
            rows = await self._fetch_page(after, size, until)
            if rows:
                yield rows
            if len(rows) < size:
                return
            after = rows[-1].place

    def _info(self, row: StoredRow, task: Task | None) -> TaskInfo:
        if task is not None:
            return task.snapshot()
        return TaskInfo.of_unreadable(row.key, self.alias, self._quarantine.error_of(row.key))

    def _monotonic(self) -> float:
        return self.host.clock.monotonic()

    @property
    def _started_codec(self) -> Codec:
        if self._codec_in_use is None:
            _ = self.host  # raises
            raise AssertionError("a started store has a codec")
        return self._codec_in_use
