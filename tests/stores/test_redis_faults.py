"""A Redis store whose server misbehaves: private servers that are killed, frozen, cut off, full."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from asyncz.exceptions import ConflictIdError, StoreError, StoreTimeoutError, TaskLookupError
from asyncz.stores.base import TaskAdvance
from asyncz.stores.redis import RedisStore
from asyncz.stores.redis_scripts import scripts
from asyncz.testing.store_suite_tools import NOON, SuiteHost, after, ids_of, make_task, raises
from tests.services.cutting_proxy import CuttingProxy, cutting_proxy
from tests.services.redis import RedisServer

from .redis_tools import opened


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A durable server of the test's own."""
    started = RedisServer().start()
    yield started
    started.close()


@pytest_asyncio.fixture
async def proxy(server: RedisServer) -> AsyncIterator[CuttingProxy]:
    """One before it, which knows all scripts: no reply that is lost says that it does not."""
    with server.client() as client:
        for script in scripts.values():
            assert client.script_load(script.text) in (script.sha, script.sha.encode())
    async with cutting_proxy(("127.0.0.1", server.port)) as made:
        yield made


def lose(proxy: CuttingProxy, script: str, times: int = 1) -> None:
    """Lose the reply to a script."""
    proxy.lose_reply_to(scripts[script].sha.encode(), times)


async def test_a_restarted_server_has_everything_and_is_used_again(server: RedisServer) -> None:
    async with opened(url=server.url) as store:
        await store.add_tasks([make_task(f"t{number}") for number in range(600)])
        await store.advance_tasks([TaskAdvance(make_task("t0"), NOON, after(60))])
        server.kill()
        with raises(StoreError, "'tasks'", "Redis"):
            await store.get_due_tasks(NOON)
        with raises(StoreError, "'tasks'"):
            await store.add_task(make_task("a"))
        server.start()
        assert len(await store.get_due_tasks(NOON)) == 599
        assert await store.get_next_run_time(after=NOON) == after(60)
        await store.add_task(make_task("a"))


async def test_a_server_that_is_not_there_is_an_error_at_the_start(server: RedisServer) -> None:
    server.kill()
    store = RedisStore(url=server.url)
    with raises(StoreError, "'tasks'", str(server.port)):
        await store.start(SuiteHost(), "tasks")
    server.start()
    await store.start(SuiteHost(), "tasks")
    await store.add_task(make_task("a"))
    await store.shutdown()


@pytest.mark.parametrize("times", [1, 3])
async def test_an_addition_whose_reply_is_lost_is_made_once(
    proxy: CuttingProxy, times: int
) -> None:
    async with opened(url=f"redis://{proxy.address}") as store:
        lose(proxy, "insert", times)
        await store.add_task(make_task("a"))
        assert proxy.lost == times
        with raises(ConflictIdError):
            await store.add_task(make_task("a"))


async def test_a_task_that_has_run_is_not_added_again_by_a_repetition(
    proxy: CuttingProxy, server: RedisServer
) -> None:
    async with opened(url=server.url) as other, opened(url=f"redis://{proxy.address}") as store:
        lose(proxy, "insert")
        adding = asyncio.create_task(store.add_task(make_task("a")))
        step = TaskAdvance(make_task("a"), NOON, None)
        while await other.advance_tasks([step]) != [True]:
            await asyncio.sleep(0)
        await adding
        assert await store.get_all_tasks() == []


async def test_a_step_whose_reply_is_lost_is_known_to_be_made(proxy: CuttingProxy) -> None:
    async with opened(url=f"redis://{proxy.address}") as store:
        await store.add_tasks([make_task("a"), make_task("b")])
        lose(proxy, "advance")
        steps = [
            TaskAdvance(make_task("a"), NOON, None),
            TaskAdvance(make_task("b"), after(5), after(9)),
            TaskAdvance(make_task("b"), NOON, after(60)),
        ]
        assert await store.advance_tasks(steps) == [True, False, True]
        assert proxy.lost == 1
        assert ids_of(await store.get_all_tasks()) == ["b"]


async def test_a_deletion_and_an_update_whose_replies_are_lost_are_made_once(
    proxy: CuttingProxy,
) -> None:
    async with opened(url=f"redis://{proxy.address}") as store:
        await store.add_tasks([make_task("a"), make_task("b")])
        lose(proxy, "remove")
        await store.delete_task("a")
        lose(proxy, "replace")
        await store.update_task(make_task("b", after(3)))
        assert proxy.lost == 2
        with raises(TaskLookupError):
            await store.delete_task("a")
        assert await store.get_next_run_time() == after(3)


