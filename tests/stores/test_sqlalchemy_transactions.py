"""Tasks that are added or changed in a transaction of the app's own, together with its data."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import URL, Column, Integer, MetaData, Table, func, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from asyncz import AsyncIOScheduler, NativeAsyncIOScheduler, RunState, Task
from asyncz.events.base import SchedulerEvent, TaskEvent
from asyncz.events.constants import TASK_ADDED, TASK_MODIFIED
from asyncz.exceptions import (
    BlockingCallError,
    ConflictIdError,
    SchedulerNotRunningError,
    StoreError,
    TaskLookupError,
    TaskOptionError,
)
from asyncz.stores.sqlalchemy import SQLAlchemyStore
from asyncz.stores.sqlalchemy_dialects import async_url
from tests.services.databases import new_database

PATIENCE = 5.0
ORDERS = Table("orders", MetaData(), Column("id", Integer, primary_key=True))

Scheduler = AsyncIOScheduler | NativeAsyncIOScheduler

shipped: asyncio.Queue[int]


async def ship(order: int = 0) -> None:
    """The task of these tests."""
    shipped.put_nowait(order)


@pytest.fixture(params=["sqlite", "postgresql+asyncpg", "postgresql+psycopg", "mysql+asyncmy"])
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    with new_database(request.param) as made:
        yield made


@pytest.fixture
async def app(url: URL) -> AsyncIterator[AsyncEngine]:
    """The app's own engine, with a table of its own."""
    engine = create_async_engine(async_url(url))
    async with engine.begin() as connection:
        await connection.run_sync(ORDERS.metadata.create_all)
    yield engine
    await engine.dispose()


@pytest.fixture(params=[NativeAsyncIOScheduler, AsyncIOScheduler])
async def scheduler(request: pytest.FixtureRequest, url: URL) -> AsyncIterator[Scheduler]:
    """Either of the two; the engine of the second lives in a thread."""
    global shipped
    shipped = asyncio.Queue()
    made: Scheduler = request.param(timezone="UTC", stores={"default": SQLAlchemyStore(url)})
    async with made:
        yield made


async def next_shipped() -> int:
    async with asyncio.timeout(PATIENCE):
        return await shipped.get()


async def orders_in(app: AsyncEngine) -> int | None:
    async with app.connect() as connection:
        return (await connection.execute(select(func.count()).select_from(ORDERS))).scalar()


@asynccontextmanager
async def rolled_back(app: AsyncEngine) -> AsyncIterator[AsyncSession]:
    """A transaction that comes to nothing."""
    async with AsyncSession(app) as session:
        yield session
        await session.rollback()


async def test_a_task_runs_as_soon_as_its_transaction_is_committed(
    scheduler: Scheduler, app: AsyncEngine
) -> None:
    async with app.begin() as connection:
        await connection.execute(insert(ORDERS).values(id=7))
        task = await scheduler.aadd_task(ship, args=[7], connection=connection)
        assert await scheduler.aget_task(str(task.id)) is None
        assert shipped.empty()

    assert await next_shipped() == 7
    assert await orders_in(app) == 1


async def test_a_task_that_was_rolled_back_was_never_there(
    scheduler: Scheduler, app: AsyncEngine
) -> None:
    async with rolled_back(app) as session:
        await session.execute(insert(ORDERS).values(id=7))
        await scheduler.aadd_task(ship, args=[7], connection=session, id="gone")

    async with app.begin() as connection:
        await scheduler.aadd_task(ship, args=[8], connection=connection)
    assert await next_shipped() == 8
    assert await scheduler.aget_task("gone") is None
    assert await orders_in(app) == 0
    assert shipped.empty()


async def test_a_task_that_was_rolled_back_can_be_added_again(
    scheduler: Scheduler, app: AsyncEngine
) -> None:
    async with rolled_back(app) as session:
        task = await scheduler.aadd_task(ship, args=[7], connection=session)
    async with asyncio.timeout(PATIENCE):
        while task.submitted:
            await asyncio.sleep(0)

    await scheduler.aadd_task(task)
    assert await next_shipped() == 7


async def test_a_session_of_the_orm_can_be_given(scheduler: Scheduler, app: AsyncEngine) -> None:
    async with AsyncSession(app) as session, session.begin():
        await session.execute(insert(ORDERS).values(id=7))
        await scheduler.aadd_task(ship, args=[7], connection=session)

    assert await next_shipped() == 7


async def test_a_taken_id_is_told_and_the_transaction_goes_on(
    scheduler: Scheduler, app: AsyncEngine
) -> None:
    await scheduler.aadd_task(ship, "interval", hours=1, args=[1], id="daily")
    async with app.begin() as connection:
        await connection.execute(insert(ORDERS).values(id=7))
        with pytest.raises(ConflictIdError, match="daily"):
            await scheduler.aadd_task(ship, args=[2], id="daily", connection=connection)
        await scheduler.aadd_task(ship, args=[3], connection=connection)

    assert await next_shipped() == 3
    assert await orders_in(app) == 1
    kept = await scheduler.aget_task("daily")
    assert kept is not None
    assert kept.args == (1,)


