"""How many runs of a task may go on at once, however the ones before have ended."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asyncz import AsyncIOExecutor, NativeAsyncIOScheduler, Task, TaskSubmissionEvent
from asyncz.events.constants import TASK_CANCELLED, TASK_MAX_INSTANCES
from asyncz.exceptions import MaximumInstancesError
from asyncz.testing import VirtualClock

from . import jobs
from .waiting import names, record


def add(scheduler: NativeAsyncIOScheduler, fn: Any, **options: Any) -> Task:
    """A task that runs only when it is told to."""
    return scheduler.add_task(fn, "interval", weeks=1, id="a", **options)


@pytest.mark.parametrize("limit", [1, 3])
async def test_one_run_more_than_max_instances_is_refused(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock, limit: int
) -> None:
    done = asyncio.Event()
    add(scheduler, done.wait, max_instances=limit)
    for _ in range(limit):
        scheduler.run_task("a")
    with pytest.raises(MaximumInstancesError, match=f"{limit} run.* of the task 'a'") as caught:
        scheduler.run_task("a")
    assert (caught.value.task_id, caught.value.total) == ("a", limit)
    done.set()
    assert len(await clock.advance()) == limit


async def test_a_scheduled_run_that_is_skipped_is_an_event_with_its_run_times(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    clock.patience = 0
    events = record(scheduler, TASK_MAX_INSTANCES)
    done = asyncio.Event()
    scheduler.add_task(done.wait, "interval", seconds=10, id="a")
    await clock.advance(seconds=10)
    first_skipped = clock.now()
    await clock.advance(seconds=10)
    (event,) = events
    assert isinstance(event, TaskSubmissionEvent)
    assert event.scheduled_run_times == [clock.now()] != [first_skipped]
    assert (event.task_id, event.store, event.source) == ("a", "default", "scheduled")
    assert event.scheduler_identity == scheduler.identity
    assert "was skipped" in caplog.text
    done.set()
    await clock.advance()


@pytest.mark.parametrize("fn", [jobs.fail, jobs.fail_later, jobs.leave, jobs.leave_later])
async def test_a_run_that_failed_makes_room(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock, fn: Any
) -> None:
    add(scheduler, fn)
    for _ in range(3):
        scheduler.run_task("a")
        assert len(await clock.advance()) == 1
    assert not scheduler.instances


async def test_a_run_cancelled_before_its_first_step_makes_room(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    events = record(scheduler, TASK_CANCELLED)
    add(scheduler, jobs.add_later, args=[1])
    scheduler.run_task("a")
    cancel_runs("a")
    await asyncio.sleep(0)
    scheduler.run_task("a")
    assert names(events) == ["TASK_CANCELLED"]
    assert [run.code_name for run in await clock.advance()] == ["TASK_CANCELLED", "TASK_EXECUTED"]


@pytest.mark.parametrize("wait", [True, False])
async def test_a_run_cancelled_before_its_first_step_holds_up_no_shutdown(
    clock: VirtualClock, wait: bool
) -> None:
    scheduler = NativeAsyncIOScheduler(clock=clock, timezone="UTC", shutdown_timeout=30)
    await scheduler.start()
    events = record(scheduler, TASK_CANCELLED)
    add(scheduler, jobs.add_later, args=[1])
    scheduler.run_task("a")
    cancel_runs("a")
    begin = asyncio.get_running_loop().time()
    await scheduler.shutdown(wait=wait)
    assert asyncio.get_running_loop().time() - begin < 0.5
    assert names(events) == ["TASK_CANCELLED"]
    assert not scheduler.instances


async def test_a_run_that_its_executor_refuses_makes_room(
    scheduler: NativeAsyncIOScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(scheduler, jobs.add_later, args=[1])
    monkeypatch.setattr(AsyncIOExecutor, "do_send_task", _refuse)
    with pytest.raises(OSError, match="no room"):
        scheduler.run_task("a")
    assert not scheduler.instances


async def test_tasks_of_one_id_in_two_stores_are_counted_apart(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    scheduler.add_store("memory", "other")
    done = asyncio.Event()
    for store in ("default", "other"):
        scheduler.add_task(done.wait, "interval", weeks=1, id="a", store=store)
        scheduler.run_task("a", store)
    assert scheduler.instances == {("default", "a"): 1, ("other", "a"): 1}
    done.set()
    await clock.advance()
    assert scheduler.instances == {}


def cancel_runs(name: str) -> None:
    runs = [task for task in asyncio.all_tasks() if task.get_name() == name]
    assert runs
    for run in runs:
        run.cancel()


def _refuse(*args: object) -> None:
    raise OSError("no room")
