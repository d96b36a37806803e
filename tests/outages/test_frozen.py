"""The server is stopped with SIGSTOP: it holds its connections and says nothing."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from functools import partial
from logging import getLogger
from pathlib import Path

from asyncz.exceptions import StoreError
from tests.outages.backends import Backend
from tests.outages.watching import Watch, note, until, watched

logger = getLogger("tests.outages")

TEN_SECONDS = 10.0


async def test_calls_end_at_their_deadline_and_all_is_made_up_for(
    backend: Backend, tmp_path: Path
) -> None:
    store = backend.store_at(backend.port, backend.new_name())
    async with watched(store, tmp_path) as watch:
        await watch.plan()
        await until(lambda: watch.has_run("once-"), "the first task has run")

        backend.server.freeze()
        begun = time.monotonic()
        calls = [
            watch.scheduler.aadd_task(
                note, args=[str(watch.log.path), "new"], id="new", replace_existing=True
            ),
            *(watch.scheduler.apause_task("again", "default") for _ in range(3)),
            watch.scheduler.aget_task_infos(),
        ]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        took = time.monotonic() - begun
        await until(lambda: watch.events, "the scheduler notices")
        thawed = time.monotonic()
        assert watch.has_run("other", after=thawed - 0.5)
        backend.server.thaw()

        assert all(isinstance(answer, StoreError) for answer in answers), answers
        assert took < 3
        await resume_what_was_paused(watch)
        await watch.finish()


async def resume_what_was_paused(watch: Watch) -> None:
    """Whether a pause was made, nobody could know; and a late one may still come in."""

    async def is_scheduled() -> bool:
        task = await watch.scheduler.aresume_task("again", "default")
        return task is not None and task.next_run_time is not None

    assert await is_scheduled()


async def test_a_shutdown_ends_in_time(backend: Backend, tmp_path: Path) -> None:
    store = backend.store_at(backend.port, backend.new_name())
    async with watched(store, tmp_path, store_timeout=30, shutdown_timeout=2) as watch:
        await watch.plan()
        await until(lambda: watch.has_run("once-"), "the first task has run")
        backend.server.freeze()
        moment = time.monotonic()
        await until(lambda: watch.has_run("other", after=moment), "the other store goes on")

        begun = time.monotonic()
        await watch.scheduler.shutdown()

        assert time.monotonic() - begun < 3
        assert not watch.scheduler.running
        watch.check_the_rest()


async def test_ten_seconds_with_the_deadlines_that_are_usual(
    all_backends: list[Backend], tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        watches = []
        for backend in all_backends:
            path = tmp_path / backend.name
            path.mkdir()
            store = backend.store_at(backend.port, backend.new_name())
            watches.append(await stack.enter_async_context(watched(store, path, store_timeout=30)))
        for watch in watches:
            await watch.plan()
            await until(partial(watch.has_run, "once-"), "the first task has run")

        for backend in all_backends:
            backend.server.freeze()
        since = time.monotonic()
        await until(lambda: time.monotonic() > since + TEN_SECONDS, "that time has passed")
        for backend in all_backends:
            backend.server.thaw()

        back = time.monotonic()
        for watch in watches:
            await watch.finish()
            resumed = watch.log.first_after(back - 0.2, "once-", "again")
            assert resumed is not None
            logger.info("resumed after %.2f s, stall %.3f s", resumed - back, watch.loop.worst)
            assert resumed - back < 2
