"""What is peculiar to runs and nodes in a SQL database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import pytest
from sqlalchemy import URL, func, select, text, update

from asyncz import NativeAsyncIOScheduler
from asyncz.enums import NodeState, RunKind, RunState
from asyncz.runs.base import RunQuery
from asyncz.serializers.encrypted import EncryptedSerializer
from asyncz.stores.cluster import Fired, Node, RunEnd, RunOutcome, Unrun
from asyncz.stores.sqlalchemy import SQLAlchemyStore, make_tables
from asyncz.stores.sqlalchemy_dialects import async_url, make_engine
from asyncz.testing.store_suite_cluster import firing, ref
from asyncz.testing.store_suite_tools import NOON, SuiteHost, after, make_task
from tests.services.databases import new_database

from .sqlalchemy_tools import engine_for, fill_with_settled, opened, plan_of, questions

ONE = Node("one", "worker", "host", 1)
OTHER = Node("other", "worker", "host", 2)
TASKS, RUNS, NODES = make_tables().tasks, make_tables().runs, make_tables().nodes
SECRET = "password 12345"  # noqa: S105
PATIENCE = 20.0


@pytest.fixture(params=["sqlite", "postgresql+asyncpg", "mysql+asyncmy"])
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    with new_database(request.param) as made:
        yield made


@pytest.fixture
async def store(url: URL) -> AsyncIterator[SQLAlchemyStore]:
    """A store of which there are two nodes."""
    async with opened(url) as made:
        for node in (ONE, OTHER):
            await made.join_node(node, 30)
        yield made


async def states(store: SQLAlchemyStore) -> dict[str, RunState]:
    return {run.task_id: run.state for run in await store.get_runs(RunQuery())}


async def count(url: URL, *conditions: object) -> int:
    """How many rows of runs meet conditions."""
    async with engine_for(url) as engine, engine.connect() as connection:
        counted = select(func.count()).select_from(RUNS).where(*conditions)  # type: ignore[arg-type]
        return (await connection.execute(counted)).scalar_one()


# One page with all that there can be in it.


async def test_a_page_has_an_answer_for_each_whatever_became_of_it(
    store: SQLAlchemyStore,
) -> None:
    names = ["busy", "gone", "moved", "repeated", "won"]
    await store.add_tasks([make_task(name) for name in names])
    for name in ("busy", "repeated"):
        task = await store.lookup_task(name)
        assert task is not None
        await store.fire(ONE.id, f"first {name}", [firing(task)])
        task.next_run_time = after(60) if name == "busy" else NOON
        await store.update_task(task)
    await store.finish_runs(ONE.id, [RunEnd(ref("repeated"), ())])
    tasks = {str(task.id): task for task in await store.get_all_tasks()}
    await store.delete_task("gone")
    await store.update_task(make_task("moved", after(5)))

    fired = await store.fire(ONE.id, "page", [firing(tasks[name]) for name in names])

    assert dict(zip(names, fired, strict=True)) == {
        "busy": Fired.SKIPPED,
        "gone": Fired.LOST,
        "moved": Fired.LOST,
        "repeated": Fired.REPEATED,
        "won": Fired.WON,
    }
    runs = await store.get_runs(RunQuery())
    assert [(run.task_id, run.state) for run in runs] == [
        ("busy", RunState.SKIPPED),
        ("won", RunState.RUNNING),
        ("repeated", RunState.CANCELLED),
        ("busy", RunState.RUNNING),
    ]


async def test_a_run_of_a_task_that_was_removed_and_added_anew_is_told_from_the_old_one(
    store: SQLAlchemyStore,
) -> None:
    await store.add_task(make_task("a", max_instances=2))
    (task,) = await store.get_due_tasks(NOON)
    await store.fire(ONE.id, "first", [firing(task, following=None)])
    await store.add_task(make_task("a", max_instances=2))
    (task,) = await store.get_due_tasks(NOON)

    # The old one goes on, and their outcomes could not be told apart.
    assert await store.fire(ONE.id, "second", [firing(task)]) == [Fired.REPEATED]
    assert await states(store) == {"a": RunState.RUNNING}


async def test_several_occurrences_are_released_and_taken_over_together(
    store: SQLAlchemyStore,
) -> None:
    times = (after(-120), after(-60), NOON)
    await store.add_task(make_task("a", times[0]))
    (task,) = await store.get_due_tasks(NOON)
    missed = Unrun(RunState.MISSED, after(-600), after(-180), 8, "too late")
    await store.fire(ONE.id, "first", [firing(task, *times, unrun=[missed])])
    await store.release_runs(ONE.id, [ref("a", at=times[0])])
    assert {run.owner for run in await store.get_runs(RunQuery(limit=3))} == {None}

    (taken,) = (await store.reap(OTHER.id, bury=None, max_attempts=3)).taken
    assert (taken.run_times, taken.attempt) == (times, 1)
    outcomes = tuple(RunOutcome(moment, RunState.SUCCEEDED) for moment in times[:2])
    assert await store.finish_runs(OTHER.id, [RunEnd(taken.ref, outcomes)]) == [True]
    found = await store.get_runs(RunQuery())
    assert [run.state for run in found] == [
        RunState.CANCELLED,
        RunState.SUCCEEDED,
        RunState.SUCCEEDED,
        RunState.MISSED,
    ]
    assert {run.owner for run in found[:3]} == {OTHER.id}


# Take-over.


async def test_what_cannot_be_read_here_is_left_to_others(store: SQLAlchemyStore, url: URL) -> None:
    names = [f"t{number}" for number in range(6)]
    await store.add_tasks([make_task(name, after(number)) for number, name in enumerate(names)])
    due = await store.get_due_tasks(after(9))
    await store.fire(ONE.id, "page", [firing(task, following=after(60)) for task in due])
    async with engine_for(url) as engine, engine.begin() as connection:
        bad = update(store.table).where(store.table.c.id.in_(names[:4])).values(record=b"{}")
        await connection.execute(bad)
    await store.leave_node(ONE.id)

    reaped = await store.reap(OTHER.id, bury=None, max_attempts=3, limit=2)

    assert [run.ref.task_id for run in reaped.taken] == names[4:]
    assert (await store.look()).has_unowned is True


async def test_a_node_finds_what_it_owns_though_it_cannot_be_read(
    store: SQLAlchemyStore, url: URL
) -> None:
    await store.add_tasks([make_task("a"), make_task("b")])
    due = await store.get_due_tasks(NOON)
    await store.fire(ONE.id, "page", [firing(task) for task in due])
    await store.delete_task("b")
    async with engine_for(url) as engine, engine.begin() as connection:
        await connection.execute(update(store.table).values(record=b"{}"))

    one, other = await store.get_own_runs(ONE.id)
    assert (one.task, other.task) == (None, None)
    assert "The id in the record" in str(one.error)
    assert other.error == "its task was deleted"


# Nodes.


async def test_nodes_that_are_gone_are_forgotten_in_a_week_unless_they_have_runs(
    store: SQLAlchemyStore, url: URL
) -> None:
    await store.add_task(make_task("a"))
    await store.fire(ONE.id, "claim", [firing(task) for task in await store.get_due_tasks(NOON)])
    third = Node("third", "worker", "host", 3)
    await store.join_node(third, 30)
    for node in (ONE, OTHER):
        await store.leave_node(node.id)
    async with engine_for(url) as engine, engine.begin() as connection:
        long_ago = update(NODES).values(seen_us=NODES.c.seen_us - 8 * 24 * 3600 * 10**6)
        await connection.execute(long_ago)

    async with opened(url):
        pass

    assert [found.node.id for found in await store.get_nodes()] == [ONE.id, third.id]


@pytest.mark.parametrize("url", ["postgresql+asyncpg", "mysql+asyncmy"], indirect=True)
async def test_what_a_claim_that_hangs_has_locked_is_not_waited_for(
    store: SQLAlchemyStore, url: URL
) -> None:
    await store.add_tasks([make_task("free"), make_task("held")])
    due = {str(task.id): task for task in await store.get_due_tasks(NOON)}
    late = (await store.look()).now + timedelta(seconds=60)
    async with engine_for(url) as engine, engine.connect() as connection:
        for table, held in ((TASKS, "held"), (NODES, ONE.id)):
            await connection.execute(select(table).where(table.c.id == held).with_for_update())
        async with asyncio.timeout(3):
            fired = await store.fire(OTHER.id, "1", [firing(due["free"]), firing(due["held"])])
            reaped = await store.reap(OTHER.id, bury=late, max_attempts=3)
        assert (fired, reaped.dead) == ([Fired.WON, Fired.LOST], ())
        await connection.rollback()

    assert await store.fire(OTHER.id, "2", [firing(due["held"])]) == [Fired.WON]
    assert (await store.reap(OTHER.id, bury=late, max_attempts=3)).dead == (ONE.id,)


@pytest.mark.parametrize("url", ["postgresql+asyncpg", "mysql+asyncmy"], indirect=True)
async def test_who_asks_for_a_run_waits_for_the_row_of_the_task(
    store: SQLAlchemyStore, url: URL
) -> None:
    await store.add_task(make_task("held"))
    (task,) = await store.get_due_tasks(NOON)
    by_hand = firing(task, after(1), kind=RunKind.MANUAL)
    async with engine_for(url) as engine, engine.connect() as connection:
        locked = select(TASKS).where(TASKS.c.id == "held").with_for_update()
        await connection.execute(locked)
        firing_it = asyncio.create_task(store.fire(OTHER.id, "1", [by_hand]))
        done, _ = await asyncio.wait([firing_it], timeout=0.3)
        assert not done
        await connection.rollback()

    assert await firing_it == [Fired.WON]


@pytest.mark.parametrize("url", ["postgresql+asyncpg", "mysql+asyncmy"], indirect=True)
async def test_the_server_ends_a_transaction_that_is_idle(url: URL) -> None:
    asked = {
        "postgresql": "SELECT setting::int / 1000 FROM pg_settings "
        "WHERE name = 'idle_in_transaction_session_timeout'",
        "mysql": "SELECT @@idle_transaction_timeout",
    }
    engine = make_engine(async_url(url), {}, {})
    async with engine.connect() as connection:
        found = await connection.execute(text(asked[url.get_backend_name()]))
        assert found.scalar_one() == 10
    await engine.dispose()


async def test_a_store_that_is_closed_leaves(url: URL) -> None:
    async with opened(url) as store:
        await store.join_node(ONE, 30)
        await store.add_task(make_task("a"))
        await store.fire(
            ONE.id, "claim", [firing(task) for task in await store.get_due_tasks(NOON)]
        )
    async with opened(url) as store:
        assert [found.state for found in await store.get_nodes()] == [NodeState.LEFT]
        assert (await store.look()).has_unowned is True


async def test_the_time_is_the_servers(store: SQLAlchemyStore) -> None:
    now = SuiteHost().clock.now()
    looked = await store.look()
    assert abs(looked.now - now) < timedelta(seconds=5)
    (first, *_) = await store.get_nodes()
    assert abs(first.joined_at - now) < timedelta(seconds=5)


# What is said of runs.


async def test_nothing_that_is_said_of_a_run_is_readable_without_the_key(url: URL) -> None:
    serializer = EncryptedSerializer("k" * 32)
    async with opened(url, serializer=serializer) as store:
        await store.join_node(ONE, 30)
        await store.add_task(make_task("a", args=(SECRET,)))
        (task,) = await store.get_due_tasks(NOON)
        await store.fire(ONE.id, "claim", [firing(task, following=None)])
        async with engine_for(url) as engine, engine.connect() as connection:
            kept = (await connection.execute(select(RUNS.c.record))).scalar_one()
        said = RunOutcome(NOON, RunState.FAILED, SECRET, f"{SECRET} \ud800 \0", None)
        await store.finish_runs(ONE.id, [RunEnd(ref("a"), (said,))])
        (run,) = await store.get_runs(RunQuery())
        async with engine_for(url) as engine, engine.connect() as connection:
            (row,) = await connection.execute(select(RUNS))

    assert (run.error, run.traceback, run.reason) == (SECRET, f"{SECRET} \ud800 \0", None)
    assert SECRET.encode() not in bytes(kept) + bytes(row.details)
    assert SECRET not in repr(row)
    async with opened(url, serializer=EncryptedSerializer("x" * 32)) as other:
        (run,) = await other.get_runs(RunQuery())
    assert run.error is None
    assert "cannot be read here" in str(run.reason)


async def test_a_page_of_long_tracebacks_is_recorded(store: SQLAlchemyStore, url: URL) -> None:
    names = [f"t{number:03}" for number in range(300)]
    await store.add_tasks([make_task(name) for name in names])
    due = await store.get_due_tasks(NOON)
    await store.fire(ONE.id, "claim", [firing(task) for task in due])
    said = RunOutcome(NOON, RunState.FAILED, "E" * 1_000, "\n\u20ac" * 8_000)
    counted = await store.finish_runs(ONE.id, [RunEnd(ref(name), (said,)) for name in names])

    assert counted == [True] * len(names)
    assert await count(url, RUNS.c.state == "failed", RUNS.c.active.is_(None)) == len(names)


async def test_the_record_of_a_task_is_kept_with_its_last_run_while_that_is_open(
    store: SQLAlchemyStore, url: URL
) -> None:
    await store.add_tasks([make_task("a"), make_task("b")])
    a, b = await store.get_due_tasks(NOON)
    await store.fire(ONE.id, "claim", [firing(a, following=None), firing(b)])
    assert await count(url, RUNS.c.record.is_not(None)) == 1

    await store.finish_runs(ONE.id, [RunEnd(ref("a"), (RunOutcome(NOON, RunState.SUCCEEDED),))])
    assert await count(url, RUNS.c.record.is_not(None)) == 0


# Plans.


@pytest.mark.parametrize(
    ("condition", "index"),
    [
        ("active = 1 AND owner = 'one' ORDER BY run_us", "asyncz_tasks_runs_own"),
        ("active = 1 AND task = 'a' ORDER BY run_us", "asyncz_tasks_runs_open"),
        ("run_us > 5 ORDER BY run_us DESC, task DESC LIMIT 50", "asyncz_tasks_runs_late"),
        ("finished_us < 5 ORDER BY finished_us LIMIT 9", "asyncz_tasks_runs_done"),
        ("attend_us IS NOT NULL ORDER BY attend_us LIMIT 1", "asyncz_tasks_runs_attend"),
        ("attend_us <= 5 ORDER BY attend_us, task LIMIT 9", "asyncz_tasks_runs_attend"),
    ],
)
async def test_runs_are_found_by_an_index(
    store: SQLAlchemyStore, url: URL, condition: str, index: str
) -> None:
    await fill_with_settled(url)
    async with engine_for(url) as engine, engine.connect() as connection:
        asked = f"SELECT state FROM asyncz_tasks_runs WHERE {condition}"  # noqa: S608
        assert index in await plan_of(connection, asked)


async def test_the_latest_runs_are_found_by_the_primary_key_in_one_question(
    store: SQLAlchemyStore, url: URL
) -> None:
    await fill_with_settled(url)
    found, asked = await questions(store, store.get_last_runs(["a", "b", *map(str, range(198))]))
    assert [*found] == ["a"]
    assert found["a"].scheduled_time == NOON + timedelta(microseconds=2_999)
    ((statement, parameters),) = asked
    async with store._shared.database.engine.connect() as connection:
        text_of = await plan_of(connection, statement, parameters)
    index = {"sqlite": "autoindex", "postgresql": "runs_pkey", "mysql": "PRIMARY"}
    assert index[url.get_backend_name()] in text_of
    for bad in ("filesort", "TEMP B-TREE", "Seq Scan", "Sort"):
        assert bad not in text_of


# With schedulers.

ran: list[str] = []


def note(name: str) -> None:
    ran.append(name)


async def test_two_schedulers_share_the_tasks_and_run_each_once(url: URL) -> None:
    ran.clear()
    async with (
        NativeAsyncIOScheduler(stores={"default": SQLAlchemyStore(url)}) as one,
        NativeAsyncIOScheduler(stores={"default": SQLAlchemyStore(url)}, poll_interval=0.1),
    ):
        for number in range(40):
            await one.aadd_task(note, "date", args=[f"t{number}"], id=f"t{number}")
        async with asyncio.timeout(PATIENCE):
            while len(ran) < 40:
                await asyncio.sleep(0.05)
    assert sorted(ran) == sorted(f"t{number}" for number in range(40))
    async with opened(url) as store:
        found = await store.get_runs(RunQuery())
        assert {run.state for run in found} == {RunState.SUCCEEDED}
        assert {run.kind for run in found} == {RunKind.SCHEDULED}
        assert len(found) == 40
        assert {node.state for node in await store.get_nodes()} == {NodeState.LEFT}
