"""Answers that are lost after the commit, and transactions that run into each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import URL, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from asyncz.exceptions import ConflictIdError, StoreError
from asyncz.stores.base import TaskAdvance
from asyncz.stores.sqlalchemy import SQLAlchemyStore
from asyncz.testing.store_suite_tools import NOON, after, ids_of, make_task
from tests.services.commit_cutter import CommitCutter
from tests.services.databases import SERVERS, new_database

from .sqlalchemy_tools import engine_for, opened

PATIENCE = 50.0
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