async def test_a_task_can_be_replaced_within_a_transaction(
    scheduler: Scheduler, app: AsyncEngine
) -> None:
    await scheduler.aadd_task(ship, "interval", hours=1, args=[1], id="daily")
    for rolls_back in (True, False):
        async with AsyncSession(app) as session:
            await scheduler.aadd_task(
                ship, "interval", hours=2, args=[2], id="daily", replace_existing=True,
                connection=session,
            )  # fmt: skip
            await (session.rollback() if rolls_back else session.commit())
        found = await scheduler.aget_task("daily")
        assert found is not None
        assert found.args == ((1,) if rolls_back else (2,))


async def test_what_a_replaced_task_owed_is_recorded_after_the_commit(
    scheduler: Scheduler, app: AsyncEngine
) -> None:
    await scheduler.apause()
    due = datetime.now(UTC) - timedelta(hours=3, minutes=30)
    await scheduler.aadd_task(ship, "interval", hours=1, id="daily", next_run_time=due)
    for rolls_back in (True, False):
        async with AsyncSession(app) as session:
            await scheduler.aadd_task(
                ship, "interval", hours=2, id="daily", replace_existing=True, connection=session
            )
            await (session.rollback() if rolls_back else session.commit())
    async with asyncio.timeout(PATIENCE):
        while not (runs := await scheduler.aget_runs("daily")):
            await asyncio.sleep(0.01)
    assert [(run.scheduled_time, run.state, run.occurrences) for run in runs] == [
        (due, RunState.MISSED, 4)
    ]


async def test_the_event_of_a_task_waits_for_the_commit(
    scheduler: Scheduler, app: AsyncEngine
) -> None:
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    added: list[str] = []

    def listen(event: SchedulerEvent) -> None:
        assert isinstance(event, TaskEvent)
        added.append(event.task_id)
        loop.call_soon_threadsafe(told.set)

    scheduler.add_listener(listen, TASK_ADDED)
    async with app.begin() as connection:
        await scheduler.aadd_task(ship, "interval", hours=1, id="a", connection=connection)
        assert added == []

    async with asyncio.timeout(PATIENCE):
        await told.wait()
    assert added == ["a"]


async def test_a_change_counts_with_its_transaction_only(
    scheduler: Scheduler, app: AsyncEngine
) -> None:
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    scheduler.add_listener(lambda _: loop.call_soon_threadsafe(told.set), TASK_MODIFIED)
    await scheduler.aadd_task(ship, "interval", hours=1, args=[1], id="daily")
    for rolls_back in (True, False):
        async with AsyncSession(app) as session:
            await session.execute(insert(ORDERS).values(id=7))
            task = await scheduler.aupdate_task("daily", args=[2], connection=session)
            assert task.args == (2,)
            assert not told.is_set()
            await (session.rollback() if rolls_back else session.commit())
        found = await scheduler.aget_task("daily")
        assert found is not None
        assert found.args == ((1,) if rolls_back else (2,))
        async with asyncio.timeout(PATIENCE):
            while task.args != found.args:
                await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE):
        await told.wait()
    assert await orders_in(app) == 1


async def test_what_is_made_due_runs_as_soon_as_it_is_committed(
    scheduler: Scheduler, app: AsyncEngine
) -> None:
    async with app.begin() as connection:
        # Added in the same transaction, it is seen there already.
        await scheduler.aadd_task(
            ship, "interval", hours=1, args=[1], id="daily", next_run_time=None,
            connection=connection,
        )  # fmt: skip
        now = scheduler.clock.now()
        await scheduler.aupdate_task("daily", next_run_time=now, args=[2], connection=connection)
        assert shipped.empty()
    assert await next_shipped() == 2


async def test_a_wrong_change_leaves_the_transaction_as_it_was(
    scheduler: Scheduler, app: AsyncEngine
) -> None:
    await scheduler.aadd_task(ship, "interval", hours=1, args=[1], id="daily")
    async with app.begin() as connection:
        await connection.execute(insert(ORDERS).values(id=7))
        with pytest.raises(TaskOptionError, match="max_instances"):
            await scheduler.aupdate_task("daily", max_instances=0, connection=connection)
        with pytest.raises(TaskLookupError, match="'weekly' in the store 'default'"):
            await scheduler.aupdate_task("weekly", args=[2], connection=connection)
    assert await orders_in(app) == 1


async def test_a_change_is_of_the_task_as_it_is_when_the_transaction_is_older(
    scheduler: Scheduler, app: AsyncEngine
) -> None:
    """With MySQL's usual isolation the transaction sees the task as it was."""
    if app.dialect.name == "sqlite":
        pytest.skip("SQLite refuses to write in a transaction that has read what is old by now.")
    await scheduler.aadd_task(ship, "interval", hours=1, args=[1], id="daily")
    async with app.begin() as connection:
        await connection.execute(select(ORDERS))
        await scheduler.aupdate_task("daily", args=[2])
        await scheduler.aupdate_task("daily", name="renamed", connection=connection)
    found = await scheduler.aget_task("daily")
    assert found is not None
    assert (found.args, found.name) == ((2,), "renamed")


