"""APScheduler 3."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime

from suite.adapters import GRACE, Adapter


class LibraryAdapter(Adapter):
    """The asyncio scheduler with its defaults: a memory store and the asyncio executor."""

    def __init__(self) -> None:
        schedulers = importlib.import_module("apscheduler.schedulers.asyncio")
        self.scheduler = schedulers.AsyncIOScheduler(timezone=UTC)

    async def start(self) -> None:
        self.scheduler.start()

    async def stop(self) -> None:
        self.scheduler.shutdown()
        await asyncio.sleep(0)  # it shuts down in the loop's next turn

    async def add_once(
        self, fn: Callable[[], Awaitable[None]], tasks: Iterable[tuple[str, datetime]]
    ) -> None:
        add_job = self.scheduler.add_job
        for job_id, due in tasks:
            add_job(fn, "date", run_date=due, id=job_id, misfire_grace_time=GRACE)

    async def add_every_second(
        self, fn: Callable[[int], Awaitable[None]], tasks: Iterable[tuple[str, datetime, int]]
    ) -> None:
        for job_id, first, number in tasks:
            self.scheduler.add_job(
                fn,
                "interval",
                seconds=1,
                start_date=first,
                args=[number],
                id=job_id,
                misfire_grace_time=GRACE,
            )
