"""Forgetting runs that nobody will ask for any more, a few at a time, behind everything else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime, timedelta
from random import random
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncz.enums import RunState
from asyncz.runs.policy import FAILURES, History
from asyncz.schedulers.collecting import short_lived
from asyncz.schedulers.finding import allowance
from asyncz.stores.cluster import ClusterStore
from asyncz.stores.quarantine import reason
from asyncz.tasks.base import Task
from asyncz.triggers import DateTrigger

if TYPE_CHECKING:
    from asyncz.schedulers.engine import Engine

__all__ = ["Pruner"]

OTHERS = frozenset(state for state in RunState if not state.is_open) - FAILURES
GOOD = frozenset({RunState.SUCCEEDED})
AT_ONCE = 500
"""Runs that a store forgets by one call: few enough that nobody has to wait for it."""
SURPLUS = 5
"""The part of what is kept that may be there beyond it, before it is looked at again."""
LOOK_EVERY = 86_400.0
"""Seconds after which the histories of tasks that run are looked at, for the age of what is in
them."""
PAUSE = 0.05
"""Seconds between two tasks: after a start there may be many."""
MOST_TASKS = 100_000
"""Tasks of whose runs is counted how many there have been."""


class _Count:
    """How many records of a task have been written since it was looked at, and when that was."""

    __slots__ = ("looked_at", "records")

    def __init__(self, looked_at: float) -> None:
        self.records = 0
        self.looked_at = looked_at


class _Part(NamedTuple):
    """What is kept of the runs that ended in some ways."""

    states: frozenset[RunState]
    keep: int
    age: timedelta


class Pruner:
    """Keeps the histories of the tasks short whose runs this scheduler carries out.

    A task is looked at when a run of it has ended here for the first time, then after its records
    have become a fifth more, and at its first run after a day, by whoever writes them. What
    belongs to tasks that do not run any more goes by its age: see the `Caretaker`.

    Args:
        engine, alias, store: Whose.
        ask: Awaits an operation of the store, within the store timeout.
        now: The store's time.
    """

    def __init__(
        self,
        engine: Engine,
        alias: str,
        store: ClusterStore,
        ask: Callable[[Awaitable[Any]], Awaitable[Any]],
        now: Callable[[], datetime],
    ) -> None:
        self._engine = engine
        self._alias = alias
        self._store = store
        self._ask = ask
        self._now = now
        self._counts: dict[str, _Count] = {}
        self._due: dict[str, list[_Part]] = {}
        self._is_at_work = False

    def note(self, task: Task | None, records: int = 1) -> None:
        """A run of that task has ended, or so many records of what was not run were written."""
        if task is None or not records or isinstance(task.trigger, DateTrigger):
            return  # there will hardly be many more
        history = task.history or self._engine.settings.history
        if self._is_due(str(task.id), records, max(1, history.count // SURPLUS)):
            self._due[str(task.id)] = list(_parts(task, history))
            if not self._is_at_work:
                self._is_at_work = True
                self._begin()

    def _is_due(self, task_id: str, records: int, every: int) -> bool:
        count, now = self._counts.get(task_id), self._engine.clock.monotonic()
        if count is None:
            if len(self._counts) >= MOST_TASKS:
                return random() * every < records  # noqa: S311  # as often, in the long run
            self._counts[task_id] = _Count(now)
            return True
        count.records += records
        if count.records < every and now - count.looked_at < LOOK_EVERY:
            return False
        count.records, count.looked_at = 0, now
        return True

    def _begin(self) -> None:
        if self._due and self._engine.is_claiming:
            self._engine.background(self._work(), f"asyncz history of {self._alias}")
        else:
            self._is_at_work = False

    async def _work(self) -> None:
        task_id = next(iter(self._due))
        parts = self._due.pop(task_id)
        try:
            for part in parts:
                await self._prune(task_id, part)
        except Exception as exc:  # the next run that ends has it tried again
            self._counts.pop(task_id, None)
            self._engine.logger.warning(
                "Old runs in the store %r cannot be forgotten yet: %s", self._alias, reason(exc)
            )
        self._engine.clock.call_later(self._engine.loop, PAUSE, self._begin)

    async def _prune(self, task_id: str, part: _Part) -> None:
        before = self._now() - part.age
        forgotten = AT_ONCE
        while forgotten >= AT_ONCE and self._engine.is_claiming:
            async with short_lived():
                forgotten = await self._ask(
                    self._store.prune_runs(task_id, part.states, part.keep, before, AT_ONCE)
                )


def _parts(task: Task, history: History) -> Iterator[_Part]:
    """What is kept of a task's runs."""
    yield _Part(FAILURES, history.count, history.failures_age)
    if task.expect_every is None:
        yield _Part(OTHERS, history.count, history.age)
        return
    # Whether it is overdue goes by its last success, whatever has been skipped since.
    yield _Part(GOOD, max(1, history.count), max(history.age, allowance(task)))
    yield _Part(OTHERS - GOOD, history.count, history.age)
