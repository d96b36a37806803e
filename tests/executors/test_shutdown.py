"""What a shutdown does about runs that do not end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from asyncz import AsyncIOScheduler, NativeAsyncIOScheduler
from asyncz.events.constants import TASK_CANCELLED, TASK_ERROR, TASK_EXECUTED
from asyncz.testing import VirtualClock

from . import jobs
from .waiting import names, record, until

TIMEOUT = 0.4
OUTCOMES = TASK_EXECUTED | TASK_ERROR | TASK_CANCELLED


class Gate:
    """Lets tests know that a run has begun, and the run that the test is over."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.release = threading.Event()
        self.calls = 0

    def block(self) -> None:
        self.calls += 1
        self.begun.set()
        self.release.wait(20)

    async def wait_for_ever(self) -> None:
        self.begun.set()
        await asyncio.Event().wait()

    async def ignore_cancellation(self) -> None:
        self.begun.set()
        while not self.release.is_set():
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.005)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@asynccontextmanager
async def stopping(
    scheduler: NativeAsyncIOScheduler, gate: Gate, wait: bool
) -> AsyncIterator[list[Any]]:
    """Shut the scheduler down once the run has begun, and check that it takes no longer."""
    await until(gate.begun.is_set)
    events = record(scheduler, OUTCOMES)
    loop = asyncio.get_running_loop()
    begin = loop.time()
    await scheduler.shutdown(wait=wait)
    assert loop.time() - begin < TIMEOUT + 0.35
    yield events
    gate.release.set()
    await until(lambda: not [t for t in asyncio.all_tasks() if t.get_name() == "a"])


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize(
    ("executor", "kind"),
    [
        ("asyncio", "wait_for_ever"),
        ("asyncio", "ignore_cancellation"),
        ("asyncio", "block"),
        ("threadpool", "ignore_cancellation"),
        ("threadpool", "block"),
    ],
)
async def test_no_run_holds_up_a_shutdown_beyond_its_timeout(
    gate: Gate, executor: str, kind: str, wait: bool
) -> None:
    scheduler = NativeAsyncIOScheduler(
        timezone="UTC", shutdown_timeout=TIMEOUT, executors={"default": executor}
    )
    await scheduler.start()
    scheduler.add_task(getattr(gate, kind), id="a")
    async with stopping(scheduler, gate, wait) as events:
        assert names(events) == ["TASK_CANCELLED"]
        assert not scheduler.instances


async def test_a_run_that_ends_in_time_is_let_finish(gate: Gate) -> None:
    async with NativeAsyncIOScheduler(timezone="UTC") as scheduler:
        events = record(scheduler, OUTCOMES)
        scheduler.add_task(gate.block, id="a")
        await until(gate.begun.is_set)
        asyncio.get_running_loop().call_soon(gate.release.set)
    assert names(events) == ["TASK_EXECUTED"]


async def test_a_cancelled_run_has_the_time_to_clean_up(gate: Gate) -> None:
    cleaned: list[str] = []

    async def clean_up() -> None:
        try:
            await gate.wait_for_ever()
        finally:
            await asyncio.sleep(0.01)
            cleaned.append("up")

    scheduler = NativeAsyncIOScheduler(timezone="UTC", shutdown_timeout=5)
    await scheduler.start()
    scheduler.add_task(clean_up, id="a")
    await until(gate.begun.is_set)
    await scheduler.shutdown(wait=False)
    assert cleaned == ["up"]


async def test_a_thread_that_was_cut_off_begins_no_further_call(gate: Gate) -> None:
    clock = VirtualClock(patience=0)
    scheduler = NativeAsyncIOScheduler(clock=clock, timezone="UTC", shutdown_timeout=TIMEOUT)
    await scheduler.start()
    scheduler.pause()
    scheduler.add_task(gate.block, "interval", seconds=1, id="a", coalesce=False)
    await clock.advance(seconds=5)
    scheduler.resume()
    async with stopping(scheduler, gate, wait=False) as events:
        assert names(events) == ["TASK_CANCELLED"] * 5
    await until(lambda: not [t for t in threading.enumerate() if t.name.startswith("asyncz")])
    assert gate.calls == 1


async def test_calls_waiting_for_a_thread_are_cut_off_without_beginning(gate: Gate) -> None:
    scheduler = NativeAsyncIOScheduler(timezone="UTC", shutdown_timeout=TIMEOUT)
    scheduler.add_executor("pool", "one", max_workers=1)
    await scheduler.start()
    for name in "abc":
        scheduler.add_task(gate.block, id=name, executor="one")
    async with stopping(scheduler, gate, wait=False) as events:
        assert names(events) == ["TASK_CANCELLED"] * 3
    assert gate.calls == 1


async def test_what_is_left_behind_is_logged(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    scheduler = NativeAsyncIOScheduler(timezone="UTC", shutdown_timeout=TIMEOUT)
    await scheduler.start()
    scheduler.add_task(gate.block, id="a")
    async with stopping(scheduler, gate, wait=False):
        assert "'a' did not end when it was cut off; it is left behind" in caplog.text


async def test_a_synchronous_shutdown_works_after_runs_in_threads(clock: VirtualClock) -> None:
    scheduler = AsyncIOScheduler(clock=clock, timezone="UTC")
    scheduler.start()
    scheduler.add_task(jobs.thread_name, id="a")
    assert len(await clock.advance(seconds=1)) == 1
    assert scheduler.shutdown()
    assert not scheduler.running


BLOCKED = """
import asyncio, threading
from asyncz import NativeAsyncIOScheduler

async def main():
    scheduler = NativeAsyncIOScheduler(timezone="UTC", shutdown_timeout=0.2)
    await scheduler.start()
    begun = threading.Event()
    def block():
        begun.set()
        threading.Event().wait()
    scheduler.add_task(block, executor="default")
    await asyncio.to_thread(begun.wait, 20)
    {end}
    print("the end")

asyncio.run(main())
"""


@pytest.mark.parametrize("end", ["await scheduler.shutdown()", "pass"])
def test_a_blocked_thread_does_not_keep_the_process_from_ending(end: str) -> None:
    command = [sys.executable, "-c", BLOCKED.format(end=end)]
    done = subprocess.run(command, timeout=20, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "the end\n"), done.stderr
