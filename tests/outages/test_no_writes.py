"""The server answers, but takes no writes: it is read-only, full, or locked for a backup."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from asyncz.exceptions import StoreError
from tests.outages.backends import Backend
from tests.outages.watching import note, until, watched


async def test_work_waits_until_writes_are_taken_again(backend: Backend, tmp_path: Path) -> None:
    store = backend.store_at(backend.port, backend.new_name())
    async with watched(store, tmp_path) as watch:
        await watch.plan()
        await until(lambda: watch.has_run("once-"), "the first task has run")

        with ExitStack() as stack:
            stack.enter_context(backend.takes_no_writes())
            await until(lambda: watch.events, "the scheduler notices")
            assert "default" in await watch.degraded()
            with pytest.raises(StoreError, match="'default'"):
                await watch.scheduler.aadd_task(note, args=[str(watch.log.path), "new"], id="new")
            moment = time.monotonic()
            await until(lambda: watch.has_run("other", after=moment), "the other store goes on")

        back = time.monotonic()
        await until(lambda: watch.has_run("once-", "again", after=back), "work resumes", 2.0)
        await watch.finish()
