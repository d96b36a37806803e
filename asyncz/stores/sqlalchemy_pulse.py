"""The heartbeat of a node in a SQL database: one connection, on an event loop of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import URL, Connection, Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from asyncz.stores.cluster import Pulse
from asyncz.stores.sqlalchemy_database import OwnDatabase
from asyncz.stores.sqlalchemy_dialects import Settings
from asyncz.stores.sqlalchemy_nodes import NodeRows
from asyncz.stores.sqlalchemy_notices import ANNOUNCING, listen

__all__ = ["SQLPulse"]

POOL_OPTIONS = ("pool", "poolclass", "pool_size", "max_overflow")


class SQLPulse(Pulse):
    """Renews the lease of one node.

    Args:
        source: Where the store connects to. Of an engine, only the way it connects is used, with
            a pool of its own: its connections belong to another loop.
        settings, options: As for the store.
        nodes: The store's.
        channel: Where the store announces.
        node_id, alias: Whose lease, in which store.
    """

    def __init__(
        self,
        source: URL | AsyncEngine,
        settings: Settings,
        options: Mapping[str, Any],
        nodes: NodeRows,
        channel: str,
        node_id: str,
        alias: str,
    ) -> None:
        self._source = source
        self._settings = settings
        self._options = {
            **{name: value for name, value in options.items() if name not in POOL_OPTIONS},
            "pool_size": 2,  # one to beat with, and one that waits for announcements
        }
        self._nodes = nodes
        self._channel = channel
        self._node_id = node_id
        self._alias = alias
        self._clone: AsyncEngine | None = None
        self._database: OwnDatabase | None = None

    async def open(self) -> None:
        source = self._source
        if isinstance(source, AsyncEngine):
            source = self._clone = _clone(source)
        self._database = OwnDatabase(source, self._alias, self._settings, self._options, None)
        await self._database.run(lambda connection, _: connection.connection.is_valid)

    async def beat(self, lease: float, running: int) -> bool:
        def work(connection: Connection, _: bool) -> bool:
            return self._nodes.renew(connection, self._node_id, lease, running)

        if self._database is None:
            raise RuntimeError("this pulse is not open")
        return await self._database.run(work)

    async def listen(self, heard: Callable[[], None]) -> None:
        if self._database is None:
            raise RuntimeError("this pulse is not open")
        if self._database.family in ANNOUNCING:
            await listen(self._database.engine, self._channel, self._node_id, heard)

    async def close(self) -> None:
        database, self._database = self._database, None
        clone, self._clone = self._clone, None
        if database is not None:
            await database.close(at_once=False)
        if clone is not None:
            await clone.dispose()


def _clone(engine: AsyncEngine) -> AsyncEngine:
    """An engine that connects as another one does, and shares no connection with it."""
    sync = engine.sync_engine
    return AsyncEngine(Engine(sync.pool.recreate(), sync.dialect, sync.url, hide_parameters=True))
