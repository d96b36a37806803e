"""APScheduler 3."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from suite.adapters import GRACE, Adapter


class LibraryAdapter(Adapter):
    """The asyncio scheduler with its defaults: a memory store and the asyncio executor."""

    def __init__(self, store: Mapping[str, str] | None = None) -> None:
        super().__init__(store)
        schedulers = importlib.import_module("apscheduler.schedulers.asyncio")
        options = {} if store is None else {"jobstores": {"default": job_store(**store)}}
        self.scheduler = schedulers.AsyncIOScheduler(timezone=UTC, **options)

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


def job_store(kind: str, url: str) -> Any:
    """The library's store of that kind."""
    if kind == "redis":
        stores = importlib.import_module("apscheduler.jobstores.redis")
        address = urlsplit(url)
        return stores.RedisJobStore(host=address.hostname, port=address.port)
    if kind == "mongodb":
        stores = importlib.import_module("apscheduler.jobstores.mongodb")
        return stores.MongoDBJobStore(client=importlib.import_module("pymongo").MongoClient(url))
    stores = importlib.import_module("apscheduler.jobstores.sqlalchemy")
    urls = {"sqlite": f"sqlite:///{url}", "mariadb": url.replace("mysql:", "mysql+pymysql:")}
    database = urls.get(kind, url.replace("postgresql:", "postgresql+psycopg2:"))
    return stores.SQLAlchemyJobStore(url=database)
