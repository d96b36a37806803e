"""A task in a scheduler: decorators, and the operations that a task hands over."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from asyncz import (
    AsyncIOScheduler,
    IntervalTrigger,
    NativeAsyncIOScheduler,
    Task,
    TaskRunPreview,
)
from asyncz.exceptions import TaskLookupError, TaskOptionError
from asyncz.testing import VirtualClock

from . import jobs

MINUTELY = IntervalTrigger(minutes=1, timezone="UTC")


async def test_a_task_is_a_decorator_that_adds_what_it_decorates(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    @Task(trigger=MINUTELY, scheduler=scheduler, id="a", args=[7])
    async def decorated(value: int) -> int:
        return value

    fired = await clock.advance(minutes=1)
    assert [run.return_value for run in fired] == [7]
    assert await decorated(5) == 5


async def test_add_task_without_a_function_is_a_decorator(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    @scheduler.add_task(trigger="interval", seconds=30, name="half a minute")
    def decorated() -> str:
        return "done"

    fired = await clock.advance(minutes=1)
    assert [run.return_value for run in fired] == ["done", "done"]
    assert [task.name for task in scheduler.get_tasks()] == ["half a minute"]
    assert decorated() == "done"


async def test_one_decorator_without_id_adds_several_functions(
    scheduler: NativeAsyncIOScheduler,
) -> None:
    add = scheduler.add_task(trigger="interval", seconds=30)
    for fn in (jobs.nothing, jobs.anything):
        add(fn)
    assert sorted(str(task.name) for task in scheduler.get_tasks()) == ["anything", "nothing"]


def test_a_decorator_works_before_the_start(clock: VirtualClock) -> None:
    scheduler = AsyncIOScheduler(clock=clock, timezone="UTC")
    scheduler.add_task(trigger="interval", seconds=30, id="a")(jobs.nothing)
    assert [task.id for task in scheduler.get_tasks()] == ["a"]


def test_a_decorator_refuses_a_function_that_its_arguments_do_not_fit(clock: VirtualClock) -> None:
    scheduler = AsyncIOScheduler(clock=clock, timezone="UTC")
    with pytest.raises(TaskOptionError, match="too many positional arguments"):
        scheduler.add_task(trigger="interval", seconds=30, args=[1])(jobs.nothing)
    assert scheduler.get_tasks() == []


def test_a_decorator_without_a_scheduler_says_what_it_needs() -> None:
    with pytest.raises(TaskOptionError, match="needs its scheduler"):
        Task(trigger=MINUTELY)(jobs.nothing)


async def test_a_decorator_is_not_a_task_to_be_added(scheduler: NativeAsyncIOScheduler) -> None:
    with pytest.raises(TaskOptionError, match="is a decorator"):
        scheduler.add_task(Task(trigger=MINUTELY))
    assert scheduler.get_tasks() == []


def test_a_decorator_cannot_be_paused(clock: VirtualClock) -> None:
    scheduler = AsyncIOScheduler(clock=clock, timezone="UTC")
    with pytest.raises(TaskOptionError, match="has no id"):
        scheduler.add_task(trigger="interval", seconds=30).pause()


async def test_a_paused_task_does_not_run_until_it_is_resumed(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    task = scheduler.add_task(jobs.nothing, MINUTELY, id="a")
    assert task.pause() is task
    assert task.paused
    assert await clock.advance(minutes=5) == []
    assert task.resume() is task
    assert task.next_run_time is not None
    assert [run.task_id for run in await clock.advance(minutes=1)] == ["a"]


async def test_rescheduling_gives_a_new_trigger_and_run_time(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    task = scheduler.add_task(jobs.nothing, MINUTELY, id="a")
    task.reschedule("interval", hours=2)
    assert task.next_run_time == clock.now() + timedelta(hours=2)


async def test_an_update_reaches_the_store(scheduler: NativeAsyncIOScheduler) -> None:
    scheduler.add_task(jobs.nothing, MINUTELY, id="a").update(max_instances=3)
    found = scheduler.get_task("a")
    assert found is not None
    assert found.max_instances == 3


async def test_a_deleted_task_is_gone(scheduler: NativeAsyncIOScheduler) -> None:
    task = scheduler.add_task(jobs.nothing, MINUTELY, id="a")
    task.delete()
    assert scheduler.get_task("a") is None
    with pytest.raises(TaskLookupError, match="No task with the id 'a'"):
        task.delete()


async def test_resuming_what_has_no_more_run_times_deletes_it(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    end = clock.now() + timedelta(minutes=1)
    trigger = IntervalTrigger(minutes=1, end_at=end, timezone="UTC")
    task = scheduler.add_task(jobs.nothing, trigger, id="a")
    task.pause()
    await clock.advance(minutes=2)
    assert task.resume() is task
    assert scheduler.get_task("a") is None


async def test_a_preview_is_frozen_and_changes_nothing(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    task = scheduler.add_task(jobs.nothing, MINUTELY, id="a")
    before = task.next_run_time
    preview = scheduler.preview_task_runs("a", count=3)
    assert isinstance(preview, TaskRunPreview)
    expected = tuple(clock.now() + timedelta(minutes=minute) for minute in (1, 2, 3))
    assert (preview.run_times, preview.exhausted) == (expected, False)
    assert task.next_run_time == before
    with pytest.raises(ValueError, match="frozen"):
        preview.exhausted = True


async def test_every_kind_of_callable_runs(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    kinds: dict[str, Any] = {
        "function": jobs.plain,
        "coroutine": jobs.coroutine,
        "method": jobs.worker.method,
        "coroutine method": jobs.worker.coroutine_method,
        "class method": jobs.Worker.class_method,
        "partial": partial(jobs.plain, second=0, third=0),
        "coroutine partial": partial(jobs.coroutine),
        "object": jobs.CallableObject(),
        "coroutine object": jobs.CoroutineObject(),
        "reference": f"{jobs.__name__}:Worker.static_method",
    }
    for name, fn in kinds.items():
        scheduler.add_task(fn, args=[1], id=name)
    fired = {run.task_id: run.return_value for run in await clock.advance(seconds=1)}
    assert fired == {name: 6 if name == "function" else 1 for name in kinds}
