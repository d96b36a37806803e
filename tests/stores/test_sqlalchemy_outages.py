"""Servers that are down, are killed, hang, lose answers or let transactions run into each other."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import URL, make_url

from asyncz import NativeAsyncIOScheduler
from asyncz.events.constants import STORE_DEGRADED
from asyncz.exceptions import StoreError
from asyncz.stores.sqlalchemy import SQLAlchemyStore
from asyncz.testing.store_suite_tools import ids_of, make_task
from asyncz.triggers import DateTrigger
from tests.services.mariadb import MariaDBServer
from tests.services.postgresql import PostgreSQLServer

from .sqlalchemy_tools import opened

PATIENCE = 30.0
LONGEST_CALL = 5.0
"""Seconds. A server that has just been started, beside others, takes more than one for some."""
MANY = 1_500
SERVERS: dict[str, type[PostgreSQLServer] | type[MariaDBServer]] = {
    "postgresql+asyncpg": PostgreSQLServer,
    "postgresql+psycopg": PostgreSQLServer,
    "mysql+asyncmy": MariaDBServer,
    "mysql+aiomysql": MariaDBServer,
}
Server = PostgreSQLServer | MariaDBServer

ran: Counter[int] = Counter()
progress = asyncio.Event()


async def note(number: int) -> None:
    """The task of these tests."""
    ran[number] += 1
    progress.set()


@pytest.fixture(params=SERVERS)
def drivername(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(drivername: str) -> Iterator[Server]:
    started = SERVERS[drivername]().start()
    yield started
    started.close()


@pytest.fixture
def url(server: Server, drivername: str) -> URL:
    return make_url(server.url).set(drivername=drivername)


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until the runs have brought it about."""
    async with asyncio.timeout(PATIENCE):
        while not is_so():
            progress.clear()
            await progress.wait()


@pytest.fixture
async def busy(url: URL) -> AsyncIterator[NativeAsyncIOScheduler]:
    """A scheduler that has begun to run many tasks that are due."""
    global progress
    progress = asyncio.Event()
    ran.clear()
    store = SQLAlchemyStore(url)
    due = datetime.now(UTC)
    options = {"executor": "default", "store_alias": "default", "mistrigger_grace_time": None}
    tasks = [
        make_task(f"t{number}", due, fn=note, args=(number,), trigger=DateTrigger(run_at=due))
        for number in range(MANY)
    ]
    for task in tasks:
        task.adopt(options)
    scheduler = NativeAsyncIOScheduler(
        timezone="UTC",
        stores={"default": store},
        store_timeout=LONGEST_CALL,
        store_retry_interval=0.2,
    )
    async with scheduler:
        await store.add_tasks(tasks)
        scheduler.wakeup()
        await until(lambda: len(ran) > 100)
        yield scheduler


async def test_a_server_killed_while_tasks_are_due_costs_no_run_and_doubles_none(
    busy: NativeAsyncIOScheduler, server: Server
) -> None:
    server.kill()
    before = len(ran)
    await asyncio.to_thread(server.start)
    await until(lambda: len(ran) == MANY)

    assert before < MANY
    assert set(ran.values()) == {1}
    assert await busy.aget_tasks() == []


async def test_a_server_that_hangs_costs_no_run_and_doubles_none(
    busy: NativeAsyncIOScheduler, server: Server
) -> None:
    degraded = asyncio.Event()
    busy.add_listener(lambda _: degraded.set(), STORE_DEGRADED)
    server.freeze()
    async with asyncio.timeout(PATIENCE):
        await degraded.wait()
    server.thaw()
    await until(lambda: len(ran) == MANY)

    assert set(ran.values()) == {1}


async def test_a_server_that_is_down_is_named_without_a_stack_of_riddles(
    server: Server, url: URL
) -> None:
    server.kill()
    with pytest.raises(StoreError, match=rf"'tasks'.*127\.0\.0\.1:{url.port}"):
        async with opened(url):
            pass
    await asyncio.to_thread(server.start)
    async with opened(url) as store:
        await store.add_task(make_task("a"))


async def test_after_a_restart_of_the_server_the_next_call_just_works(
    server: Server, url: URL
) -> None:
    async with opened(url) as store:
        await store.add_task(make_task("a"))
        server.kill()
        with pytest.raises(StoreError, match="'tasks'"):
            await store.lookup_task("a")
        await asyncio.to_thread(server.start)
        assert ids_of(await store.get_all_tasks()) == ["a"]

        server.kill()
        await asyncio.to_thread(server.start)
        await store.add_task(make_task("b"))
        assert ids_of(await store.get_all_tasks()) == ["a", "b"]