@pytest.mark.parametrize("script", ["claim", "commit", "publish", "parts"])
async def test_a_large_addition_survives_lost_replies(proxy: CuttingProxy, script: str) -> None:
    async with opened(url=f"redis://{proxy.address}") as store:
        lose(proxy, script, 2)
        await store.add_tasks([make_task(f"t{number}") for number in range(600)])
        assert proxy.lost == 2
        assert len(await store.get_due_tasks(NOON)) == 600


async def test_a_read_whose_connection_is_cut_is_made_again(proxy: CuttingProxy) -> None:
    async with opened(url=f"redis://{proxy.address}") as store:
        await store.add_task(make_task("a"))
        lose(proxy, "page")
        assert ids_of(await store.get_due_tasks(NOON)) == ["a"]
        await proxy.hang_up()
        assert ids_of(await store.get_due_tasks(NOON)) == ["a"]


async def test_a_change_that_stays_unanswered_says_that_it_may_have_been_made(
    server: RedisServer,
) -> None:
    async with opened(url=server.url, timeout=0.2, retry_timeout=0.5) as store:
        await store.add_task(make_task("a"))
        server.freeze()
        with raises(StoreTimeoutError, "'tasks'", "whether the change was made is not known"):
            await store.advance_tasks([TaskAdvance(make_task("a"), NOON, None)])
        server.thaw()


async def test_steps_asked_for_again_after_an_error_get_the_answer_that_was_lost(
    proxy: CuttingProxy,
) -> None:
    async with opened(url=f"redis://{proxy.address}", retry_timeout=0.3) as store:
        await store.add_tasks([make_task("a"), make_task("b")])
        steps = [
            TaskAdvance(make_task("a"), NOON, after(60)),
            TaskAdvance(make_task("b"), NOON, None),
            TaskAdvance(make_task("c"), NOON, None),
        ]
        lose(proxy, "advance", times=1_000)
        with raises(StoreError, "'tasks'", "whether the change was made is not known"):
            await store.advance_tasks(steps)
        lose(proxy, "advance", times=0)
        assert await store.get_due_tasks(NOON) == []  # they were made all the same
        assert await store.advance_tasks(steps) == [True, True, False]
        assert await store.advance_tasks(steps) == [False, False, False]


async def test_a_store_whose_server_is_gone_can_be_shut_down(server: RedisServer) -> None:
    store = RedisStore(url=server.url)
    await store.start(SuiteHost(), "tasks")
    await store.add_task(make_task("a"))
    server.kill()
    await store.shutdown()


async def test_what_a_frozen_server_did_not_answer_it_does_once(server: RedisServer) -> None:
    async with opened(url=server.url, timeout=0.2) as store:
        await store.add_task(make_task("a"))
        server.freeze()
        stepping = asyncio.create_task(
            store.advance_tasks([TaskAdvance(make_task("a"), NOON, after(60))])
        )
        reading = asyncio.create_task(store.get_due_tasks(NOON))
        with raises(StoreTimeoutError, "'tasks'", "0.2 s"):
            await reading
        server.thaw()
        assert await stepping == [True]
        assert await store.get_next_run_time() == after(60)


async def test_a_full_server_refuses_and_keeps_what_it_has(server: RedisServer) -> None:
    async with opened(url=server.url) as store:
        await store.add_task(make_task("a"))
        with server.client() as client:
            client.config_set("maxmemory", "1")
            with raises(StoreError, "'tasks'", "maxmemory"):
                await store.add_task(make_task("b"))
            assert ids_of(await store.get_due_tasks(NOON)) == ["a"]
            client.config_set("maxmemory", "0")
        await store.add_task(make_task("b"))


async def test_a_replica_refuses_changes_and_can_be_promoted(server: RedisServer) -> None:
    async with opened(url=server.url) as store:
        await store.add_task(make_task("a"))
        with server.client() as client:
            client.replicaof("127.0.0.1", "1")
            with raises(StoreError, "'tasks'", "replica"):
                await store.add_task(make_task("b"))
            client.replicaof("NO", "ONE")
        await store.add_task(make_task("b"))
        assert ids_of(await store.get_all_tasks()) == ["a", "b"]
