"""Connections are cut, at times when the server has done what it was asked but could not say so."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from asyncz.exceptions import ConflictIdError, StoreError
from tests.outages.backends import Backend
from tests.outages.proxy import Proxy, proxy_before
from tests.outages.watching import Watch, note, until, watched

RETRY = {"store_retry_interval": 0.2}
SHORT = {"store_retry_interval": 0.1, "store_timeout": 0.7, "startup_timeout": 20}
AWAY = 0.8


@pytest.mark.parametrize("one_in", [4, 12])
async def test_replies_are_lost_and_no_run_is(
    backend: Backend, tmp_path: Path, one_in: int
) -> None:
    name = backend.new_name()
    async with (
        proxy_before(backend.port) as proxy,
        watched(backend.store_at(proxy.port, name), tmp_path, **RETRY) as watch,
    ):
        await watch.plan()
        await until(lambda: watch.has_run("once-"), "the first task has run")

        proxy.lose_one_in(one_in)
        await until(lambda: proxy.lost >= 12 or watch.has_run_all, "some replies are lost")
        proxy.lose_one_in(0)

        assert proxy.lost >= 4
        await watch.finish()


async def test_all_connections_are_cut_again_and_again(backend: Backend, tmp_path: Path) -> None:
    name = backend.new_name()
    async with (
        proxy_before(backend.port) as proxy,
        watched(backend.store_at(proxy.port, name), tmp_path, **RETRY) as watch,
    ):
        await watch.plan()
        for _ in range(15):
            moment = time.monotonic()
            await until(partial(watch.has_run, "once-", "again", after=moment), "work goes on")
            proxy.hang_up()

        await watch.finish()


async def test_an_administrator_ends_all_connections_again_and_again(
    backend: Backend, tmp_path: Path
) -> None:
    store = backend.store_at(backend.port, backend.new_name())
    async with watched(store, tmp_path, **RETRY) as watch:
        await watch.plan()
        for _ in range(8):
            moment = time.monotonic()
            await until(partial(watch.has_run, "once-", "again", after=moment), "work goes on")
            await asyncio.to_thread(backend.end_connections)

        await watch.finish()


async def test_whoever_adds_a_task_again_after_an_error_has_it_run_once(
    backend: Backend, tmp_path: Path
) -> None:
    name = backend.new_name()
    async with (
        proxy_before(backend.port) as proxy,
        watched(backend.store_at(proxy.port, name), tmp_path, **RETRY) as watch,
    ):
        await watch.plan(1)
        proxy.lose_one_in(8)
        for number in range(100, 115):
            await add_until_it_is_there(watch, f"once-{number}")
        proxy.lose_one_in(0)

        assert proxy.lost >= 4
        await watch.finish()


async def add_until_it_is_there(watch: Watch, word: str) -> None:
    watch.planned.append(word)
    # Not before all of the tries have come through or not; what has run is forgotten.
    due = datetime.now(UTC) + timedelta(seconds=2.5)
    for _ in range(20):
        try:
            await watch.scheduler.aadd_task(
                note, "date", args=[str(watch.log.path), word], id=word, run_at=due
            )
        except ConflictIdError:
            return
        except StoreError:
            continue
        return
    raise AssertionError(f"{word} could not be added")


async def test_outages_that_begin_with_a_lost_reply(
    all_backends: list[Backend], tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        pairs = []
        for backend in all_backends:
            (path := tmp_path / backend.name).mkdir()
            proxy = await stack.enter_async_context(proxy_before(backend.port))
            store = backend.store_at(proxy.port, backend.new_name())
            watching = watched(store, path, **SHORT)
            pairs.append((proxy, await stack.enter_async_context(watching)))

        await asyncio.gather(*(lose_and_refuse(*pair) for pair in pairs))

        for _, watch in pairs:
            await watch.finish()


async def lose_and_refuse(proxy: Proxy, watch: Watch, times: int = 6) -> None:
    """Lose a reply and be away for longer than the store itself tries again, then come back."""
    await watch.plan(150, over=6.0)
    for _ in range(times):
        await work_goes_on(watch)
        before = proxy.lost
        proxy.lose_one_in(6)
        await until(partial(proxy.has_lost_more_than, before), "a reply is lost")
        proxy.lose_one_in(0)
        proxy.refuses = True
        proxy.hang_up()
        back = time.monotonic() + AWAY
        await until(partial(has_come, back), "it is away for a while")
        proxy.refuses = False


async def work_goes_on(watch: Watch) -> None:
    moment = time.monotonic()
    await until(lambda: watch.has_run("once-", "again", after=moment), "work goes on")


def has_come(moment: float) -> bool:
    return time.monotonic() > moment
