"""What a Redis store does beyond the suite for all stores: keys, times, clients, refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis import Redis as BlockingRedis
from redis.asyncio import Redis

from asyncz.exceptions import ConfigurationError, StoreError, TaskLookupError
from asyncz.schedulers import AsyncIOScheduler
from asyncz.serializers.json import to_microseconds
from asyncz.stores.base import TaskAdvance
from asyncz.stores.redis import RedisStore
from asyncz.stores.redis_lua import REMEMBERED
from asyncz.tasks.query import TaskQuery
from asyncz.testing.store_suite_tools import NOON, SuiteHost, after, ids_of, job, make_task, raises
from tests.services.redis import new_keys

from .redis_tools import keys_of, opened

Options = dict[str, Any]
OWN_KEYS = {".run_times:of": -1, ".tasks:meta": -1}
"""What a store without tasks keeps."""
FAR_AWAY = datetime(9000, 12, 31, 23, 59, 59, 999_990, tzinfo=UTC)


@pytest.fixture
def options() -> Iterator[Options]:
    with new_keys() as made:
        yield made


def ask(options: Options, *words: Any) -> Any:
    with BlockingRedis.from_url(options["url"]) as client:
        return client.execute_command(*words)


async def test_nothing_is_left_of_tasks_that_were_removed(options: Options) -> None:
    async with opened(**options) as store:
        await store.add_tasks([make_task(f"t{number}") for number in range(600)])
        await store.add_task(make_task("a", None))
        await store.update_task(make_task("a", after(1)))
        step = TaskAdvance(make_task("a"), after(1), None)
        assert await store.advance_tasks([step]) == [True]
        await store.delete_task("t0")
        await store.remove_all_tasks()
    assert keys_of(options) == OWN_KEYS


async def test_what_the_server_remembers_of_calls_goes_by_itself(options: Options) -> None:
    async with opened(**options) as store:
        await store.add_task(make_task("a"))
        remembered = [left for key, left in keys_of(options).items() if ":call:" in key]
    assert len(remembered) == 1
    assert 0 < remembered[0] <= REMEMBERED


async def test_microseconds_count_where_a_double_cannot_tell_them_apart(options: Options) -> None:
    moments = [FAR_AWAY + timedelta(microseconds=number) for number in (3, 0, 2, 1)]
    assert len({float(to_microseconds(moment)) for moment in moments}) == 1
    async with opened(**options) as store:
        for moment in moments:
            await store.add_task(make_task(str(moment.microsecond), moment))
        assert ids_of(await store.get_all_tasks()) == ["999990", "999991", "999992", "999993"]
        found = await store.get_due_tasks(FAR_AWAY + timedelta(microseconds=1))
        assert [task.next_run_time for task in found] == sorted(moments)[:2]
        assert await store.get_next_run_time(after=sorted(moments)[2]) == max(moments)


async def test_times_before_the_epoch_are_in_order(options: Options) -> None:
    years = [1969, 1, 1500, 1970, 2000]
    async with opened(**options) as store:
        for year in years:
            await store.add_task(make_task(str(year), datetime(year, 1, 1, 12, tzinfo=UTC)))
        assert ids_of(await store.get_all_tasks()) == [str(year) for year in sorted(years)]


async def test_ten_stores_may_start_at_once(options: Options) -> None:
    stores = [RedisStore(**options) for _ in range(10)]
    await asyncio.gather(*(store.start(SuiteHost(), "tasks") for store in stores))
    await asyncio.gather(*(s.add_task(make_task(f"t{n}")) for n, s in enumerate(stores)))
    assert len(await stores[0].get_all_tasks()) == 10
    await asyncio.gather(*(store.shutdown() for store in stores))


async def test_a_step_is_made_by_one_of_many_stores(options: Options) -> None:
    stores = [RedisStore(**options) for _ in range(5)]
    await asyncio.gather(*(store.start(SuiteHost(), "tasks") for store in stores))
    await stores[0].add_task(make_task("a"))
    step = TaskAdvance(make_task("a"), NOON, after(60))
    made = await asyncio.gather(*(store.advance_tasks([step]) for store in stores))
    assert sorted(made) == [[False]] * 4 + [[True]]
    await asyncio.gather(*(store.shutdown() for store in stores))


async def test_flushed_scripts_are_sent_again(options: Options) -> None:
    async with opened(**options) as store:
        await store.add_task(make_task("a"))
        ask(options, "SCRIPT", "FLUSH")
        assert ids_of(await store.get_due_tasks(NOON)) == ["a"]
        ask(options, "SCRIPT", "FLUSH")
        await store.update_task(make_task("a", after(1)))
        assert await store.get_next_run_time() == after(1)


INJECTIONS = [
    "x'); redis.call('FLUSHALL') --", "\r\n*1\r\n$8\r\nFLUSHALL\r\n", "{other}", "}{", "*", "[0-9]",
    "$5\r\nhello", "ARGV[1]", "'..KEYS[1]..'", "\0", "(", "[", "-", "+", "paused", "!taken", "?",
    "%s%n", "{asyncz}.tasks", "1" * 400, "\x1b[2J", "' OR 1=1 --", "]]", "--[[", "\\", "\n",
]  # fmt: skip


@pytest.mark.parametrize("task_id", INJECTIONS)
async def test_an_id_is_never_anything_but_an_id(options: Options, task_id: str) -> None:
    async with opened(**options) as store:
        await store.add_tasks([make_task("other"), make_task(task_id, name=task_id)])
        found = await store.find_tasks(TaskQuery(q=task_id, sort_by="name"))
        wanted = TaskQuery(q=task_id, sort_by="name").select(
            [task.snapshot() for task in await store.get_all_tasks()]
        )
        assert [info.id for info in found.infos] == [info.id for info in wanted.infos]
        step = TaskAdvance(make_task(task_id), NOON, after(1))
        assert await store.advance_tasks([step]) == [True]
        assert ids_of(await store.get_all_tasks()) == ["other", task_id]
        await store.delete_task(task_id)
        assert ids_of(await store.get_all_tasks()) == ["other"]
    assert set(keys_of(options)) == {*OWN_KEYS, ".tasks", ".tasks:places", ".run_times"}


async def test_a_record_that_is_missing_is_listed_and_can_be_deleted(options: Options) -> None:
    async with opened(**options) as store:
        await store.add_task(make_task("a"))
        ask(options, "HDEL", options["tasks_key"], "a")
        assert [task.task_id for task in await store.get_quarantined_tasks()] == ["a"]
        await store.delete_task("a")
        assert await store.get_quarantined_tasks() == []


async def test_a_record_without_a_place_keeps_its_id_and_can_be_deleted(options: Options) -> None:
    async with opened(**options) as store:
        await store.add_task(make_task("a", args=(1,)))
        ask(options, "DEL", f"{options['tasks_key']}:places", options["run_times_key"])
        with raises(KeyError, "'a'"):
            await store.add_task(make_task("a"))
        found = await store.lookup_task("a")
        assert found is not None
        assert found.args == (1,)
        await store.delete_task("a")
        with raises(TaskLookupError):
            await store.delete_task("a")


async def test_an_unreadable_record_is_set_aside_where_people_find_it(options: Options) -> None:
    async with opened(**options) as store:
        for text in ("one", "two"):
            await store.add_task(make_task("a"))
            ask(options, "HSET", options["tasks_key"], "a", text)
            await store.get_quarantined_tasks()
            await store.delete_task("a")
    kept = ask(options, "HGETALL", f"{options['tasks_key']}:unreadable")
    assert kept == {b"a.unreadable-1": b"one", b"a.unreadable-2": b"two"}


async def test_tasks_of_a_newer_layout_are_refused(options: Options) -> None:
    async with opened(**options) as store:
        await store.add_task(make_task("a"))
    ask(options, "HSET", f"{options['tasks_key']}:meta", "version", "3")
    with raises(StoreError, "'tasks'", "layout 3", "upgrade"):
        async with opened(**options):
            pass


async def test_keys_of_something_else_are_refused(options: Options) -> None:
    ask(options, "HSET", options["tasks_key"], "job", "pickle")
    with raises(StoreError, options["tasks_key"], "another tasks_key"):
        async with opened(**options):
            pass
    assert ask(options, "HGETALL", options["tasks_key"]) == {b"job": b"pickle"}


async def test_a_key_of_another_type_is_refused_before_anything_is_changed(
    options: Options,
) -> None:
    async with opened(**options) as store:
        await store.add_task(make_task("a"))
        ask(options, "DEL", options["run_times_key"])
        ask(options, "SET", options["run_times_key"], "text")
        with raises(StoreError, "WRONGTYPE"):
            await store.add_task(make_task("b"))
        with raises(StoreError, "WRONGTYPE"):
            await store.advance_tasks([TaskAdvance(make_task("a"), NOON, None)])
        assert ask(options, "HKEYS", options["tasks_key"]) == [b"a"]
    with raises(StoreError, "is a string"):
        async with opened(**options):
            pass


async def test_two_stores_cannot_share_one_key_only(options: Options) -> None:
    async with opened(**options):
        pass
    for name in ("tasks_key", "run_times_key"):
        with raises(StoreError, "two keys of its own"):
            async with opened(**options | {name: options[name] + ".other"}):
                pass


async def test_a_client_of_the_app_is_used_and_not_closed(options: Options) -> None:
    url = options.pop("url")
    async with Redis.from_url(url) as client:
        async with opened(client=client, **options) as store:
            await store.add_task(make_task("a"))
        assert await client.ping()
        pool = client.connection_pool
        assert not pool._in_use_connections


@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_client_that_makes_text_of_answers_will_do(options: Options, protocol: int) -> None:
    url = options.pop("url")
    async with Redis.from_url(url, decode_responses=True, protocol=protocol) as client:
        async with opened(client=client, **options) as store:
            await store.add_task(make_task("täglich", args=(b"\xff\0", "é")))
            assert (await store.get_all_tasks())[0].args == (b"\xff\0", "é")
            found = await store.find_tasks(TaskQuery(sort_by="name", limit=1))
            assert [info.id for info in found.infos] == ["täglich"]
        assert await client.echo("text") == "text"


async def test_a_client_is_used_on_the_loop_it_belongs_to(options: Options) -> None:
    url = options.pop("url")
    async with Redis.from_url(url) as client:
        await client.ping()
        store = RedisStore(client=client, **options)
        scheduler = AsyncIOScheduler(stores={"default": store}, timezone="UTC")
        await asyncio.to_thread(scheduler.start)  # the engine's loop is another one
        try:
            await scheduler.aadd_task(job, "date", run_at=NOON, id="a")
            assert [task.id for task in await scheduler.aget_tasks()] == ["a"]
        finally:
            await asyncio.to_thread(scheduler.shutdown)
        assert await client.ping()


async def test_a_client_whose_loop_is_blocked_is_told_of(options: Options) -> None:
    url = options.pop("url")
    async with Redis.from_url(url) as client:
        store = RedisStore(client=client, timeout=0.3, **options)
        scheduler = AsyncIOScheduler(stores={"default": store}, timezone="UTC")
        with raises(StoreError, "NativeAsyncIOScheduler", "url"):
            scheduler.start()  # waits on the loop that the client needs


def test_a_client_whose_loop_has_ended_is_refused(options: Options) -> None:
    url = options.pop("url")

    async def make() -> RedisStore:
        return RedisStore(client=Redis.from_url(url), **options)

    store = asyncio.run(make())
    with raises(StoreError, "event loop", "not running"):
        asyncio.run(store.start(SuiteHost(), "tasks"))


def test_a_blocking_client_is_refused() -> None:
    with raises(ConfigurationError, "redis.asyncio.Redis"), BlockingRedis() as client:
        RedisStore(client=client)
