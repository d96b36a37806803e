"""The MongoDB store with others beside it, with those who are killed, and with lost answers."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from pymongo import AsyncMongoClient

from asyncz import NativeAsyncIOScheduler
from asyncz.exceptions import ConflictIdError, StoreError, TaskLookupError
from asyncz.stores.base import TaskAdvance
from asyncz.stores.mongo import MongoDBStore
from asyncz.tasks.base import Task
from asyncz.tasks.query import TaskQuery
from asyncz.testing.store_suite_tools import NOON, SuiteHost, after, ids_of, make_task
from tests.services.cutting_proxy import CuttingProxy, cutting_proxy
from tests.services.mongodb import MongoServer

from .mongo_databases import (
    Place,
    mongo_place,
    mongodb_url,
    open_stores,
    standalone,
    standalone_place,
)

__all__ = ["mongo_place", "mongodb_url", "standalone", "standalone_place"]

MANY = 3_000
PATIENCE = 10.0
FOR_A_WHILE = 1.5
"""Seconds for which a server is away."""
KINDS = ("replica set", "standalone")


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, mongo_place: Place, standalone_place: Place) -> Place:
    return mongo_place if request.param == "replica set" else standalone_place


@pytest_asyncio.fixture
async def proxy(place: Place) -> AsyncIterator[CuttingProxy]:
    address = place.client.address
    assert address is not None
    async with cutting_proxy(address) as proxy:
        yield proxy


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so, looking again and again."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


def many(count: int = MANY) -> list[Task]:
    return [make_task(f"t{number}") for number in range(count)]


def staged(place: Place) -> int:
    return place.database.tasks.count_documents({"staged": {"$exists": True}})


def make_old(place: Place) -> None:
    """As if those who add had not been heard of for some minutes."""
    old = [{"$set": {"since": {"$subtract": ["$$NOW", 300_000]}}}]
    place.database["tasks.meta"].update_many({"state": {"$exists": True}}, old)


async def leave_half_added(place: Place, count: int = MANY) -> None:
    """Be killed while adding."""
    async with (
        AsyncMongoClient[Any](place.url) as client,
        open_stores(place, 1, client=client, uri=None) as [store],
    ):
        # PyMongo drops the sockets of connections that are being made when it is cancelled.
        await asyncio.gather(*(store.get_all_tasks() for _ in range(10)))
        adding = asyncio.ensure_future(store.add_tasks(many(count)))
        await until(lambda: staged(place) > 0)
        adding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await adding
    inserts = {"currentOp": 1, "op": "insert", "ns": f"{place.name}.tasks"}
    await until(lambda: not place.client.admin.command(inserts)["inprog"])
    assert staged(place) > 0


# Starting.


def test_ten_can_start_at_once(place: Place) -> None:
    together = threading.Barrier(10)
    errors: list[BaseException] = []

    async def start(number: int) -> None:
        store = place.store()
        together.wait(PATIENCE)
        await store.start(SuiteHost(), "mongo")
        await store.add_task(make_task(f"t{number}"))
        await store.shutdown()

    def run(number: int) -> None:
        try:
            asyncio.run(start(number))
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert place.database.tasks.count_documents({}) == 10
    assert len(place.database.tasks.index_information()) == 9


# Adding, all or none.


async def test_many_tasks_are_added_and_nothing_else_is_left(place: Place) -> None:
    async with open_stores(place, 1) as [store]:
        await store.add_tasks(many())
        assert len(await store.get_due_tasks(NOON)) == MANY
        assert ids_of(await store.get_due_tasks(NOON, limit=3)) == ["t0", "t1", "t2"]
    assert staged(place) == 0
    assert place.database["tasks.meta"].count_documents({}) == 1


@pytest.mark.parametrize("taken", [0, 700, MANY - 1])
async def test_an_id_that_is_taken_leaves_all_the_others_out(place: Place, taken: int) -> None:
    async with open_stores(place, 1) as [store]:
        await store.add_task(make_task(f"t{taken}", args=("first",)))
        with pytest.raises(ConflictIdError, match=f"'t{taken}'"):
            await store.add_tasks(many())
        (left,) = await store.get_all_tasks()
        assert left.args == ("first",)
    assert place.database.tasks.count_documents({}) == 1
    assert place.database["tasks.meta"].count_documents({}) == 1


async def test_what_is_half_added_is_nowhere_to_be_seen(place: Place) -> None:
    await leave_half_added(place)
    async with open_stores(place, 1) as [store]:
        assert await store.get_all_tasks() == []
        assert await store.get_due_tasks(NOON) == []
        assert await store.get_next_run_time() is None
        assert await store.lookup_task("t0") is None
        assert sum(await store.count_tasks()) == 0
        for sort_by in ("id", "next_run_time"):
            assert (await store.find_tasks(TaskQuery(sort_by=sort_by))).total == 0
        assert await store.get_tasks({"_id": "t0"}) == []
        with pytest.raises(TaskLookupError):
            await store.delete_task("t0")
        with pytest.raises(TaskLookupError):
            await store.update_task(make_task("t0"))
        step = TaskAdvance(make_task("t0"), NOON, None)
        assert await store.advance_tasks([step]) == [False]


async def test_ids_that_are_half_added_are_free_again_after_a_minute(place: Place) -> None:
    await leave_half_added(place)
    async with open_stores(place, 1) as [store]:
        with pytest.raises(ConflictIdError):
            await store.add_task(make_task("t0"))
        make_old(place)
        await store.add_task(make_task("t0", args=("new",)))
        assert staged(place) == 0
        await store.add_tasks(many()[1:])
        assert len(await store.get_all_tasks()) == MANY


async def test_a_start_removes_what_is_half_added(place: Place) -> None:
    await leave_half_added(place)
    make_old(place)
    async with open_stores(place, 1):
        assert place.database.tasks.count_documents({}) == 0


async def test_who_was_killed_after_the_decision_has_added_all(place: Place) -> None:
    await leave_half_added(place)
    there = staged(place)
    decided = {"$set": {"state": "added"}}
    place.database["tasks.meta"].update_many({"state": "adding"}, decided)
    async with open_stores(place, 1) as [store]:
        assert len(await store.get_due_tasks(NOON)) == there
        assert staged(place) == 0


async def test_who_was_given_up_adds_nothing(place: Place, proxy: CuttingProxy) -> None:
    uri = f"mongodb://{proxy.address}/?directConnection=true"
    async with open_stores(place, 1, uri=uri) as [slow], open_stores(place, 1) as [other]:
        proxy.hold_reply_to(b"insert\0")
        adding = asyncio.ensure_future(slow.add_tasks(many()))
        await until(lambda: staged(place) > 0)
        make_old(place)
        await other._adding.sweep()
        proxy.let_pass()
        with pytest.raises(StoreError, match="nothing was added"):
            await adding
        assert await other.get_all_tasks() == []
    assert place.database.tasks.count_documents({}) == 0


async def test_of_two_who_add_the_same_at_most_one_does(place: Place) -> None:
    async with open_stores(place, 2) as stores:
        for _ in range(5):
            adding = (store.add_tasks(many(40)) for store in stores)
            results = await asyncio.gather(*adding, return_exceptions=True)
            refused = [result for result in results if result is not None]
            assert all(isinstance(result, ConflictIdError) for result in refused)
            assert len(await stores[0].get_all_tasks()) == 40 * results.count(None)
            assert results.count(None) <= 1
            await stores[0].remove_all_tasks()


# Steps.


async def test_of_several_each_step_is_made_by_one(place: Place) -> None:
    draw = random.Random(7)
    async with open_stores(place, 4) as stores:
        await stores[0].add_tasks(many(256))

        async def race(store: MongoDBStore) -> list[str]:
            due = await store.get_due_tasks(NOON)
            await asyncio.sleep(0)
            steps = [
                TaskAdvance(task, NOON, draw.choice([None, after(60), after(61)])) for task in due
            ]
            won = []
            for part in (steps[:100], steps[100:]):
                made = await store.advance_tasks(part)
                won += [str(s.task.id) for s, was in zip(part, made, strict=True) if was]
            return won

        won = await asyncio.gather(*(race(store) for store in stores))
        everything = [task_id for part in won for task_id in part]
        assert sorted(everything) == sorted(f"t{number}" for number in range(256))


async def test_a_task_that_has_ended_leaves_its_id_and_no_document(place: Place) -> None:
    async with open_stores(place, 1) as [store]:
        for round_ in range(3):
            await store.add_task(make_task("a", args=(round_,)))
            (task,) = await store.get_due_tasks(NOON)
            assert task.args == (round_,)
            assert await store.advance_tasks([TaskAdvance(task, NOON, None)]) == [True]
        assert place.database.tasks.count_documents({}) == 1
        await store.get_due_tasks(NOON)
        assert place.database.tasks.count_documents({}) == 0
        await store.add_tasks(many(3))
        due = await store.get_due_tasks(NOON)
        await store.advance_tasks([TaskAdvance(task, NOON, None) for task in due])
    assert place.database.tasks.count_documents({}) == 0


# Answers that get lost.


@pytest.mark.parametrize("following", [None, after(60)], ids=["last", "further"])
async def test_steps_without_an_answer_are_answered_when_asked_again(
    place: Place, proxy: CuttingProxy, following: Any
) -> None:
    uri = f"mongodb://{proxy.address}/?directConnection=true"
    async with open_stores(place, 1, uri=uri) as [store]:
        await store.add_tasks(many(9))
        due = await store.get_due_tasks(NOON)
        await store.update_task(make_task("t4", after(7)))
        steps = [TaskAdvance(task, NOON, following) for task in due]
        proxy.lose_reply_to(b"claims", times=2)
        with pytest.raises(StoreError, match="'mongo'"):
            await store.advance_tasks(steps)
        assert proxy.lost == 2
        expected = [task.id != "t4" for task in due]
        assert await store.advance_tasks(steps) == expected
        assert await store.advance_tasks(steps) == [False] * 9


async def test_one_lost_answer_to_steps_is_not_noticed(place: Place, proxy: CuttingProxy) -> None:
    uri = f"mongodb://{proxy.address}/?directConnection=true"
    async with open_stores(place, 1, uri=uri) as [store]:
        await store.add_tasks(many(9))
        steps = [TaskAdvance(task, NOON, None) for task in await store.get_due_tasks(NOON)]
        proxy.lose_reply_to(b"claims")
        assert await store.advance_tasks(steps) == [True] * 9
        assert proxy.lost == 1


@pytest.mark.parametrize("count", [1, 9])
@pytest.mark.parametrize("word", [b"insert\0", b"staged.next_run", b"deleteMany"])
async def test_an_insert_with_a_lost_answer_does_not_meet_itself(
    place: Place, proxy: CuttingProxy, count: int, word: bytes
) -> None:
    uri = f"mongodb://{proxy.address}/?directConnection=true"
    async with open_stores(place, 1, uri=uri) as [store]:
        proxy.lose_reply_to(word)
        await store.add_tasks(many(count))
        assert len(await store.get_due_tasks(NOON)) == count


@pytest.mark.parametrize("count", [1, 9])
async def test_an_insert_repeated_after_an_error_does_not_meet_itself(
    place: Place, proxy: CuttingProxy, count: int
) -> None:
    uri = f"mongodb://{proxy.address}/?directConnection=true&retryWrites=false"
    async with open_stores(place, 1, uri=uri) as [store]:
        proxy.lose_reply_to(b"insert\0", times=2)
        with pytest.raises(StoreError):
            await store.add_tasks(many(count))
        assert proxy.lost == 2
        await store.add_tasks([make_task(f"t{n}", args=("again",)) for n in range(count)])
        found = await store.get_due_tasks(NOON)
        assert [task.args for task in found] == [("again",)] * count
        with pytest.raises(ConflictIdError):
            await store.add_tasks(many(count))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_killed_server_that_comes_back_has_everything(
    kind: str, mongo_place: Place
) -> None:
    server = MongoServer(replica_set=kind == "replica set").start()
    try:
        store = MongoDBStore(uri=server.url)
        await store.start(SuiteHost(), "mongo")
        await store.add_tasks(many(300))
        server.kill()
        with pytest.raises(StoreError, match=r"'mongo'"):
            await store.get_due_tasks(NOON)
        await asyncio.to_thread(server.start)
        began = time.monotonic()
        due = await store.get_due_tasks(NOON)
        assert time.monotonic() - began < 2
        assert len(due) == 300
        assert all(await store.advance_tasks([TaskAdvance(task, NOON, None) for task in due]))
        await store.shutdown()
    finally:
        server.close()


RUNS: list[str] = []


def note(task_id: str) -> None:
    """The callable of the tasks below."""
    RUNS.append(task_id)


@pytest.mark.parametrize("misfortune", ["kill", "freeze"])
async def test_what_is_due_while_the_server_is_away_runs_once(
    misfortune: str, mongo_place: Place
) -> None:
    RUNS.clear()
    server = MongoServer().start()
    store = MongoDBStore(uri=server.url, allowed_callables=("*:note",))
    try:
        async with NativeAsyncIOScheduler(stores={"default": store}) as scheduler:
            due = datetime.now(UTC) + timedelta(seconds=1)
            for number in range(300):
                name = f"t{number}"
                await scheduler.aadd_task(note, "date", run_at=due, id=name, args=[name])
            await until(lambda: bool(RUNS) or datetime.now(UTC) > due)
            getattr(server, misfortune)()
            await asyncio.sleep(FOR_A_WHILE)
            await asyncio.to_thread(server.start if misfortune == "kill" else server.thaw)
            back = time.monotonic()
            await until(lambda: len(set(RUNS)) == 300)
            assert time.monotonic() - back < 2, time.monotonic() - back
            assert await scheduler.aget_task_infos() == []
        assert sorted(RUNS) == sorted(f"t{number}" for number in range(300))
    finally:
        server.close()
