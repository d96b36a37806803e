"""The heartbeat of a node on MongoDB: a client of its own, on an event loop of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pymongo

from asyncz.clock import SystemClock
from asyncz.stores.cluster import Pulse
from asyncz.stores.mongo_client import Link, driver_errors, like, options_for
from asyncz.stores.mongo_nodes import MongoNodes, StoreClock
from asyncz.stores.mongo_notices import MongoNotices
from asyncz.stores.mongo_rows import Collections

__all__ = ["MongoPulse"]

CONNECTIONS = 2
"""One to beat with, and one that waits for announcements."""


class MongoPulse(Pulse):
    """Renews a lease.

    Args:
        client: The user's, which says how to make another; None: the URI does.
        uri: Likewise.
        database, collection: Where the tasks are.
        node_id: Whose lease.
        alias: The store's, for errors.
    """

    def __init__(
        self, client: Any, uri: str, database: str, collection: str, node_id: str, alias: str
    ) -> None:
        self._given = {**options_for(uri), "host": uri} if client is None else like(client)
        self._place = database, collection
        self._node_id = node_id
        self._alias = alias
        self._link: Link | None = None
        self._nodes: MongoNodes | None = None
        self._notices: MongoNotices | None = None

    async def open(self) -> None:
        with driver_errors(self._alias):
            client = pymongo.AsyncMongoClient(**{**self._given, "maxPoolSize": CONNECTIONS})
        self._link = Link(client, True, None, self._alias)
        found = Collections.through(self._link, *self._place)
        self._nodes = MongoNodes(found.nodes, StoreClock(SystemClock()))
        self._notices = MongoNotices(found.notices)

    async def beat(self, lease: float, running: int) -> bool:
        link, nodes = self._link, self._nodes
        if link is None or nodes is None:
            raise RuntimeError("the pulse is not open")
        return await link.call(lambda: nodes.renew(self._node_id, lease, running))

    async def listen(self, heard: Callable[[], None]) -> None:
        if self._notices is None:
            raise RuntimeError("the pulse is not open")
        await self._notices.listen(self._node_id, heard)

    async def close(self) -> None:
        link, self._link = self._link, None
        self._nodes = self._notices = None
        if link is not None:
            await link.close()
