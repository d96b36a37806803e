"""Tasks that should have gone well by now, and have not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from asyncz.clock import Timer
from asyncz.enums import NodeState
from asyncz.events.base import TaskEvent
from asyncz.events.constants import TASK_OVERDUE
from asyncz.schedulers.finding import ExpectingTasksFinder, allowance
from asyncz.schedulers.own_runs import OwnRuns
from asyncz.stores.cluster import ClusterStore
from asyncz.tasks.base import Task

if TYPE_CHECKING:
    from asyncz.schedulers.engine import Engine
    from asyncz.schedulers.lane import StoreLane

__all__ = ["Overdue"]

Key = tuple[str, str]
"""The alias of a store, and a task's id."""

LOOK_AGAIN = 60.0
"""Seconds between looks at a task that is overdue: does it still?"""
MOST = 10_000
"""Tasks that are watched at most."""
AT_ONCE = 50
"""Tasks that the stores are asked about before others get their turn."""
PAUSE = 0.1
"""Seconds that it is theirs."""


@dataclass(slots=True)
class Watched:
    """What is known of one task.

    Args:
        since: From when on it should succeed, as long as it has not.
        deadline: When it is looked at again.
        allowed: How long after a success the next is due at the latest.
        last: Its last success that is known of, which the store may have forgotten since.
        teller: The node that was to say that it is overdue, and may not have been able to.
    """

    since: datetime
    deadline: datetime
    allowed: timedelta
    last: datetime | None = None
    is_overdue: bool = False
    teller: str | None = None


