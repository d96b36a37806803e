"""How many records of runs are kept, and for how long."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from asyncz import History, NativeAsyncIOScheduler, RunState
from asyncz.schedulers import local_history
from asyncz.stores.memory import MemoryStore
from asyncz.testing import VirtualClock

from . import jobs
from .conftest import MakeScheduler
from .places import PERSISTENT, MakeStore
from .test_attempts import START

HOUR = timedelta(hours=1)


async def states_of(scheduler: NativeAsyncIOScheduler, task_id: str) -> Counter[RunState]:
    return Counter(run.state for run in await scheduler.aget_runs(task_id, limit=10_000))


async def test_as_many_runs_are_kept_as_the_task_says(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    await scheduler.aadd_task(
        jobs.fails, "interval", minutes=1, start_at=START, args=[0], id="a",
        history=History(count=5),
    )  # fmt: skip
    await clock.advance(minutes=30, seconds=30)
    runs = await scheduler.aget_runs("a", limit=1_000)
    assert 5 <= len(runs) <= 6
    assert runs[0].scheduled_time == START + timedelta(minutes=30)


async def test_the_scheduler_says_it_for_all_that_do_not(
    make_store: MakeStore, clock: VirtualClock
) -> None:
    async with NativeAsyncIOScheduler(
        clock=clock, timezone="UTC", stores={"default": make_store()}, history=History(count=10)
    ) as scheduler:
        schedule: Any = {"minutes": 1, "start_at": START, "args": [0]}
        await scheduler.aadd_task(jobs.fails, "interval", id="a", **schedule)
        await scheduler.aadd_task(
            jobs.fails, "interval", id="b", history=History(count=1_000), **schedule
        )
        await clock.advance(minutes=40, seconds=30)
        assert 10 <= (await states_of(scheduler, "a")).total() <= 12
        assert (await states_of(scheduler, "b")).total() == 41


async def test_failures_are_kept_beside_the_others_and_for_longer(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    await scheduler.aadd_task(
        jobs.fails, "interval", minutes=10, start_at=START, args=[3], id="a",
        history=History(count=2, age=2 * HOUR, failures_age=48 * HOUR),
    )  # fmt: skip
    await clock.advance(hours=3, minutes=5)
    states = await states_of(scheduler, "a")
    assert states[RunState.FAILED] == 2
    assert 2 <= states[RunState.SUCCEEDED] <= 3


async def test_what_is_too_old_goes_although_there_is_little_of_it(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    await scheduler.aadd_task(
        jobs.fails, "interval", hours=12, start_at=START, args=[0], id="a",
        history=History(age=36 * HOUR),
    )  # fmt: skip
    await clock.advance(days=6, seconds=30)
    oldest = min(run.scheduled_time for run in await scheduler.aget_runs("a"))
    assert clock.now() - oldest <= 36 * HOUR + 24 * HOUR + timedelta(minutes=1)


@pytest.mark.parametrize("make_store", PERSISTENT, indirect=True)
async def test_restarts_do_not_let_a_history_grow(
    make_scheduler: MakeScheduler, clock: VirtualClock
) -> None:
    for _ in range(5):
        scheduler = make_scheduler()
        scheduler.add_task(
            jobs.fails, "interval", days=1, start_at=START, args=[0], id="a",
            history=History(count=5), replace_existing=True,
        )  # fmt: skip
        async with scheduler:
            await clock.advance(days=4)
            assert (await states_of(scheduler, "a")).total() <= 6


async def test_what_is_skipped_beside_a_long_run_does_not_grow(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    clock.patience = 0.0
    await scheduler.aadd_task(
        jobs.takes, "interval", seconds=10, start_at=START, args=[3_000.0], id="a",
        history=History(count=10),
    )  # fmt: skip
    await clock.advance(minutes=15)
    states = await states_of(scheduler, "a")
    assert 10 <= states[RunState.SKIPPED] <= 12
    assert states[RunState.RUNNING] == 1


@pytest.mark.parametrize("make_store", ["memory"], indirect=True)
async def test_memory_keeps_a_thousand_runs_and_those_that_failed_apart(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    await scheduler.aadd_task(jobs.refuses, "date", run_at=START, id="bad")
    await clock.advance(seconds=1)
    for number in range(3_500):
        scheduler.add_task(jobs.fails, "date", run_at=clock.now(), args=[0], id=f"t{number}")
        if number % 500 == 0:
            await clock.advance(seconds=1)
            ledger: Any = scheduler._engine.lanes["default"].ledger
            there = len(ledger._history._others)
            assert there <= local_history.KEPT + local_history.SURPLUS
    await clock.advance(seconds=1)
    runs = await scheduler.aget_runs(limit=10_000)
    assert Counter(run.state for run in runs) == {RunState.SUCCEEDED: 1_000, RunState.FAILED: 1}
    assert runs[0].task_id == "t999" or runs[0].scheduled_time > START


@pytest.mark.parametrize("make_store", ["memory"], indirect=True)
async def test_in_memory_a_busy_task_does_not_crowd_out_a_rare_one(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    often: Any = {"seconds": 10, "start_at": START, "args": [0]}
    await scheduler.aadd_task(jobs.fails, "interval", id="often", **often)
    await scheduler.aadd_task(
        jobs.fails, "interval", hours=2, start_at=START, args=[0], id="rarely"
    )
    await clock.advance(hours=9)
    assert (await states_of(scheduler, "rarely")).total() == 5
    assert (await states_of(scheduler, "often")).total() == History().count


async def test_a_store_in_memory_begins_anew_at_each_start(clock: VirtualClock) -> None:
    store = MemoryStore()
    scheduler = NativeAsyncIOScheduler(clock=clock, timezone="UTC", stores={"default": store})
    async with scheduler:
        await scheduler.aadd_task(jobs.fails, args=[0], id="a")
        await clock.advance(seconds=1)
        assert len(await scheduler.aget_runs()) == 1
    async with scheduler:
        assert await scheduler.aget_runs() == []
