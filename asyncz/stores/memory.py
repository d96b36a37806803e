"""Tasks in memory: the fastest store, empty again when the process ends."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence, Set
from datetime import datetime
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import Any, ClassVar

from asyncz.exceptions import ConflictIdError, TaskLookupError
from asyncz.stores.base import NO_IDS, BaseStore, TaskAdvance
from asyncz.tasks.base import Task

__all__ = ["MemoryStore"]

Entry = tuple[float, int, int, str]
"""Next run time in seconds since the epoch (a float tells microseconds apart until the year
2242), order of insertion of the task, order of the entry, the task's id. An entry is valid while
it is its task's own. It holds no task, so that the garbage collector need not look into it: with
100,000 tasks that is a quarter of its work."""

STALE_ALLOWED = 1024


class MemoryStore(BaseStore):
    """Keeps tasks in a dictionary and their run times in a heap with lazy deletion.

    Adding, updating and deleting take O(log n); a changed task leaves its old entry in the heap,
    where it is dropped when it comes to the top. The tasks it hands out are its own, not copies.
    """

    in_process: ClassVar[bool] = True

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self._tasks: dict[str, Task] = {}
        self._entries: dict[str, Entry] = {}
        self._heap: list[Entry] = []
        self._ready: list[Entry] = []
        self._serials = count()

    async def shutdown(self) -> None:
        self._clear()
        await super().shutdown()

    async def add_task(self, task: Task) -> None:
        self.check_task_id(task.id)
        task_id: str = task.id  # type: ignore[assignment]  # just checked
        if task_id in self._tasks:
            raise ConflictIdError(task_id, self.alias)
        if self.max_tasks is not None:
            self._check_room(len(self._tasks))
        self._enter(task_id, task, next(self._serials))

    async def update_task(self, task: Task) -> None:
        task_id = self._known(task.id)
        self._enter(task_id, task, self._entries[task_id][1])

    async def update_task_if(self, task: Task, expected: datetime | None) -> bool:
        # By the entry: the task may be the very one that is here, with its new time already.
        when = inf if expected is None else expected.timestamp()
        if self._entries[self._known(task.id)][0] != when:
            return False
        await self.update_task(task)
        return True

    async def delete_task(self, task_id: str) -> None:
        self._forget(self._known(task_id))
        self._drop_stale()

    async def remove_all_tasks(self) -> None:
        self._clear()

    async def lookup_task(self, task_id: str) -> Task | None:
        return self._tasks.get(task_id)

    async def get_due_tasks(
        self, now: datetime, limit: int | None = None, exclude: Set[str] = NO_IDS
    ) -> list[Task]:
        bound = now.timestamp()
        wanted = inf if limit is None else limit
        self._make_ready(bound, wanted + len(exclude))
        due: list[Task] = []
        for moment, _, _, task_id in self._ready:
            if moment > bound or len(due) >= wanted:
                break
            if task_id not in exclude:
                due.append(self._tasks[task_id])
        return due

    async def get_next_run_time(self, after: datetime | None = None) -> datetime | None:
        bound = -inf if after is None else after.timestamp()
        self._make_ready(bound, inf)
        later = [entry for entry in self._ready if entry[0] > bound]
        if top := self._top():
            later.append(top)
        return self._tasks[min(later)[3]].next_run_time if later else None

    async def get_all_tasks(self) -> list[Task]:
        return [self._tasks[entry[3]] for entry in sorted(self._entries.values())]

    async def repair_task(self, task_id: str, reference: str) -> Task:
        """There is nothing to repair: no record lies between a task and this store."""
        raise TaskLookupError(task_id, self.alias)

    async def advance_tasks(self, advances: Sequence[TaskAdvance]) -> list[bool]:
        return [self._advance(*advance) for advance in advances]

    def _advance(self, task: Task, expected: datetime, next_run_time: datetime | None) -> bool:
        task_id: str = task.id  # type: ignore[assignment]  # it came out of this store
        entry = self._entries.get(task_id)
        # By instant: Python takes the two passes of a repeated hour in one zone for equal.
        if entry is None or entry[0] != expected.timestamp():
            return False
        if next_run_time is None:
            self._forget(task_id)
        else:
            kept = self._tasks[task_id]
            kept.next_run_time = next_run_time
            self._enter(task_id, kept, entry[1])
        return True

    def _known(self, task_id: str | None) -> str:
        if task_id is None or task_id not in self._tasks:
            raise TaskLookupError(task_id, self.alias)
        return task_id

    def _enter(self, task_id: str, task: Task, order: int) -> None:
        moment = task.next_run_time
        when = inf if moment is None else moment.timestamp()
        self._tasks[task_id] = task
        self._entries[task_id] = entry = (when, order, next(self._serials), task_id)
        if moment is not None:
            heappush(self._heap, entry)
        self._drop_stale()

    def _forget(self, task_id: str) -> None:
        del self._tasks[task_id], self._entries[task_id]

    def _clear(self) -> None:
        self._tasks.clear()
        self._entries.clear()
        self._heap.clear()
        self._ready.clear()

    def _drop_stale(self) -> None:
        # Without this, tasks that are changed again and again before they come due would fill
        # the heap. Half of it being stale before it is rebuilt makes that O(1) for each change.
        heap, entries = self._heap, self._entries
        if len(heap) > 2 * len(entries) + STALE_ALLOWED:
            self._heap = [entry for entry in heap if entries.get(entry[3]) is entry]
            heapify(self._heap)

    def _top(self) -> Entry | None:
        """The first valid entry of the heap, now at its top."""
        heap, entries = self._heap, self._entries
        while heap:
            entry = heap[0]
            if entries.get(entry[3]) is entry:
                return entry
            heappop(heap)
        return None

    def _make_ready(self, bound: float, number: float) -> None:
        """Bring the first `number` entries that are due at `bound` into the sorted ready list.

        Entries leave the heap when they are first looked at, so that looking at them again, while
        their tasks wait or are held back, does not take them through the heap again.
        """
        heap, entries, ready = self._heap, self._entries, self._ready
        if ready:
            ready[:] = [entry for entry in ready if entries.get(entry[3]) is entry]
        while heap and heap[0][0] <= bound:
            if len(ready) >= number and not (ready and heap[0] < ready[-1]):
                break
            entry = heappop(heap)
            if entries.get(entry[3]) is entry:
                if ready and entry < ready[-1]:
                    insort(ready, entry)
                else:
                    ready.append(entry)
