"""The server is killed while tasks are due, and comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from logging import getLogger
from pathlib import Path

from asyncz.events.constants import STORE_DEGRADED, STORE_RECOVERED
from tests.outages.backends import Backend
from tests.outages.watching import until, watched

logger = getLogger("tests.outages")

DOWN_FOR = 2.0
"""Seconds; by then the time between two tries has grown as long as it gets."""
RESUMES_WITHIN = 2.0


async def test_work_goes_on_after_the_server_was_killed_while_tasks_were_due(
    backend: Backend, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    store = backend.store_at(backend.port, backend.new_name())
    async with watched(store, tmp_path, store_timeout=30) as watch:
        await watch.plan()
        await until(lambda: watch.has_run("once-"), "the first task has run")

        backend.kill()
        since = time.monotonic()
        await until(lambda: watch.events, "the scheduler notices")
        assert "default" in await watch.degraded()
        await until(lambda: time.monotonic() > since + DOWN_FOR, "the server is down for a while")
        assert watch.has_run("other", after=since + DOWN_FOR - 1)
        await asyncio.to_thread(backend.start)

        back = time.monotonic()
        await watch.finish()
        await until(lambda: STORE_RECOVERED in watch.events, "the scheduler says so")
        resumed = watch.log.first_after(back - 0.2, "once-", "again")
        assert resumed is not None
        took, stall = resumed - back, watch.loop.worst
        logger.info("%s: resumed after %.2f s, worst stall %.3f s", backend.name, took, stall)
        assert resumed - back < RESUMES_WITHIN
        assert watch.events == [STORE_DEGRADED, STORE_RECOVERED]
        assert await watch.degraded() == {}
