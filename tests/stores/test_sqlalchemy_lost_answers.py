"""Answers that are lost after the commit, and transactions that run into each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import URL, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from asyncz.enums import RunKind, RunState
from asyncz.exceptions import ConflictIdError, StoreError
from asyncz.runs.base import RunQuery
from asyncz.stores.base import TaskAdvance
from asyncz.stores.cluster import Fired, Node, RunEnd, RunOutcome
from asyncz.stores.sqlalchemy import SQLAlchemyStore
from asyncz.testing.store_suite_cluster import firing, ref
from asyncz.testing.store_suite_tools import NOON, after, ids_of, make_task
from tests.services.commit_cutter import CommitCutter
from tests.services.databases import SERVERS, new_database

from .sqlalchemy_tools import engine_for, opened

PATIENCE = 50.0
ONE = Node("one", "worker", "host", 1)
OTHER = Node("other", "worker", "host", 2)
WAITS = RunOutcome(NOON, RunState.RETRYING, "E", retry_at=after(-(10**9)))
"""It is tried again at once: that was long ago, by the server's clock."""
WAITING = {
    "postgresql": "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
    "AND datname = current_database()",
    "mysql": "SELECT COUNT(*) FROM information_schema.innodb_trx JOIN "
    "information_schema.processlist ON id = trx_mysql_thread_id "
    "WHERE trx_state = 'LOCK WAIT' AND db = DATABASE()",
}


@pytest.fixture(params=SERVERS)
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    with new_database(request.param) as made:
        yield made


@pytest.fixture
async def proxy(url: URL) -> AsyncIterator[CommitCutter]:
    assert url.port is not None
    async with CommitCutter(url.port, asks=url.get_backend_name() == "mysql") as started:
        yield started


@pytest.fixture
async def store(url: URL, proxy: CommitCutter) -> AsyncIterator[SQLAlchemyStore]:
    """A store with its tasks a, b and c, whose answers may be lost."""
    async with opened(url.set(port=proxy.port)) as made:
        for name in "abc":
            await made.add_task(make_task(name))
        yield made


def steps_of(names: str) -> list[TaskAdvance]:
    first, *others = (make_task(name) for name in names)
    return [TaskAdvance(first, NOON, None), *(TaskAdvance(task, NOON, after(9)) for task in others)]


async def test_steps_whose_answer_was_lost_are_told_as_they_were_made(
    store: SQLAlchemyStore, proxy: CommitCutter
) -> None:
    proxy.cuts = 1
    assert await store.advance_tasks(steps_of("abx")) == [True, True, False]

    assert proxy.cuts == 0
    assert ids_of(await store.get_all_tasks()) == ["c", "b"]


async def test_steps_that_are_asked_for_again_are_told_as_they_were_made(
    store: SQLAlchemyStore, proxy: CommitCutter
) -> None:
    proxy.cuts = 1
    steps = steps_of("ab")
    asking = asyncio.ensure_future(store.advance_tasks(steps))
    while proxy.cuts:
        await asyncio.sleep(0)  # and whoever has asked gives up before it could try again
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)

    assert await store.advance_tasks(steps_of("c")) == [True]
    assert await store.advance_tasks(steps) == [True, True]
    assert ids_of(await store.get_all_tasks()) == ["b"]


async def test_tasks_whose_answer_was_lost_were_added_once(
    store: SQLAlchemyStore, proxy: CommitCutter
) -> None:
    proxy.cuts = 1
    await store.add_tasks([make_task("d"), make_task("e")])

    assert proxy.cuts == 0
    assert ids_of(await store.get_all_tasks()) == ["a", "b", "c", "d", "e"]
    with pytest.raises(ConflictIdError, match="'e'"):
        await store.add_tasks([make_task("e"), make_task("f")])


