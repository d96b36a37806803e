"""A run that failed is tried again, as its task says, and as the task's function says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import tenacity

from asyncz import Backoff, NativeAsyncIOScheduler, Retry, Run, RunState, Task
from asyncz.events.constants import TASK_ERROR, TASK_EXECUTED, TASK_RETRYING, TASK_SKIPPED
from asyncz.exceptions import SerializationError
from asyncz.schedulers.local_attempts import Waiting
from asyncz.testing import VirtualClock

from . import jobs
from .conftest import MakeScheduler
from .places import PERSISTENT

START = datetime(2026, 1, 1, tzinfo=UTC)
EVERY_10_S = Retry(attempts=4, wait=10)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


async def the_run(scheduler: NativeAsyncIOScheduler, task_id: str = "a") -> Run:
    (run,) = await scheduler.aget_runs(task_id)
    return run


@pytest.mark.parametrize("fn", [jobs.fails, jobs.fails_in_a_thread])
async def test_a_run_is_tried_again_until_it_goes_well(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock, fn: Any
) -> None:
    codes: list[int] = []
    mask = TASK_ERROR | TASK_EXECUTED | TASK_RETRYING
    scheduler.add_listener(lambda event: codes.append(event.code), mask)
    await scheduler.aadd_task(fn, "date", run_at=after(5), args=[2], id="a", retry=EVERY_10_S)
    await clock.advance(seconds=5)
    run = await the_run(scheduler)
    assert (run.state, run.attempt, run.retry_at) == (RunState.RETRYING, 1, after(15))
    assert run.error == "ConnectionError: on purpose"
    assert run.reason == "attempt 1 failed"
    assert run.traceback is not None
    await clock.advance(seconds=9.9)
    assert jobs.ATTEMPTS["a"] == 1
    await clock.advance(seconds=0.1)
    assert jobs.ATTEMPTS["a"] == 2
    await clock.advance(seconds=10)
    run = await the_run(scheduler)
    assert (run.state, run.attempt, run.retry_at) == (RunState.SUCCEEDED, 3, None)
    assert (run.result, run.error) == ("done", None)
    assert (run.scheduled_time, run.finished_at) == (after(5), after(25))
    assert [("a", number, run.id) for number in (1, 2, 3)] == jobs.KEYS
    assert codes == [TASK_RETRYING, TASK_RETRYING, TASK_EXECUTED]


async def test_it_fails_when_its_attempts_are_used_up(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    await scheduler.aadd_task(jobs.fails, args=[99], id="a", retry=EVERY_10_S)
    await clock.advance(minutes=5)
    run = await the_run(scheduler)
    assert (run.state, run.attempt, jobs.ATTEMPTS["a"]) == (RunState.FAILED, 4, 4)
    assert (run.error, run.finished_at) == ("ConnectionError: on purpose", after(30))


async def test_only_what_is_worth_it_is_tried_again(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    policies = {
        "no such error": Retry(on=OSError, wait=1),
        "given up": Retry(on=Exception, give_up_on=[LookupError, ValueError], wait=1),
        "such an error": Retry(on=(OSError, ValueError), wait=1),
        "any": Retry(wait=1),
    }
    for name, policy in policies.items():
        await scheduler.aadd_task(jobs.refuses, id=name, retry=policy)
    await clock.advance(minutes=1)
    assert jobs.ATTEMPTS == {"no such error": 1, "given up": 1, "such an error": 3, "any": 3}


async def test_waits_grow(scheduler: NativeAsyncIOScheduler, clock: VirtualClock) -> None:
    policies: dict[str, Any] = {
        "backoff": Backoff(first=2, factor=3, most=10, jitter=0),
        "tenacity": tenacity.wait_exponential(multiplier=2, exp_base=3, max=10),
    }
    for name, wait in policies.items():
        policy = Retry(attempts=5, wait=wait)
        await scheduler.aadd_task(jobs.fails, args=[99], id=name, retry=policy)
    seen = {name: [0.0] for name in policies}
    for second in range(1, 40):
        await clock.advance(seconds=1)
        for name, times in seen.items():
            if jobs.ATTEMPTS[name] > len(times):
                times.append(second)
    assert seen == {"backoff": [0, 2, 8, 18, 28], "tenacity": [0, 2, 8, 18, 28]}


async def test_waits_are_left_to_chance_in_part() -> None:
    wait = Backoff(first=10, factor=1, jitter=0.2)
    waits = [wait.seconds(1) for _ in range(200)]
    assert 8 <= min(waits) < 9 < 11 < max(waits) <= 12
    assert Backoff(first=1, factor=10, most=60, jitter=0).seconds(5_000) == 60


async def test_a_task_asks_for_another_attempt(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    for name, policy in {"without": None, "with": Retry(attempts=3, wait=1, on=())}.items():
        await scheduler.aadd_task(jobs.asks, args=[5, 20], id=name, retry=policy)
    await clock.advance(seconds=1)
    run = await the_run(scheduler, "without")
    assert (run.state, run.retry_at, run.reason) == (RunState.RETRYING, after(20), "not ready yet")
    await clock.advance(minutes=5)
    run = await the_run(scheduler, "without")
    assert (run.state, run.attempt) == (RunState.SUCCEEDED, 6)
    run = await the_run(scheduler, "with")
    assert (run.state, run.attempt) == (RunState.FAILED, 3)


async def test_a_task_skips_an_occurrence(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    codes: list[int] = []
    scheduler.add_listener(lambda event: codes.append(event.code), TASK_SKIPPED | TASK_ERROR)
    await scheduler.aadd_task(jobs.skips, id="a", retry=EVERY_10_S)
    await clock.advance(minutes=5)
    run = await the_run(scheduler)
    assert (run.state, run.reason, run.error) == (RunState.SKIPPED, "nothing there", None)
    assert (jobs.ATTEMPTS["a"], codes) == (1, [TASK_SKIPPED])


async def test_the_next_occurrence_runs_when_it_is_due(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    policy = Retry(attempts=2, wait=100)
    await scheduler.aadd_task(
        jobs.fails, "interval", seconds=30, args=[1], id="a", retry=policy, start_at=START
    )
    await clock.advance(seconds=95)
    states = [(run.scheduled_time, run.state) for run in await scheduler.aget_runs("a")]
    assert states == [
        (after(90), RunState.SUCCEEDED),
        (after(60), RunState.SUCCEEDED),
        (after(30), RunState.SUCCEEDED),
        (after(0), RunState.RETRYING),
    ]
    await clock.advance(seconds=10)
    states = [(run.scheduled_time, run.state) for run in await scheduler.aget_runs("a")]
    assert states[-1] == (after(0), RunState.SUCCEEDED)


async def test_an_attempt_waits_for_its_place(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    await scheduler.aadd_task(
        jobs.fails, "interval", seconds=30, args=[1], id="a", start_at=START,
        retry=Retry(attempts=2, wait=35),
    )  # fmt: skip
    await clock.advance(seconds=1)
    await scheduler.aupdate_task("a", fn=jobs.takes, args=[20])
    await clock.advance(seconds=35)
    # The one of second 30 goes on until second 50.
    assert [run.state for run in await scheduler.aget_runs("a")] == [
        RunState.RUNNING, RunState.RETRYING,
    ]  # fmt: skip
    await clock.advance(seconds=15)
    running = [run.scheduled_time for run in await scheduler.aget_runs("a", state="running")]
    assert running == [after(0)]


@pytest.mark.parametrize("make_store", PERSISTENT, indirect=True)
async def test_attempts_outlive_a_restart(
    make_scheduler: MakeScheduler, clock: VirtualClock
) -> None:
    async with make_scheduler() as first:
        await first.aadd_task(jobs.fails, "date", run_at=START, args=[2], id="a", retry=EVERY_10_S)
        await clock.advance(seconds=1)
        assert (await the_run(first)).state is RunState.RETRYING
    await clock.advance(seconds=4)
    async with make_scheduler() as second:
        await clock.advance(seconds=4)
        assert jobs.ATTEMPTS["a"] == 1
        await clock.advance(seconds=2)
        run = await the_run(second)
        assert (run.state, run.attempt, jobs.ATTEMPTS["a"]) == (RunState.RETRYING, 2, 2)
    await clock.advance(minutes=5)
    async with make_scheduler() as third:
        await clock.advance(seconds=1)
        run = await the_run(third)
        assert (run.state, run.attempt, run.result) == (RunState.SUCCEEDED, 3, "done")


async def test_occurrences_that_are_run_together_are_tried_again_one_by_one(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    scheduler.pause()
    await scheduler.aadd_task(
        jobs.fails, "interval", seconds=10, args=[2], id="a", start_at=START, coalesce=False,
        retry=Retry(attempts=2, wait=60), mistrigger_grace_time=None,
    )  # fmt: skip
    await clock.advance(seconds=25)
    scheduler.resume()
    await clock.advance(seconds=1)
    states = [run.state for run in reversed(await scheduler.aget_runs("a"))]
    assert states == [RunState.RETRYING, RunState.RETRYING, RunState.SUCCEEDED]
    await scheduler.apause_task("a")
    await clock.advance(seconds=70)
    runs = list(reversed(await scheduler.aget_runs("a")))
    assert [run.state for run in runs] == [RunState.SUCCEEDED] * 3
    assert [run.attempt for run in runs] == [2, 2, 1]


async def test_the_attempts_of_a_task_that_is_deleted_are_not_made(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    await scheduler.aadd_task(
        jobs.fails, "interval", hours=1, args=[9], id="a", start_at=START, retry=EVERY_10_S
    )
    await clock.advance(seconds=1)
    await scheduler.adelete_task("a")
    await clock.advance(minutes=1)
    run = await the_run(scheduler)
    assert (run.state, jobs.ATTEMPTS["a"]) == (RunState.CANCELLED, 1)


async def test_a_wait_that_cannot_be_kept_is_refused(
    scheduler: NativeAsyncIOScheduler, request: pytest.FixtureRequest
) -> None:
    class Own(tenacity.wait_fixed):
        """Somebody's own."""

    adding = scheduler.aadd_task(jobs.fails, args=[1], id="a", retry=Retry(wait=Own(1)))
    if "memory" in request.node.name:
        await adding
        return
    with pytest.raises(SerializationError, match="cannot keep the wait strategy Own"):
        await adding
    assert await scheduler.aget_tasks() == []


