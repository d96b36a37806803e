"""Each occurrence has a record that says what became of it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import NoReturn

import pytest

from asyncz import Delivery, NativeAsyncIOScheduler, RunKind, RunState
from asyncz.exceptions import MaximumInstancesError, TaskOptionError
from asyncz.testing import VirtualClock

START = datetime(2026, 1, 1, tzinfo=UTC)


async def work() -> None:
    """What most tasks do here."""


async def fail() -> NoReturn:
    raise ValueError("on purpose")


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


async def test_a_run_that_succeeded(scheduler: NativeAsyncIOScheduler, clock: VirtualClock) -> None:
    async def five_seconds() -> None:
        await clock.sleep(5)

    await scheduler.aadd_task(five_seconds, "date", run_at=after(10), id="a")
    await clock.advance(seconds=10)
    (run,) = await scheduler.aget_runs("a")
    assert (run.state, run.started_at, run.finished_at) == (RunState.RUNNING, after(10), None)

    await clock.advance(seconds=5)
    (run,) = await scheduler.aget_runs("a")
    assert (run.task_id, run.store_alias, run.kind) == ("a", "default", RunKind.SCHEDULED)
    assert (run.scheduled_time, run.state) == (after(10), RunState.SUCCEEDED)
    assert (run.started_at, run.finished_at) == (after(10), after(15))
    assert (run.attempt, run.token, run.occurrences) == (1, 1, 1)
    assert run.id == "a@2026-01-01T00:00:10+00:00"


async def test_a_run_that_failed_says_why(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    await scheduler.aadd_task(fail, id="a")
    await clock.advance(seconds=1)
    (run,) = scheduler.get_runs("a")
    assert (run.state, run.error) == (RunState.FAILED, "ValueError: on purpose")
    assert run.traceback is not None
    assert "in fail" in run.traceback
    assert "on purpose" not in repr(run)


async def test_run_times_that_were_too_late_are_one_record(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    await scheduler.aadd_task(
        work, "interval", seconds=10, id="a", mistrigger_grace_time=1, coalesce=False
    )
    scheduler.pause()
    await clock.advance(seconds=35)
    scheduler.resume()
    await clock.advance()
    (run,) = await scheduler.aget_runs("a")
    assert (run.state, run.occurrences) == (RunState.MISSED, 3)
    assert (run.scheduled_time, run.last_scheduled_time) == (after(10), after(30))
    assert run.reason is not None
    assert "mistrigger_grace_time" in run.reason


async def test_run_times_that_are_folded_are_one_record_beside_the_run(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    await scheduler.aadd_task(
        work, "interval", seconds=10, id="a", mistrigger_grace_time=None, coalesce=True
    )
    scheduler.pause()
    await clock.advance(seconds=86_400)
    scheduler.resume()
    await clock.advance()
    latest, folded = await scheduler.aget_runs("a")
    assert (latest.scheduled_time, latest.state) == (after(86_400), RunState.SUCCEEDED)
    assert (folded.state, folded.occurrences) == (RunState.COALESCED, 8_639)
    assert (folded.scheduled_time, folded.last_scheduled_time) == (after(10), after(86_390))


async def test_each_run_time_of_a_backlog_has_its_record(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    await scheduler.aadd_task(
        work, "interval", seconds=10, id="a", mistrigger_grace_time=None, coalesce=False
    )
    scheduler.pause()
    await clock.advance(seconds=30)
    scheduler.resume()
    await clock.advance()
    runs = await scheduler.aget_runs("a")
    assert [run.scheduled_time for run in runs] == [after(30), after(20), after(10)]
    assert {run.state for run in runs} == {RunState.SUCCEEDED}


async def test_a_run_time_that_was_skipped_says_so(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    async def slow() -> None:
        await clock.sleep(15)

    await scheduler.aadd_task(slow, "interval", seconds=10, id="a")
    await clock.advance(seconds=25)
    second, first = await scheduler.aget_runs("a")
    assert (second.scheduled_time, second.state) == (after(20), RunState.SKIPPED)
    assert (first.state, first.finished_at) == (RunState.SUCCEEDED, after(25))
    assert second.reason is not None
    assert "max_instances" in second.reason


async def test_a_run_by_hand_is_of_its_own_kind(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    await scheduler.aadd_task(work, "interval", hours=1, id="a", max_instances=3)
    for _ in range(3):
        await scheduler.arun_task("a")
    with pytest.raises(MaximumInstancesError):
        await scheduler.arun_task("a")
    await clock.advance()
    runs = await scheduler.aget_runs("a")
    assert [(run.kind, run.state) for run in runs] == [(RunKind.MANUAL, RunState.SUCCEEDED)] * 3


async def test_a_run_by_hand_of_a_task_that_is_due_is_the_only_one(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    scheduler.pause()
    await scheduler.aadd_task(work, "interval", seconds=10, id="a", mistrigger_grace_time=None)
    await clock.advance(seconds=10)
    await scheduler.arun_task("a")
    scheduler.resume()
    await clock.advance()
    (run,) = await scheduler.aget_runs("a")
    assert (run.scheduled_time, run.kind) == (after(10), RunKind.MANUAL)
    assert (await scheduler.aget_task_info("a")).next_run_time == after(20)  # type: ignore[union-attr]


async def test_a_task_that_runs_at_most_once_is_run(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    task = await scheduler.aadd_task(work, "interval", seconds=1, id="a", delivery="at_most_once")
    assert task.delivery is Delivery.AT_MOST_ONCE
    await clock.advance(seconds=3)
    await scheduler.arun_task("a")
    await clock.advance()
    runs = await scheduler.aget_runs("a")
    assert [run.state for run in runs] == [RunState.SUCCEEDED] * 4


async def test_delivery_is_one_of_two() -> None:
    scheduler = NativeAsyncIOScheduler()
    with pytest.raises(TaskOptionError, match="delivery"):
        scheduler.add_task(work, delivery="exactly_once")


async def test_runs_are_filtered(scheduler: NativeAsyncIOScheduler, clock: VirtualClock) -> None:
    await scheduler.aadd_task(work, "interval", seconds=10, id="a")
    await scheduler.aadd_task(fail, "interval", seconds=10, id="b")
    await clock.advance(seconds=30)

    async def count(**wanted: object) -> int:
        return len(await scheduler.aget_runs(**wanted))  # type: ignore[arg-type]

    assert await count() == 6
    assert await count(limit=4) == 4
    assert await count(task_id="a") == 3
    assert await count(store="default", since=after(20)) == 4
    assert await count(state="failed") == 3
    assert await count(state=[RunState.FAILED, "succeeded"], task_id="b") == 3
    assert await count(task_id="nobody") == 0


async def test_bad_questions_are_refused(scheduler: NativeAsyncIOScheduler) -> None:
    with pytest.raises(TaskOptionError, match="queued, claimed, running"):
        await scheduler.aget_runs(state="done")
    with pytest.raises(TaskOptionError, match="time zone"):
        await scheduler.aget_runs(since=datetime(2026, 1, 1))
    with pytest.raises(TaskOptionError, match="between 1 and 10,000"):
        await scheduler.aget_runs(limit=0)


async def test_before_the_start_there_are_no_runs() -> None:
    assert NativeAsyncIOScheduler().get_runs() == []


async def test_what_a_shutdown_cuts_off_is_an_event_and_no_error(clock: VirtualClock) -> None:
    clock.patience = 0
    async with NativeAsyncIOScheduler(clock=clock, shutdown_timeout=1) as scheduler:
        await scheduler.aadd_task(asyncio.Event().wait, id="a")
        await clock.advance(seconds=1)
        (run,) = await scheduler.aget_runs("a")
        assert run.state is RunState.RUNNING


async def test_a_scheduler_alone_is_the_only_instance(scheduler: NativeAsyncIOScheduler) -> None:
    (info,) = await scheduler.aget_scheduler_instance_infos()
    assert (info.scope, info.identity) == ("this", scheduler.identity)
    assert (info.active, info.stale) == (True, False)
    assert info.store_aliases == ("default",)
