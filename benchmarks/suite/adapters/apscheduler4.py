"""APScheduler 4 (a pre-release)."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from datetime import datetime

from suite.adapters import Adapter


class LibraryAdapter(Adapter):
    """The async scheduler with its defaults: a memory data store and the async job executor.

    It counts running jobs for each function, not for each schedule, and lets one of them run at a
    time; that limit is lifted here, because every other library runs them all. Late runs are kept
    by default.
    """

    def __init__(self) -> None:
        self.scheduler = importlib.import_module("apscheduler").AsyncScheduler()
        self.open = AsyncExitStack()

    async def start(self) -> None:
        await self.open.enter_async_context(self.scheduler)
        await self.scheduler.start_in_background()

    async def stop(self) -> None:
        await self.open.aclose()

    async def add_once(
        self, fn: Callable[[], Awaitable[None]], tasks: Iterable[tuple[str, datetime]]
    ) -> None:
        trigger = importlib.import_module("apscheduler.triggers.date").DateTrigger
        task = await self.scheduler.configure_task(fn.__name__, func=fn, max_running_jobs=None)
        add_schedule = self.scheduler.add_schedule
        for schedule_id, due in tasks:
            await add_schedule(task.id, trigger(run_time=due), id=schedule_id)

    async def add_every_second(
        self, fn: Callable[[int], Awaitable[None]], tasks: Iterable[tuple[str, datetime, int]]
    ) -> None:
        trigger = importlib.import_module("apscheduler.triggers.interval").IntervalTrigger
        task = await self.scheduler.configure_task(fn.__name__, func=fn, max_running_jobs=None)
        for schedule_id, first, number in tasks:
            await self.scheduler.add_schedule(
                task.id, trigger(seconds=1, start_time=first), id=schedule_id, args=[number]
            )
