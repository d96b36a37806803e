"""Forgetting runs that nobody will ask for any more, a few at a time, behind everything else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from asyncz.enums import RunState
from asyncz.runs.policy import History
from asyncz.stores.cluster import ClusterStore
from asyncz.stores.quarantine import reason
from asyncz.tasks.base import Task

if TYPE_CHECKING:
    from asyncz.schedulers.engine import Engine

__all__ = ["Pruner"]

FAILURES = frozenset({RunState.FAILED, RunState.LOST, RunState.ABANDONED})
OTHERS = frozenset(state for state in RunState if not state.is_open) - FAILURES
AT_ONCE = 500
"""Runs that a store forgets by one call: few enough that nobody has to wait for it."""
SURPLUS = 5
"""The part of what is kept that may be there beyond it, before it is looked at again."""
FEW = 20
MOST_TASKS = 10_000
"""Tasks of whose runs is counted how many there have been."""


class Pruner:
    """Keeps the histories of the tasks short whose runs this scheduler carries out.

    A task is looked at after its runs have become a fifth more, by whoever carries them out. What
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
        self._counts: dict[str, int] = {}
        self._due: dict[str, History] = {}
        self._is_at_work = False

    def note(self, task: Task | None) -> None:
        """A run of that task has ended."""
        if task is None or task.next_run_time is None:
            return  # there will hardly be many more
        task_id = str(task.id)
        history = task.history or self._engine.settings.history
        count = self._counts.get(task_id, 0) + 1
        if count < max(FEW, history.count // SURPLUS):
            if len(self._counts) >= MOST_TASKS and task_id not in self._counts:
                self._counts.clear()
            self._counts[task_id] = count
            return
        self._counts[task_id] = 0
        self._due[task_id] = history
        if not self._is_at_work:
            self._is_at_work = True
            self._engine.background(self._work(), f"asyncz history of {self._alias}")

    async def _work(self) -> None:
        try:
            while self._due and self._engine.is_claiming:
                task_id, history = self._due.popitem()
                await self._prune(task_id, history)
        except Exception as exc:  # the next run that ends has it tried again
            self._engine.logger.warning(
                "Old runs in the store %r cannot be forgotten yet: %s", self._alias, reason(exc)
            )
        finally:
            self._is_at_work = False

    async def _prune(self, task_id: str, history: History) -> None:
        now = self._now()
        for states, age in ((OTHERS, history.age), (FAILURES, history.failures_age)):
            forgotten = AT_ONCE
            while forgotten >= AT_ONCE and self._engine.is_claiming:
                forgotten = await self._ask(
                    self._store.prune_runs(task_id, states, history.count, now - age, AT_ONCE)
                )
                await asyncio.sleep(0)