class Overdue:
    """Watches the tasks that have `expect_every`: those that this scheduler has added or run, and
    those that it finds in its stores.

    The store is asked for a task's last success once, and again when the next should have been.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._watched: dict[Key, Watched] = {}
        self._finder = ExpectingTasksFinder(engine, self.find)
        self._timer: Timer | None = None
        self._looks_at = float("inf")  # of the clock's `monotonic`
        self._is_looking = False

    @property
    def tasks(self) -> tuple[Key, ...]:
        """The tasks that are overdue, as far as this scheduler knows."""
        return tuple(sorted(key for key, task in self._watched.items() if task.is_overdue))

    def longest(self, alias: str) -> timedelta:
        """How long a success of a task of that store is of interest, at most."""
        watched = self._watched.items()
        return max((task.allowed for key, task in watched if key[0] == alias), default=timedelta(0))

    def watch(self, task: Task) -> None:
        """A task was added, changed or run here, or found in a store."""
        key = (str(task.store_alias), str(task.id))
        if task.expect_every is None:
            self._watched.pop(key, None)
        elif key not in self._watched and len(self._watched) < MOST:
            now = self._engine.now_in(key[0])
            self._watched[key] = Watched(now, now, allowance(task))
            self._set_timer(now)

    def watch_all(self, tasks: Iterable[Task]) -> None:
        """Tasks were added here."""
        for task in tasks:
            if task.expect_every is not None:
                self.watch(task)

    def find(self, task: Task, added: datetime | None) -> None:
        """A task was found in a store, which knows when it was added, perhaps."""
        self.watch(task)
        watched = self._watched.get((str(task.store_alias), str(task.id)))
        if watched is None:
            return
        if added is not None and added < watched.since:
            watched.since = added
        elif watched.allowed == allowance(task):
            return
        self.look_again(task)

    def look_again(self, task: Task) -> None:
        """A task was changed: it may have to succeed sooner now, or not so soon."""
        key = (str(task.store_alias), str(task.id))
        if watched := self._watched.get(key):
            watched.deadline = self._engine.now_in(key[0])
            self._set_timer(watched.deadline)
        self.watch(task)

    def start(self) -> None:
        """Find out what there is to be watched."""
        self._finder.start()

    def stop(self) -> None:
        """Do not look any more."""
        self._finder.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._watched.clear()

    def _set_timer(self, moment: datetime | None = None) -> None:
        """Look at that moment, or when the first of them should have gone well, if not sooner."""
        engine = self._engine
        if not self._watched or engine.bridge.loop is None:
            return
        first = moment or min(task.deadline for task in self._watched.values())
        left = (first - engine.clock.now()).total_seconds()
        # Not all the time, whatever somebody expects; and the clock may be set meanwhile.
        wait = min(max(left, PAUSE), engine.clock.longest_wait)
        at = engine.clock.monotonic() + wait
        if self._timer is not None:
            if self._looks_at <= at:
                return
            self._timer.cancel()
        self._looks_at = at
        self._timer = engine.clock.call_later(engine.loop, wait, self._begin)

    def _begin(self) -> None:
        self._timer = None
        if not self._is_looking:
            self._is_looking = True
            self._engine.background(self._look(), "asyncz overdue tasks")

    async def _look(self) -> None:
        now_in, left = self._engine.now_in, AT_ONCE
        try:
            for key, watched in list(self._watched.items()):
                if (
                    left
                    and self._watched.get(key) is watched
                    and now_in(key[0]) >= watched.deadline
                ):
                    left -= 1
                    try:
                        await self._look_at(key, watched)
                    except Exception as exc:  # the store's state says so too
                        self._engine.logger.debug("Is %r overdue? Nobody knows: %s", key, exc)
                        watched.deadline = now_in(key[0]) + LOOK
        finally:
            self._is_looking = False
        self._set_timer()

    async def _look_at(self, key: Key, watched: Watched) -> None:
        lane = self._engine.lanes.get(key[0])
        task = None if lane is None else await lane.call(lane.store.lookup_task(key[1]))
        if lane is None or task is None or task.expect_every is None:
            self._watched.pop(key, None)
            return
        watched.allowed = allowance(task)
        last = await lane.ledger.last_success(key[1])
        if last is not None and (watched.last is None or watched.last < last):
            watched.last = last
        now = lane.now()
        end = (watched.last or watched.since) + watched.allowed
        if end > now:
            watched.deadline, watched.teller = end, None
            if watched.is_overdue:
                watched.is_overdue = False
                self._engine.logger.info("The task %r is not overdue any more.", key[1])
            return
        watched.deadline = now + LOOK
        if not watched.is_overdue:
            watched.is_overdue = True
            await self._notice(lane, task, watched)
        elif watched.teller is not None:
            await self._stand_in(lane, task, watched)

    async def _notice(self, lane: StoreLane, task: Task, watched: Watched) -> None:
        self._engine.logger.warning("The task %r is overdue. %s", task.id, _detail(task, watched))
        watched.teller = await self._eldest(lane, None)
        if watched.teller is None:
            self._tell(task, watched)

    async def _stand_in(self, lane: StoreLane, task: Task, watched: Watched) -> None:
        """See to it that somebody says so if the one who was to do it went at that very time."""
        watched.teller, teller = None, watched.teller
        watched.teller = await self._eldest(lane, teller)
        if watched.teller is None:
            self._tell(task, watched)
        elif watched.teller == teller:
            watched.teller = None  # it has had the time for it

    def _tell(self, task: Task, watched: Watched) -> None:
        engine = self._engine
        if engine.events.mask & TASK_OVERDUE:
            engine.dispatch(
                TaskEvent(
                    code=TASK_OVERDUE,
                    task_id=str(task.id),
                    store=task.store_alias,
                    scheduler_identity=engine.identity,
                    detail=_detail(task, watched),
                )
            )

    async def _eldest(self, lane: StoreLane, teller: str | None) -> str | None:
        """Of all who see it, one says so: the one who has been there for longest; None: it is this
        one. If the `teller` is there still, it is that."""
        ledger = lane.ledger
        if not isinstance(lane.store, ClusterStore) or not isinstance(ledger, OwnRuns):
            return None
        if not ledger.is_shared:
            return None
        records = await lane.call(lane.store.get_nodes())
        alive = [record for record in records if record.state is NodeState.ALIVE]
        alive.sort(key=lambda record: (record.joined_at, record.node.id))
        names = [record.node.id for record in alive]
        if teller in names:
            return teller
        return None if not names or names[0] == ledger.node.id else names[0]


LOOK = timedelta(seconds=LOOK_AGAIN)


def _detail(task: Task, watched: Watched) -> str:
    last = watched.last
    since = "yet" if last is None else f"since {last.isoformat(timespec='seconds')}"
    return f"It has not succeeded {since}; it should every {task.expect_every:g} s."
