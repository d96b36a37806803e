"""The server answers, but takes no writes: it is read-only, full, or locked for a backup."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from asyncz.exceptions import StoreError
from tests.outages.backends import Backend, RedisBackend
from tests.outages.conftest import server_of
from tests.outages.watching import note, until, watched


async def test_work_waits_until_writes_are_taken_again(backend: Backend, tmp_path: Path) -> None:
    store = backend.store_at(backend.port, backend.new_name())
    async with watched(store, tmp_path) as watch:
        await watch.plan()
        await until(lambda: watch.has_run("once-"), "the first task has run")

        refusing = backend.takes_no_writes()
        await asyncio.to_thread(refusing.__enter__)
        try:
            await until(lambda: watch.events, "the scheduler notices")
            assert "default" in await watch.degraded()
            with pytest.raises(StoreError, match="'default'"):
                await watch.scheduler.aadd_task(note, args=[str(watch.log.path), "new"], id="new")
            moment = time.monotonic()
            await until(lambda: watch.has_run("other", after=moment), "the other store goes on")
        finally:
            await asyncio.to_thread(refusing.__exit__, None, None, None)

        back = time.monotonic()
        await until(lambda: watch.has_run("once-", "again", after=back), "work resumes", 2.0)
        await watch.finish()


async def test_a_redis_server_without_memory_takes_no_tasks_but_runs_those_it_has(
    servers: dict[str, Backend], tmp_path: Path
) -> None:
    backend = server_of(servers, "redis")
    assert isinstance(backend, RedisBackend)
    async with watched(backend.store_at(backend.port, backend.new_name()), tmp_path) as watch:
        await watch.plan()
        with backend.server.client() as client:
            client.config_set("maxmemory", "1")
            with pytest.raises(StoreError, match=r"'default'.*maxmemory"):
                await watch.scheduler.aadd_task(note, args=["", ""], id="new")
            await watch.finish()
            client.config_set("maxmemory", "0")
        assert await watch.degraded() == {}
