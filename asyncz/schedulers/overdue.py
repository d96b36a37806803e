"""Tasks that should have gone well by now, and have not."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from asyncz.clock import Timer
from asyncz.enums import NodeState, RunState
from asyncz.events.base import TaskEvent
from asyncz.events.constants import TASK_OVERDUE
from asyncz.runs.base import RunQuery
from asyncz.stores.cluster import ClusterStore
from asyncz.tasks.base import Task

if TYPE_CHECKING:
    from asyncz.schedulers.engine import Engine

__all__ = ["Overdue"]

Key = tuple[str, str]
"""The alias of a store, and a task's id."""

DEFAULT_GRACE = 60.0
"""Seconds beyond `expect_every`, of a task that may be late by any amount."""
LOOK_AGAIN = 60.0
"""Seconds between looks at a task that is overdue: does it still?"""
GOOD = frozenset({RunState.SUCCEEDED})
MOST = 10_000
"""Tasks that are watched at most."""


class Overdue:
    """Watches the tasks that have `expect_every`.

    Those that this scheduler has added, declared or run. The store is asked for a task's last
    success once, and again when the next should have been.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._deadlines: dict[Key, datetime] = {}
        self._since: dict[Key, datetime] = {}
        self._overdue: dict[Key, datetime | None] = {}
        self._timer: Timer | None = None
        self._looks_at = float("inf")  # of the clock's `monotonic`

    @property
    def tasks(self) -> tuple[Key, ...]:
        """The tasks that are overdue, as far as this scheduler knows."""
        return tuple(sorted(self._overdue))

    def watch(self, task: Task) -> None:
        """A task was added, changed or run here, or found in a store."""
        key = (str(task.store_alias), str(task.id))
        if task.expect_every is None:
            self._forget(key)
        elif key not in self._since and len(self._since) < MOST:
            now = self._engine.now_in(key[0])
            self._since[key] = self._deadlines[key] = now
            self._set_timer(now)

    def watch_all(self, tasks: Iterable[Task]) -> None:
        """Tasks were added here."""
        for task in tasks:
            if task.expect_every is not None:
                self.watch(task)

    def look_again(self, task: Task) -> None:
        """A task was changed here: it may have to succeed sooner now, or not so soon."""
        key = (str(task.store_alias), str(task.id))
        if key in self._since:
            now = self._deadlines[key] = self._engine.now_in(key[0])
            self._set_timer(now)
        self.watch(task)

    def _forget(self, key: Key) -> None:
        if self._since.pop(key, None) is not None:
            self._deadlines.pop(key, None)
            self._overdue.pop(key, None)

    def stop(self) -> None:
        """Do not look any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._since.clear()
        self._deadlines.clear()
        self._overdue.clear()

    def _set_timer(self, moment: datetime | None = None) -> None:
        """Look at that moment, or when the first of them should have gone well, if not sooner."""
        engine = self._engine
        if not self._deadlines or engine.bridge.loop is None:
            return
        first = moment or min(self._deadlines.values())
        left = (first - engine.clock.now()).total_seconds()
        # Not all the time, whatever somebody expects; and the clock may be set meanwhile.
        wait = min(max(left, 0.1), engine.clock.longest_wait)
        at = engine.clock.monotonic() + wait
        if self._timer is not None:
            if self._looks_at <= at:
                return
            self._timer.cancel()
        self._looks_at = at
        self._timer = engine.clock.call_later(engine.loop, wait, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._engine.background(self._look(), "asyncz overdue tasks")

    async def _look(self) -> None:
        for key, deadline in list(self._deadlines.items()):
            if key in self._since and self._engine.now_in(key[0]) >= deadline:
                try:
                    await self._look_at(key)
                except Exception as exc:  # the store's state says so too
                    self._engine.logger.debug("Cannot tell whether %r is overdue: %s", key, exc)
                    self._deadlines[key] = self._engine.now_in(key[0]) + LOOK
        self._set_timer()

    async def _look_at(self, key: Key) -> None:
        engine = self._engine
        alias, task_id = key
        lane = engine.lanes.get(alias)
        task = None if lane is None else await lane.call(lane.store.lookup_task(task_id))
        if lane is None or task is None or task.expect_every is None:
            self._forget(key)
            return
        good = await lane.ledger.get_runs(RunQuery(task_id, GOOD, limit=1))
        last = good[0].finished_at or good[0].scheduled_time if good else None
        now = lane.now()
        # One that has never succeeded has the same time from when it was seen first.
        end = (last or self._since[key]) + _allowed(task)
        if end > now:
            self._deadlines[key] = end
            if self._overdue.pop(key, self) is not self:
                engine.logger.info("The task %r is not overdue any more.", task_id)
            return
        self._deadlines[key] = now + LOOK
        if key not in self._overdue:
            self._overdue[key] = last
            await self._tell(key, task, last)

    async def _tell(self, key: Key, task: Task, last: datetime | None) -> None:
        engine = self._engine
        alias, task_id = key
        since = "yet" if last is None else f"since {last.isoformat(timespec='seconds')}"
        detail = f"It has not succeeded {since}; it should every {task.expect_every:g} s."
        if engine.events.mask & TASK_OVERDUE and await self._is_first(alias):
            engine.dispatch(
                TaskEvent(
                    code=TASK_OVERDUE,
                    task_id=task_id,
                    store=alias,
                    scheduler_identity=engine.identity,
                    detail=detail,
                )
            )
        engine.logger.warning("The task %r is overdue. %s", task_id, detail)

    async def _is_first(self, alias: str) -> bool:
        """Of all who see it, one says so: the one who has been there for longest."""
        lane = self._engine.lanes[alias]
        if not isinstance(lane.store, ClusterStore) or not lane.ledger.is_shared:
            return True
        nodes = await lane.call(lane.store.get_nodes())
        alive = [record.node.identity for record in nodes if record.state is NodeState.ALIVE]
        return not alive or alive[0] == self._engine.identity


LOOK = timedelta(seconds=LOOK_AGAIN)


def _allowed(task: Task) -> timedelta:
    """How long after a success the next is due at the latest."""
    grace = DEFAULT_GRACE if task.mistrigger_grace_time is None else task.mistrigger_grace_time
    return timedelta(seconds=(task.expect_every or 0.0) + grace)
