"""Announcements in PostgreSQL: NOTIFY and LISTEN. The other databases have nothing like it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from asyncz.exceptions import StoreError
from asyncz.stores.sqlalchemy_schema import Tables

__all__ = ["ANNOUNCING", "announce", "channel_of", "listen"]

ANNOUNCING = ("postgresql",)
"""Families of databases that have it."""
CHECK_EVERY = 10.0
"""Seconds of silence after which the connection is tried."""
PATIENCE = 5.0
NOTIFY = text("SELECT pg_notify(:channel, :node)")
PROBE = "SELECT 1"


def channel_of(tables: Tables) -> str:
    """The name of the channel that belongs to these tables."""
    return "asyncz_" + sha256(tables.tasks.fullname.encode()).hexdigest()[:32]


def announce(connection: Connection, channel: str, node_id: str) -> None:
    """Tell who listens."""
    connection.execute(NOTIFY, {"channel": channel, "node": node_id})


async def listen(
    engine: AsyncEngine, channel: str, node_id: str, heard: Callable[[], None]
) -> None:
    """Call `heard` at once, and for each announcement of another node, until it is cancelled.

    Raises:
        StoreError: The connection was lost. Or what the driver raises.
    """
    ways = {"asyncpg": _listen_by_asyncpg, "psycopg": _listen_by_psycopg}

    def told(said_by: str) -> None:
        if said_by != node_id:
            heard()

    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        driver: Any = (await connection.get_raw_connection()).driver_connection
        try:
            await ways[engine.dialect.driver](driver, channel, told, heard)
        finally:
            # Nobody else may get one that listens.
            await asyncio.shield(connection.invalidate())


async def _listen_by_asyncpg(
    driver: Any, channel: str, told: Callable[[str], None], heard: Callable[[], None]
) -> None:
    lost = asyncio.Event()
    driver.add_termination_listener(lambda _: lost.set())
    await driver.add_listener(channel, lambda _, __, ___, said_by: told(said_by))
    heard()
    while not lost.is_set():
        try:
            await asyncio.wait_for(lost.wait(), CHECK_EVERY)
        except TimeoutError:
            await driver.execute(PROBE, timeout=PATIENCE)
    raise StoreError("The connection that listened was lost.")


async def _listen_by_psycopg(
    driver: Any, channel: str, told: Callable[[str], None], heard: Callable[[], None]
) -> None:
    await driver.execute(f'LISTEN "{channel}"')
    heard()
    while True:
        async for notice in driver.notifies(timeout=CHECK_EVERY):
            told(notice.payload)
        async with asyncio.timeout(PATIENCE):
            await driver.execute(PROBE)
