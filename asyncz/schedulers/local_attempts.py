"""Further attempts at runs of a store that this scheduler has for itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from asyncz.enums import RunKind
from asyncz.schedulers.submission import submit
from asyncz.stores.cluster import RunOutcome
from asyncz.tasks.base import Task

if TYPE_CHECKING:
    from asyncz.schedulers.engine import Engine

__all__ = ["LocalAttempts", "Waiting"]


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

    def __iter__(self) -> Iterator[Waiting]:
        return iter(list(self.waiting.values()))

    @property
    def next_at(self) -> datetime | None:
        """When the first of them is tried again."""
        return min((waiting.retry_at for waiting in self.waiting.values()), default=None)

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
        engine = self._engine
        due = [waiting for waiting in self.waiting.values() if waiting.retry_at <= now]
        for waiting in due:
            key = waiting.key
            found = await lookup(key[0])
            task = _without_grace(found or waiting.task)
            busy = engine.instances.get((task.store_alias, key[0]), 0)
            is_free = busy < task.max_instances and engine.is_claiming
            if not is_free or self.waiting.get(key) is not waiting:
                continue
            executor = engine.executors.get(str(task.executor))
            if executor is None:  # it was taken out; there may be another one soon
                continue
            del self.waiting[key]
            self._numbers[key] = waiting.attempt + 1
            self._begin(waiting)
            submit(engine, executor, task, [key[1]], 0)


def _without_grace(task: Task) -> Task:
    """The run was in time the first time."""
    if task.mistrigger_grace_time is None:
        return task
    return Task.of_checked({**task.field_values(), "mistrigger_grace_time": None})
