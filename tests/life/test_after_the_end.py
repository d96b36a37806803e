"""What is left of a run that has ended for the scheduler speaks for nobody."""

from __future__ import annotations

import asyncio
import threading

import pytest

from asyncz import NativeAsyncIOScheduler, Retry, RunState, current_run
from asyncz.schedulers.sayings import Sayings
from asyncz.testing import VirtualClock

from . import jobs
from .conftest import MakeScheduler
from .test_attempts import the_run

LET_GO, SAID = threading.Event(), threading.Event()
SEEN: list[int] = []


def hangs_at_first() -> None:
    """The first attempt hangs, and speaks when it is over; the second takes its time."""
    if jobs.note_only() == 1:
        LET_GO.wait(20)
        run = current_run()
        run.progress(0.99, "from the first")
        SEEN.append(run.attempt)
        SAID.set()
    else:
        current_run().progress(0.1, "from the second")
        SAID.wait(20)


@pytest.mark.parametrize("make_store", ["memory", "sqlite"], indirect=True)
async def test_a_thread_that_was_let_go_does_not_speak_for_the_next_attempt(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    LET_GO.clear()
    SAID.clear()
    SEEN.clear()
    await scheduler.aadd_task(
        hangs_at_first, "interval", hours=1, id="a", timeout=5.0, retry=Retry(attempts=2, wait=1)
    )
    await scheduler.arun_task("a")
    await clock.advance(seconds=5.5)
    async with asyncio.timeout(20):
        while jobs.ATTEMPTS["a"] < 2:
            await clock.advance(seconds=0.1)
            await asyncio.sleep(0.005)
    LET_GO.set()
    assert await asyncio.to_thread(SAID.wait, 20)
    async with asyncio.timeout(20):
        while (run := await the_run(scheduler)).state is not RunState.SUCCEEDED:
            await clock.advance(seconds=0.1)
            await asyncio.sleep(0.005)
    assert (run.attempt, run.message, SEEN) == (2, "from the second", [1])


async def says_twice() -> None:
    """And does not end."""
    current_run().progress(0.1)
    await jobs.CLOCKS[0].sleep(0.1)
    current_run().progress(0.2)
    await asyncio.Event().wait()


@pytest.mark.parametrize("make_store", ["sqlite"], indirect=True)
async def test_nothing_is_kept_of_what_runs_say_after_a_shutdown(
    make_scheduler: MakeScheduler, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Sayings] = []
    begin = Sayings._begin

    def count(sayings: Sayings) -> None:
        begun.append(sayings)
        begin(sayings)

    monkeypatch.setattr(Sayings, "_begin", count)
    scheduler = make_scheduler()
    await scheduler.start()
    await scheduler.aadd_task(says_twice, "interval", hours=1, id="a")
    await scheduler.arun_task("a")
    await clock.advance(seconds=0.2)
    await scheduler.shutdown(wait=False)
    assert len(begun) == 1
    await clock.advance(seconds=5)
    assert len(begun) == 1
