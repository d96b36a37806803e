"""What is peculiar to runs on their way in a SQL database: attempts, notes, being cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest
from sqlalchemy import URL, select, update

from asyncz.enums import Delivery, RunKind, RunState
from asyncz.exceptions import StoreError
from asyncz.runs.base import RunQuery
from asyncz.serializers.encrypted import EncryptedSerializer
from asyncz.stores import sqlalchemy_attending
from asyncz.stores.cluster import Fired, Node, RunEnd, RunOutcome
from asyncz.stores.sqlalchemy import SQLAlchemyStore, make_tables
from asyncz.testing.store_suite_cluster import firing, ref
from asyncz.testing.store_suite_tools import NOON, after, make_task
from tests.services.databases import new_database

from .sqlalchemy_tools import engine_for, fill_with_settled, opened, plan_of, questions

ONE, OTHER = Node("one", "worker", "host", 1), Node("other", "worker", "host", 2)
RUNS = make_tables().runs
LONG_AGO = after(-(10**9))
SECRET = "password 12345"  # noqa: S105
CANCELLED, RETRYING, RUNNING = RunState.CANCELLED, RunState.RETRYING, RunState.RUNNING


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


async def states(store: SQLAlchemyStore) -> list[tuple[str, RunState]]:
    found = await store.get_runs(RunQuery(limit=1_000))
    return sorted((run.task_id, run.state) for run in found)


def waits(*names: str, token: int = 1) -> list[RunEnd]:
    """Runs of these tasks have failed, and are tried again at once."""
    again = RunOutcome(NOON, RETRYING, "E", retry_at=LONG_AGO)
    return [RunEnd(ref(name, token), (again,)) for name in names]


async def fire(store: SQLAlchemyStore, *names: str, forget: bool = False) -> None:
    """Begin runs of these tasks."""
    tasks = [await store.lookup_task(name) for name in names]
    following = None if forget else after(60)
    firings = [firing(task, following=following) for task in tasks if task]
    assert await store.fire(ONE.id, f"claim {names}", firings) == [Fired.WON] * len(names)


# Attempts.


@pytest.mark.parametrize("forget", [False, True])
async def test_each_attempt_is_given_to_one_of_many_who_ask_at_once(
    url: URL, store: SQLAlchemyStore, forget: bool
) -> None:
    names = [f"t{number}" for number in range(20)]
    await store.add_tasks([make_task(name) for name in names])
    await fire(store, *names, forget=forget)
    await store.finish_runs(ONE.id, waits(*names))

    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(opened(url)) for _ in range(4)]
        asked = [each.attend(OTHER.id, limit=9) for each in [*stores, *stores]]
        given = [run.ref for got in await asyncio.gather(*asked) for run in got.taken]
    given += [run.ref for run in (await store.attend(OTHER.id)).taken]

    assert sorted(given) == [ref(name, 2) for name in sorted(names)]
    assert set(await states(store)) == {(name, RUNNING) for name in names}


@pytest.mark.parametrize("forget", [False, True])
async def test_no_more_attempts_go_on_than_the_task_allows(
    url: URL, store: SQLAlchemyStore, forget: bool
) -> None:
    times = tuple(after(number) for number in range(-9, 1))
    await store.add_task(make_task("a", times[0], max_instances=3))
    task = await store.lookup_task("a")
    assert task is not None
    following = None if forget else after(60)
    await store.fire(ONE.id, "claim", [firing(task, *times, following=following)])
    outcomes = tuple(RunOutcome(at, RETRYING, retry_at=LONG_AGO) for at in times)
    await store.finish_runs(ONE.id, [RunEnd(ref("a", at=times[0]), outcomes)])

    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(opened(url)) for _ in range(4)]
        asking = [each.attend(OTHER.id) for each in stores]
        given = [run.ref for got in await asyncio.gather(*asking) for run in got.taken]
        await store.attend(OTHER.id)
        assert await store.count_active(["a"]) == {"a": 3}
    assert len(given) <= 3


async def test_a_firing_and_an_attempt_at_once_are_not_more_than_the_task_allows(
    url: URL, store: SQLAlchemyStore
) -> None:
    names = [f"t{number}" for number in range(20)]
    await store.add_tasks([make_task(name) for name in names])
    await fire(store, *names)
    await store.finish_runs(ONE.id, waits(*names))
    tasks = [task for name in names if (task := await store.lookup_task(name))]
    firings = [firing(task, after(60), following=after(120)) for task in tasks]

    async with opened(url) as other:
        await asyncio.gather(store.fire(ONE.id, "again", firings), other.attend(OTHER.id))

    assert set((await store.count_active(names)).values()) <= {0, 1}
    assert len(await store.get_runs(RunQuery(states=frozenset({RUNNING})))) == 20


async def test_a_run_that_waits_is_not_begun_by_another_task_of_its_id(
    store: SQLAlchemyStore,
) -> None:
    await store.add_task(make_task("a"))
    await fire(store, "a", forget=True)
    await store.finish_runs(ONE.id, waits("a"))
    await store.add_task(make_task("a"))
    task = await store.lookup_task("a")
    assert task is not None

    assert await store.fire(ONE.id, "new", [firing(task)]) == [Fired.REPEATED]
    assert await states(store) == [("a", RETRYING)]
    assert [run.ref for run in (await store.attend(OTHER.id)).taken] == [ref("a", 2)]


async def test_two_of_one_name_that_fail_together_leave_one_that_waits(
    store: SQLAlchemyStore, url: URL
) -> None:
    # As when the task is added anew while the first comes to its end.
    await store.add_task(make_task("a"))
    await fire(store, "a", forget=True)
    await store.finish_runs(ONE.id, waits("a"))
    async with engine_for(url) as engine, engine.begin() as connection:
        row = dict((await connection.execute(select(RUNS))).one()._mapping)
        row |= {"added": row["added"] + 1, "active": 1, "state": "running", "attend_us": None}
        await connection.execute(RUNS.insert(), [row])

    assert (await store.attend(OTHER.id)).taken == ()  # not beside the other
    assert await store.finish_runs(ONE.id, waits("a")) == [True]
    assert await states(store) == [("a", CANCELLED), ("a", RETRYING)]


async def test_a_run_that_waits_keeps_the_task_that_is_forgotten_meanwhile(
    store: SQLAlchemyStore,
) -> None:
    await store.add_task(make_task("a", args=(1,)))
    await fire(store, "a")
    await store.finish_runs(ONE.id, waits("a"))
    task = await store.lookup_task("a")
    assert task is not None
    await store.fire(ONE.id, "last", [firing(task, following=None)])
    await store.finish_runs(ONE.id, [RunEnd(ref("a", at=after(60)), ())])

    (taken,) = (await store.attend(OTHER.id)).taken
    assert taken.task is not None
    assert taken.task.args == (1,)


async def test_a_run_that_waits_is_not_its_last_owners(store: SQLAlchemyStore) -> None:
    await store.add_task(make_task("a"))
    await fire(store, "a")
    await store.finish_runs(ONE.id, waits("a"))

    said = [RunEnd(ref("a"), (RunOutcome(NOON, RunState.SUCCEEDED),))]
    assert await store.finish_runs(ONE.id, said) == [False]
    assert await store.start_runs(ONE.id, [ref("a")]) == [False]
    assert await store.note_runs(ONE.id, [(ref("a"), {"message": "m"})]) == [False]
    await store.release_runs(ONE.id, [ref("a")])
    assert (await store.reap(OTHER.id, bury=None, max_attempts=1)).taken == ()
    assert await states(store) == [("a", RETRYING)]


async def test_what_became_of_a_task_that_had_the_id_before_is_not_what_became_of_this_one(
    store: SQLAlchemyStore,
) -> None:
    said = [RunEnd(ref("a"), (RunOutcome(NOON, RunState.SUCCEEDED),))]
    for ends in (said, waits("a")):
        await store.add_task(make_task("a"))
        task = await store.lookup_task("a")
        assert task is not None
        await store.fire(ONE.id, f"claim {ends}", [firing(task, following=None)])
        assert await store.finish_runs(ONE.id, ends) == [True]

    assert await store.finish_runs(ONE.id, said) == [False]
    assert await store.finish_runs(ONE.id, waits("a")) == [True]


async def test_what_waits_is_never_forgotten(store: SQLAlchemyStore) -> None:
    await store.add_task(make_task("a"))
    await fire(store, "a")
    await store.finish_runs(ONE.id, waits("a"))

    everything = frozenset(RunState)
    assert await store.forget_runs(after(10**9)) == 0
    assert await store.prune_runs("a", everything, 0, after(10**9)) == 0
    assert await states(store) == [("a", RETRYING)]


async def test_many_that_are_held_up_do_not_hide_the_others(
    store: SQLAlchemyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlalchemy_attending, "PAGE", 2)
    monkeypatch.setattr(sqlalchemy_attending, "PAGES", 2)
    names = [f"t{number}" for number in range(9)]
    await store.add_tasks([make_task(name) for name in names])
    await fire(store, *names)
    await store.finish_runs(ONE.id, waits(*names))
    held_up = [task for name in names[:8] if (task := await store.lookup_task(name))]
    again = [firing(task, following=after(120)) for task in held_up]
    assert await store.fire(ONE.id, "again", again) == [Fired.WON] * 8

    given = [await store.attend(OTHER.id) for _ in range(4)]
    assert [run.ref.task_id for got in given for run in got.taken] == ["t8"]
    await store.finish_runs(ONE.id, [RunEnd(ref("t0", at=after(60)), ())])
    given = [await store.attend(OTHER.id) for _ in range(3)]
    assert [run.ref.task_id for got in given for run in got.taken] == ["t0"]


async def test_an_attempt_at_a_time_that_is_not_told_is_made_at_once(
    store: SQLAlchemyStore,
) -> None:
    await store.add_task(make_task("a", delivery=Delivery.AT_MOST_ONCE))
    await fire(store, "a")
    await store.finish_runs(ONE.id, [RunEnd(ref("a"), (RunOutcome(NOON, RETRYING),))])
    looked = await store.look()
    assert looked.attend_at is not None
    assert looked.attend_at - looked.now < timedelta(seconds=5)
    assert [run.ref for run in (await store.attend(OTHER.id)).taken] == [ref("a", 2)]


async def test_an_end_that_fails_half_way_leaves_all_as_it_was(
    store: SQLAlchemyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.add_tasks([make_task("a"), make_task("b")])
    await fire(store, "a", "b")

    def fails(*_: object) -> None:
        raise StoreError("half-way")

    ends = [*waits("a"), RunEnd(ref("b"), (RunOutcome(NOON, RunState.SUCCEEDED),))]
    with monkeypatch.context() as patch:
        patch.setattr(store._shared.runs, "cancel_left_out", fails)
        with pytest.raises(StoreError, match="half-way"):
            await store.finish_runs(ONE.id, ends)
    assert await states(store) == [("a", RUNNING), ("b", RUNNING)]
    assert await store.finish_runs(ONE.id, ends) == [True, True]


# To be cancelled.


async def test_a_run_that_fails_while_it_is_to_be_cancelled_is_not_tried_again(
    store: SQLAlchemyStore,
) -> None:
    await store.add_task(make_task("a"))
    await fire(store, "a")
    assert await store.cancel_run("a", NOON, "ann") is RUNNING
    await store.finish_runs(ONE.id, waits("a"))
    looked = await store.look()
    assert looked.attend_at is not None
    assert looked.attend_at < looked.now

    assert await store.attend(OTHER.id) == ((), (), (ref("a"),))
    (run,) = await store.get_runs(RunQuery())
    assert (run.state, run.error, run.reason) == (CANCELLED, "E", "cancelled by ann")
    assert (await store.look()).attend_at is None


async def test_of_one_instant_the_runs_of_each_kind_are_cancelled(store: SQLAlchemyStore) -> None:
    await store.add_task(make_task("a", max_instances=2))
    await fire(store, "a")
    task = await store.lookup_task("a")
    assert task is not None
    await store.fire(ONE.id, "by hand", [firing(task, NOON, kind=RunKind.MANUAL)])
    await store.finish_runs(ONE.id, waits("a"))

    assert await store.cancel_run("a", NOON, "ann") in {CANCELLED, RUNNING}
    by_hand = ref("a", kind=RunKind.MANUAL)
    assert await store.attend(ONE.id) == ((), ((by_hand, "ann"),), ())
    assert await states(store) == [("a", CANCELLED), ("a", RUNNING)]


async def test_what_an_older_release_has_ended_is_not_attended_to_for_ever(
    store: SQLAlchemyStore, url: URL
) -> None:
    await store.add_task(make_task("a"))
    await fire(store, "a")
    await store.cancel_run("a", NOON, "ann")
    async with engine_for(url) as engine, engine.begin() as connection:
        await connection.execute(update(RUNS).values(state="succeeded", active=None))

    assert await store.attend(OTHER.id) == ((), (), ())
    assert (await store.look()).attend_at is None


# What is said of runs.


async def test_nothing_that_is_noted_of_a_run_is_readable_without_the_key(url: URL) -> None:
    notes = {"message": SECRET, "log": [SECRET], "result": {SECRET: SECRET}, "progress": 0.5}
    async with opened(url, serializer=EncryptedSerializer("k" * 32)) as store:
        await store.join_node(ONE, 30)
        await store.add_tasks([make_task(name) for name in "ab"])
        await fire(store, "a", "b")
        await store.note_runs(ONE.id, [(ref("a"), notes)])
        await store.cancel_run("a", NOON, SECRET)
        waiting = RunOutcome(NOON, RETRYING, SECRET, SECRET, SECRET, notes, after(60))
        await store.finish_runs(ONE.id, [RunEnd(ref("b"), (waiting,))])
        async with engine_for(url) as engine, engine.connect() as connection:
            rows = [*await connection.execute(select(RUNS))]
        runs = await store.get_runs(RunQuery())
        assert (await store.attend(ONE.id)).asked == ((ref("a"), SECRET),)

    assert [(run.message, run.log, run.progress) for run in runs] == [(SECRET, (SECRET,), 0.5)] * 2
    for row in rows:
        assert SECRET not in repr(row)
        assert SECRET.encode() not in bytes(row.details) + bytes(row.asked or b"")
    async with opened(url, serializer=EncryptedSerializer("x" * 32)) as other:
        (run, _) = await other.get_runs(RunQuery())
        assert (run.error, run.message) == (None, None)
        assert "cannot be read here" in str(run.reason)
        await other.join_node(ONE, 30)
        ((_, by),) = (await other.attend(ONE.id)).asked
        assert "cannot be read here" in by


async def test_what_is_known_of_the_last_attempt_is_kept_beside_the_notes_of_this_one(
    store: SQLAlchemyStore,
) -> None:
    await store.add_task(make_task("a"))
    await fire(store, "a")
    await store.finish_runs(ONE.id, waits("a"))
    await store.attend(OTHER.id)
    assert await store.note_runs(OTHER.id, [(ref("a", 2), {"message": "m"})]) == [True]

    (run,) = await store.get_runs(RunQuery())
    assert (run.state, run.error, run.message) == (RUNNING, "E", "m")


# Plans.


async def test_all_there_is_to_do_is_found_by_indexes_in_one_question(
    store: SQLAlchemyStore, url: URL
) -> None:
    await fill_with_settled(url)
    _, asked = await questions(store, store.look())
    ((statement, parameters),) = asked
    async with store._shared.database.engine.connect() as connection:
        plan = await plan_of(connection, statement, parameters)
    assert "asyncz_tasks_runs_attend" in plan
    for bad in ("Seq Scan on asyncz_tasks_runs", "TEMP B-TREE", "filesort"):
        assert bad not in plan


@pytest.mark.parametrize(
    "query",
    [
        RunQuery("a", limit=50),
        RunQuery("a", since=NOON, until=NOON),
        RunQuery(since=NOON, until=NOON),
        RunQuery(limit=50),
        RunQuery(states=frozenset({RunState.FAILED}), since=NOON, limit=50),
        RunQuery("a", states=frozenset({RunState.FAILED}), limit=50),
    ],
)
async def test_runs_that_are_shown_are_found_by_an_index_that_has_their_order(
    store: SQLAlchemyStore, url: URL, query: RunQuery
) -> None:
    await fill_with_settled(url)
    _, asked = await questions(store, store.get_runs(query))
    ((statement, parameters),) = asked
    async with store._shared.database.engine.connect() as connection:
        plan = await plan_of(connection, statement, parameters)
    by_key = {"sqlite": "autoindex", "postgresql": "runs_pkey", "mysql": "PRIMARY"}
    by_key["failed"] = "runs_unlucky"
    wanted = by_key["failed" if query.states else url.get_backend_name()]
    assert wanted in plan or ("runs_late" in plan and not query.states)
    for bad in ("Seq Scan", "Sort", "TEMP B-TREE", "filesort"):
        assert bad not in plan


async def test_outcomes_that_end_runs_are_recorded_without_one_question_more(
    store: SQLAlchemyStore, url: URL
) -> None:
    names = [f"t{number}" for number in range(9)]
    await store.add_tasks([make_task(name) for name in names])
    tasks = await store.get_due_tasks(NOON)
    firings = [firing(task) for task in tasks]
    fired, asked_to_fire = await questions(store, store.fire(ONE.id, "claim", firings))
    ends = [RunEnd(ref(name), (RunOutcome(NOON, RunState.SUCCEEDED),)) for name in names]
    ended, asked_to_end = await questions(store, store.finish_runs(ONE.id, ends))

    assert (fired, ended) == ([Fired.WON] * 9, [True] * 9)
    most = {"sqlite": (6, 3), "postgresql": (7, 4), "mysql": (8, 4)}[url.get_backend_name()]
    assert (len(asked_to_fire), len(asked_to_end)) == most
