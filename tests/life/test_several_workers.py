"""What happens to a run when its worker is not alone, or is no more, at the level of schedulers."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from asyncz import NativeAsyncIOScheduler, Retry, Run, RunState
from asyncz.testing import VirtualClock

from . import jobs
from .places import PERSISTENT, MakeStore

START = datetime(2026, 1, 1, tzinfo=UTC)
PATIENCE = 60.0


async def test_a_long_gap_is_one_record(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    """And the record of what was run says nothing of the others, which it stands beside."""
    scheduler.pause()
    await scheduler.aadd_task(
        jobs.fails, "interval", seconds=1, args=[0], id="a", coalesce=True,
        start_at=START + timedelta(seconds=1), mistrigger_grace_time=None,
    )  # fmt: skip
    await clock.advance(days=1)
    scheduler.resume()
    await clock.advance()
    ran, folded = await scheduler.aget_runs("a")
    assert (ran.scheduled_time, ran.state) == (START + timedelta(days=1), RunState.SUCCEEDED)
    assert folded.occurrences == 86_399
    assert folded.scheduled_time == START + timedelta(seconds=1)
    assert folded.last_scheduled_time == START + timedelta(seconds=86_399)
    assert (folded.state, folded.reason) == (RunState.COALESCED, f"folded into the run {ran.id}")


async def the_run(scheduler: NativeAsyncIOScheduler, state: RunState) -> Run:
    async with asyncio.timeout(PATIENCE):
        while True:
            for run in await scheduler.aget_runs("a"):
                if run.state is state:
                    return run
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("make_store", PERSISTENT, indirect=True)
async def test_an_attempt_moves_to_another_worker(make_store: MakeStore) -> None:
    """On the real clock: on a virtual one a scheduler takes itself for the only one."""
    first, second = (
        NativeAsyncIOScheduler(stores={"default": make_store()}, timezone="UTC", poll_interval=0.2)
        for _ in range(2)
    )
    policy = Retry(attempts=3, wait=1)
    async with first, second:
        second.pause()
        await first.aadd_task(jobs.fails, args=[2], id="a", retry=policy)
        before = await the_run(first, RunState.RETRYING)
        first.pause()
        second.resume()
        after = await the_run(second, RunState.SUCCEEDED)
    assert (after.attempt, after.result) == (3, "done")
    assert after.owner != before.owner
    assert [("a", number, before.id) for number in (1, 2, 3)] == jobs.KEYS
    assert sorted(set(jobs.FENCES)) == jobs.FENCES


# Processes.


def database_of(directory: Path) -> dict[str, Any]:
    return {"default": {"type": "sqlalchemy", "database": f"sqlite:///{directory / 'tasks.db'}"}}


def a_scheduler(directory: Path) -> NativeAsyncIOScheduler:
    return NativeAsyncIOScheduler(stores=database_of(directory), timezone="UTC", lease=3.0)


async def waits_for_ever() -> None:
    """A task that ends only if somebody ends it."""
    await asyncio.Event().wait()


async def succeeds() -> str:
    return f"by {os.getpid()}"


def work(directory: Path) -> None:
    """A process that runs what is due until it is killed."""

    async def run() -> None:
        async with a_scheduler(directory):
            await asyncio.Event().wait()

    asyncio.run(run())


async def until_it_is(scheduler: NativeAsyncIOScheduler, task_id: str, state: RunState) -> Run:
    """A bounded wait."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        for run in await scheduler.aget_runs(task_id, limit=1):
            if run.state is state:
                return run
        await asyncio.sleep(0.05)
    found = await scheduler.aget_runs(task_id)
    raise AssertionError(f"{task_id} is not {state} after {PATIENCE} s: {found}")


async def with_a_process(directory: Path, asking: Any) -> None:
    """What this process asks of one that does the work, on one database."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=(directory,))
    async with a_scheduler(directory) as scheduler:
        scheduler.pause()
        process.start()
        try:
            await asking(scheduler, process)
        finally:
            process.kill()
            await asyncio.to_thread(process.join)
            process.close()


async def test_a_run_is_awaited_and_cancelled_from_another_process(tmp_path: Path) -> None:
    async def ask(scheduler: NativeAsyncIOScheduler, process: Any) -> None:
        now = datetime.now(UTC)
        await scheduler.aadd_task(succeeds, "date", run_at=now, id="done")
        await scheduler.aadd_task(waits_for_ever, "date", run_at=now, id="going")
        done = await until_it_is(scheduler, "done", RunState.SUCCEEDED)
        going = await until_it_is(scheduler, "going", RunState.RUNNING)
        assert (await scheduler.await_run(done.id, timeout=PATIENCE)).result == f"by {process.pid}"
        await scheduler.acancel_run(going.id)
        ended = await scheduler.await_run(going.id, timeout=PATIENCE)
        assert (ended.state, ended.owner) == (RunState.CANCELLED, going.owner)

    await with_a_process(tmp_path, ask)


async def test_a_run_whose_process_was_killed_is_lost_or_run_again(tmp_path: Path) -> None:
    async def ask(scheduler: NativeAsyncIOScheduler, process: Any) -> None:
        for delivery in ("at_most_once", "at_least_once"):
            await scheduler.aadd_task(
                waits_for_ever, "date", run_at=datetime.now(UTC), id=delivery, delivery=delivery
            )
        for delivery in ("at_most_once", "at_least_once"):
            before = await until_it_is(scheduler, delivery, RunState.RUNNING)
        process.kill()
        scheduler.resume()
        lost = await until_it_is(scheduler, "at_most_once", RunState.LOST)
        assert lost.owner == before.owner
        end = time.monotonic() + PATIENCE
        (again,) = await scheduler.aget_runs("at_least_once")
        while again.owner == before.owner and time.monotonic() < end:
            await asyncio.sleep(0.05)
            (again,) = await scheduler.aget_runs("at_least_once")
        assert (again.state, again.attempt) == (RunState.RUNNING, 2)
        await scheduler.acancel_run(again.id)
        await until_it_is(scheduler, "at_least_once", RunState.CANCELLED)

    await with_a_process(tmp_path, ask)