async def test_a_deadlock_is_tried_again(url: URL) -> None:
    patient: dict[str, str | int] = {"innodb_lock_wait_timeout": 60}
    if url.get_backend_name() == "postgresql":
        patient = {"lock_timeout": "60s", "statement_timeout": "60s"}
    async with opened(url, session_settings=patient) as store, engine_for(url) as engine:
        await store.add_tasks([make_task(name) for name in "abcdefgh"])
        async with engine.begin() as connection:
            # The heavier of the two wins, on MariaDB.
            await touch(connection, store, *"bcdefgh")
            advancing = asyncio.ensure_future(store.advance_tasks(steps_of("ab")))
            await until_one_waits(url)
            await touch(connection, store, "a")
        made = await advancing

    assert made == [True, True]


async def test_a_lock_that_is_held_for_long_is_an_error_that_says_so(url: URL) -> None:
    family = url.get_backend_name()
    settings: dict[str, str | int] = {"innodb_lock_wait_timeout": 1}
    if family == "postgresql":
        settings = {"lock_timeout": "100ms"}
    async with opened(url, session_settings=settings) as store, engine_for(url) as engine:
        await store.add_task(make_task("a"))
        async with engine.begin() as connection:
            await touch(connection, store, "a")
            with pytest.raises(StoreError, match=r"'tasks'.*[Ll]ock"):
                await store.update_task(make_task("a", args=(1,)))
        await store.update_task(make_task("a", args=(1,)))


async def test_a_firing_whose_answer_was_lost_is_made_once(
    store: SQLAlchemyStore, proxy: CommitCutter
) -> None:
    await store.join_node(ONE, 30)
    a, b, _ = await store.get_due_tasks(NOON)
    proxy.cuts = 1
    fired = await store.fire(ONE.id, "claim", [firing(a, following=None), firing(b)])

    assert (proxy.cuts, fired) == (0, [Fired.WON, Fired.WON])
    assert ids_of(await store.get_all_tasks()) == ["c", "b"]
    assert await states(store) == {"a": RunState.RUNNING, "b": RunState.RUNNING}


async def test_a_firing_that_is_asked_for_again_is_told_as_it_was_made(
    store: SQLAlchemyStore, proxy: CommitCutter
) -> None:
    await store.join_node(ONE, 30)
    a, b, c = await store.get_due_tasks(NOON)
    firings = [firing(a), firing(b)]
    proxy.cuts = 1
    asking = asyncio.ensure_future(store.fire(ONE.id, "claim", firings))
    while proxy.cuts:
        await asyncio.sleep(0)  # and whoever has asked gives up before it could try again
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)

    assert await store.fire(ONE.id, "another", [firing(c)]) == [Fired.WON]
    assert await store.fire(ONE.id, "claim", firings) == [Fired.WON, Fired.WON]
    assert len(await states(store)) == 3


async def test_outcomes_whose_answer_was_lost_count(
    store: SQLAlchemyStore, proxy: CommitCutter
) -> None:
    await store.join_node(ONE, 30)
    due = await store.get_due_tasks(NOON)
    await store.fire(ONE.id, "claim", [firing(task) for task in due])
    ends = [RunEnd(ref(name), (RunOutcome(NOON, RunState.FAILED, "E"),)) for name in "abcx"]
    proxy.cuts = 1
    assert await store.finish_runs(ONE.id, ends) == [True, True, True, False]

    assert proxy.cuts == 0
    assert await states(store) == dict.fromkeys("abc", RunState.FAILED)


async def test_runs_are_taken_over_though_the_answer_was_lost(
    store: SQLAlchemyStore, proxy: CommitCutter
) -> None:
    for node in (ONE, OTHER):
        await store.join_node(node, 30)
    due = await store.get_due_tasks(NOON)
    await store.fire(ONE.id, "claim", [firing(task) for task in due])
    await store.delete_task("c")
    await store.leave_node(ONE.id)
    proxy.cuts = 1
    reaped = await store.reap(OTHER.id, bury=None, max_attempts=3)

    assert proxy.cuts == 0
    assert [run.ref for run in reaped.taken] == [ref("a", 2), ref("b", 2)]
    assert reaped.ended == ((ref("c"), RunState.CANCELLED),)


