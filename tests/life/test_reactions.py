"""What a task wants to have called when its runs have ended."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from asyncz import NativeAsyncIOScheduler, Retry, RunKind, RunState
from asyncz.events.constants import TASK_ERROR, TASK_EXECUTED
from asyncz.exceptions import TransientTaskError
from asyncz.stores.cluster import Fired, Firing, Node, RunRef
from asyncz.testing import VirtualClock

from . import jobs
from .conftest import MakeScheduler
from .places import PERSISTENT
from .test_attempts import START, after


async def test_success_and_failure_are_told(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    both: Any = {"on_success": jobs.notice, "on_failure": jobs.notice_in_a_thread}
    await scheduler.aadd_task(jobs.returns, args=[{"n": 1}], id="good", **both)
    await scheduler.aadd_task(jobs.refuses, id="bad", **both)
    await clock.advance(seconds=1)
    await settled(2)
    told = {run.task_id: (how, run) for how, run in jobs.REACTIONS}
    how, run = told["good"]
    assert (how, run.state, run.result) == ("coroutine", RunState.SUCCEEDED, {"n": 1})
    how, run = told["bad"]
    assert (how, run.state, run.error) == ("thread", RunState.FAILED, "ValueError: on purpose")
    assert (run.scheduled_time, run.store_alias) == (START, "default")


async def settled(count: int) -> None:
    """Wait for reactions in threads."""
    async with asyncio.timeout(20):
        while len(jobs.REACTIONS) < count:
            await asyncio.sleep(0.005)


async def test_they_are_given_what_the_record_says(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    policy = Retry(attempts=2, wait=10)
    every: Any = {"seconds": 3_600, "on_success": jobs.notice, "on_failure": jobs.notice}
    await scheduler.aadd_task(jobs.returns, "interval", args=[{"n": 1}], id="by hand", **every)
    await scheduler.aadd_task(
        jobs.fails, "interval", start_at=START, args=[9], id="again", retry=policy, **every
    )
    await clock.advance(seconds=1)
    await scheduler.arun_task("by hand")
    await clock.advance(seconds=15)
    await settled(2)
    for _, run in jobs.REACTIONS:
        assert run.model_dump() == (await scheduler.aget_run(run.id)).model_dump()
        assert run.started_at is not None
    kinds = {run.task_id: (run.kind, run.attempt) for _, run in jobs.REACTIONS}
    assert kinds == {"by hand": (RunKind.MANUAL, 1), "again": (RunKind.SCHEDULED, 2)}


async def test_failure_is_told_when_there_is_no_other_attempt(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    policy = Retry(attempts=3, wait=1)
    await scheduler.aadd_task(jobs.fails, args=[9], id="a", retry=policy, on_failure=jobs.notice)
    await clock.advance(seconds=1.5)
    assert jobs.REACTIONS == []
    await clock.advance(seconds=2)
    await settled(1)
    ((_, run),) = jobs.REACTIONS
    assert (run.state, run.attempt) == (RunState.FAILED, 3)


async def test_a_skipped_run_is_neither(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    await scheduler.aadd_task(
        jobs.skips, id="a", on_failure=jobs.notice, on_success=jobs.notice, on_missed=jobs.notice
    )
    await clock.advance(seconds=1)
    assert jobs.REACTIONS == []


@pytest.mark.parametrize("reaction", [jobs.notice, jobs.notice_in_a_thread])
async def test_what_was_missed_is_told(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock, reaction: Any
) -> None:
    scheduler.pause()
    await scheduler.aadd_task(
        jobs.returns, "interval", seconds=10, start_at=START, args=[1], id="a",
        mistrigger_grace_time=1, on_missed=reaction,
    )  # fmt: skip
    await clock.advance(seconds=25)
    scheduler.resume()
    await clock.advance(seconds=1)
    await settled(1)
    ((_, run),) = jobs.REACTIONS
    assert (run.state, run.occurrences) == (RunState.MISSED, 3)
    assert run == await scheduler.aget_run(run.id)
    assert (run.scheduled_time, run.last_scheduled_time) == (START, after(20))


async def test_one_that_fails_harms_nobody(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    await scheduler.aadd_task(
        jobs.returns, "interval", seconds=10, start_at=START, args=[1], id="a",
        on_success=jobs.notice_and_fail,
    )  # fmt: skip
    await clock.advance(seconds=11)
    await settled(2)
    assert len(jobs.REACTIONS) == 2
    assert "has called after its run succeeded failed" in caplog.text


@pytest.mark.parametrize("make_store", ["memory"], indirect=True)
@pytest.mark.parametrize(
    "reaction",
    [jobs.notice_and_exit, jobs.notice_and_exit_in_a_thread, jobs.notice_and_stop_in_a_thread],
)
async def test_one_that_wants_to_end_the_app_only_fails(
    scheduler: NativeAsyncIOScheduler,
    clock: VirtualClock,
    caplog: pytest.LogCaptureFixture,
    reaction: Any,
) -> None:
    await scheduler.aadd_task(jobs.returns, args=[1], id="a", on_success=reaction)
    await clock.advance(seconds=1)
    async with asyncio.timeout(20):
        while "has called after its run succeeded failed" not in caplog.text:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("make_store", ["memory"], indirect=True)
async def test_one_that_blocks_holds_up_neither_the_app_nor_its_end(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    await scheduler.aadd_task(jobs.returns, args=[1], id="a", on_success=jobs.notice_where)
    await clock.advance(seconds=1)
    await settled(1)
    # Not one of the app's, and none that a process waits for at its end.
    assert jobs.REACTIONS[0][0] == "asyncz reactions 1 True"


@pytest.mark.parametrize("make_store", PERSISTENT, indirect=True)
@pytest.mark.parametrize("delivery", ["at_most_once", "at_least_once"])
async def test_what_is_lost_or_abandoned_is_told(
    make_scheduler: MakeScheduler, clock: VirtualClock, delivery: Any
) -> None:
    """By whoever finds out. The workers that are gone are made of the store's operations alone."""
    is_once = delivery == "at_most_once"
    async with make_scheduler() as scheduler:
        scheduler.pause()
        await scheduler.aadd_task(
            jobs.returns, "interval", hours=1, start_at=START, args=[1], id="a",
            delivery=delivery, on_failure=jobs.notice,
        )  # fmt: skip
        store: Any = scheduler._engine.stores["default"]
        (task,) = await store.get_due_tasks(START)
        run = RunRef("a", RunKind.SCHEDULED, START, 1)
        firing = Firing(task, START, after(3_600), False, RunKind.SCHEDULED, (START,))
        for number in range(1 if is_once else 3):
            await store.join_node(Node(f"gone-{number}", "gone", "elsewhere", 1), 1e6)
            if number == 0:
                assert await store.fire("gone-0", "claim", [firing]) == [Fired.WON]
                await store.start_runs("gone-0", [run])
            else:
                assert (
                    len((await store.reap(f"gone-{number}", bury=None, max_attempts=3)).taken) == 1
                )
            await store.leave_node(f"gone-{number}")
    async with make_scheduler():
        await clock.advance(seconds=60)
        await settled(1)
    ((_, told),) = jobs.REACTIONS
    assert told.state is (RunState.LOST if is_once else RunState.ABANDONED)
    assert told.attempt == (1 if is_once else 3)
    assert (told.owner or "").startswith("gone-")
    assert (told.owner or "") in (told.reason or "")


@pytest.mark.parametrize("make_store", PERSISTENT, indirect=True)
async def test_they_outlive_a_restart(make_scheduler: MakeScheduler, clock: VirtualClock) -> None:
    async with make_scheduler() as first:
        await first.aadd_task(
            jobs.returns, "date", run_at=after(60), args=[1], id="a", on_success=jobs.notice
        )
        with pytest.raises(TransientTaskError, match="cannot be found again by a name"):
            await first.aadd_task(jobs.returns, args=[1], on_success=lambda run: None)
    async with make_scheduler():
        await clock.advance(timedelta(minutes=2))
    assert [run.task_id for _, run in jobs.REACTIONS] == ["a"]


async def test_a_listener_is_added_by_a_decorator(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    codes: list[int] = []

    @scheduler.on(TASK_ERROR | TASK_EXECUTED)
    def listen(event: Any) -> None:
        codes.append(event.code)

    await scheduler.aadd_task(jobs.refuses, id="a")
    await clock.advance(seconds=1)
    assert codes == [TASK_ERROR]
    assert scheduler.remove_listener(listen)
