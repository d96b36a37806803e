"""Adding many tasks to Redis at once: all or none, whoever dies in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from redis import Redis

from asyncz.exceptions import ConflictIdError, StoreError
from asyncz.stores import redis_batches
from asyncz.stores.redis import RedisStore
from asyncz.stores.redis_calls import RedisCalls
from asyncz.tasks.base import Task
from asyncz.testing.store_suite_tools import NOON, after, ids_of, make_task, raises
from tests.services.redis import new_keys

from .redis_tools import keys_of, opened

Options = dict[str, Any]
MANY = 1_100
PARTS = -(-MANY // redis_batches.ROWS)


class DeadError(Exception):
    """The process ended here."""


@pytest.fixture
def options() -> Iterator[Options]:
    with new_keys() as made:
        yield made


def many(prefix: str = "t") -> list[Task]:
    return [make_task(f"{prefix}{number}") for number in range(MANY)]


def die_before(store: RedisStore, script: str, calls: int = 0) -> None:
    """Let the store stop when it makes that call for the next time after so many."""
    made = store._calls
    seen = 0

    class Dying(RedisCalls):
        async def __call__(self, name: str, *args: Any, batch: bytes = b"", **more: Any) -> Any:
            nonlocal seen
            seen += name == script
            if seen > calls:
                raise DeadError
            return await made(name, *args, batch=batch)

    dying = Dying(made.client, made.loop, made.keys, made.alias, 1, 1)
    store._batches = redis_batches.RedisBatches(dying)


def pretend_age(options: Options, seconds: int) -> None:
    """As if the batches there are had been begun so long ago."""
    key = f"{options['tasks_key']}:batches"
    with Redis.from_url(options["url"]) as client:
        begun = client.time()[0] - seconds
        for batch, state in client.hgetall(key).items():
            if state != b"kept":
                client.hset(key, batch, b"open:%010d" % begun)


def names_of_data(options: Options) -> set[str]:
    return {name for name in keys_of(options) if ":call:" not in name}


EMPTY = {".run_times:of", ".tasks:meta"}
FULL = {*EMPTY, ".run_times", ".tasks", ".tasks:places"}


async def test_many_tasks_are_added_in_order(options: Options) -> None:
    async with opened(**options) as store:
        await store.add_tasks(many())
        assert ids_of(await store.get_due_tasks(NOON)) == [f"t{n}" for n in range(MANY)]
        assert names_of_data(options) == FULL


@pytest.mark.parametrize("place", [0, MANY // 2, MANY - 1])
async def test_one_taken_id_keeps_all_others_out(options: Options, place: int) -> None:
    async with opened(**options) as store:
        await store.add_task(make_task(f"t{place}", after(5)))
        with raises(ConflictIdError, f"'t{place}'"):
            await store.add_tasks(many())
        assert ids_of(await store.get_all_tasks()) == [f"t{place}"]
        assert names_of_data(options) == FULL


@pytest.mark.parametrize(
    ("script", "calls"),
    [("claim", 0), ("claim", 1), ("claim", PARTS - 1), ("commit", 0)],
)
async def test_who_dies_before_the_last_word_has_added_nothing(
    options: Options, script: str, calls: int
) -> None:
    async with opened(**options) as store:
        die_before(store, script, calls)
        with pytest.raises(DeadError):
            await store.add_tasks(many())
    async with opened(**options) as other:
        assert await other.get_all_tasks() == []
        await other.add_task(make_task("t0"))  # the ids are free at once
        await other.add_tasks(many()[1:])
        assert len(await other.get_all_tasks()) == MANY
    pretend_age(options, 61)
    async with opened(**options):
        assert names_of_data(options) == FULL


@pytest.mark.parametrize(
    ("script", "calls"), [("parts", 0), ("publish", 0), ("publish", 1), ("publish", PARTS - 1)]
)
async def test_who_dies_after_the_last_word_has_added_all(
    options: Options, script: str, calls: int
) -> None:
    async with opened(**options) as store:
        die_before(store, script, calls)
        with pytest.raises(DeadError):
            await store.add_tasks(many())
    async with opened(**options) as other:
        assert len(await other.get_all_tasks()) == MANY
        assert names_of_data(options) == FULL


async def test_a_store_that_runs_publishes_what_another_left(options: Options) -> None:
    async with opened(**options) as store, opened(**options) as other:
        die_before(store, "publish", 1)
        with pytest.raises(DeadError):
            await store.add_tasks(many())
        with raises(ConflictIdError):
            await other.add_task(make_task(f"t{MANY - 1}"))  # it is there, if not yet to be seen
        await other.get_due_tasks(NOON, limit=1)
        assert len(await other.get_due_tasks(NOON)) == MANY


async def test_an_addition_meanwhile_takes_its_id_and_breaks_the_batch(options: Options) -> None:
    async with opened(**options) as store, opened(**options) as other:
        calls = store._calls
        when = Meanwhile(calls, "commit", lambda: other.add_task(make_task("t7", after(1))))
        store._batches = redis_batches.RedisBatches(when)
        with raises(ConflictIdError, "'t7'"):
            await store.add_tasks(many())
        assert ids_of(await store.get_all_tasks()) == ["t7"]
        assert names_of_data(options) == FULL


async def test_of_many_batches_with_the_same_ids_one_is_added(options: Options) -> None:
    async with opened(**options) as store, opened(**options) as other:
        adding = (where.add_tasks(many()) for where in (store, other, store, other))
        results = await asyncio.gather(*adding, return_exceptions=True)
        assert sum(isinstance(result, ConflictIdError) for result in results) == 3
        assert len(await store.get_all_tasks()) == MANY
        assert names_of_data(options) == FULL


async def test_batches_with_other_ids_do_not_disturb_each_other(options: Options) -> None:
    async with opened(**options) as store, opened(**options) as other:
        adding = (w.add_tasks(many(p)) for w, p in ((store, "a"), (other, "b"), (store, "c")))
        await asyncio.gather(*adding)
        assert len(await store.get_all_tasks()) == 3 * MANY
        assert names_of_data(options) == FULL


async def test_a_failure_after_the_last_word_says_so(options: Options) -> None:
    async with opened(**options) as store:

        async def fail() -> None:
            raise StoreError("the server is gone")

        store._batches = redis_batches.RedisBatches(Meanwhile(store._calls, "publish", fail))
        with raises(StoreError, "'tasks'", "all tasks had been added"):
            await store.add_tasks(many())
        await store.get_due_tasks(NOON, limit=1)
        assert len(await store.get_all_tasks()) == MANY


class Meanwhile(RedisCalls):
    """Does something else before the first call of a script."""

    def __init__(
        self, calls: RedisCalls, script: str, act: Callable[[], Awaitable[object]]
    ) -> None:
        super().__init__(calls.client, calls.loop, calls.keys, calls.alias, 5, 5)
        self._script: str | None = script
        self._act = act

    async def __call__(self, name: str, *args: Any, batch: bytes = b"", **more: Any) -> Any:
        if name == self._script:
            self._script = None
            await self._act()
        return await super().__call__(name, *args, batch=batch)
