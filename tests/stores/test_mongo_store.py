"""The MongoDB store: options, clients, loops, secrets, queries."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any

import pymongo
import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pydantic import ValidationError
from pymongo import AsyncMongoClient

from asyncz import AsyncIOScheduler, NativeAsyncIOScheduler
from asyncz.exceptions import (
    ConfigurationError,
    StoreError,
    StoreFormatError,
    StoreTimeoutError,
    TaskLookupError,
)
from asyncz.serializers import EncryptedSerializer
from asyncz.stores import mongo_client
from asyncz.stores.mongo import MongoDBStore
from asyncz.tasks.query import SORTERS, TaskQuery
from asyncz.testing.store_suite_tools import SuiteHost, after, ids_of, job, make_task
from asyncz.triggers import CronTrigger, DateTrigger

from .mongo_databases import Place, mongo_place, mongodb_url, open_stores

__all__ = ["mongo_place", "mongodb_url"]

CANARY = "c4n4ry-p4ssword"
NOBODY = f"mongodb://user:{CANARY}@127.0.0.1:1/?serverSelectionTimeoutMS=100"


@pytest.mark.parametrize("alias", ["mongo", "mongodb"])
async def test_a_scheduler_makes_one_by_its_alias(mongo_place: Place, alias: str) -> None:
    config = {"type": alias, "uri": mongo_place.url, "database": mongo_place.name}
    async with NativeAsyncIOScheduler(stores={"default": config}) as scheduler:
        await scheduler.aadd_task(job, "interval", hours=1, id="hourly")
    async with NativeAsyncIOScheduler(stores={"default": config}) as scheduler:
        assert [info.id for info in await scheduler.aget_task_infos()] == ["hourly"]


@pytest.mark.parametrize(
    "options",
    [
        {"database": ""},
        {"database": "a.b"},
        {"database": "a b"},
        {"database": "a\n"},
        {"database": "$cmd"},
        {"database": "x" * 64},
        {"database": None},
        {"collection": ""},
        {"collection": "system.users"},
        {"collection": "a..b"},
        {"collection": "a."},
        {"collection": "a$b"},
        {"collection": "a\0b"},
        {"uri": ""},
        {"url": NOBODY},
    ],
)
def test_an_option_that_cannot_be_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        MongoDBStore(**options)
    assert CANARY not in str(caught.value)


def test_a_client_that_blocks_or_is_none_is_refused() -> None:
    with pymongo.MongoClient[Any](NOBODY, connect=False) as blocking:
        for client in (blocking, object(), 5):
            with pytest.raises(ConfigurationError, match="AsyncIOMotorClient"):
                MongoDBStore(client=client)


def test_a_client_and_a_uri_are_one_too_many() -> None:
    for client in (NOBODY, AsyncMongoClient[Any](connect=False)):
        with pytest.raises(ConfigurationError, match="not both"):
            MongoDBStore(client=client, uri=NOBODY)


def test_the_password_is_not_in_what_a_store_shows_of_itself() -> None:
    for store in (MongoDBStore(uri=NOBODY), MongoDBStore(client=NOBODY)):
        assert CANARY not in f"{store!r} {store} {store.model_dump()} {store.model_dump_json()}"


@pytest.mark.parametrize(
    "uri",
    [
        f"mongodb://user:{CANARY}:x@y@127.0.0.1:1/",
        f"mongodb://user@127.0.0.1:{CANARY}/",
        f"mongodb://user:{CANARY}@",
        f"http://user:{CANARY}@127.0.0.1/",
        CANARY,
    ],
)
def test_what_is_no_uri_of_mongodb_is_refused_without_being_shown(uri: str) -> None:
    for option in ("uri", "client"):
        with pytest.raises(ConfigurationError, match="must be like mongodb://") as caught:
            MongoDBStore(**{option: uri})
        assert CANARY not in str(caught.value)
        assert caught.value.__cause__ is None


@pytest.mark.parametrize("uri", [NOBODY, f"mongodb+srv://user:{CANARY}@127.0.0.1:1/"])
async def test_the_password_is_in_no_error_and_no_log(
    uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    store = MongoDBStore(uri=uri)
    with pytest.raises(StoreError, match="'secret'") as caught:
        await store.start(SuiteHost(), "secret")
    shown = [str(caught.value), caplog.text]
    cause: BaseException | None = caught.value
    while cause is not None:
        shown.append(repr(cause))
        cause = cause.__cause__
    assert CANARY not in "".join(shown)


async def test_a_server_that_is_down_is_a_clear_error_and_soon() -> None:
    store = MongoDBStore(uri="mongodb://127.0.0.1:1")
    async with asyncio.timeout(10):
        with pytest.raises(StoreTimeoutError, match=r"'down'.*127\.0\.0\.1:1.*refused"):
            await store.start(SuiteHost(), "down")
    with pytest.raises(StoreError, match="not started"):
        await store.get_all_tasks()


async def test_without_motor_a_uri_is_served_by_pymongo(
    mongo_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mongo_client, "find_spec", lambda name: None)
    async with open_stores(mongo_place, 1) as [store]:
        assert isinstance(store._link._client, AsyncMongoClient)
        await store.add_task(make_task("a"))


async def test_a_client_that_was_given_is_not_closed(mongo_place: Place) -> None:
    motor: AsyncIOMotorClient[Any] = AsyncIOMotorClient(mongo_place.url)
    own = AsyncMongoClient[Any](mongo_place.url)
    for client in (motor, own):
        async with open_stores(mongo_place, 1, client=client, uri=None):
            pass
        assert (await client.admin.command("ping"))["ok"] == 1
    motor.close()
    await own.close()


async def test_a_client_of_the_store_is_closed(mongo_place: Place) -> None:
    async with open_stores(mongo_place, 1) as [store]:
        client = store._link._client
    with pytest.raises(pymongo.errors.InvalidOperation):
        await client.admin.command("ping")


def test_a_client_of_motor_stays_free_for_the_loop_of_its_owner(mongo_place: Place) -> None:
    client: AsyncIOMotorClient[Any] = AsyncIOMotorClient(mongo_place.url)
    store = mongo_place.store(client=client, uri=None)
    scheduler = AsyncIOScheduler(stores={"default": store})
    scheduler.start()  # on a loop in a thread
    scheduler.add_task(job, "interval", hours=1, id="a")

    async def use_it() -> int:
        # The calls that block this loop need nothing of it.
        scheduler.add_task(job, "interval", hours=1, id="b")
        found: int = await client[mongo_place.name].tasks.count_documents({})
        return found

    assert asyncio.run(use_it()) == 2
    scheduler.shutdown()
    client.close()


async def test_a_client_of_pymongo_is_used_on_its_own_loop(mongo_place: Place) -> None:
    async with AsyncMongoClient[Any](mongo_place.url) as client:
        store = mongo_place.store(client=client, uri=None)
        scheduler = AsyncIOScheduler(stores={"default": store}, isolated_event_loop=True)
        await client.admin.command("ping")
        await scheduler.astart()
        await scheduler.aadd_task(job, "interval", hours=1, id="a")
        assert await client[mongo_place.name].tasks.count_documents({}) == 1
        await scheduler.ashutdown()


async def test_an_unused_client_of_pymongo_is_left_to_the_loop_of_the_app(
    mongo_place: Place,
) -> None:
    async with AsyncMongoClient[Any](mongo_place.url) as client:
        store = mongo_place.store(client=client, uri=None)
        here = asyncio.get_running_loop()
        scheduler = AsyncIOScheduler(
            stores={"default": store}, isolated_event_loop=True, event_loop=here
        )
        await scheduler.astart()
        await client.admin.command("ping")
        await scheduler.ashutdown()


async def test_a_loop_that_waits_for_itself_is_told_what_to_do(
    mongo_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mongo_client, "BEGIN_TIMEOUT", 0.2)
    async with AsyncMongoClient[Any](mongo_place.url) as client:
        await client.admin.command("ping")
        scheduler = AsyncIOScheduler(stores={"default": mongo_place.store(client=client, uri=None)})
        with pytest.raises(StoreError, match="astart"):
            scheduler.start()


def test_a_client_of_a_closed_loop_is_a_clear_error(mongo_place: Place) -> None:
    client = AsyncMongoClient[Any](mongo_place.url)

    async def connect() -> None:
        await client.admin.command("ping")
        await client.close()

    async def start() -> None:
        with pytest.raises(StoreError, match="loop that its client belongs to was closed"):
            await mongo_place.store(client=client, uri=None).start(SuiteHost(), "x")

    asyncio.run(connect())
    asyncio.run(start())


# What is asked of the server.


@pytest.mark.parametrize("task_id", ['{"$gt": ""}', "$where", "$ne", "a.b", "$$NOW", "$_id"])
async def test_an_id_like_an_operator_is_a_text(mongo_place: Place, task_id: str) -> None:
    async with open_stores(mongo_place, 1) as [store]:
        await store.add_tasks([make_task("other"), make_task(task_id)])
        await store.delete_task(task_id)
        assert await store.lookup_task(task_id) is None
        assert ids_of(await store.get_all_tasks()) == ["other"]


@pytest.mark.parametrize("task_id", [{"$gt": ""}, {"$ne": None}, 5, None, ["a"], b"a"])
async def test_an_id_that_is_no_text_finds_and_deletes_nothing(
    mongo_place: Place, task_id: Any
) -> None:
    async with open_stores(mongo_place, 1) as [store]:
        await store.add_task(make_task("other"))
        with pytest.raises(ValueError, match="task id"):
            store.check_task_id(task_id)
        assert await store.lookup_task(task_id) is None
        with pytest.raises(TaskLookupError):
            await store.delete_task(task_id)
        assert ids_of(await store.get_all_tasks()) == ["other"]


async def test_operators_in_a_query_are_texts(mongo_place: Place) -> None:
    async with open_stores(mongo_place, 1) as [store]:
        await store.add_task(make_task("a", executor="pool"))
        operator: Any = {"$ne": ""}
        assert (await store.find_tasks(TaskQuery(executor=operator))).total == 0
        for needle in ("$search", "$id", ".*", "a|b", "[a-z]", "(", "\\", "\0", "$$ROOT"):
            assert (await store.find_tasks(TaskQuery(q=needle))).total == 0


def variety() -> list[Any]:
    triggers = (None, DateTrigger(run_at=after(1)), CronTrigger(hour=9))
    return [
        make_task(
            f"{'aBc'[number % 3]}{number}",
            None if number % 4 == 0 else after(number % 5),
            name=("Report", "report 50%_.*", None)[number % 3],
            executor=("pool", "default")[number % 2],
            trigger=triggers[number % 3],
        )
        for number in range(24)
    ]


QUERIES: list[dict[str, Any]] = [
    {},
    {"schedule_state": "paused"},
    {"schedule_state": "scheduled", "q": "report"},
    {"executor": "pool", "trigger": "CRON"},
    {"trigger": "DateTrigger"},
    {"q": "50%_.*"},
    {"q": "paused"},
    {"q": "SCHEDULED"},
    {"q": "sched", "schedule_state": "paused"},
    {"q": "ongo"},
    {"q": "no such"},
    {"q": "b1", "limit": 3, "offset": 1},
    {"limit": 5, "offset": 15},
    {"limit": 30, "offset": 4},
    {"limit": 0},
    {"offset": 99},
]


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("sort_by", list(SORTERS))
async def test_the_server_finds_what_a_look_at_every_task_finds(
    mongo_place: Place, sort_by: str, descending: bool
) -> None:
    async with open_stores(mongo_place, 1) as [store]:
        await store.add_tasks(variety())
        everything = [task.snapshot() for task in await store.get_all_tasks()]
        for options in QUERIES:
            query = TaskQuery(**options, sort_by=sort_by, descending=descending)
            found = await store.find_tasks(query)
            expected = query.select(everything)
            assert ([i.id for i in found.infos], found.total) == (
                [i.id for i in expected.infos],
                expected.total,
            ), options


async def test_excluded_tasks_are_not_found(mongo_place: Place) -> None:
    async with open_stores(mongo_place, 1) as [store]:
        await store.add_tasks([make_task(name) for name in "abc"])
        found = await store.find_tasks(TaskQuery(), frozenset({"a", "missing"}))
        assert ([info.id for info in found.infos], found.total) == (["b", "c"], 2)


async def test_what_is_encrypted_is_nowhere_in_the_clear(mongo_place: Place) -> None:
    cipher = EncryptedSerializer(b"k" * 32)
    async with open_stores(mongo_place, 1, serializer=cipher) as [store]:
        await store.add_task(make_task("a", name="private name", args=("private",)))
        await store.add_tasks([make_task(name, name="private name") for name in "bc"])
        await store.update_task(make_task("b", name="private too"))
        for document in mongo_place.database.tasks.find():
            assert b"private" not in repr(document).encode()
        assert (await store.find_tasks(TaskQuery(q="private"))).total == 3
    # One that was given up the key finds the others by looking at every record as well.
    async with open_stores(mongo_place, 1) as [store]:
        await store.add_task(make_task("d", name="private no more"))
        assert (await store.find_tasks(TaskQuery(q="private"))).total == 1


async def test_tasks_by_a_filter_of_mongodb_come_in_order(mongo_place: Place) -> None:
    async with open_stores(mongo_place, 1) as [store]:
        await store.add_task(make_task("paused", None, name="wanted"))
        await store.add_task(make_task("late", after(5), name="wanted"))
        await store.add_task(make_task("early", after(1), name="wanted"))
        await store.add_task(make_task("other", after(1)))
        found = await store.get_tasks({"name": "wanted"})
        assert ids_of(found) == ["early", "late", "paused"]
        assert len(await store.get_tasks()) == 4
        with pytest.raises(StoreError, match=r"\$nonsense"):
            await store.get_tasks({"$nonsense": 1})


async def test_next_run_times_are_whole_microseconds_of_64_bits(mongo_place: Place) -> None:
    moments = {"epoch": datetime(1970, 1, 1, 0, 0, 0, 7, tzinfo=UTC), "noon": after(0, 1)}
    async with open_stores(mongo_place, 1) as [store]:
        for name, moment in moments.items():
            await store.add_task(make_task(name, moment))
        kinds = {"next_run": {"$type": "long"}, "order": {"$type": "long"}}
        assert mongo_place.database.tasks.count_documents({**kinds, "rev": {"$type": "long"}}) == 2


async def test_a_schema_of_a_newer_release_is_refused(mongo_place: Place) -> None:
    async with open_stores(mongo_place, 1):
        pass
    mongo_place.database["tasks.meta"].update_one({"_id": "schema"}, {"$set": {"version": 4}})
    with pytest.raises(StoreFormatError, match=r"'mongo'.*version 4.*upgrade"):
        async with open_stores(mongo_place, 1):
            pass


async def test_a_record_that_makes_room_is_kept_aside(mongo_place: Place) -> None:
    async with open_stores(mongo_place, 1) as [store]:
        await store.add_tasks([make_task("a"), make_task("b")])
        for name in "ab":
            mongo_place.write(name, b"spoilt")
        await store.delete_task("a")
        await store.update_task(make_task("b"))
        assert ids_of(await store.get_all_tasks()) == ["b"]
    aside = list(mongo_place.database["tasks.unreadable"].find())
    assert [(item["key"], item["document"]["record"]) for item in aside] == [
        ("a", b"spoilt"),
        ("b", b"spoilt"),
    ]
