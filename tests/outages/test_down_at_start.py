"""The server is down, or says nothing, when the scheduler starts."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from asyncz import NativeAsyncIOScheduler
from asyncz.exceptions import StoreError, StoreTimeoutError
from tests.outages.backends import Backend
from tests.outages.watching import OPTIONS, RunLog, note, until


def make_scheduler(backend: Backend, **options: object) -> NativeAsyncIOScheduler:
    store = backend.store_at(backend.port, backend.new_name())
    return NativeAsyncIOScheduler(stores={"jobs": store}, **{**OPTIONS, **options})


async def test_the_error_names_the_store_and_a_later_start_runs_what_was_declared(
    backend: Backend, tmp_path: Path
) -> None:
    scheduler, log = make_scheduler(backend), RunLog(tmp_path / "runs")
    scheduler.add_task(note, args=[str(log.path), "once-0"], id="once-0", store="jobs")
    backend.kill()

    begun = time.monotonic()
    with pytest.raises(StoreError, match="'jobs'"):
        await scheduler.start()
    took = time.monotonic() - begun

    assert took < 3
    assert not scheduler.running
    await asyncio.to_thread(backend.start)
    async with scheduler:
        await until(log.entries, "the task that was declared has run")


async def test_a_server_that_says_nothing_is_given_up_after_the_store_timeout(
    backend: Backend,
) -> None:
    scheduler = make_scheduler(backend)
    backend.server.freeze()

    begun = time.monotonic()
    with pytest.raises(StoreTimeoutError, match="'jobs'"):
        await scheduler.start()

    assert time.monotonic() - begun < 3
    backend.server.thaw()
    async with scheduler:
        assert scheduler.running


async def test_with_a_startup_timeout_the_start_waits_for_the_server(backend: Backend) -> None:
    scheduler = make_scheduler(backend, startup_timeout=20)
    backend.kill()

    starting = asyncio.ensure_future(scheduler.start())
    await asyncio.sleep(0)
    await asyncio.to_thread(backend.start)
    back = time.monotonic()
    await asyncio.wait_for(starting, 20)

    assert time.monotonic() - back < 2
    await scheduler.shutdown()


async def test_when_the_startup_timeout_is_over_the_error_says_so(backend: Backend) -> None:
    scheduler = make_scheduler(backend, startup_timeout=1)
    backend.kill()

    begun = time.monotonic()
    with pytest.raises(StoreError, match=r"'jobs'.*") as caught:
        await scheduler.start()

    assert 1 <= time.monotonic() - begun < 4
    assert "startup_timeout" in "".join(getattr(caught.value, "__notes__", []))
    assert not scheduler.running
