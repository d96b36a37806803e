"""Runs on a Redis server whose answers are lost, whose scripts are flushed, which is frozen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from asyncz.enums import RunKind, RunState
from asyncz.exceptions import StoreError
from asyncz.runs.base import RunQuery
from asyncz.stores.cluster import Fired, Firing, Node, RunEnd, RunOutcome, RunRef
from asyncz.stores.redis import RedisStore
from asyncz.stores.redis_calls import KEPT_CLAIMS
from asyncz.stores.redis_scripts import scripts
from asyncz.tasks.base import Task
from asyncz.testing.store_suite_tools import NOON, after, make_task, raises
from tests.services.cutting_proxy import CuttingProxy, cutting_proxy
from tests.services.redis import RedisServer

from .redis_tools import opened

LEASE = 30.0
EVERY_TIME = 1_000


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
            client.script_load(script.text)
    async with cutting_proxy(("127.0.0.1", server.port)) as made:
        yield made


def lose(proxy: CuttingProxy, script: str, times: int = 1) -> None:
    """Lose the reply to a script."""
    proxy.lose_reply_to(scripts[script].sha.encode(), times)


async def join(store: RedisStore, *names: str) -> None:
    for name in names:
        await store.join_node(Node(name, name, "here", 1), LEASE)


async def claim(store: RedisStore, *names: str, node: str = "one", claim: str = "c") -> list[Fired]:
    return await store.fire(node, claim, [firing(make_task(name)) for name in names])


def firing(task: Task) -> Firing:
    return Firing(task, NOON, None, True, RunKind.SCHEDULED, (NOON,))


def ref(task_id: str, token: int = 1) -> RunRef:
    return RunRef(task_id, RunKind.SCHEDULED, NOON, token)


def ended(task_id: str, token: int = 1) -> RunEnd:
    return RunEnd(ref(task_id, token), (RunOutcome(NOON, RunState.SUCCEEDED),))


async def states(store: RedisStore) -> dict[str, RunState]:
    return {run.task_id: run.state for run in await store.get_runs(RunQuery())}


@pytest.mark.parametrize("times", [1, 3])
async def test_a_claim_whose_reply_is_lost_is_known_to_be_won(
    proxy: CuttingProxy, times: int
) -> None:
    async with opened(url=f"redis://{proxy.address}") as store:
        await store.add_tasks([make_task("a"), make_task("b")])
        await join(store, "one")
        lose(proxy, "fire", times)
        assert await claim(store, "a", "c", "b") == [Fired.WON, Fired.LOST, Fired.WON]
        assert proxy.lost == times
        assert await store.count_active(["a", "b"]) == {"a": 1, "b": 1}


async def test_a_claim_asked_for_again_after_an_error_gets_the_answer_that_was_lost(
    proxy: CuttingProxy,
) -> None:
    async with opened(url=f"redis://{proxy.address}", retry_timeout=0.3) as store:
        await store.add_tasks([make_task("a"), make_task("b")])
        await join(store, "one")
        lose(proxy, "fire", EVERY_TIME)
        with raises(StoreError, "'tasks'", "whether the change was made is not known"):
            await claim(store, "a", "b", "nobody")
        lose(proxy, "fire", 0)
        for number in range(2 * KEPT_CLAIMS):
            assert await claim(store, "a", claim=f"other {number}") == [Fired.LOST]
        answer = [Fired.WON, Fired.WON, Fired.LOST]
        assert await claim(store, "a", "b", "nobody") == answer
        assert await claim(store, "a", "b", "nobody") == answer
        assert len(await store.get_own_runs("one")) == 2


async def test_a_claim_that_is_cut_off_before_its_answer_can_be_asked_for_again(
    server: RedisServer,
) -> None:
    async with opened(url=server.url) as store:
        await store.add_task(make_task("a"))
        await join(store, "one")
        server.freeze()
        claiming = asyncio.create_task(claim(store, "a"))
        await asyncio.sleep(0.2)
        claiming.cancel()
        await asyncio.wait([claiming])
        server.thaw()
        assert await claim(store, "a") == [Fired.WON]
        assert await store.count_active(["a"]) == {"a": 1}


async def test_a_take_over_whose_replies_are_lost_is_made_once(proxy: CuttingProxy) -> None:
    async with opened(url=f"redis://{proxy.address}") as store:
        await store.add_tasks([make_task("a"), make_task("b")])
        await join(store, "one", "other")
        await claim(store, "a", "b")
        await store.leave_node("one")
        for script in ("bury", "owned", "take"):
            lose(proxy, script)
            reaped = await store.reap("other", bury=(await store.look()).now, max_attempts=3)
            if script == "bury":
                assert [run.ref for run in reaped.taken] == [ref("a", 2), ref("b", 2)]
            token = 2 if script == "bury" else 3 if script == "owned" else 4
            assert [run.ref.token for run in reaped.taken] == [token, token]
            assert [run.attempt for run in reaped.taken] == [2, 2]
            refs = [run.ref for run in reaped.taken]
            lose(proxy, "release")
            await store.release_runs("other", refs)
        assert proxy.lost == 6


async def test_outcomes_starts_and_leases_whose_replies_are_lost_count_once(
    proxy: CuttingProxy,
) -> None:
    async with opened(url=f"redis://{proxy.address}") as store:
        await store.add_tasks([make_task("a"), make_task("b", delivery="at_most_once")])
        lose(proxy, "join")
        await join(store, "one")
        due = await store.get_due_tasks(NOON)
        assert await store.fire("one", "c", [firing(task) for task in due]) == [Fired.WON] * 2
        lose(proxy, "start")
        assert await store.start_runs("one", [ref("b"), ref("nobody")]) == [True, False]
        lose(proxy, "finish")
        said = await store.finish_runs("one", [ended("a"), ended("b", 2), ended("b")])
        assert said == [True, False, True]
        lose(proxy, "renew")
        assert await store.renew_node("one", LEASE, 3) is True
        lose(proxy, "forget")
        assert await store.forget_runs(after(86_400 * 3650)) == 2
        lose(proxy, "leave")
        await store.leave_node("one")
        (node,) = await store.get_nodes()
        assert (node.state, node.running) == ("left", 3)
        assert proxy.lost == 6


async def test_reads_whose_connection_is_cut_are_made_again(proxy: CuttingProxy) -> None:
    async with opened(url=f"redis://{proxy.address}") as store:
        await store.add_task(make_task("a"))
        await join(store, "one")
        await claim(store, "a")
        for script in ("look", "nodes", "owned", "history", "count_active"):
            lose(proxy, script)
            assert (await store.look()).has_unowned is False
            assert len(await store.get_nodes()) == 1
            assert [run.ref for run in await store.get_own_runs("one")] == [ref("a")]
            assert await states(store) == {"a": RunState.RUNNING}
            assert await store.count_active(["a"]) == {"a": 1}
        assert proxy.lost == 5


async def test_scripts_may_be_flushed_at_any_time(server: RedisServer) -> None:
    async with opened(url=server.url) as store:
        await store.add_tasks([make_task(f"t{number}") for number in range(5)])
        with server.client() as client:

            async def flushed(operation: Any) -> Any:
                client.script_flush()
                return await operation

            await flushed(store.join_node(Node("one", "one", "here", 1), LEASE))
            await flushed(store.join_node(Node("other", "other", "here", 1), LEASE))
            assert await flushed(claim(store, "t0", "t1")) == [Fired.WON, Fired.WON]
            assert await flushed(store.finish_runs("one", [ended("t0")])) == [True]
            await flushed(store.leave_node("one"))
            assert (await flushed(store.look())).has_unowned is True
            reaped = await flushed(
                store.reap("other", bury=(await store.look()).now, max_attempts=3)
            )
            assert [run.ref for run in reaped.taken] == [ref("t1", 2)]
            assert await flushed(store.forget_runs(after(86_400 * 3650))) == 1
            assert await flushed(states(store)) == {"t1": RunState.RUNNING}


async def test_a_restarted_server_has_the_runs_and_knows_the_claims(server: RedisServer) -> None:
    async with opened(url=server.url) as store:
        await store.add_task(make_task("a"))
        await join(store, "one")
        assert await claim(store, "a") == [Fired.WON]
        server.kill()
        with raises(StoreError, "'tasks'"):
            await store.finish_runs("one", [ended("a")])
        server.start()
        assert await claim(store, "a") == [Fired.WON]
        assert await store.renew_node("one", LEASE, 1) is True
        assert await store.finish_runs("one", [ended("a")]) == [True]
        assert await states(store) == {"a": RunState.SUCCEEDED}


async def test_no_more_answers_are_remembered_than_may_be_asked_for(server: RedisServer) -> None:
    async with opened(url=server.url) as store:
        await join(store, "one")
        for number in range(3 * KEPT_CLAIMS):
            await claim(store, "nobody", claim=f"claim {number}")
        with server.client() as client:
            assert len(list(client.scan_iter("*:call:*"))) <= KEPT_CLAIMS + 2
    with server.client() as client:
        assert list(client.scan_iter("*:call:*")) == []
