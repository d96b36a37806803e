"""Cancelling a run: one that goes on, one that waits, one that is over."""

from __future__ import annotations

import asyncio

import pytest

from asyncz import NativeAsyncIOScheduler, Retry, RunState
from asyncz.events.constants import TASK_CANCELLED
from asyncz.exceptions import RunLookupError, TaskOptionError
from asyncz.testing import VirtualClock

from . import jobs
from .places import PERSISTENT, MakeStore
from .test_attempts import START, after, the_run

PATIENCE = 20.0


async def test_a_run_that_goes_on_is_cut_off(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    codes: list[int] = []
    scheduler.add_listener(lambda event: codes.append(event.code), TASK_CANCELLED)
    await scheduler.aadd_task(
        jobs.never_ends, "interval", hours=1, start_at=START, id="a", retry=Retry(wait=1)
    )
    await clock.advance(seconds=1)
    await scheduler.acancel_run((await the_run(scheduler)).id, by="ann")
    await clock.advance(seconds=1)
    run = await the_run(scheduler)
    assert (run.state, run.reason) == (RunState.CANCELLED, "cancelled by ann")
    assert codes == [TASK_CANCELLED]
    await clock.advance(minutes=5)
    assert jobs.ATTEMPTS["a"] == 1
    assert await scheduler.aget_task("a") is not None


@pytest.mark.parametrize("make_store", ["memory"], indirect=True)
async def test_a_run_is_cancelled_before_its_first_step(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    await scheduler.aadd_task(jobs.never_ends, "interval", hours=1, id="a")
    scheduler.run_task("a")
    run = scheduler.get_runs("a")[0]
    assert scheduler.cancel_run(run.id, by="ann").state is RunState.RUNNING
    await clock.advance()
    assert not jobs.ATTEMPTS
    assert (await the_run(scheduler)).state is RunState.CANCELLED
    assert not scheduler.instances


async def test_a_run_that_waits_for_an_attempt_is_cancelled_at_once(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    await scheduler.aadd_task(jobs.fails, args=[9], id="a", retry=Retry(wait=60))
    await clock.advance(seconds=1)
    run_id = (await the_run(scheduler)).id
    run = await scheduler.acancel_run(run_id)
    assert run.state is RunState.CANCELLED
    assert scheduler.identity in (run.reason or "")
    await clock.advance(minutes=5)
    assert jobs.ATTEMPTS["a"] == 1
    assert await scheduler.acancel_run(run_id) == await scheduler.aget_run(run_id)


async def test_one_that_takes_its_time_to_end_is_cancelled_all_the_same(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Though its own time is over meanwhile; and not for ever."""
    await scheduler.aadd_task(jobs.cleans_up, args=[3], id="short", timeout=5.0)
    await scheduler.aadd_task(jobs.cleans_up, args=[99], id="long", timeout=5.0)
    await clock.advance(seconds=3)
    for run in await scheduler.aget_runs():
        await scheduler.acancel_run(run.id, by="ann")
    await clock.advance(seconds=20)
    runs = {run.task_id: run for run in await scheduler.aget_runs()}
    assert {run.reason for run in runs.values()} == {"cancelled by ann"}
    assert {run.state for run in runs.values()} == {RunState.CANCELLED}
    assert [runs["short"].finished_at, runs["long"].finished_at] == [after(6), after(8)]
    assert "run of the task 'long' did not end within 5 s of being cancelled" in caplog.text


async def test_what_has_ended_stays_as_it_is(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    await scheduler.aadd_task(jobs.fails, args=[0], id="a")
    await clock.advance(seconds=1)
    run = await scheduler.acancel_run((await the_run(scheduler)).id)
    assert run.state is RunState.SUCCEEDED


async def test_one_that_waits_behind_another_is_not_cancelled_alone(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    scheduler.pause()
    await scheduler.aadd_task(
        jobs.never_ends, "interval", seconds=10, start_at=START, id="a", coalesce=False
    )
    await clock.advance(seconds=15)
    scheduler.resume()
    await clock.advance(seconds=1)
    behind, head = await scheduler.aget_runs("a")
    with pytest.raises(TaskOptionError, match="waits behind an earlier one"):
        await scheduler.acancel_run(behind.id)
    await scheduler.acancel_run(head.id)
    await clock.advance(seconds=1)
    assert [run.state for run in await scheduler.aget_runs("a")] == [RunState.CANCELLED] * 2


async def test_what_is_no_run_is_said(scheduler: NativeAsyncIOScheduler) -> None:
    for text in ("a", "a@", "@2026-01-01T00:00:00+00:00", "a@2026-01-01T00:00:00", ""):
        with pytest.raises(TaskOptionError, match="run's id is like"):
            await scheduler.acancel_run(text)
    unknown = f"a@{after(0).isoformat()}"
    for asking in (scheduler.acancel_run, scheduler.aget_run, scheduler.await_run):
        with pytest.raises(RunLookupError, match="There is no run 'a@2026"):
            await asking(unknown)


@pytest.mark.parametrize("make_store", ["memory", "sqlite"], indirect=True)
async def test_a_thread_is_let_go(scheduler: NativeAsyncIOScheduler, clock: VirtualClock) -> None:
    await scheduler.aadd_task(jobs.blocks, id="a")
    await clock.advance(seconds=1)
    await scheduler.acancel_run((await the_run(scheduler)).id, by="ann")
    await clock.advance(seconds=1)
    assert (await the_run(scheduler)).state is RunState.CANCELLED
    jobs.LET_GO.set()


@pytest.mark.parametrize("make_store", PERSISTENT, indirect=True)
async def test_any_worker_cancels_and_waits_for_the_runs_of_another(make_store: MakeStore) -> None:
    """On the clock of the machine, as workers do."""

    def worker() -> NativeAsyncIOScheduler:
        return NativeAsyncIOScheduler(
            timezone="UTC", shutdown_timeout=5, stores={"default": make_store()}
        )

    async with worker() as one, worker() as other:
        await one.aadd_task(jobs.never_ends, id="a")
        async with asyncio.timeout(PATIENCE):
            while not (runs := await other.aget_runs("a")) or not jobs.ATTEMPTS["a"]:
                await asyncio.sleep(0.01)
        waiting = asyncio.ensure_future(other.await_run(runs[0].id, timeout=PATIENCE))
        await other.acancel_run(runs[0].id, by="ann")
        await one.acancel_run(runs[0].id, by="ben")
        run = await waiting
        assert run.state is RunState.CANCELLED
        assert run.reason in ("cancelled by ann", "cancelled by ben")
        assert jobs.ATTEMPTS["a"] == 1
