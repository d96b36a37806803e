"""From a claim to the first instruction of the user's: a run is started when it surely is ours."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from asyncz.enums import Delivery
from asyncz.executors.base import BaseExecutor
from asyncz.schedulers.submission import send, submit
from asyncz.tasks.base import Task

if TYPE_CHECKING:
    from asyncz.schedulers.engine import Engine
    from asyncz.schedulers.membership import Membership

__all__ = ["Start", "Starter"]


class Start(NamedTuple):
    """A run that was claimed, and has not begun.

    Args:
        executor, task: Where, what.
        run_times: Those it stands for, oldest first.
        coalesced: How many earlier ones are folded into it.
        by_hand: Whether somebody has asked for it.
    """

    executor: BaseExecutor
    task: Task
    run_times: Sequence[datetime]
    coalesced: int = 0
    by_hand: bool = False

    @property
    def key(self) -> tuple[str, datetime]:
        """Names the run in this process."""
        return str(self.task.id), self.run_times[0]


class Starter:
    """Starts what one node has claimed: at once, or as soon as it may.

    A run waits while the lease cannot be relied on, while the store has not said that a run of an
    `at_most_once` task may begin, and while a run of before, which this process was taken for dead
    over, still goes on. It waits here, and not for an audit: the store may have noted it as begun,
    and an audit could only call it lost.
    """

    def __init__(self, engine: Engine, member: Membership) -> None:
        self._engine = engine
        self._member = member
        self._waiting: dict[tuple[str, datetime], Start] = {}

    async def start(self, starts: Sequence[Start]) -> None:
        """Start runs, now or later. Whatever is raised, they are not forgotten."""
        for start in starts:
            if not self._started_at_once(start):
                self._waiting[start.key] = start
        await self.try_again()

    def _started_at_once(self, start: Start) -> bool:
        """Start what was claimed a moment ago and waits for nothing, which most runs do not."""
        may = (
            start.task.delivery is Delivery.AT_LEAST_ONCE
            and self._engine.is_claiming
            and self._member.is_trusted
            and self._has_room(start)
        )
        if may:
            self._hand_over(start)
        return may

    async def try_again(self) -> None:
        """Start what waits, as far as it may be started now."""
        if not self._waiting or not self._engine.is_claiming or not self._member.is_trusted:
            return
        self._forget_what_others_have()
        self._end_what_is_cancelled()
        ready = [start for start in self._waiting.values() if self._has_room(start)]
        asked = []
        for start in ready:
            if self._member.delivery_of(start.key) is Delivery.AT_MOST_ONCE:
                asked.append(start)
            else:
                self._begin(start)
        if asked:
            await self._ask_and_begin(asked)

    async def _ask_and_begin(self, starts: Sequence[Start]) -> None:
        began = await self._member.mark_started([start.key for start in starts])
        # The answer may have taken long. If it came too late, it is asked for again.
        if self._engine.is_claiming and self._member.is_trusted:
            for start in starts:
                if start.key in began:
                    self._begin(start)
        self._forget_what_others_have()

    def _forget_what_others_have(self) -> None:
        for key in list(self._waiting):
            if not self._member.owns(*key):
                del self._waiting[key]
                self._member.disown(key)

    def _end_what_is_cancelled(self) -> None:
        for key, start in list(self._waiting.items()):
            if self._member.is_to_be_cancelled(*key):
                del self._waiting[key]
                self._member.end_unbegun(key, start.run_times)

    def _has_room(self, start: Start) -> bool:
        task, instances = start.task, self._engine.instances
        key = (task.store_alias, str(task.id))
        if instances.get(key, 0) >= task.max_instances:
            start.executor.sweep()
        return instances.get(key, 0) < task.max_instances

    def _begin(self, start: Start) -> None:
        self._end_what_is_cancelled()  # perhaps while the store was asked
        if start.key not in self._waiting or not self._has_room(start):
            return
        del self._waiting[start.key]
        self._hand_over(start)

    def _hand_over(self, start: Start) -> None:
        executor, task, run_times, coalesced, by_hand = start
        (send if by_hand else submit)(self._engine, executor, task, run_times, coalesced)
