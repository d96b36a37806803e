"""A run that takes longer than its task's timeout."""

from __future__ import annotations

from typing import Any

import pytest

from asyncz import AsyncIOExecutor, NativeAsyncIOScheduler, Retry, RunState
from asyncz.executors import ThreadPoolExecutor
from asyncz.testing import VirtualClock

from . import jobs
from .test_attempts import START, after, the_run


async def test_a_coroutine_is_cancelled(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    await scheduler.aadd_task(jobs.takes, args=[60], id="long", timeout=5.0)
    await scheduler.aadd_task(jobs.takes, args=[4], id="short", timeout=5.0)
    await clock.advance(seconds=4.9)
    assert (await the_run(scheduler, "long")).state is RunState.RUNNING
    await clock.advance(seconds=0.2)
    run = await the_run(scheduler, "long")
    assert (run.state, run.finished_at) == (RunState.FAILED, after(5))
    assert (run.error or "").startswith("RunTimeoutError: It took longer than its timeout of 5 s")
    assert (await the_run(scheduler, "short")).state is RunState.SUCCEEDED


@pytest.mark.parametrize(
    ("fn", "args"), [(jobs.swallows, [1]), (jobs.cleans_up, [3]), (jobs.fails_to_clean_up, [])]
)
async def test_whatever_a_coroutine_does_when_it_is_cancelled_it_has_failed(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock, fn: Any, args: list[int]
) -> None:
    policy = Retry(attempts=2, wait=10, on=TimeoutError)
    await scheduler.aadd_task(fn, args=args, id="a", timeout=5.0, retry=policy)
    await clock.advance(seconds=9)
    run = await the_run(scheduler)
    assert (run.state, run.attempt) == (RunState.RETRYING, 1)
    await clock.advance(seconds=40)
    run = await the_run(scheduler)
    assert (run.state, run.attempt, jobs.ATTEMPTS["a"]) == (RunState.FAILED, 2, 2)
    assert (run.error or "").startswith("RunTimeoutError: It took longer than its timeout of 5 s")


@pytest.mark.parametrize(("fn", "args"), [(jobs.swallows, [3]), (jobs.cleans_up, [100])])
async def test_a_coroutine_that_does_not_end_is_left_alone(
    scheduler: NativeAsyncIOScheduler,
    clock: VirtualClock,
    caplog: pytest.LogCaptureFixture,
    fn: Any,
    args: list[int],
) -> None:
    await scheduler.aadd_task(
        fn, "interval", seconds=12, start_at=START, args=args, id="a", timeout=5.0
    )
    await clock.advance(seconds=9.9)
    assert (await the_run(scheduler)).state is RunState.RUNNING
    await clock.advance(seconds=0.2)
    run = await the_run(scheduler)
    assert (run.state, run.finished_at) == (RunState.FAILED, after(10))
    assert (run.error or "").endswith("it was cancelled, and did not end.")
    assert "run of the task 'a' did not end within 5 s of being cancelled" in caplog.text
    await clock.advance(seconds=3)
    assert jobs.ATTEMPTS["a"] == 2  # its place is free
    await scheduler.adelete_task("a")
    await clock.advance(seconds=400)
    assert {run.state for run in await scheduler.aget_runs("a")} == {RunState.FAILED}


async def test_each_attempt_has_its_time(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    policy = Retry(attempts=3, wait=10, on=TimeoutError)
    await scheduler.aadd_task(jobs.holds_on_once, id="a", timeout=5.0, retry=policy)
    await clock.advance(seconds=6)
    assert (await the_run(scheduler)).retry_at == after(15)
    await clock.advance(seconds=10)
    run = await the_run(scheduler)
    assert (run.state, run.attempt) == (RunState.SUCCEEDED, 2)


async def test_each_of_several_run_times_has_its_time(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    scheduler.pause()
    await scheduler.aadd_task(
        jobs.holds_on_once, "interval", seconds=10, id="a", start_at=after(0), timeout=5.0,
        coalesce=False,
    )  # fmt: skip
    await clock.advance(seconds=25)
    scheduler.resume()
    await clock.advance(seconds=4.5)
    await scheduler.apause_task("a")
    await clock.advance(seconds=60)
    states = [run.state for run in reversed(await scheduler.aget_runs("a"))]
    assert states == [RunState.FAILED, RunState.SUCCEEDED, RunState.SUCCEEDED]


@pytest.mark.parametrize("kind", [AsyncIOExecutor, ThreadPoolExecutor])
async def test_a_thread_is_let_go(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock, kind: Any
) -> None:
    await scheduler.aadd_executor(kind(), "own")
    await scheduler.aadd_task(jobs.blocks, id="a", timeout=5.0, executor="own")
    await clock.advance(seconds=1)
    assert (await the_run(scheduler)).state is RunState.RUNNING
    await clock.advance(seconds=5)
    run = await the_run(scheduler)
    assert run.state is RunState.FAILED
    assert "its thread, which cannot be stopped, was left alone" in (run.error or "")
    # There is room for the next run.
    await scheduler.aadd_task(jobs.returns, args=[1], id="b", executor="own")
    await clock.advance(seconds=1)
    assert (await the_run(scheduler, "b")).state is RunState.SUCCEEDED
    jobs.LET_GO.set()
