"""asyncz as it is in this tree."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime

from suite.adapters import GRACE, Adapter


class LibraryAdapter(Adapter):
    """The native scheduler with its defaults: a memory store and the asyncio executor."""

    def __init__(self) -> None:
        schedulers = importlib.import_module("asyncz.schedulers")
        self.scheduler = schedulers.NativeAsyncIOScheduler(timezone=UTC)

    async def start(self) -> None:
        await self.scheduler.start()

    async def stop(self) -> None:
        await self.scheduler.shutdown()

    async def add_once(
        self, fn: Callable[[], Awaitable[None]], tasks: Iterable[tuple[str, datetime]]
    ) -> None:
        add_task = self.scheduler.add_task
        for task_id, due in tasks:
            add_task(fn, "date", run_at=due, id=task_id, mistrigger_grace_time=GRACE)

    async def add_every_second(
        self, fn: Callable[[int], Awaitable[None]], tasks: Iterable[tuple[str, datetime, int]]
    ) -> None:
        for task_id, first, number in tasks:
            self.scheduler.add_task(
                fn,
                "interval",
                seconds=1,
                start_at=first,
                args=[number],
                id=task_id,
                mistrigger_grace_time=GRACE,
            )
