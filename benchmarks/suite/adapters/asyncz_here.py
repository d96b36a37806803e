"""asyncz as it is in this tree."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from suite.adapters import GRACE, Adapter


class LibraryAdapter(Adapter):
    """The native scheduler with its defaults: a memory store and the asyncio executor."""

    def __init__(self, store: Mapping[str, str] | None = None) -> None:
        super().__init__(store)
        schedulers = importlib.import_module("asyncz.schedulers")
        options = {} if store is None else {"stores": {"default": self.store_options(**store)}}
        self.scheduler = schedulers.NativeAsyncIOScheduler(timezone=UTC, **options)

    def store_options(self, kind: str, url: str) -> dict[str, Any]:
        """The options that make the store."""
        return {
            "file": {"type": "file", "directory": url},
            "sqlite": {"type": "sqlalchemy", "database": f"sqlite:///{url}"},
            "postgresql": {"type": "sqlalchemy", "database": url},
            "mariadb": {"type": "sqlalchemy", "database": url},
            "redis": {"type": "redis", "url": url},
            "mongodb": {"type": "mongodb", "client": url},
        }[kind]

    async def start(self) -> None:
        await self.scheduler.start()

    async def stop(self) -> None:
        await self.scheduler.shutdown()

    async def add_once(
        self, fn: Callable[[], Awaitable[None]], tasks: Iterable[tuple[str, datetime]]
    ) -> None:
        if self.store is not None:
            for task_id, due in tasks:
                await self.scheduler.aadd_task(
                    fn, "date", run_at=due, id=task_id, mistrigger_grace_time=GRACE
                )
            return
        add_task = self.scheduler.add_task
        for task_id, due in tasks:
            add_task(fn, "date", run_at=due, id=task_id, mistrigger_grace_time=GRACE)

    async def add_at_once(
        self, fn: Callable[[], Awaitable[None]], tasks: Iterable[tuple[str, datetime]]
    ) -> None:
        """The same in one call."""
        models = importlib.import_module("asyncz")
        await self.scheduler.aadd_tasks(
            [models.Task(fn, id=name, trigger=models.DateTrigger(due)) for name, due in tasks]
        )

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
