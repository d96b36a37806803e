"""APScheduler 4 (a pre-release)."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any

from suite.adapters import Adapter


class LibraryAdapter(Adapter):
    """The async scheduler with its defaults: a memory data store and the async job executor.

    It counts running jobs for each function, not for each schedule, and lets one of them run at a
    time; that limit is lifted here, because every other library runs them all. Late runs are kept
    by default.
    """

    def __init__(self, store: Mapping[str, str] | None = None) -> None:
        super().__init__(store)
        options = {} if store is None else {"data_store": data_store(**store)}
        self.scheduler = importlib.import_module("apscheduler").AsyncScheduler(**options)
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


def data_store(kind: str, url: str) -> Any:
    """The library's store of that kind."""
    if kind == "mongodb":
        stores = importlib.import_module("apscheduler.datastores.mongodb")
        return stores.MongoDBDataStore(url)
    engines = importlib.import_module("sqlalchemy.ext.asyncio")
    stores = importlib.import_module("apscheduler.datastores.sqlalchemy")
    urls = {
        "sqlite": f"sqlite+aiosqlite:///{url}",
        "mariadb": url.replace("mysql:", "mysql+asyncmy:"),
    }
    database = urls.get(kind, url.replace("postgresql:", "postgresql+asyncpg:"))
    return stores.SQLAlchemyDataStore(engines.create_async_engine(database))
