"""The heartbeat of a node on a Redis server: a client of its own, on an event loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from inspect import signature
from typing import Any

from redis.asyncio import ConnectionPool, Redis, RedisCluster, SSLConnection
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff

from asyncz.exceptions import StoreTimeoutError
from asyncz.stores.cluster import Pulse
from asyncz.stores.redis_calls import RedisCalls
from asyncz.stores.redis_keys import RedisKeys
from asyncz.stores.redis_runs import renew

__all__ = ["RedisPulse", "twin_of"]

CHECK_EVERY = 10.0
"""Seconds of silence after which a server that is listened to is asked whether it is there."""
BOUND = ("connection_pool", "himport_registry", "maint_notifications", "oss_cluster", "orig_")
"""What names begin with of options that belong to the client that they were found in."""


class RedisPulse(Pulse):
    """Renews the lease of one node.

    Args:
        node_id: The node's.
        make_client: A new client, on the loop that is running.
        keys: Of the store.
        alias: Of the store, for errors.
        timeout: Seconds for one try.
    """

    def __init__(
        self,
        node_id: str,
        make_client: Callable[[], Any],
        keys: RedisKeys,
        alias: str,
        timeout: float,
    ) -> None:
        self._node_id = node_id
        self._make_client = make_client
        self._keys = keys
        self._alias = alias
        self._timeout = timeout
        self._calls: RedisCalls | None = None

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._calls = RedisCalls(
            self._make_client(), loop, self._keys, self._alias, self._timeout, self._timeout
        )

    async def beat(self, lease: float, running: int) -> bool:
        if self._calls is None:
            raise RuntimeError(f"The heartbeat of the store {self._alias!r} is not open.")
        return await renew(self._calls, b"", self._node_id, lease, running)

    async def listen(self, heard: Callable[[], None]) -> None:
        if self._calls is None:
            raise RuntimeError(f"The heartbeat of the store {self._alias!r} is not open.")
        client = self._calls.client
        if not hasattr(client, "pubsub"):
            return  # that of a cluster, of an older release
        if isinstance(client, RedisCluster):
            await client.initialize()
        own = (self._node_id, self._node_id.encode())  # the client may make text of what it gets
        subscription = client.pubsub()
        try:
            async with asyncio.timeout(self._timeout):
                await subscription.subscribe(self._keys.channel)
            heard()
            silent = False
            while True:
                patience = self._timeout if silent else CHECK_EVERY
                message = await subscription.get_message(timeout=patience)
                if message is None:
                    if silent:
                        raise StoreTimeoutError("The server does not answer who listens.")
                    await subscription.ping()
                elif message["type"] == "message" and message["data"] not in own:
                    heard()
                silent = message is None
        finally:
            await subscription.aclose()

    async def close(self) -> None:
        calls, self._calls = self._calls, None
        if calls is not None:
            await calls.client.aclose()


def twin_of(client: Any) -> Any:
    """Another client of the same server, with the same options, which shares no connection."""
    if isinstance(client, RedisCluster):
        return _twin_of_cluster(client)
    pool = client.connection_pool
    if isinstance(pool, SentinelConnectionPool):
        return _twin_of_sentinel(pool)
    options = _unbound(pool.connection_kwargs)
    twin = Redis(connection_pool=ConnectionPool(pool.connection_class, **options))
    twin.auto_close_connection_pool = True  # `from_pool` is not in every release
    return twin


def _twin_of_cluster(client: Any) -> Any:
    known = signature(RedisCluster.__init__).parameters
    kept = {name: value for name, value in client.connection_kwargs.items() if name in known}
    is_secure = issubclass(client.connection_kwargs["connection_class"], SSLConnection)
    options = _unbound(kept) | {"ssl": is_secure}
    manager = client.nodes_manager
    nodes = [ClusterNode(node.host, node.port) for node in manager.startup_nodes.values()]
    return RedisCluster(
        startup_nodes=nodes,
        require_full_coverage=manager.require_full_coverage,
        address_remap=manager.address_remap,
        **options,
    )


def _twin_of_sentinel(pool: Any) -> Any:
    manager = pool.sentinel_manager
    places = [sentinel.connection_pool.connection_kwargs for sentinel in manager.sentinels]
    found = Sentinel(  # type: ignore[no-untyped-call]
        [(place["host"], place["port"]) for place in places],
        manager.min_other_sentinels,
        manager.sentinel_kwargs,
        **manager.connection_kwargs,
    )
    return found.master_for(pool.service_name, **_unbound(pool.connection_kwargs))


def _unbound(options: dict[str, Any]) -> dict[str, Any]:
    """Options without what belongs to their client; nothing is repeated: `RedisCalls` does that."""
    kept = {name: value for name, value in options.items() if not name.startswith(BOUND)}
    return kept | {"retry": Retry(NoBackoff(), 0)}
