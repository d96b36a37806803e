"""Further attempts at runs of a store that this scheduler has for itself."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from heapq import heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

from asyncz.enums import RunKind
from asyncz.schedulers.submission import submit
from asyncz.stores.cluster import RunOutcome
from asyncz.stores.rows import Slices
from asyncz.tasks.base import Task

if TYPE_CHECKING:
    from asyncz.schedulers.engine import Engine

__all__ = ["LocalAttempts", "Waiting"]


AT_ONCE = 64
"""Tasks of which attempts begin before the loop has its turn."""


class Waiting(NamedTuple):
    """A run that failed and waits for its next attempt.

    Args:
        task: As it was when it failed.
        kind, since: As it was claimed.
        attempt: Which has failed, counted from 1.
        said: How.
        retry_at: When it is tried again.
    """

    task: Task
    kind: RunKind
    since: datetime
    attempt: int
    said: RunOutcome
    retry_at: datetime

    @property
    def key(self) -> tuple[str, datetime]:
        """Names the run."""
        return str(self.task.id), self.said.scheduled_time


class LocalAttempts:
    """The runs that wait for another attempt.

    Args:
        engine: Whose.
        begin: Takes note that a run goes on again.
    """

    def __init__(self, engine: Engine, begin: Callable[[Waiting], None]) -> None:
        self._engine = engine
        self._begin = begin
        self.waiting: dict[tuple[str, datetime], Waiting] = {}
        """They, by their names."""
        self._numbers: dict[tuple[str, datetime], int] = {}
        self._later: list[tuple[datetime, int, Waiting]] = []
        self._due: dict[str, deque[Waiting]] = {}
        """Those that were due and had no place, by their tasks."""
        self._count = 0

    def __iter__(self) -> Iterator[Waiting]:
        return iter(list(self.waiting.values()))

    @property
    def next_at(self) -> datetime | None:
        """When the first of them is tried again; asked at the end of each run."""
        for task_id, queue in list(self._due.items()):
            while queue and not self._still_waits(queue[0]):
                queue.popleft()
            if queue:
                return queue[0].retry_at
            del self._due[task_id]
        while self._later and not self._still_waits(self._later[0][2]):
            heappop(self._later)
        return self._later[0][0] if self._later else None

    def number_of(self, key: tuple[str, datetime]) -> int:
        """Which attempt at a run goes on."""
        return self._numbers.get(key, 1)

    def wait(
        self, task: Task, kind: RunKind, since: datetime, attempt: int, said: RunOutcome
    ) -> None:
        """A run has failed, and is to be tried again."""
        retry_at = said.retry_at
        if retry_at is not None:
            waiting = Waiting(task, kind, since, attempt, said, retry_at)
            self.waiting[waiting.key] = waiting
            self._count += 1
            heappush(self._later, (retry_at, self._count, waiting))

    def ended(self, key: tuple[str, datetime]) -> None:
        """A run has ended, or one attempt at it."""
        self._numbers.pop(key, None)

    def take_out(self, key: tuple[str, datetime]) -> Waiting | None:
        """A run does not wait any more; None: it did not."""
        return self.waiting.pop(key, None)

    async def try_again(
        self, now: datetime, lookup: Callable[[str], Awaitable[Task | None]]
    ) -> None:
        """Begin the attempts that are due, as far as `max_instances` allows.

        Args:
            now: The time.
            lookup: Finds a task as it is now; None: it is not in the store any more.
        """
        pause = Slices()
        while self._later and self._later[0][0] <= now:
            waiting = heappop(self._later)[2]
            if self._still_waits(waiting):
                self._due.setdefault(waiting.key[0], deque()).append(waiting)
            await pause()
        for number, task_id in enumerate(list(self._due), 1):
            if not number % AT_ONCE:  # to begin takes little, but to fail again takes its time
                await asyncio.sleep(0)
            await self._begin_of(task_id, lookup, pause)

    async def _begin_of(
        self, task_id: str, lookup: Callable[[str], Awaitable[Task | None]], pause: Slices
    ) -> None:
        """Begin those of one task, the earliest first, until there is no place for another."""
        queue = self._due[task_id]
        while queue:
            waiting = queue[0]
            found = await lookup(task_id)
            await pause()
            if not queue or queue[0] is not waiting:
                continue
            queue.popleft()  # before it begins, as it may have ended when that returns
            if self._still_waits(waiting) and not self._is_begun(
                waiting, _without_grace(found or waiting.task)
            ):
                queue.appendleft(waiting)
                return
        if self._due.get(task_id) is queue:
            del self._due[task_id]

    def _is_begun(self, waiting: Waiting, task: Task) -> bool:
        """Begin an attempt, if it can be."""
        engine, key = self._engine, waiting.key
        busy = engine.instances.get((task.store_alias, key[0]), 0)
        executor = engine.executors.get(str(task.executor))
        # One that was taken out may be there again soon.
        if busy >= task.max_instances or not engine.is_claiming or executor is None:
            return False
        del self.waiting[key]
        self._numbers[key] = waiting.attempt + 1
        self._begin(waiting)
        submit(engine, executor, task, [key[1]], 0)
        return True

    def _still_waits(self, waiting: Waiting) -> bool:
        return self.waiting.get(waiting.key) is waiting


def _without_grace(task: Task) -> Task:
    """The run was in time the first time."""
    if task.mistrigger_grace_time is None:
        return task
    return Task.of_checked({**task.field_values(), "mistrigger_grace_time": None})
