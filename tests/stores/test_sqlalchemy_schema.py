"""Tables are made and brought forward once, whoever starts; what is not ours is left alone."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import time

import pytest
from sqlalchemy import (
    URL,
    BigInteger,
    Column,
    Connection,
    Integer,
    MetaData,
    Table,
    inspect,
    text,
    update,
)

from asyncz import NativeAsyncIOScheduler
from asyncz.enums import RunState
from asyncz.exceptions import ConfigurationError, StoreError, StoreFormatError
from asyncz.runs.base import RunQuery
from asyncz.stores import sqlalchemy_migrations
from asyncz.stores.cluster import Fired, Node, RunEnd, RunOutcome
from asyncz.stores.sqlalchemy import (
    SCHEMA_VERSION,
    SQLAlchemyStore,
    drop_tables,
    make_tables,
    upgrade_tables,
)
from asyncz.stores.sqlalchemy_schema import Tables
from asyncz.testing.store_suite_cluster import firing, ref
from asyncz.testing.store_suite_tools import NOON, SuiteHost, after, ids_of, make_task
from tests.services.databases import execute_on, new_database

from .sqlalchemy_tools import (
    engine_for,
    opened,
    take_back_to_version_1,
    take_back_to_version_2,
)

OPENER = Path(__file__).with_name("sqlalchemy_opener.py")
ROOT = Path(__file__).parents[2]
PROCESSES = 10


@pytest.fixture(params=["sqlite", "postgresql+asyncpg", "mysql+asyncmy"])
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    with new_database(request.param) as made:
        yield made


@pytest.fixture
def newer_schema(monkeypatch: pytest.MonkeyPatch) -> int:
    """A release with one migration more than this one."""

    def add_a_column(connection: Connection, tables: Tables) -> None:
        columns = inspect(connection).get_columns(tables.tasks.name)
        if "lease" not in {column["name"] for column in columns}:
            connection.execute(text(f"ALTER TABLE {tables.tasks.name} ADD COLUMN lease BIGINT"))

    number = SCHEMA_VERSION + 1
    monkeypatch.setitem(sqlalchemy_migrations.MIGRATIONS, number, add_a_column)
    monkeypatch.setattr(sqlalchemy_migrations, "SCHEMA_VERSION", number)
    monkeypatch.setattr("asyncz.stores.sqlalchemy.SCHEMA_VERSION", number)
    return number


@pytest.mark.parametrize("version", [0, 1, 2])
async def test_ten_processes_that_start_at_once_make_the_tables_once(
    url: URL, version: int
) -> None:
    if version:
        async with opened(url):
            pass
        await {1: take_back_to_version_1, 2: take_back_to_version_2}[version](url)
    command = [sys.executable, str(OPENER), url.render_as_string(hide_password=False)]
    openers = [
        subprocess.Popen(
            [*command, f"t{number}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env={"PYTHONPATH": str(ROOT)},
        )
        for number in range(PROCESSES)
    ]  # fmt: skip
    for opener in openers:
        assert opener.stdout is not None
        assert opener.stdout.readline() == "ready\n"
    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.write("go\n")
        opener.stdin.flush()
    errors = [opener.communicate(timeout=60)[1] for opener in openers]

    assert [opener.returncode for opener in openers] == [0] * PROCESSES, "\n".join(errors)
    async with opened(url) as store:
        tasks = await store.get_all_tasks()
    assert sorted(map(str, ids_of(tasks))) == [f"t{number}" for number in range(PROCESSES)]


async def test_tables_of_an_older_release_are_brought_forward(
    url: URL, request: pytest.FixtureRequest
) -> None:
    async with opened(url) as store:
        await store.add_task(make_task("old"))

    request.getfixturevalue("newer_schema")
    for _ in range(2):
        async with opened(url) as store:
            assert ids_of(await store.get_all_tasks()) == ["old"]
    async with engine_for(url) as engine, engine.connect() as connection:
        columns = await connection.run_sync(
            lambda sync: inspect(sync).get_columns(store.table.name)
        )
    assert "lease" in {column["name"] for column in columns}


@pytest.mark.parametrize("driver", ["postgresql+psycopg", "mysql+asyncmy", "mysql+aiomysql"])
async def test_a_change_of_the_tables_may_take_longer_than_a_statement(
    driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = driver.partition("+")[0]
    name, limit, sleep = {
        "postgresql": ("statement_timeout", "200ms", "SELECT pg_sleep(0.3)"),
        "mysql": ("max_statement_time", 0.2, "SELECT SLEEP(0.3)"),
    }[family]
    change = sqlalchemy_migrations.MIGRATIONS[SCHEMA_VERSION]

    def take_long(connection: Connection, tables: Tables) -> None:
        connection.execute(text(sleep))
        change(connection, tables)

    monkeypatch.setitem(sqlalchemy_migrations.MIGRATIONS, SCHEMA_VERSION, take_long)
    with new_database(driver) as url:
        async with opened(url, session_settings={name: limit}) as store:
            assert await store.get_all_tasks() == []
            with pytest.raises(StoreError):  # the limit is there again
                await store._database.run(lambda connection, _: connection.execute(text(sleep)))


@pytest.mark.parametrize("by_hand", [False, True])
async def test_tables_without_runs_get_them_and_lose_nothing(url: URL, by_hand: bool) -> None:
    async with opened(url) as store:
        await store.add_tasks([make_task("a"), make_task("b", None)])
    await take_back_to_version_1(url)
    async with engine_for(url) as engine, engine.begin() as connection:
        row = "INSERT INTO asyncz_tasks_nodes (id, claim, seen_us) VALUES ('old', 'c', {})"
        await connection.execute(text(row.format(int(time() * 1_000_000))))
        if by_hand:
            await connection.run_sync(upgrade_tables)

    async with opened(url, create_tables=not by_hand) as store:
        assert ids_of(await store.get_all_tasks()) == ["a", "b"]
        assert await store.get_nodes() == []  # whoever it was, it shares nothing
        await store.join_node(Node("new", "worker", "host", 1), 30)
        assert [found.node.id for found in await store.get_nodes()] == ["new"]
        (task,) = await store.get_due_tasks(NOON)
        assert await store.fire("new", "claim", [firing(task)]) == [Fired.WON]
        assert [run.task_id for run in await store.get_runs(RunQuery())] == ["a"]


@pytest.mark.parametrize("by_hand", [False, True])
async def test_runs_that_know_of_no_attempts_go_on_as_they_are(url: URL, by_hand: bool) -> None:
    old, new = Node("old", "worker", "host", 1), Node("new", "worker", "host", 2)
    store = SQLAlchemyStore(url)
    await store.start(SuiteHost(), "tasks")
    await store.add_tasks([make_task(name) for name in "abc"])
    await store.join_node(old, 30)
    await store.fire(old.id, "claim", [firing(task) for task in await store.get_due_tasks(NOON)])
    failed = RunOutcome(NOON, RunState.FAILED, "E", "T", "R")
    await store.finish_runs(old.id, [RunEnd(ref("c"), (failed,))])
    await store.shutdown()
    await take_back_to_version_2(url)
    if by_hand:
        async with engine_for(url) as engine, engine.begin() as connection:
            await connection.run_sync(upgrade_tables)

    async with opened(url, create_tables=not by_hand) as store:
        assert (await store.look()).attend_at is None
        await store.join_node(new, 30)
        (run,) = await store.get_runs(RunQuery(task_id="c"))
        assert (run.error, run.traceback, run.reason) == ("E", "T", "R")
        taken = {run.ref.task_id: run.ref for run in (await store.reap(
            new.id, bury=None, max_attempts=3
        )).taken}  # fmt: skip
        again = RunOutcome(NOON, RunState.RETRYING, retry_at=after(-(10**9)))
        assert await store.finish_runs(new.id, [RunEnd(taken["a"], (again,))]) == [True]
        (attempt,) = (await store.attend(new.id)).taken
        assert (attempt.ref, attempt.attempt) == (ref("a", 3), 3)
        assert await store.cancel_run("b", NOON, "ann") is RunState.RUNNING
        assert (await store.attend(new.id)).asked == ((taken["b"], "ann"),)


async def test_tables_of_a_newer_release_are_refused_and_left_alone(url: URL) -> None:
    async with opened(url) as store:
        await store.add_task(make_task("a"))
        meta = make_tables(MetaData()).meta
        async with engine_for(url) as engine, engine.begin() as connection:
            await connection.execute(update(meta).values(value=SCHEMA_VERSION + 7))

    text = f"'tasks'.*version {SCHEMA_VERSION + 7}.*newer release"
    with pytest.raises(StoreFormatError, match=text):
        async with opened(url):
            pass


async def test_what_waiting_does_not_change_is_not_tried_until_the_startup_timeout(
    tmp_path: Path,
) -> None:
    url = URL.create("sqlite", database=str(tmp_path / "jobs.db"))
    async with opened(url):
        pass
    async with engine_for(url) as engine, engine.begin() as connection:
        newer = update(make_tables(MetaData()).meta).values(value=SCHEMA_VERSION + 1)
        await connection.execute(newer)

    store = SQLAlchemyStore(url)
    scheduler = NativeAsyncIOScheduler(stores={"jobs": store}, startup_timeout=600)
    async with asyncio.timeout(20):
        with pytest.raises(StoreFormatError, match="'jobs'") as caught:
            await scheduler.start()
    assert not hasattr(caught.value, "__notes__")


async def test_a_table_of_somebody_else_is_refused_and_left_alone(url: URL) -> None:
    theirs = Table("asyncz_tasks", MetaData(), Column("pickle", Integer, primary_key=True))
    async with engine_for(url) as engine, engine.begin() as connection:
        await connection.run_sync(theirs.create)

    with pytest.raises(StoreError, match=r"'asyncz_tasks'.*another tablename"):
        async with opened(url):
            pass
    async with opened(url, tablename="others") as store:
        await store.add_task(make_task("a"))


async def test_migrations_of_the_app_make_the_tables(url: URL) -> None:
    with pytest.raises(StoreError, match="upgrade_tables"):
        async with opened(url, create_tables=False):
            pass

    async with engine_for(url) as engine:
        for _ in range(2):
            async with engine.begin() as connection:
                await connection.run_sync(upgrade_tables)
        async with opened(url, create_tables=False) as store:
            await store.add_task(make_task("a"))
        async with engine.begin() as connection:
            await connection.run_sync(drop_tables)
            names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    assert names == []


async def test_alembic_makes_the_tables_and_its_autogenerate_leaves_them_alone(url: URL) -> None:
    migration = pytest.importorskip("alembic.migration")
    operations = pytest.importorskip("alembic.operations")
    autogenerate = pytest.importorskip("alembic.autogenerate")
    store = SQLAlchemyStore(url, metadata=MetaData(), create_tables=False)

    def migrate(connection: Connection) -> None:
        context = migration.MigrationContext.configure(connection)
        with operations.Operations.context(context) as op:
            upgrade_tables(op.get_bind())

    def compare(connection: Connection) -> list[object]:
        context = migration.MigrationContext.configure(connection)
        return list(autogenerate.compare_metadata(context, store.metadata))

    async with engine_for(url) as engine:
        async with engine.begin() as connection:
            await connection.run_sync(migrate)
        async with engine.connect() as connection:
            assert await connection.run_sync(compare) == []
    async with opened(url, create_tables=False) as opened_store:
        await opened_store.add_task(make_task("a"))


async def test_the_tables_can_be_noted_down_beside_those_of_the_app(url: URL) -> None:
    metadata = MetaData()
    Table("app", metadata, Column("id", BigInteger, primary_key=True))
    for _ in range(2):  # a second store takes the tables that are there
        store = SQLAlchemyStore(url, metadata=metadata, tablename="jobs")

    assert store.table is metadata.tables["jobs"]
    ours = {"jobs", "jobs_aside", "jobs_nodes", "jobs_runs", "jobs_meta"}
    assert set(metadata.tables) == {"app"} | ours
    async with opened(url, metadata=metadata, tablename="jobs") as store:
        await store.add_task(make_task("a"))
    async with engine_for(url) as engine, engine.connect() as connection:
        names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    assert "app" not in names


async def test_a_schema_of_postgresql_can_be_chosen() -> None:
    with new_database("postgresql+asyncpg") as url:
        execute_on(url, "CREATE SCHEMA jobs")
        async with opened(url, schema="jobs") as store:
            await store.add_task(make_task("a"))
        async with opened(url, schema="jobs") as store:
            assert ids_of(await store.get_all_tasks()) == ["a"]
            (task,) = await store.get_all_tasks()
        async with engine_for(url) as engine, engine.connect() as connection:
            names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    assert names == []
    assert task.id == "a"


async def test_rights_to_read_and_write_rows_are_enough() -> None:
    with new_database("postgresql+asyncpg") as url:
        async with opened(url):
            pass
        role = f"role_{url.database}"
        execute_on(
            url,
            f"CREATE ROLE {role} LOGIN",
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
        )
        try:
            async with opened(url.set(username=role)) as store:
                await store.add_task(make_task("a"))
                await store.delete_task("a")
        finally:
            execute_on(url, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


@pytest.mark.parametrize(
    "options",
    [
        {"tablename": "tasks; DROP TABLE users"},
        {"tablename": ""},
        {"tablename": "1st"},
        {"tablename": "x" * 49},
        {"tablename": "täglich"},
        {"schema": 'public"'},
        {"session_settings": {"a b": 1}},
        {"session_settings": {"timezone": "x'; DROP TABLE users; --"}},
    ],
)
def test_names_that_may_not_stand_in_sql_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        SQLAlchemyStore("sqlite://", **options)
