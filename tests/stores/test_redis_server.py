"""What a Redis store says of its server at the start, and what it does on a cluster."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.crc import key_slot

from asyncz.exceptions import ConfigurationError, StoreError
from asyncz.stores.base import TaskAdvance
from asyncz.stores.redis import RedisStore
from asyncz.tasks.query import TaskQuery
from asyncz.testing.store_suite_tools import NOON, SuiteHost, after, ids_of, make_task, raises
from tests.services.redis import RedisClusterServers, RedisServer, valkey_program

from .redis_tools import opened

LOGGER = "asyncz.stores"


@contextmanager
def server_with(program: str | None = None, **options: str) -> Iterator[RedisServer]:
    started = RedisServer(program, **options).start()
    try:
        yield started
    finally:
        started.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisClusterServers]:
    servers = RedisClusterServers().start()
    yield servers
    servers.close()


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


async def test_a_durable_server_is_no_cause_for_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with server_with() as server:
        async with opened(url=server.url, require_durable=True) as store:
            await store.add_task(make_task("a"))
    assert warnings_in(caplog) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"appendonly": "no"}, ("appendonly no", "lost", "appendonly yes")),
        ({"maxmemory_policy": "allkeys-lru"}, ("maxmemory-policy allkeys-lru", "noeviction")),
        ({"appendfsync": "no"}, ("appendfsync no", "everysec")),
    ],
)
async def test_what_a_server_may_lose_is_said_or_refused(
    options: dict[str, str], words: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    with server_with(**options) as server:
        async with opened(url=server.url):
            (text,) = warnings_in(caplog)
        assert [word for word in ("'tasks'", *words) if word not in text] == []
        with raises(StoreError, "'tasks'", "require_durable", *words):
            async with opened(url=server.url, require_durable=True):
                pass


RIGHTS = "+@read +@write +@scripting +@connection +time"


async def test_a_server_that_forbids_config_and_info_is_used(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)
    with server_with() as server:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "app", "on", ">secret", "~*", *RIGHTS.split())
        url = server.url.replace("//", "//app:secret@")
        async with opened(url=url) as store:
            await store.add_task(make_task("a"))
            assert ids_of(await store.get_due_tasks(NOON)) == ["a"]
        assert warnings_in(caplog) == []
        assert "INFO is not allowed" in caplog.text
        with raises(StoreError, "require_durable", "INFO is not allowed"):
            async with opened(url=url, require_durable=True):
                pass


async def test_a_server_that_forbids_config_only_is_judged_by_what_it_says(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)
    with server_with() as server:
        with server.client() as client:
            rights = [*RIGHTS.split(), "+info"]
            client.execute_command("ACL", "SETUSER", "app", "on", ">secret", "~*", *rights)
        url = server.url.replace("//", "//app:secret@")
        async with opened(url=url, require_durable=True) as store:
            await store.add_task(make_task("a"))
    assert warnings_in(caplog) == []
    assert "cannot ask for appendfsync" in caplog.text


@pytest.mark.parametrize(
    ("rights", "words"), [("+@all -evalsha -eval", "evalsha"), ("+@all -hset", "rights")]
)
async def test_a_right_that_is_missing_is_an_error_at_once(rights: str, words: str) -> None:
    with server_with() as server:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "app", "on", ">secret", "~*", *rights.split())
        with raises(StoreError, "'tasks'", words):
            async with opened(url=server.url.replace("//", "//app:secret@")):
                pass


@pytest.mark.parametrize("url", ["redis://127.0.0.1:{port}", "redis://:wrong@127.0.0.1:{port}"])
async def test_a_wrong_password_is_an_error_at_once_that_does_not_show_it(url: str) -> None:
    with server_with(requirepass="canary") as server:
        with pytest.raises(StoreError) as caught:
            async with opened(url=url.format(port=server.port)):
                pass
        assert "wrong@" not in str(caught.value)
        assert "canary" not in str(caught.value)
        async with opened(url=server.url) as store:
            await store.add_task(make_task("a"))


def test_all_keys_of_a_store_are_in_one_slot() -> None:
    for options in ({}, {"tasks_key": "x{app}y", "run_times_key": "{app}"}):
        keys = RedisStore(**options).keys
        names = [*keys, keys.call("1-2"), keys.batch("3")]
        assert len(set(names)) == len(names)
        assert len({key_slot(name) for name in names}) == 1


async def use(store: RedisStore) -> None:
    await store.add_tasks([make_task(f"t{number}", name="x") for number in range(600)])
    await store.update_task(make_task("t1", after(5)))
    await store.delete_task("t2")
    step = TaskAdvance(make_task("t0"), NOON, None)
    assert await store.advance_tasks([step, step]) == [True, False]
    assert len(await store.get_due_tasks(NOON)) == 597
    found = await store.find_tasks(TaskQuery(sort_by="name", descending=True, limit=2))
    assert ([info.id for info in found.infos], found.total) == (["t99", "t98"], 598)
    await store.remove_all_tasks()
    assert await store.get_all_tasks() == []


async def test_a_store_works_on_valkey(caplog: pytest.LogCaptureFixture) -> None:
    with server_with(valkey_program()) as server:
        url = server.url.replace("redis:", "valkey:")
        async with opened(url=url, require_durable=True) as store:
            await use(store)
    assert warnings_in(caplog) == []


@pytest.mark.parametrize("tag", ["one", "two", "three", "four"])
async def test_a_store_works_on_a_cluster(cluster: RedisClusterServers, tag: str) -> None:
    keys = {"tasks_key": f"{{{tag}}}.tasks", "run_times_key": f"{{{tag}}}.run_times"}
    async with opened(url=cluster.url, cluster=True, **keys) as store:
        await use(store)


async def test_a_client_of_a_cluster_will_do(cluster: RedisClusterServers) -> None:
    client: Any = RedisCluster.from_url(cluster.url, decode_responses=True)
    async with opened(client=client, tasks_key="{c}.tasks", run_times_key="{c}.times") as store:
        await use(store)
    assert await client.ping()
    await client.aclose()


async def test_keys_on_different_nodes_are_refused_on_a_cluster(
    cluster: RedisClusterServers,
) -> None:
    with raises(ConfigurationError, "tasks_key", "run_times_key", "{tasks}.tasks"):
        await RedisStore(
            url=cluster.url, cluster=True, tasks_key="tasks", run_times_key="times"
        ).start(SuiteHost(), "tasks")


async def test_keys_without_a_tag_will_do_on_one_server() -> None:
    with server_with() as server:
        async with opened(url=server.url, tasks_key="tasks", run_times_key="times") as store:
            await use(store)


async def test_an_ordinary_client_of_a_cluster_is_told_what_to_give(
    cluster: RedisClusterServers,
) -> None:
    texts = []
    for tag in ("one", "two", "three", "four"):
        keys = {"tasks_key": f"{{{tag}}}.tasks", "run_times_key": f"{{{tag}}}.run_times"}
        async with Redis.from_url(cluster.url) as client:
            try:
                async with opened(client=client, **keys):
                    pass
            except StoreError as exc:
                texts.append(str(exc))
    assert texts
    assert all("cluster=True" in text for text in texts)


async def test_slots_may_move_while_a_store_is_used(cluster: RedisClusterServers) -> None:
    slot = key_slot(b"{moving}")
    keys = {"tasks_key": "{moving}.tasks", "run_times_key": "{moving}.run_times"}
    async with opened(url=cluster.url, cluster=True, **keys) as store:
        await store.add_task(make_task("a"))
        cluster.move_slot(slot)
        await store.add_task(make_task("b"))
        assert ids_of(await store.get_due_tasks(NOON)) == ["a", "b"]
