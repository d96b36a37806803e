"""Runs in processes: their time, their end, what they raise. On the clock of the machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from asyncz import NativeAsyncIOScheduler, Retry, RunState
from asyncz.events.constants import TASK_CANCELLED
from asyncz.executors import ProcessPoolExecutor

from . import jobs
from .places import MakeStore

PATIENCE = 20.0
IN_A_PROCESS: Any = {"executor": "processes", "mistrigger_grace_time": None}


@pytest_asyncio.fixture
async def worker(
    make_store: MakeStore, request: pytest.FixtureRequest
) -> AsyncIterator[NativeAsyncIOScheduler]:
    """A scheduler with processes, two or as many as the test asks for, that have begun."""
    scheduler = NativeAsyncIOScheduler(
        timezone="UTC", shutdown_timeout=5, stores={"default": make_store()}
    )
    pool = ProcessPoolExecutor(max_workers=getattr(request, "param", 2))
    await scheduler.aadd_executor(pool, "processes")
    await scheduler.start()
    try:
        await scheduler.aadd_task(jobs.sleeps, args=[0.0], id="warm", **IN_A_PROCESS)
        await ended(scheduler, "warm")
        yield scheduler
    finally:
        await scheduler.shutdown(wait=False)


async def ended(scheduler: NativeAsyncIOScheduler, task_id: str) -> Any:
    """Its run, once it has ended."""
    async with asyncio.timeout(PATIENCE):
        while not (runs := await scheduler.aget_runs(task_id)):
            await asyncio.sleep(0.01)
    return await scheduler.await_run(runs[0].id, timeout=PATIENCE)


@pytest.mark.parametrize("make_store", ["memory"], indirect=True)
async def test_a_process_is_killed_and_the_others_of_its_pool_begin_anew(
    worker: NativeAsyncIOScheduler,
) -> None:
    await worker.aadd_task(jobs.sleeps, args=[30.0], id="long", timeout=0.5, **IN_A_PROCESS)
    await worker.aadd_task(jobs.sleeps, args=[1.0], id="other", **IN_A_PROCESS)
    run = await ended(worker, "long")
    assert run.state is RunState.FAILED
    assert "its process was killed" in run.error
    other = await ended(worker, "other")
    assert (other.state, other.result) == (RunState.SUCCEEDED, 1)


@pytest.mark.parametrize("make_store", ["memory"], indirect=True)
async def test_what_is_not_to_be_begun_twice_ends_with_the_pool(
    worker: NativeAsyncIOScheduler,
) -> None:
    once: Any = {"delivery": "at_most_once", **IN_A_PROCESS}
    await worker.aadd_task(jobs.sleeps, args=[30.0], id="once", **once)
    await worker.aadd_task(jobs.sleeps, args=[30.0], id="long", timeout=0.5, **IN_A_PROCESS)
    run = await ended(worker, "once")
    assert run.state is RunState.FAILED
    assert "killed because of another run" in run.error


@pytest.mark.parametrize("make_store", ["memory"], indirect=True)
@pytest.mark.parametrize("worker", [1], indirect=True)
async def test_the_time_of_a_run_does_not_begin_while_it_waits_for_a_process(
    worker: NativeAsyncIOScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor is what it waits for harmed when it is cancelled."""
    await worker.aadd_task(jobs.sleeps, args=[1.0], id="long", **IN_A_PROCESS)
    await worker.aadd_task(jobs.sleeps, args=[0.0], id="cancelled", **IN_A_PROCESS)
    await worker.aadd_task(jobs.sleeps, args=[0.0], id="short", timeout=0.7, **IN_A_PROCESS)
    async with asyncio.timeout(PATIENCE):
        while not (runs := await worker.aget_runs("cancelled")):
            await asyncio.sleep(0.01)
    await worker.acancel_run(runs[0].id, by="ann")
    states = {name: (await ended(worker, name)).state for name in ("cancelled", "long", "short")}
    assert states.pop("cancelled") is RunState.CANCELLED
    assert set(states.values()) == {RunState.SUCCEEDED}
    assert "begun again" not in caplog.text


@pytest.mark.parametrize("make_store", ["memory", "sqlite"], indirect=True)
async def test_a_run_that_is_cancelled_ends_with_its_process(
    worker: NativeAsyncIOScheduler,
) -> None:
    codes: list[int] = []
    worker.add_listener(lambda event: codes.append(event.code), TASK_CANCELLED)
    await worker.aadd_task(jobs.sleeps, args=[30.0], id="a", **IN_A_PROCESS)
    async with asyncio.timeout(PATIENCE):
        while not (runs := await worker.aget_runs("a")):
            await asyncio.sleep(0.01)
    await worker.acancel_run(runs[0].id, by="ann")
    run = await ended(worker, "a")
    assert (run.state, run.reason) == (RunState.CANCELLED, "cancelled by ann")
    assert codes == [TASK_CANCELLED]


@pytest.mark.parametrize("make_store", ["memory"], indirect=True)
async def test_an_exception_that_does_not_come_back_is_known_by_its_classes(
    worker: NativeAsyncIOScheduler,
) -> None:
    policies = {
        "itself": Retry(attempts=2, wait=0, on=jobs.Odd),
        "its base": Retry(attempts=2, wait=0, on=LookupError),
        "another": Retry(attempts=2, wait=0, on=OSError),
        "given up": Retry(attempts=2, wait=0, give_up_on=jobs.Odd),
    }
    for name, policy in policies.items():
        await worker.aadd_task(jobs.fails_oddly, id=name, retry=policy, **IN_A_PROCESS)
    attempts = {name: (await ended(worker, name)).attempt for name in policies}
    assert attempts == {"itself": 2, "its base": 2, "another": 1, "given up": 1}
    assert "Odd: 12" in (await ended(worker, "itself")).error


@pytest.mark.parametrize("make_store", ["memory"], indirect=True)
async def test_what_a_run_says_comes_back_with_its_outcome(worker: NativeAsyncIOScheduler) -> None:
    await worker.aadd_task(jobs.says_in_a_process, id="a", **IN_A_PROCESS)
    run = await ended(worker, "a")
    assert (run.state, run.progress, run.log) == (RunState.SUCCEEDED, 0.5, ("from there",))
    assert run.result == f"a 1 1 {run.id}"
