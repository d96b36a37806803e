"""What one scheduler adds, another hears of at once, where the server can tell it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from pymongo import MongoClient
from redis import Redis as BlockingRedis

from asyncz import NativeAsyncIOScheduler
from asyncz.stores.mongo import MongoDBStore
from asyncz.stores.redis import RedisStore
from asyncz.stores.sqlalchemy import SQLAlchemyStore
from tests.services.databases import new_database
from tests.services.redis import RedisClusterServers, new_keys

from .mongo_databases import mongodb_url, place_on, standalone

__all__ = ["mongodb_url", "standalone"]

PATIENCE = 20.0
NEVER = 3_600.0
"""Seconds between looks at a store. What happens sooner happens because somebody was told."""
KINDS = (
    "postgresql+asyncpg",
    "postgresql+psycopg",
    "redis",
    "redis cluster",
    "mongodb replica set",
    "mongodb standalone",
)
SILENT = ("sqlite", "mysql+asyncmy")
RUNS: list[str] = []

Store = SQLAlchemyStore | RedisStore | MongoDBStore
Make = Callable[[], Store]


def note(word: str) -> None:
    """The callable of the tasks below."""
    RUNS.append(word)


async def linger(word: str) -> None:
    """Another one, whose first run does not end by itself."""
    RUNS.append(word)
    if len(RUNS) == 1:
        await asyncio.sleep(PATIENCE)


ALLOWED: dict[str, Any] = {"allowed_callables": ("*:note", "*:linger")}


def sql(kind: str) -> Iterator[Make]:
    with new_database(kind) as url:
        yield lambda: SQLAlchemyStore(database=url, **ALLOWED)


def redis() -> Iterator[Make]:
    with new_keys() as options:
        yield lambda: RedisStore(**options, **ALLOWED)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisClusterServers]:
    servers = RedisClusterServers().start()
    yield servers
    servers.close()


def redis_cluster(servers: RedisClusterServers) -> Iterator[Make]:
    name = f"{{{uuid4().hex}}}"
    keys = {"tasks_key": f"{name}.tasks", "run_times_key": f"{name}.times"}
    yield lambda: RedisStore(url=servers.url, cluster=True, **keys, **ALLOWED)


def mongodb(url: str) -> Iterator[Make]:
    with contextmanager(place_on)(url) as place:
        yield lambda: place.store(**ALLOWED)


@pytest.fixture
def make(request: pytest.FixtureRequest, mongodb_url: str, standalone: str) -> Iterator[Make]:
    """Makes stores in one place, of the kind that the test is for."""
    kind: str = request.param
    if kind == "redis":
        yield from redis()
    elif kind == "redis cluster":
        yield from redis_cluster(request.getfixturevalue("cluster"))
    elif kind == "mongodb standalone":
        yield from mongodb(standalone)
    elif kind == "mongodb replica set":
        yield from mongodb(mongodb_url)
    else:
        yield from sql(kind)


@asynccontextmanager
async def scheduler_on(store: Store, **options: Any) -> AsyncIterator[NativeAsyncIOScheduler]:
    given: dict[str, Any] = {"poll_interval": NEVER, "timezone": "UTC", "shutdown_timeout": 5}
    async with NativeAsyncIOScheduler(stores={"default": store}, **given | options) as started:
        yield started


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def listening(store: Store, node_id: str) -> AsyncIterator[list[None]]:
    """What a pulse of that node hears."""
    pulse = store.pulse(node_id)
    assert pulse is not None
    heard: list[None] = []
    await pulse.open()
    ear = asyncio.ensure_future(pulse.listen(lambda: heard.append(None)))
    try:
        await until(lambda: heard or ear.done())
        heard.clear()
        yield heard
    finally:
        while not ear.done():  # PyMongo may overhear it when it has just got an answer
            ear.cancel()
            await asyncio.wait([ear], timeout=0.2)
        await pulse.close()


@pytest.mark.parametrize("make", KINDS, indirect=True)
async def test_the_others_hear_an_announcement_and_nobody_hears_his_own(make: Make) -> None:
    store = make()
    async with scheduler_on(store, poll_interval=1.0):
        assert store.announces
        async with listening(store, "one") as one, listening(store, "two") as two:
            await store.announce("one")
            await until(lambda: two)
            await store.announce("two")
            await until(lambda: one)
            assert (len(one), len(two)) == (1, 1)


@pytest.mark.parametrize("make", KINDS, indirect=True)
async def test_a_task_that_another_adds_is_run_though_nobody_looks(make: Make) -> None:
    RUNS.clear()
    async with scheduler_on(make()) as runs, scheduler_on(make(), poll_interval=5.0) as adds:
        await adds.apause()
        due = datetime.now(UTC) + timedelta(seconds=0.3)
        for number in range(20):
            await adds.aadd_task(note, "date", run_at=due, args=[str(number)], id=str(number))
        await until(lambda: len(RUNS) == 20)
        assert sorted(RUNS, key=int) == [str(number) for number in range(20)]
        assert await runs.aget_task_infos() == []


@pytest.mark.parametrize("make", KINDS, indirect=True)
async def test_a_new_run_time_is_announced(make: Make) -> None:
    RUNS.clear()
    async with scheduler_on(make()), scheduler_on(make(), poll_interval=5.0) as changes:
        await changes.apause()
        later = datetime.now(UTC) + timedelta(days=1)
        await changes.aadd_task(note, "date", run_at=later, args=["a"], id="a")
        await changes.aupdate_task("a", next_run_time=datetime.now(UTC))
        await until(lambda: RUNS == ["a"])


@pytest.mark.parametrize("make", KINDS, indirect=True)
async def test_what_a_shutdown_cuts_off_another_goes_on_with_at_once(make: Make) -> None:
    RUNS.clear()
    async with AsyncExitStack() as stays:
        async with scheduler_on(make(), shutdown_timeout=0.5) as leaves:
            await leaves.aadd_task(linger, "date", run_at=datetime.now(UTC), args=["a"], id="a")
            await until(lambda: RUNS == ["a"])
            await stays.enter_async_context(scheduler_on(make()))
        await until(lambda: RUNS == ["a", "a"])


@pytest.mark.parametrize("make", SILENT, indirect=True)
async def test_where_nothing_can_be_announced_the_store_is_polled(make: Make) -> None:
    RUNS.clear()
    store = make()
    async with (
        scheduler_on(store, poll_interval=0.1),
        scheduler_on(make(), poll_interval=5.0) as adds,
    ):
        assert not store.announces
        await adds.apause()
        await adds.aadd_task(note, "date", run_at=datetime.now(UTC), args=["a"], id="a")
        await until(lambda: RUNS == ["a"])


CUTS = ("postgresql+asyncpg", "postgresql+psycopg", "redis", "mongodb standalone")


@pytest.mark.parametrize("make", CUTS, indirect=True)
async def test_who_was_cut_off_listens_again_and_has_missed_nothing(make: Make) -> None:
    RUNS.clear()
    async with scheduler_on(make()), scheduler_on(make(), poll_interval=5.0) as adds:
        await adds.apause()
        for word in ("a", "b", "c"):
            await asyncio.to_thread(cut_off_who_listens, make())
            await adds.aadd_task(note, "date", run_at=datetime.now(UTC), args=[word], id=word)
            await until(lambda: word in RUNS)  # noqa: B023
    assert RUNS == ["a", "b", "c"]


def cut_off_who_listens(store: Store) -> None:
    """Have the server end the connections of those who wait for announcements."""
    if isinstance(store, SQLAlchemyStore):
        url = store.database.render_as_string(hide_password=False)
        with psycopg.connect(f"postgresql{url[url.index('://') :]}") as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
                " AND datname = current_database()"
            )
    elif isinstance(store, RedisStore):
        assert store.url is not None
        with BlockingRedis.from_url(store.url.get_secret_value()) as client:
            client.client_kill_filter(_type="pubsub")
    else:
        with MongoClient[dict[str, Any]](store.uri) as client:
            names = {"currentOp": 1, "ns": f"{store.database}.{store.collection}.notices"}
            for operation in client.admin.command(names)["inprog"]:
                client.admin.command("killOp", op=operation["opid"])
