"""What a `SQLAlchemyStore` is given: URLs, engines, settings; and what it gives away of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import URL, Connection, Executable, make_url, select, text, update
from sqlalchemy.ext.asyncio import create_async_engine

from asyncz import AsyncIOScheduler, NativeAsyncIOScheduler
from asyncz.exceptions import ConfigurationError, ConflictIdError, StoreError
from asyncz.stores.sqlalchemy import SQLAlchemyStore, make_tables
from asyncz.stores.sqlalchemy_dialects import async_url
from asyncz.testing.store_suite_tools import after, ids_of, job, make_task
from tests.services.databases import new_database

from .sqlalchemy_tools import engine_for, opened

CANARY = "s3cr3t-canary"


@pytest.fixture(params=["sqlite", "postgresql+asyncpg", "postgresql+psycopg", "mysql+asyncmy"])
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    with new_database(request.param) as made:
        yield made


@pytest.mark.parametrize(
    ("given_url", "driver"),
    [
        ("sqlite:///jobs.db", "sqlite+aiosqlite"),
        ("sqlite+pysqlite://", "sqlite+aiosqlite"),
        ("sqlite+aiosqlite:///jobs.db", "sqlite+aiosqlite"),
        ("postgresql://u:p@h/d", "postgresql+asyncpg"),
        ("postgres://u:p@h/d", "postgresql+asyncpg"),
        ("postgresql+psycopg2://u:p@h/d", "postgresql+asyncpg"),
        ("postgresql+psycopg://u:p@h/d", "postgresql+psycopg"),
        ("mysql://u:p@h/d", "mysql+asyncmy"),
        ("mysql+pymysql://u:p@h/d", "mysql+asyncmy"),
        ("mysql+aiomysql://u:p@h/d", "mysql+aiomysql"),
        ("mariadb://u:p@h/d", "mariadb+asyncmy"),
    ],
)
def test_the_url_of_a_synchronous_driver_stands_for_one_that_can_be_awaited(
    given_url: str, driver: str
) -> None:
    found = async_url(given_url)

    assert found.drivername == driver
    assert found.set(drivername="x") == make_url(given_url).set(drivername="x")


def test_the_name_that_libpq_has_for_tls_is_that_of_asyncpg_too() -> None:
    found = async_url("postgresql://h/d?sslmode=require&x=1")
    assert found.query == {"ssl": "require", "x": "1"}


@pytest.mark.parametrize("bad", ["", "jobs.db", f"oracle://u:{CANARY}@h/d", None, 5, "sqlite+x://"])
def test_what_is_no_url_that_can_be_used_is_refused_without_being_shown(bad: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SQLAlchemyStore(bad)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("driver", ["mysql", "mariadb+asyncmy", "mysql+aiomysql"])
def test_a_url_that_names_no_database_is_refused(driver: str) -> None:
    for end in ("", "/", "/?charset=utf8mb4"):
        with pytest.raises(ConfigurationError, match=r"names no database.*@host/name") as caught:
            SQLAlchemyStore(f"{driver}://root:{CANARY}@127.0.0.1{end}")
        assert CANARY not in str(caught.value)
    SQLAlchemyStore(f"{driver}://root@127.0.0.1/", schema="jobs")


def test_a_url_of_sqlite_with_two_slashes_is_refused() -> None:
    for bad in ("sqlite://jobs.db", f"sqlite://u:{CANARY}@jobs.db/x"):
        with pytest.raises(ConfigurationError, match=r"sqlite:///jobs\.db") as caught:
            SQLAlchemyStore(bad)
        assert CANARY not in str(caught.value)


async def test_the_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"'tasks'.*no directory '{tmp_path}/not/there'"):
        async with opened(f"sqlite:///{tmp_path}/not/there/jobs.db"):
            pass
    with pytest.raises(StoreError, match=f"sqlite {tmp_path}.*unable to open"):
        async with opened(f"sqlite:///{tmp_path}"):
            pass


@given(st.lists(st.text(min_size=1, max_size=300), min_size=2, max_size=2, unique=True))
def test_two_ids_never_have_one_key(ids: list[str]) -> None:
    store = SQLAlchemyStore("sqlite://")
    one, other = (store.key_of(text.encode("utf-8", "replace").decode()) for text in ids)
    same = ids[0].encode("utf-8", "replace") == ids[1].encode("utf-8", "replace")
    assert (one == other) == same
    assert max(len(one), len(other)) <= 255


def test_an_id_that_looks_like_a_hash_is_not_taken_for_one() -> None:
    store = SQLAlchemyStore("sqlite://")
    hashed = store.key_of("x" * 300)
    assert store.key_of("nightly report") == "nightly report"
    assert store.key_of(hashed) != hashed


async def test_a_database_in_memory_is_as_good_as_any_while_it_lasts() -> None:
    async with opened("sqlite://") as store:
        await store.add_task(make_task("a"))
        waiting = asyncio.ensure_future(store.add_task(make_task("b")))
        await asyncio.sleep(0)
        waiting.cancel()  # would have closed the connection, which is the database
        await asyncio.gather(waiting, return_exceptions=True)
        assert "a" in ids_of(await store.get_all_tasks())


async def test_tasks_can_be_asked_for_by_conditions(url: URL) -> None:
    async with opened(url) as store:
        for number in range(5):
            await store.add_task(make_task(f"t{number}", after(number)))
        await store.add_task(make_task("paused", None))
        columns = store.table.c
        assert ids_of(await store.get_tasks(columns.id == "t3")) == ["t3"]
        assert ids_of(await store.get_tasks(limit=2)) == ["t0", "t1"]
        assert ids_of(await store.get_tasks(columns.next_run_us.is_(None))) == ["paused"]
        both = [columns.id != "t0", columns.next_run_us.is_not(None)]
        assert ids_of(await store.get_tasks(both, 3)) == ["t1", "t2", "t3"]
        assert len(await store.get_tasks()) == 6


async def test_a_task_has_a_megabyte_of_arguments(url: URL) -> None:
    big = "ä" * 500_000 + "\0'\\\"%s"
    async with opened(url) as store:
        await store.add_task(make_task("a", args=(big,)))
        found = await store.lookup_task("a")
    assert found is not None
    assert found.args == (big,)


async def test_ten_thousand_tasks_are_added_or_none(url: URL) -> None:
    tasks = [make_task(f"t{number}") for number in range(10_000)]
    async with opened(url) as store:
        await store.add_task(make_task("t7777", args=("first",)))
        with pytest.raises(ConflictIdError, match="'t7777'"):
            await store.add_tasks(tasks)
        assert ids_of(await store.get_all_tasks()) == ["t7777"]
        await store.delete_task("t7777")
        await store.add_tasks(tasks)
        assert (await store.count_tasks()).scheduled == 10_000


async def test_connections_have_the_guards_that_a_shared_database_needs(url: URL) -> None:
    answers: dict[str, dict[str, Any]] = {
        "sqlite": {
            "PRAGMA journal_mode": "wal",
            "PRAGMA synchronous": 2,
            "PRAGMA busy_timeout": 10_000,
        },
        "postgresql": {
            "SHOW statement_timeout": "10s",
            "SHOW lock_timeout": "5s",
            "SHOW timezone": "UTC",
            "SHOW transaction_isolation": "read committed",
        },
        "mysql": {
            "SELECT @@innodb_lock_wait_timeout": 5,
            "SELECT @@time_zone": "+00:00",
            "SELECT @@tx_isolation": "READ-COMMITTED",
        },
    }
    expected = answers[url.get_backend_name()]
    async with opened(url) as store:
        assert {question: await ask(store, question) for question in expected} == expected


async def test_a_guard_can_be_set_otherwise_or_left_out() -> None:
    settings = {"statement_timeout": "7s", "lock_timeout": None}
    with new_database("postgresql+asyncpg") as url:
        async with opened(url, session_settings=settings) as store:
            assert await ask(store, "SHOW statement_timeout") == "7s"
            assert await ask(store, "SHOW lock_timeout") == "0"


async def ask(store: SQLAlchemyStore, question: str) -> Any:
    """What a connection of the store answers."""

    def work(connection: Connection, _: bool) -> Any:
        return connection.execute(text(question)).scalar()

    return await store._database.run(work)


async def test_no_password_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    store = SQLAlchemyStore(f"postgresql://someone:{CANARY}@127.0.0.1:1/none")
    scheduler = NativeAsyncIOScheduler(stores={"default": store})
    with caplog.at_level(logging.DEBUG), pytest.raises(StoreError) as caught:
        await scheduler.start()

    shown = [str(store), repr(store), str(caught.value), repr(caught.value), caplog.text]
    shown.append(str(caught.value.__cause__))
    assert not [text for text in shown if CANARY in text]
    assert "127.0.0.1:1/none" in str(caught.value)


async def test_arguments_of_tasks_are_not_in_errors(url: URL) -> None:
    async with engine_for(url) as engine, opened(engine) as store:

        def spoil(connection: Connection, _: bool) -> None:
            connection.execute(text("DROP TABLE asyncz_tasks"))

        await store._database.run(spoil)
        with pytest.raises(StoreError, match="'tasks'") as caught:
            await store.add_task(make_task("a", args=(CANARY,)))
    assert CANARY not in str(caught.value) + str(caught.value.__cause__)


async def test_a_record_that_makes_room_is_kept_aside(url: URL) -> None:
    async with opened(url) as store:
        await store.add_tasks([make_task("a"), make_task("b")])
        await execute(store, update(store.table).values(record=b"spoilt"))
        await store.update_task(make_task("a"))
        await store.delete_task("b")
        aside = make_tables().aside
        kept = await execute(store, select(aside.c.id, aside.c.record).order_by(aside.c.id))
        assert [tuple(row) for row in kept] == [("a", b"spoilt"), ("b", b"spoilt")]
        assert ids_of(await store.get_all_tasks()) == ["a"]


async def execute(store: SQLAlchemyStore, statement: Executable) -> Any:
    def work(connection: Connection, _: bool) -> Any:
        return connection.execute(statement)

    return await store._database.run(work)


async def test_a_database_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    async with opened(f"sqlite:///{tmp_path / 'jobs.db'}"):
        pass
    with pytest.raises(StoreError, match="readonly"):
        async with opened(f"sqlite:///file:{tmp_path / 'jobs.db'}?mode=ro&uri=true"):
            pass


async def test_a_file_that_is_no_database_is_an_error_and_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "jobs.db"
    file.write_bytes(b"dear diary, " * 1_000)
    with pytest.raises(StoreError, match="not a database"):
        async with opened(f"sqlite:///{file}"):
            pass
    assert file.read_bytes() == b"dear diary, " * 1_000


async def test_a_disk_that_is_full_is_an_error_and_work_goes_on_after_it(tmp_path: Path) -> None:
    async with opened(f"sqlite:///{tmp_path / 'jobs.db'}") as store:
        pages = await ask(store, "PRAGMA page_count")
        await ask(store, f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError, match="full"):
            await store.add_tasks([make_task(f"t{number}") for number in range(1_000)])
        await ask(store, "PRAGMA max_page_count = 1000000")
        await store.add_tasks([make_task(f"t{number}") for number in range(1_000)])
        assert len(await store.get_all_tasks()) == 1_000


async def test_an_engine_of_the_app_is_used_and_not_closed(url: URL) -> None:
    async with engine_for(url) as engine:
        for _ in range(2):
            async with opened(engine) as store:
                await store.remove_all_tasks()
                await store.add_tasks([make_task("a"), make_task("b")])
        async with engine.connect() as connection:
            found = await connection.execute(text("SELECT COUNT(*) FROM asyncz_tasks"))
            assert found.scalar() == 2
            level = await connection.run_sync(lambda sync: sync.get_isolation_level())
            assert level != "AUTOCOMMIT"


async def test_an_engine_of_the_app_is_used_on_the_loop_of_the_app(url: URL) -> None:
    async with engine_for(url) as engine:
        scheduler = AsyncIOScheduler(stores={"default": SQLAlchemyStore(engine)})
        await scheduler.astart()
        try:
            await scheduler.aadd_task(job, "interval", hours=1, id="a")
            assert ids_of(await scheduler.aget_tasks()) == ["a"]
        finally:
            await scheduler.ashutdown()


async def test_an_engine_made_before_any_loop_is_for_the_one_of_the_app(tmp_path: Path) -> None:
    def make() -> AsyncIOScheduler:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'jobs.db'}")
        return AsyncIOScheduler(stores={"default": SQLAlchemyStore(engine)})

    scheduler = await asyncio.to_thread(make)
    store = scheduler.stores["default"]
    assert isinstance(store, SQLAlchemyStore)
    await scheduler.astart()
    try:
        assert store._home is asyncio.get_running_loop()
    finally:
        await scheduler.ashutdown()
        await store.database.dispose()


async def test_a_start_that_blocks_the_loop_of_the_engine_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncz.stores.sqlalchemy_database.PATIENCE", 0.1)
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'jobs.db'}")
    scheduler = AsyncIOScheduler(stores={"default": SQLAlchemyStore(engine)})
    with pytest.raises(StoreError, match=r"await scheduler\.astart\(\)"):
        scheduler.start()
    await engine.dispose()


def test_the_store_is_known_by_its_alias_and_its_options_are_checked() -> None:
    options = {"type": "sqlalchemy", "database": "sqlite:///jobs.db", "tablename": "jobs"}
    scheduler = NativeAsyncIOScheduler(stores={"default": options})
    store = scheduler.stores["default"]
    assert isinstance(store, SQLAlchemyStore)
    assert store.table.name == "jobs"
    with pytest.raises(ConfigurationError, match="no_such"):
        NativeAsyncIOScheduler(stores={"default": {**options, "no_such": 1}})