async def test_several_tasks_are_added_with_the_transaction_or_not_at_all(
    scheduler: Scheduler, app: AsyncEngine
) -> None:
    tasks = [Task(ship, args=[order]) for order in (1, 2, 3)]
    async with rolled_back(app) as session:
        await scheduler.aadd_tasks(tasks, connection=session)
    async with asyncio.timeout(PATIENCE):
        while any(task.submitted for task in tasks):
            await asyncio.sleep(0)
    assert await scheduler.aget_tasks() == []

    async with app.begin() as connection:
        await connection.execute(insert(ORDERS).values(id=7))
        await scheduler.aadd_tasks(tasks, connection=connection)
        assert shipped.empty()
    assert sorted([await next_shipped() for _ in tasks]) == [1, 2, 3]
    assert await orders_in(app) == 1


async def test_of_several_tasks_none_is_added_if_an_id_is_taken(
    scheduler: Scheduler, app: AsyncEngine
) -> None:
    await scheduler.aadd_task(ship, "interval", hours=1, args=[1], id="daily")
    tasks = [Task(ship, args=[2], id="new"), Task(ship, args=[3], id="daily")]
    async with app.begin() as connection:
        with pytest.raises(ConflictIdError, match="daily"):
            await scheduler.aadd_tasks(tasks, connection=connection)
        await scheduler.aadd_task(ship, args=[4], connection=connection)
    assert await next_shipped() == 4
    assert await scheduler.aget_task("new") is None
    assert not any(task.submitted for task in tasks)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
class TestRefusals:
    async def test_a_synchronous_call_names_the_coroutine(
        self, scheduler: Scheduler, app: AsyncEngine
    ) -> None:
        async with app.begin() as connection:
            with pytest.raises(BlockingCallError, match=r"await scheduler\.aadd_task"):
                await asyncio.to_thread(scheduler.add_task, ship, connection=connection)
            with pytest.raises(BlockingCallError, match=r"await scheduler\.aadd_tasks"):
                await asyncio.to_thread(scheduler.add_tasks, [Task(ship)], connection=connection)
            with pytest.raises(BlockingCallError, match=r"await scheduler\.aupdate_task"):
                await asyncio.to_thread(scheduler.update_task, "a", connection=connection)
        assert await scheduler.aget_tasks() == []

    async def test_a_store_without_transactions_says_so(
        self, scheduler: Scheduler, app: AsyncEngine
    ) -> None:
        await asyncio.to_thread(scheduler.add_store, "memory", "quick")
        async with app.begin() as connection:
            with pytest.raises(StoreError, match=r"'quick'.*SQLAlchemyStore"):
                await scheduler.aadd_task(ship, store="quick", connection=connection)
            with pytest.raises(StoreError, match=r"'quick'.*SQLAlchemyStore"):
                await scheduler.aadd_tasks([Task(ship, store_alias="quick")], connection=connection)
            with pytest.raises(StoreError, match=r"'quick'.*SQLAlchemyStore"):
                await scheduler.aupdate_task("a", store="quick", connection=connection)
        assert await scheduler.aget_tasks() == []

    async def test_what_is_no_connection_is_refused(self, scheduler: Scheduler) -> None:
        with pytest.raises(StoreError, match=r"AsyncConnection.*not of a str"):
            await scheduler.aadd_task(ship, connection="sqlite://")

    async def test_a_scheduler_that_has_not_started_says_so(
        self, url: URL, app: AsyncEngine
    ) -> None:
        scheduler = NativeAsyncIOScheduler(stores={"default": SQLAlchemyStore(url)})
        async with app.begin() as connection:
            with pytest.raises(SchedulerNotRunningError, match="start it first"):
                await scheduler.aadd_task(ship, connection=connection)
            with pytest.raises(SchedulerNotRunningError, match="start it first"):
                await scheduler.aupdate_task("a", connection=connection)

    async def test_which_of_several_stores_is_meant_has_to_be_said(
        self, scheduler: Scheduler, app: AsyncEngine, url: URL
    ) -> None:
        other = SQLAlchemyStore(url, tablename="others")
        await asyncio.to_thread(scheduler.add_store, other, "other")
        await scheduler.aadd_task(ship, "interval", hours=1, id="a", store="other")
        async with app.begin() as connection:
            with pytest.raises(TaskOptionError, match="'default', 'other'"):
                await scheduler.aupdate_task("a", name="b", connection=connection)
            await scheduler.aupdate_task("a", "other", name="b", connection=connection)
        found = await scheduler.aget_task("a")
        assert found is not None
        assert found.name == "b"
