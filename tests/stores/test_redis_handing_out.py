"""Those who hand over one backlog on a Redis server get different pages of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio
from redis import Redis as BlockingRedis

from asyncz.stores.redis import RedisStore
from asyncz.tasks.base import Task
from asyncz.testing.store_suite_tools import NOON, ids_of, make_task
from tests.services.redis import new_keys

from .redis_tools import opened

Options = dict[str, Any]


@pytest.fixture
def options() -> Iterator[Options]:
    with new_keys() as made:
        yield made


@pytest_asyncio.fixture
async def stores(options: Options) -> AsyncIterator[list[RedisStore]]:
    """Two on the same keys, in which ten tasks are due at noon: a, b, ... j."""
    async with AsyncExitStack() as stack:
        made = [await stack.enter_async_context(opened(**options)) for _ in range(2)]
        await made[0].add_tasks([make_task(letter, NOON) for letter in "abcdefghij"])
        yield made


async def ask(store: RedisStore, limit: int, *exclude: str) -> tuple[str, bool]:
    due, is_all = await store.get_due_tasks_apart(NOON, limit, set(exclude))
    return "".join(map(str, ids_of(due))), is_all


def forget_the_place(options: Options) -> None:
    """As time does."""
    with BlockingRedis.from_url(options["url"]) as client:
        assert client.delete(options["tasks_key"] + ":handed_out") == 1


async def move_on(store: RedisStore, letters: str) -> None:
    for letter in letters:
        await store.delete_task(letter)


async def test_each_gets_what_the_other_one_did_not(stores: list[RedisStore]) -> None:
    one, other = stores
    assert await ask(one, 4) == ("abcd", False)
    assert await ask(other, 4) == ("efgh", False)
    assert await ask(one, 4) == ("ij", False)
    # What the other one has may not come to anything, so this is not the end of it.
    assert await ask(one, 4) == ("", False)
    assert await ask(other, 4) == ("", False)


async def test_what_was_handed_out_can_be_had_again_after_a_while(
    stores: list[RedisStore], options: Options
) -> None:
    one, other = stores
    assert await ask(one, 4) == ("abcd", False)
    assert await ask(other, 8) == ("efghij", False)
    with BlockingRedis.from_url(options["url"]) as client:
        assert 0 < client.pttl(options["tasks_key"] + ":handed_out") <= 1_000
    forget_the_place(options)
    assert await ask(other, 4) == ("abcd", False)


async def test_one_that_is_alone_begins_again_at_the_front(stores: list[RedisStore]) -> None:
    one, _ = stores
    assert await ask(one, 4) == ("abcd", False)
    await move_on(one, "abd")
    assert await ask(one, 6) == ("efghij", False)
    await move_on(one, "efghij")
    assert await ask(one, 6) == ("c", True)
    await move_on(one, "c")
    assert await ask(one, 6) == ("", True)


async def test_a_few_tasks_are_for_all(stores: list[RedisStore]) -> None:
    one, other = stores
    assert await ask(one, 11) == ("abcdefghij", True)
    assert await ask(other, 11, "a", "j") == ("bcdefghi", True)


async def test_what_is_left_out_is_not_the_end(stores: list[RedisStore]) -> None:
    one, _ = stores
    assert await ask(one, 2, "a", "b") == ("", False)


async def test_what_somebody_else_put_there_is_in_nobodys_way(
    stores: list[RedisStore], options: Options
) -> None:
    with BlockingRedis.from_url(options["url"]) as client:
        client.hset(options["tasks_key"] + ":handed_out", "some", "thing")
    assert await ask(stores[0], 4) == ("abcd", False)
    with BlockingRedis.from_url(options["url"]) as client:
        client.delete(options["tasks_key"] + ":handed_out")
        client.set(options["tasks_key"] + ":handed_out", "x")
    assert await ask(stores[0], 4) == ("abcd", False)


async def test_records_too_large_for_one_answer_come_in_several(options: Options) -> None:
    def large(name: str) -> Task:
        return make_task(name, NOON, args=["x" * 700_000])

    async with opened(**options) as store:
        await store.add_tasks([large(name) for name in "abc"])
        assert await ask(store, 9) == ("ab", False)
        assert await ask(store, 9) == ("c", False)
        assert await ask(store, 9) == ("ab", False)