async def test_a_task_that_is_deleted_while_an_attempt_goes_on_is_not_tried_again(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    policy = Retry(attempts=None, wait=1)
    for name in ("a", "b"):
        await scheduler.aadd_task(
            jobs.takes_and_fails, "interval", hours=1, args=[5], id=name, retry=policy,
            start_at=START,
        )  # fmt: skip
    await clock.advance(seconds=1)
    await scheduler.adelete_task("a")
    await clock.advance(seconds=30)
    run = await the_run(scheduler)
    assert (run.state, run.reason) == (RunState.CANCELLED, "its task was deleted")
    assert jobs.ATTEMPTS["a"] == 1
    assert jobs.ATTEMPTS["b"] == 6


@pytest.mark.parametrize("make_store", ["memory"], indirect=True)
async def test_many_that_wait_are_not_gone_through_whenever_a_run_ends(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[object] = []
    key: Any = vars(Waiting)["key"].fget

    def count(waiting: Waiting) -> object:
        looked.append(waiting)
        return key(waiting)

    await scheduler.aadd_tasks(
        [Task(jobs.fails, args=[1], id=f"t{n}", retry=EVERY_10_S) for n in range(300)]
    )
    monkeypatch.setattr(Waiting, "key", property(count))
    await clock.advance(seconds=5)
    assert len(await scheduler.aget_runs(state="retrying", limit=500)) == 300
    await clock.advance(seconds=10)
    assert len(await scheduler.aget_runs(state="succeeded", limit=500)) == 300
    assert len(looked) < 20 * 300


@pytest.mark.parametrize("make_store", ["memory"], indirect=True)
async def test_attempts_wait_for_a_place_one_after_the_other(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    scheduler.pause()
    await scheduler.aadd_task(
        jobs.fails, "interval", seconds=10, args=[3], id="a", start_at=START, coalesce=False,
        retry=Retry(attempts=2, wait=60),
    )  # fmt: skip
    await clock.advance(seconds=25)
    scheduler.resume()
    await clock.advance(seconds=1)
    await scheduler.aupdate_task("a", fn=jobs.takes, args=[3])
    await scheduler.apause_task("a")
    await clock.advance(seconds=61)
    assert len(await scheduler.aget_runs("a", state="running")) == 1
    await clock.advance(seconds=2)
    await scheduler.acancel_run((await scheduler.aget_runs("a", state="retrying"))[0].id)
    await clock.advance(seconds=4)
    states = {run.state for run in await scheduler.aget_runs("a")}
    assert states == {RunState.SUCCEEDED, RunState.CANCELLED}
