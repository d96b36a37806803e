"""The heartbeat of a node on Redis: in a thread and with a connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import Redis as BlockingRedis
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis, RedisCluster
from redis.asyncio.sentinel import Sentinel

from asyncz.exceptions import StoreError
from asyncz.stores.cluster import Node, Pulse
from asyncz.stores.redis import RedisStore
from asyncz.stores.redis_pulse import twin_of
from asyncz.testing.clock import VirtualClock
from asyncz.testing.store_suite_tools import SuiteHost, raises
from tests.services.redis import RedisClusterServers, RedisServer, new_keys

from .redis_tools import opened

Options = dict[str, Any]
LEASE = 30.0


@pytest.fixture
def options() -> Iterator[Options]:
    with new_keys() as made:
        yield made


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisClusterServers]:
    servers = RedisClusterServers().start()
    yield servers
    servers.close()


async def beat_in_a_thread(store: RedisStore, node: str, running: int = 0) -> bool:
    """One beat on an event loop of another thread, while nobody else gets a turn on this one."""
    pulse = store.pulse(node)
    assert pulse is not None
    return await asyncio.to_thread(lambda: asyncio.run(beat(pulse, running)))


async def beat(pulse: Pulse, running: int) -> bool:
    try:
        await pulse.open()
        assert await pulse.beat(LEASE, running) in (True, False)
        return await pulse.beat(LEASE, running)
    finally:
        await pulse.close()


async def check(store: RedisStore) -> None:
    await store.join_node(Node("one", "worker", "here", 1), 0.001)
    (before,) = await store.get_nodes()
    assert await beat_in_a_thread(store, "one", running=7) is True
    assert await beat_in_a_thread(store, "nobody") is False
    (node,) = await store.get_nodes()
    assert node.seen_at > before.seen_at
    assert (node.lease_until - node.seen_at).total_seconds() == LEASE
    assert (node.state, node.running, node.node.identity) == ("alive", 7, "worker")


async def test_a_lease_is_renewed_from_another_thread(options: Options) -> None:
    async with opened(**options) as store:
        await check(store)


async def test_a_beat_does_not_need_the_loop_of_the_store(options: Options) -> None:
    async with opened(**options) as store:
        await store.join_node(Node("one", "worker", "here", 1), LEASE)
        pulse = store.pulse("one")
        assert pulse is not None
        beating = asyncio.get_running_loop().run_in_executor(
            None, lambda: asyncio.run(beat(pulse, 5))
        )
        blocked: Any = BlockingRedis.from_url(options["url"])
        name = f"{options['tasks_key']}:nodes"
        while b"00000005" not in blocked.hget(name, "one")[68:76]:
            pass  # this loop is blocked on purpose
        blocked.close()
        assert await beating is True


MAKERS: dict[str, Callable[[str], Redis]] = {
    "url": lambda url: Redis.from_url(url, decode_responses=True),
    "pool": lambda url: Redis(connection_pool=ConnectionPool.from_url(url, max_connections=3)),
    "blocking pool": lambda url: Redis(connection_pool=BlockingConnectionPool.from_url(url)),
    "resp3": lambda url: Redis.from_url(url, protocol=3),
    "single connection": lambda url: Redis.from_url(url, single_connection_client=True),
}


@pytest.mark.parametrize("kind", MAKERS)
async def test_a_lease_is_renewed_with_a_client_of_the_users_own(
    options: Options, kind: str
) -> None:
    client = MAKERS[kind](options.pop("url"))
    async with opened(client=client, **options) as store:
        await check(store)
        assert await client.ping()
    await client.aclose(close_connection_pool=True)


async def test_a_twin_has_the_password_the_database_and_the_name_of_its_client() -> None:
    server = RedisServer(requirepass="canary").start()
    try:
        client = Redis.from_url(server.url, db=3, client_name="mine", username="default")
        twin = twin_of(client)
        assert await twin.client_getname() == "mine"
        await client.set("where", "here")
        assert await twin.get("where") == b"here"
        await client.aclose()
        assert await twin.get("where") == b"here"
        await twin.aclose()
    finally:
        server.close()


async def test_a_lease_is_renewed_on_a_cluster(cluster: RedisClusterServers) -> None:
    keys = {"tasks_key": "{beat}.tasks", "run_times_key": "{beat}.run_times"}
    async with opened(url=cluster.url, cluster=True, **keys) as store:
        await check(store)
    client: Any = RedisCluster.from_url(cluster.url, decode_responses=True)
    keys = {"tasks_key": "{other}.tasks", "run_times_key": "{other}.run_times"}
    async with opened(client=client, **keys) as store:
        await check(store)
    assert await client.ping()
    await client.aclose()


def test_a_twin_asks_the_sentinels_of_its_client() -> None:
    asked = Sentinel([("one", 1), ("two", 2)], password="secret", db=4)  # type: ignore[no-untyped-call]  # noqa: S106
    pool = twin_of(asked.master_for("service")).connection_pool
    manager = pool.sentinel_manager
    assert manager is not asked
    places = [sentinel.connection_pool.connection_kwargs for sentinel in manager.sentinels]
    assert [(place["host"], place["port"]) for place in places] == [("one", 1), ("two", 2)]
    assert (pool.service_name, pool.connection_kwargs["db"]) == ("service", 4)
    assert pool.connection_kwargs["password"] == "secret"  # noqa: S105


async def test_there_is_no_heartbeat_on_a_clock_that_is_moved_by_hand(options: Options) -> None:
    store = RedisStore(**options)
    await store.start(SuiteHost(clock=VirtualClock()), "tasks")
    assert store.pulse("one") is None
    await store.shutdown()


async def test_a_pulse_may_be_closed_at_any_time_and_opened_again(options: Options) -> None:
    async with opened(**options) as store:
        await store.join_node(Node("one", "worker", "here", 1), LEASE)
        pulse = store.pulse("one")
        assert pulse is not None
        await pulse.close()
        with pytest.raises(RuntimeError, match="'tasks' is not open"):
            await pulse.beat(LEASE, 0)
        for _ in range(2):
            await pulse.open()
            assert await pulse.beat(LEASE, 0) is True
            await pulse.close()


async def test_a_server_that_is_gone_is_an_error_of_the_beat() -> None:
    server = RedisServer().start()
    try:
        async with opened(url=server.url, timeout=0.5) as store:
            pulse = store.pulse("one")
            assert pulse is not None
            server.kill()
            await pulse.open()
            with raises(StoreError, "'tasks'"):
                await pulse.beat(LEASE, 0)
            await pulse.close()
    finally:
        server.close()
