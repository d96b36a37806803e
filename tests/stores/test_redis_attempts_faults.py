"""Attempts on Redis while answers are lost, and workers and servers are killed."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from asyncz.enums import RunState
from asyncz.exceptions import StoreError
from asyncz.runs.base import Run, RunQuery
from asyncz.stores.cluster import RunEnd, RunOutcome
from asyncz.stores.redis import RedisStore
from asyncz.testing.store_suite_tools import NOON, make_task, raises
from tests.services.cutting_proxy import CuttingProxy
from tests.services.redis import RedisServer

from .redis_tools import opened
from .test_redis_runs_faults import EVERY_TIME, claim, ended, join, lose, proxy, ref, server, states

__all__ = ["proxy", "server"]

RETRYING, CANCELLED = RunState.RETRYING, RunState.CANCELLED
PAST = NOON - timedelta(days=9_000)


def waits(task_id: str, token: int = 1) -> RunEnd:
    """It has failed, and is due again by the server's clock."""
    said = RunOutcome(NOON, RETRYING, "ValueError", retry_at=PAST)
    return RunEnd(ref(task_id, token), (said,))


async def run_of(store: RedisStore, task_id: str) -> Run:
    (run,) = await store.get_runs(RunQuery(task_id))
    return run


async def test_what_is_said_of_runs_on_their_way_counts_once_when_replies_are_lost(
    proxy: CuttingProxy,
) -> None:
    async with opened(url=f"redis://{proxy.address}") as store:
        await store.add_tasks([make_task(name) for name in ("a", "b", "c")])
        await join(store, "one", "other")
        await claim(store, "a", "b", "c")
        lose(proxy, "note")
        assert await store.note_runs("one", [(ref("a"), {"message": "m"})]) == [True]
        lose(proxy, "finish", 2)
        ends = [waits("a"), waits("b"), ended("c")]
        assert await store.finish_runs("one", ends) == [True, True, True]
        lose(proxy, "cancel", 2)
        assert await store.cancel_run("b", NOON, "ann") is CANCELLED
        lose(proxy, "due_again", 2)
        assert (await store.attend("nobody")).taken == ()
        lose(proxy, "attend", 2)
        taken, asked, gone = await store.attend("other")
        assert ([run.ref for run in taken], asked, gone) == ([ref("a", 2)], (), ())
        assert (await run_of(store, "a")).attempt == 2
        lose(proxy, "cancel")
        assert await store.cancel_run("a", NOON, "ann") is RunState.RUNNING
        lose(proxy, "asked")
        assert (await store.attend("other")).asked == ((ref("a", 2), "ann"),)
        assert await store.finish_runs("other", [ended("a", 2)]) == [True]
        lose(proxy, "prune", 2)
        settled = frozenset({RunState.SUCCEEDED})
        assert await store.prune_runs("a", settled, 0, NOON) == 1
        assert await store.prune_runs("a", settled, 0, NOON) == 0
        assert proxy.lost == 13


async def test_an_attempt_whose_worker_never_hears_of_it_is_found_by_it_or_by_others(
    proxy: CuttingProxy, server: RedisServer
) -> None:
    async with (
        opened(url=server.url) as other,
        opened(url=f"redis://{proxy.address}", retry_timeout=0.3) as store,
    ):
        await store.add_task(make_task("a"))
        await join(store, "one", "other")
        await claim(store, "a")
        await store.finish_runs("one", [waits("a")])
        lose(proxy, "attend", EVERY_TIME)
        with raises(StoreError, "'tasks'", "whether the change was made is not known"):
            await store.attend("one")
        lose(proxy, "attend", 0)
        assert (await other.attend("other")).taken == ()
        assert [run.ref for run in await store.get_own_runs("one")] == [ref("a", 2)]
        await other.leave_node("one")
        (taken,) = (await other.reap("other", bury=None, max_attempts=2)).taken
        assert (taken.ref, taken.attempt) == (ref("a", 3), 3)
        assert taken.task is not None
        assert await store.finish_runs("one", [ended("a", 2)]) == [False]
        assert await other.finish_runs("other", [ended("a", 3)]) == [True]


async def test_runs_that_wait_or_are_marked_outlive_the_server_and_all_workers(
    server: RedisServer,
) -> None:
    async with opened(url=server.url) as store:
        await store.add_tasks([make_task(name) for name in ("a", "b", "c")])
        await join(store, "one")
        await claim(store, "a", "b", "c")
        await store.finish_runs("one", [waits("a")])
        await store.note_runs("one", [(ref("b"), {"message": "m"})])
        assert await store.cancel_run("b", NOON, "ann") is RunState.RUNNING
        server.kill()
        with raises(StoreError, "'tasks'"):
            await store.finish_runs("one", [waits("c")])
    server.start()
    async with opened(url=server.url) as store:
        assert await states(store) == {
            "a": RETRYING,
            "b": RunState.RUNNING,
            "c": RunState.RUNNING,
        }
        await join(store, "other")
        await store.leave_node("one")
        looked = await store.look()
        assert looked.attend_at is not None
        assert looked.attend_at <= looked.now
        (taken,) = (await store.attend("other")).taken
        assert (taken.ref, taken.error) == (ref("a", 2), None)
        await store.reap("other", bury=None, max_attempts=3)
        assert (await store.attend("other")).asked == ((ref("b", 2), "ann"),)
        assert (await run_of(store, "b")).message == "m"


async def test_one_of_many_that_ask_for_an_attempt_gets_it(server: RedisServer) -> None:
    async with opened(url=server.url) as one, opened(url=server.url) as other:
        names = [f"t{number}" for number in range(40)]
        await one.add_tasks([make_task(name) for name in names])
        await join(one, "one", "other")
        await claim(one, *names)
        await one.finish_runs("one", [waits(name) for name in names])
        asked = [
            store.attend(node, limit=7)
            for _ in range(8)
            for store, node in ((one, "one"), (other, "other"))
        ]
        taken = [run.ref for said in await asyncio.gather(*asked) for run in said.taken]
        while more := (await one.attend("one")).taken:
            taken += [run.ref for run in more]
        assert sorted(taken) == sorted(ref(name, 2) for name in names)
        assert set((await one.count_active(names)).values()) == {1}
