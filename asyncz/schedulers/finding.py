"""Finding the tasks of the stores that have `expect_every`, whoever has added them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from asyncz.clock import Timer
from asyncz.tasks.base import Task

if TYPE_CHECKING:
    from asyncz.schedulers.engine import Engine

__all__ = ["ExpectingTasksFinder", "allowance"]

DEFAULT_GRACE = 60.0
"""Seconds beyond `expect_every`, of a task that may be late by any amount."""
FIND_EVERY = 300.0
"""Seconds from the end of one walk through the stores to the beginning of the next."""
PAUSE = 0.05
"""Seconds between two pages."""


class ExpectingTasksFinder:
    """Walks through the stores, a page at a time: at the start, and every few minutes where
    others may add tasks too.

    What is in a store in this process was added in it, and is known.

    Args:
        engine: Whose stores.
        found: Is told of each task, and of when it was added if the store knows.
    """

    def __init__(self, engine: Engine, found: Callable[[Task, datetime | None], None]) -> None:
        self._engine = engine
        self._found = found
        self._places: deque[tuple[str, Any]] = deque()
        self._walked: set[str] = set()
        self._timer: Timer | None = None
        self._goes_on = False

    def start(self) -> None:
        """Begin a walk, and go on with that until `stop`."""
        self.stop()
        self._goes_on = True
        self._walk()

    def stop(self) -> None:
        """Do not look any more."""
        self._goes_on = False
        self._walked.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _walk(self) -> None:
        self._places = deque(
            (alias, None)
            for alias, lane in self._engine.lanes.items()
            if not lane.store.in_process and (lane.ledger.is_shared or alias not in self._walked)
        )
        self._wait(0.0 if self._places else FIND_EVERY)

    def _wait(self, seconds: float) -> None:
        """Go on in a while: with the next page, or with the next walk."""
        if not self._goes_on or not any(not s.in_process for s in self._engine.stores.values()):
            return
        if self._timer is not None:
            self._timer.cancel()
        engine = self._engine
        self._timer = engine.clock.call_later(engine.loop, seconds, self._begin)

    def _begin(self) -> None:
        self._timer = None
        if self._places:
            self._engine.background(self._turn_page(), "asyncz finds tasks")
        else:
            self._walk()

    async def _turn_page(self) -> None:
        if not self._places:
            return  # another walk has begun meanwhile
        alias, rest = self._places.popleft()
        lane = self._engine.lanes.get(alias)
        if lane is not None:
            try:
                page = await lane.call(lane.store.get_expecting_tasks(rest))
            except Exception as exc:  # the store's state says so too
                self._engine.logger.debug("Cannot find the tasks of %r yet: %s", alias, exc)
            else:
                self._take(alias, page.found, page.rest)
        self._wait(PAUSE if self._places else FIND_EVERY)

    def _take(
        self, alias: str, found: list[tuple[Task, datetime | None]], rest: object | None
    ) -> None:
        if not self._goes_on:
            return
        for task, added in found:
            self._found(task, added)
        if rest is None:
            self._walked.add(alias)
        else:
            self._places.append((alias, rest))


def allowance(task: Task) -> timedelta:
    """How long after a success the next is due at the latest."""
    grace = DEFAULT_GRACE if task.mistrigger_grace_time is None else task.mistrigger_grace_time
    return timedelta(seconds=(task.expect_every or 0.0) + grace)
