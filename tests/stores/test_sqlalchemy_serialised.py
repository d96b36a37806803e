"""Databases that let a transaction lose against another one: it is made again, and nobody hears."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from sqlalchemy import URL, Connection, event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from asyncz.enums import RunState
from asyncz.stores.base import TaskAdvance
from asyncz.stores.cluster import Fired, Node, RunEnd, RunOutcome
from asyncz.stores.sqlalchemy import SQLAlchemyStore
from asyncz.stores.sqlalchemy_dialects import async_url
from asyncz.tasks.base import Task
from asyncz.testing.store_suite_cluster import firing, ref
from asyncz.testing.store_suite_tools import NOON, after, make_task
from tests.services.databases import SERVERS, execute_on, new_database

from .sqlalchemy_tools import engine_for, opened

NIGHTLY = os.environ.get("ASYNCZ_NIGHTLY") == "1"
ROUNDS = 50 if NIGHTLY else 4
TASKS = 20
RACING = [*SERVERS] if NIGHTLY else ["postgresql+asyncpg", "mysql+asyncmy"]
MINUTE = timedelta(minutes=1)
PATIENCE = 15.0
SNAPSHOTS = "SET SESSION innodb_snapshot_isolation=ON"
REPEATABLE = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
COULD_NOT_SERIALISE, HAS_CHANGED = "could not serialize", "Record has changed"


class Racers(NamedTuple):
    """Stores with an engine of the app's each.

    Args:
        lost: What the server has said of transactions that lost.
    """

    url: URL
    stores: list[SQLAlchemyStore]
    lost: list[str]


@pytest.fixture(params=SERVERS, scope="module")
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """A database for all tests; its transactions are serialised, if no client says otherwise."""
    with new_database(request.param) as made:
        if made.get_backend_name() == "postgresql":
            serialise = "SET default_transaction_isolation = serializable"
            execute_on(made, f"ALTER DATABASE {made.database} {serialise}")
        yield made


def strict_engine(url: URL, lost: list[str]) -> AsyncEngine:
    """An engine as an app has one that wants its transactions serialised."""
    mysql = url.get_backend_name() == "mysql"
    connect_args = {"init_command": SNAPSHOTS} if mysql else {}
    engine = create_async_engine(async_url(url), connect_args=connect_args)

    @event.listens_for(engine.sync_engine, "handle_error")
    def note_down(context: Any) -> None:
        lost.append(str(context.original_exception))

    return engine


@asynccontextmanager
async def racers(url: URL, count: int = 2) -> AsyncIterator[Racers]:
    found = Racers(url, [], [])
    async with AsyncExitStack() as stack:
        for number in range(count):
            engine = strict_engine(url, found.lost)
            stack.push_async_callback(engine.dispose)
            store = await stack.enter_async_context(opened(engine))
            await store.join_node(Node(f"n{number}", "worker", "host", number), 30)
            found.stores.append(store)
        await found.stores[0].add_tasks([make_task(f"t{number:02}") for number in range(TASKS)])
        found.lost.clear()
        yield found
        await found.stores[0].remove_all_tasks()


async def advance(store: SQLAlchemyStore, tasks: Sequence[Task], made: Counter[str]) -> None:
    """Move those on that are left."""
    done = await store.advance_tasks([TaskAdvance(task, NOON, after(60)) for task in tasks])
    made.update(str(task.id) for task, was in zip(tasks, done, strict=True) if was)


async def claim(
    store: SQLAlchemyStore, node: str, tasks: Sequence[Task], won: Counter[str]
) -> None:
    """Fire those that are left, and end them."""
    for page in (tasks[: TASKS // 2], tasks[TASKS // 2 :]):
        moment = page[0].next_run_time
        assert moment is not None
        firings = [firing(task, following=moment + MINUTE) for task in page]
        fired = await store.fire(node, uuid4().hex, firings)
        ours = [str(task.id) for task, one in zip(page, fired, strict=True) if one is Fired.WON]
        won.update(f"{task_id} {moment}" for task_id in ours)
        outcomes = (RunOutcome(moment, RunState.SUCCEEDED),)
        ends = [RunEnd(ref(task_id, at=moment), outcomes) for task_id in ours]
        assert all(await store.finish_runs(node, ends))


@pytest.mark.parametrize("url", RACING, indirect=True, scope="module")
async def test_each_occurrence_is_fired_once_where_transactions_are_serialised(url: URL) -> None:
    made: Counter[str] = Counter()
    won: Counter[str] = Counter()
    async with racers(url) as found:
        one, two = found.stores
        tasks = await one.get_due_tasks(NOON)
        ways = [(store, tasks[::way]) for store in (one, two) for way in (1, -1)]
        await asyncio.gather(*(advance(store, order, made) for store, order in ways))
        for _ in range(ROUNDS):
            tasks = await one.get_due_tasks(after(9_999))
            await asyncio.gather(
                claim(one, "n0", tasks, won),
                claim(two, "n1", tasks[::-1], won),
                one.renew_node("n0", 30, 1),
                one.reap("n0", bury=None, max_attempts=3),
                two.attend("n1"),
            )
        times = {task.next_run_time for task in await one.get_all_tasks()}
    assert made == Counter(str(task.id) for task in tasks)
    assert times == {NOON + (ROUNDS + 1) * MINUTE}
    assert len(won) == ROUNDS * TASKS
    assert set(won.values()) == {1}


async def until_somebody_waits(connection: AsyncConnection) -> None:
    """For a lock, in this database of PostgreSQL."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    async with asyncio.timeout(PATIENCE):
        while True:
            # Otherwise a transaction is told what it was told before.
            await connection.exec_driver_sql("SELECT pg_stat_clear_snapshot()")
            found = await connection.exec_driver_sql(f"{waiting} AND datname = current_database()")
            if found.scalar_one():
                return
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "url", ["postgresql+asyncpg", "postgresql+psycopg"], indirect=True, scope="module"
)
async def test_a_statement_that_is_serialised_away_is_made_again(url: URL) -> None:
    """What it waits for is changed by then, for which PostgreSQL has the code 40001."""
    async with racers(url, 1) as found, engine_for(url) as engine, engine.connect() as other:
        (store,) = found.stores
        for operation in (store.update_task(make_task("t01", after(7))), store.delete_task("t02")):
            await other.exec_driver_sql("UPDATE asyncz_tasks SET rev = rev + 1")
            waiting = asyncio.ensure_future(operation)
            await until_somebody_waits(other)
            await other.commit()
            await waiting
        moved, gone = await store.lookup_task("t01"), await store.lookup_task("t02")
    assert moved is not None
    assert (moved.next_run_time, gone) == (after(7), None)
    assert [COULD_NOT_SERIALISE in text for text in found.lost] == [True, True]


@pytest.mark.parametrize("url", ["mysql+asyncmy", "mysql+aiomysql"], indirect=True, scope="module")
async def test_a_transaction_whose_row_has_changed_is_made_again(url: URL) -> None:
    """The store's own ones do not come to that, as they see what others have committed."""
    tries = 0

    def work(connection: Connection, _: bool) -> int:
        nonlocal tries
        tries += 1
        try:
            for statement in (SNAPSHOTS, REPEATABLE, "START TRANSACTION"):
                connection.exec_driver_sql(statement)
            connection.exec_driver_sql("SELECT rev FROM asyncz_tasks").all()
            if tries == 1:
                execute_on(url, "UPDATE asyncz_tasks SET rev = rev + 1")
            done = connection.exec_driver_sql("UPDATE asyncz_tasks SET rev = rev + 1").rowcount
            connection.exec_driver_sql("COMMIT")
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise
        return done

    async with racers(url, 1) as found:
        assert await found.stores[0]._database.run(work) == TASKS
    assert tries == 2
    assert [HAS_CHANGED in text for text in found.lost] == [True]
