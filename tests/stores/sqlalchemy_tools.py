"""What the tests of `SQLAlchemyStore` share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from asyncz.stores.sqlalchemy import SQLAlchemyStore
from asyncz.stores.sqlalchemy_dialects import async_url
from asyncz.testing.store_suite_tools import SuiteHost

__all__ = ["engine_for", "opened"]


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
