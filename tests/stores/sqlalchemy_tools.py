"""What the tests of `SQLAlchemyStore` share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from asyncz.stores.sqlalchemy import SQLAlchemyStore
from asyncz.stores.sqlalchemy_dialects import async_url
from asyncz.testing.store_suite_tools import SuiteHost

__all__ = ["engine_for", "opened", "take_back_to_version_1"]


@asynccontextmanager
async def opened(
    database: str | URL | AsyncEngine, **options: Any
) -> AsyncIterator[SQLAlchemyStore]:
    """A store that is open."""
    store = SQLAlchemyStore(database, **options)
    await store.start(SuiteHost(), "tasks")
    try:
        yield store
    finally:
        await store.shutdown()


@asynccontextmanager
async def engine_for(url: URL) -> AsyncIterator[AsyncEngine]:
    """An engine as an app has one."""
    engine = create_async_engine(async_url(url))
    yield engine
    await engine.dispose()


async def take_back_to_version_1(url: URL) -> None:
    """Make the tables in a database what the first release with tables had."""
    new = ("state", "number", "identity", "host", "pid", "joined_us", "lease_until_us", "running")
    async with engine_for(url) as engine, engine.begin() as connection:
        await connection.execute(text("DROP TABLE asyncz_tasks_runs"))
        for name in new:
            await connection.execute(text(f"ALTER TABLE asyncz_tasks_nodes DROP COLUMN {name}"))
        await connection.execute(text("UPDATE asyncz_tasks_meta SET value = 1"))
