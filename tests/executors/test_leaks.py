"""Starting and stopping again and again leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from asyncz import AsyncIOScheduler, NativeAsyncIOScheduler
from asyncz.schedulers import local_history
from asyncz.testing import VirtualClock

from . import jobs
from .waiting import until

CYCLES = int(os.environ.get("ASYNCZ_TEST_CYCLES", "200"))
"""The release is tested with 1,000."""

Memory = Callable[[], int]


@pytest.fixture(autouse=True)
def no_log(caplog: pytest.LogCaptureFixture) -> None:
    """pytest keeps every line that is logged, with the exception and all that it refers to."""
    caplog.set_level(logging.CRITICAL + 1, "asyncz")


@pytest.fixture
def memory() -> Iterator[Memory]:
    """Says how many bytes are in use, apart from what coverage keeps for each thread."""
    not_ours = [tracemalloc.Filter(inclusive=False, filename_pattern="*/coverage/*")]

    def measure() -> int:
        gc.collect()
        found = tracemalloc.take_snapshot().filter_traces(not_ours)
        return sum(entry.size for entry in found.statistics("filename"))

    tracemalloc.start()
    yield measure
    tracemalloc.stop()


def counts() -> tuple[int, int]:
    return threading.active_count(), len(os.listdir("/proc/self/fd"))


async def cycle_native() -> None:
    """Start, run one task of each kind, stop; with a task that never ends."""
    clock = VirtualClock()
    async with NativeAsyncIOScheduler(clock=clock, timezone="UTC") as scheduler:
        scheduler.add_task(jobs.add_later, "interval", hours=1, args=[1], id="coroutine")
        scheduler.add_task(jobs.add, args=[1], id="plain")
        scheduler.add_executor("pool", "pool", max_workers=1)
        scheduler.add_task(jobs.fail, executor="pool", id="failing")
        assert len(await clock.advance(hours=1)) == 3


async def cycle_on_the_loop() -> None:
    scheduler = AsyncIOScheduler(timezone="UTC", clock=VirtualClock())
    scheduler.start()
    scheduler.add_task(jobs.add_later, "interval", hours=1, args=[1])
    await scheduler.ashutdown()


async def cycle_in_a_thread() -> None:
    scheduler = AsyncIOScheduler(timezone="UTC", isolated_event_loop=True)
    scheduler.start()
    scheduler.add_task(jobs.add_later, "interval", hours=1, args=[1])
    await scheduler.ashutdown()


@pytest.mark.parametrize("cycle", [cycle_native, cycle_on_the_loop, cycle_in_a_thread])
async def test_many_cycles_leave_no_task_thread_file_or_memory(
    cycle: Callable[[], Any],
    memory: Memory,
) -> None:
    for _ in range(CYCLES // 2):  # what is made once and kept
        await cycle()
    await until(lambda: not _ours())
    before, tasks, begin = counts(), asyncio.all_tasks(), memory()
    for _ in range(CYCLES // 2):
        await cycle()
    await until(lambda: not _ours())
    assert counts() == before
    assert asyncio.all_tasks() == tasks
    assert memory() - begin < 64 * 1024


async def test_one_scheduler_can_be_started_and_stopped_many_times(clock: VirtualClock) -> None:
    scheduler = NativeAsyncIOScheduler(clock=clock, timezone="UTC")
    before = counts()
    for number in range(CYCLES):
        async with scheduler:
            scheduler.add_task(jobs.add_later, args=[number], id=f"{number}")
            assert [run.return_value for run in await clock.advance(seconds=1)] == [number]
    assert counts() == before
    assert (scheduler.get_tasks(), scheduler.instances) == ([], {})


async def test_runs_leave_no_memory(
    scheduler: NativeAsyncIOScheduler,
    clock: VirtualClock,
    memory: Memory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(local_history, "KEPT", 100)
    monkeypatch.setattr(local_history, "SURPLUS", 100)
    scheduler.add_task(jobs.add_later, "interval", seconds=1, args=[1], id="a")
    scheduler.add_task(jobs.fail_later, "interval", seconds=1, id="b")
    await clock.advance(minutes=5)  # which fills the store's history, and has it tidied
    begin = memory()
    await clock.advance(seconds=3 * 101)  # until it has been tidied thrice, and is as full again
    assert memory() - begin < 32 * 1024


def _ours() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("asyncz")]
