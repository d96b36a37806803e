"""The heartbeat of a node: another thread and another connection, whatever the app's loop does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from threading import Thread, current_thread
from typing import Any, TypeVar

import pytest
from sqlalchemy import URL, event
from sqlalchemy.ext.asyncio import create_async_engine

from asyncz.enums import NodeState
from asyncz.stores.cluster import Node, NodeRecord, Pulse
from asyncz.stores.sqlalchemy import SQLAlchemyStore
from asyncz.stores.sqlalchemy_dialects import async_url
from asyncz.testing import VirtualClock
from asyncz.testing.store_suite_tools import SuiteHost
from tests.services.databases import BACKENDS, new_database

from .sqlalchemy_tools import engine_for, opened

R = TypeVar("R")
ONE = Node("one", "worker", "host", 1)
OTHER = Node("other", "worker", "host", 2)


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    with new_database(request.param) as made:
        yield made


def in_a_thread(work: Callable[[], R]) -> R:
    """Do something in another thread, with this one, and its loop, standing still."""
    done: list[R] = []
    thread = Thread(target=lambda: done.append(work()), name="pulse")
    thread.start()
    thread.join()
    return done[0]


def beat(pulse: Pulse | None, lease: float, running: int) -> bool:
    """Beat once, on a loop of one's own."""
    assert pulse is not None

    async def once() -> bool:
        try:
            await pulse.open()
            return await pulse.beat(lease, running)
        finally:
            await pulse.close()

    return asyncio.run(once())


async def only_node(store: SQLAlchemyStore) -> NodeRecord:
    (found,) = await store.get_nodes()
    return found


async def test_a_lease_is_renewed_while_the_loop_of_the_app_is_blocked(url: URL) -> None:
    async with opened(url) as store:
        await store.join_node(ONE, 30)
        before = await only_node(store)

        assert in_a_thread(lambda: beat(store.pulse(ONE.id), 60, 3)) is True

        after = await only_node(store)
    assert after.lease_until - before.lease_until >= timedelta(seconds=30)
    assert (after.state, after.running) == (NodeState.ALIVE, 3)
    assert after.lease_until - after.seen_at == timedelta(seconds=60)


async def test_one_that_was_buried_hears_so(url: URL) -> None:
    async with opened(url) as store:
        await store.join_node(ONE, -1)
        await store.join_node(OTHER, 30)
        reaped = await store.reap(OTHER.id, bury=(await store.look()).now, max_attempts=3)

        assert reaped.dead == (ONE.id,)
        assert in_a_thread(lambda: beat(store.pulse(ONE.id), 60, 0)) is False


async def test_it_can_be_opened_again(url: URL) -> None:
    async with opened(url) as store:
        await store.join_node(ONE, 30)
        pulse = store.pulse(ONE.id)
        for _ in range(2):
            assert in_a_thread(lambda: beat(pulse, 60, 0)) is True


async def test_of_an_engine_of_the_apps_only_the_way_it_connects_is_used(url: URL) -> None:
    threads: list[str] = []
    async with engine_for(url) as engine:

        def connected(*_: Any) -> None:
            threads.append(current_thread().name)

        event.listen(engine.sync_engine, "connect", connected)
        async with opened(engine) as store:
            await store.join_node(ONE, 30)
            there = threads.copy()

            assert in_a_thread(lambda: beat(store.pulse(ONE.id), 60, 0)) is True

            assert await only_node(store)
    assert "pulse" not in there
    assert threads == [*there, "pulse"]


async def test_the_options_of_the_store_are_those_of_its_pulse(url: URL) -> None:
    async with opened(url, engine_options={"pool_size": 3, "echo_pool": False}) as store:
        await store.join_node(ONE, 30)
        assert in_a_thread(lambda: beat(store.pulse(ONE.id), 60, 0)) is True


async def test_a_database_in_memory_has_none() -> None:
    async with opened("sqlite://") as store:
        assert store.pulse(ONE.id) is None
    engine = create_async_engine(async_url("sqlite://"))
    async with opened(engine) as store:
        assert store.pulse(ONE.id) is None
    await engine.dispose()


async def test_a_clock_that_is_moved_by_hand_has_none(url: URL) -> None:
    store = SQLAlchemyStore(url)
    await store.start(SuiteHost(clock=VirtualClock()), "tasks")
    assert store.pulse(ONE.id) is None
    await store.shutdown()