async def test_attempts_are_given_though_the_answer_was_lost(
    store: SQLAlchemyStore, proxy: CommitCutter
) -> None:
    await store.join_node(ONE, 30)
    due = await store.get_due_tasks(NOON)
    await store.fire(ONE.id, "claim", [firing(task) for task in due])
    ends = [RunEnd(ref(name), (WAITS,)) for name in "abc"]
    proxy.cuts = 1
    assert await store.finish_runs(ONE.id, ends) == [True] * 3
    assert proxy.cuts == 0
    assert await states(store) == dict.fromkeys("abc", RunState.RETRYING)

    await store.delete_task("c")
    proxy.cuts = 1
    attended = await store.attend(ONE.id)
    assert proxy.cuts == 0
    assert [run.ref for run in attended.taken] == [ref("a", 2), ref("b", 2)]
    assert attended.ended == (ref("c"),)
    assert [run.attempt for run in await store.get_runs(RunQuery())] == [1, 2, 2]
    assert await store.attend(ONE.id) == ((), (), ())


async def test_runs_are_cancelled_and_noted_though_the_answer_was_lost(
    store: SQLAlchemyStore, proxy: CommitCutter
) -> None:
    await store.join_node(ONE, 30)
    due = await store.get_due_tasks(NOON)
    await store.fire(ONE.id, "claim", [firing(task) for task in due])
    await store.finish_runs(ONE.id, [RunEnd(ref("a"), (WAITS,))])

    proxy.cuts = 1
    assert await store.note_runs(ONE.id, [(ref("b"), {"message": "m"})]) == [True]
    proxy.cuts = 1
    assert await store.cancel_run("a", NOON, "ann") is RunState.CANCELLED
    proxy.cuts = 1
    assert await store.cancel_run("b", NOON, "ann") is RunState.RUNNING
    assert proxy.cuts == 0
    assert (await store.attend(ONE.id)).asked == ((ref("b"), "ann"),)
    assert [run.message for run in await store.get_runs(RunQuery(task_id="b"))] == ["m"]


async def test_a_firing_that_runs_into_a_deadlock_is_tried_again(url: URL) -> None:
    patient: dict[str, str | int] = {"innodb_lock_wait_timeout": 60}
    if url.get_backend_name() == "postgresql":
        patient = {"lock_timeout": "60s", "statement_timeout": "60s"}
    async with opened(url, session_settings=patient) as store, engine_for(url) as engine:
        await store.add_tasks([make_task(name) for name in "abcdefgh"])
        await store.join_node(ONE, 30)
        due = await store.get_due_tasks(NOON)
        async with engine.begin() as connection:
            # The heavier of the two wins, on MariaDB.
            await touch(connection, store, *"bcdefgh")
            # What is due is not waited for where somebody has it; what is asked for is.
            wanted = [firing(task, kind=RunKind.MANUAL) for task in due[:2]]
            firing_them = asyncio.ensure_future(store.fire(ONE.id, "claim", wanted))
            await until_one_waits(url)
            await touch(connection, store, "a")
        fired = await firing_them

        assert fired == [Fired.WON, Fired.WON]
        assert len(await states(store)) == 2


async def states(store: SQLAlchemyStore) -> dict[str, RunState]:
    return {run.task_id: run.state for run in await store.get_runs(RunQuery())}


async def touch(connection: AsyncConnection, store: SQLAlchemyStore, *keys: str) -> None:
    """Lock rows in a transaction."""
    table = store.table
    for key in keys:
        await connection.execute(update(table).where(table.c.id == key).values(rev=100))


async def until_one_waits(url: URL) -> None:
    """Wait until somebody waits for a lock."""
    async with engine_for(url) as engine, asyncio.timeout(PATIENCE):
        waiting = 0
        while not waiting:
            async with engine.begin() as connection:
                found = await connection.execute(text(WAITING[url.get_backend_name()]))
                waiting = found.scalar_one()
            # InnoDB makes its list anew only for who has not asked for a tenth of a second.
            await asyncio.sleep(0.15)
