"""Reported to the schedulers: a synchronous shutdown on the loop, and a setup that fails."""

from __future__ import annotations

import asyncio

import pytest

from asyncz import AsyncIOScheduler
from asyncz.exceptions import PluginLookupError
from asyncz.testing import VirtualClock


def work() -> int:
    return 1


async def test_a_synchronous_shutdown_on_the_loop_works_with_a_process_pool() -> None:
    clock = VirtualClock(patience=30)
    scheduler = AsyncIOScheduler(clock=clock, timezone="UTC", executors={"default": "processpool"})
    scheduler.start()
    scheduler.add_task(_pid)
    assert len(await clock.advance(seconds=1)) == 1
    try:
        assert scheduler.shutdown()
    finally:
        if scheduler._closing is not None:
            await asyncio.wait([scheduler._closing])
        await scheduler.lookup_executor("default").shutdown()
    assert scheduler._bridge.loop is None


def _pid() -> int:
    import os

    return os.getpid()


def test_a_setup_that_fails_changes_nothing() -> None:
    scheduler = AsyncIOScheduler(timezone="UTC", identity="before")
    with pytest.raises(PluginLookupError):
        scheduler.setup(timezone="UTC", identity="after", stores={"a": "memory", "b": "nope"})
    assert (scheduler.identity, dict(scheduler.stores)) == ("before", {})
