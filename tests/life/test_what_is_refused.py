"""What cannot be right is refused with an error that names the argument and what to give."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import date, datetime, timedelta
from typing import Any

import pytest

from asyncz import (
    Backoff,
    CurrentRun,
    History,
    NativeAsyncIOScheduler,
    Retry,
    RetryAfter,
    RunState,
    Task,
)
from asyncz.exceptions import (
    BlockingCallError,
    ConfigurationError,
    SchedulerNotRunningError,
    SomeTasksError,
    TaskOptionError,
)
from asyncz.executors import AsyncIOExecutor
from asyncz.testing import VirtualClock

from . import jobs

RUN_ID = "a@2026-01-01T00:00:00+00:00"
Call = Callable[[NativeAsyncIOScheduler], Coroutine[Any, Any, Any]]


async def takes_nothing() -> None:
    """No reaction."""


async def work() -> None:
    """The task of these tests."""


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Retry(attempts=True), "Bad options of Retry: attempts: "),
        (lambda: Retry(attempts="3"), "Bad options of Retry: attempts: "),  # type: ignore[arg-type]
        (lambda: Retry(wait=-1), "Bad options of Retry: wait: give 0 seconds or more"),
        (lambda: Retry(tries=3), "tries: there is no such option; there is attempts, wait"),  # type: ignore[call-arg]
        (lambda: Backoff(first="3"), "Bad options of Backoff: first: "),  # type: ignore[arg-type]
        (lambda: Backoff(jitter=2), "Bad options of Backoff: jitter: "),
        (lambda: History(age=30), "options of History: age: give a timedelta"),  # type: ignore[arg-type]
        (lambda: History(count=-1), "Bad options of History: count: "),
        (lambda: Task(work, id="x", history={"age": 3}), "of the task 'x': history: .*age: give a"),
        (lambda: Task(work, on_error=print), "on_error: .* there is on_success, on_failure, on_m"),
        (lambda: Task(work, retries=3), "retries: there is no such option; there is retry"),
        (lambda: Task(work, tags=5), "tags: give a list or a set of texts"),
        (lambda: Task(work, tags=None), "tags: give a list or a set of texts"),
        (lambda: Task(work, on_success=takes_nothing), "on_success is called with the Run"),
        (lambda: Task(work, on_success="nope:x"), r"on_success: .*'nope'\)\.$"),
        (lambda: RetryAfter("x"), "RetryAfter: give seconds or a timedelta, not str"),  # type: ignore[arg-type]
        (lambda: RetryAfter(-1), "RetryAfter: seconds must be between 0 and a year"),
    ],
)
def test_options_that_cannot_be_right(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(TaskOptionError, match=said) as caught:
        make()
    assert "pydantic" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda s: s.aget_runs(limit="x"), "limit must be a whole number"),
        (lambda s: s.aget_runs(limit=None), "limit must be a whole number"),
        (lambda s: s.aget_runs(limit=2.5), "limit must be a whole number"),
        (lambda s: s.aget_runs(limit=True), "limit must be a whole number"),
        (lambda s: s.aget_runs(since="2026-01-01T00:00:00Z"), "since must be a datetime"),
        (lambda s: s.aget_runs(since=date(2026, 1, 1)), "since must be a datetime"),
        (lambda s: s.aget_runs(since=datetime(2026, 1, 1)), "since must have a time zone"),
        (lambda s: s.aget_runs(state=5), "state must be one of these"),
        (lambda s: s.aget_runs(5), "named by its id or a Task"),
        (lambda s: s.aget_runs(Task(work)), "has no id"),
        (lambda s: s.aget_run(5), "named by its id or a Run"),
        (lambda s: s.await_run(RUN_ID, timeout="x"), "timeout must be seconds"),
        (lambda s: s.await_run(RUN_ID, timeout=-1), "timeout must be seconds"),
        (lambda s: s.acancel_run(RUN_ID, by=5), "by must be a text"),
        (lambda s: s.apause_tasks(None), "tag must be one text"),
        (lambda s: s.adelete_tasks(["x"]), "tag must be one text"),
        (lambda s: s.arun_tasks(""), "tag must have 1 to 100 characters"),
        (lambda s: s.aget_tasks(tag=""), "tag must have 1 to 100 characters"),
        (lambda s: s.aget_task_infos(tag=""), "tag must have 1 to 100 characters"),
        (lambda s: s.aadd_task(work, "interval", hours=1, retries=3), "options of a task is .*ret"),
    ],
)
async def test_arguments_that_cannot_be_right(call: Call, said: str, clock: VirtualClock) -> None:
    async with NativeAsyncIOScheduler(clock=clock, timezone="UTC") as scheduler:
        with pytest.raises(TaskOptionError, match=said):
            await call(scheduler)


@pytest.mark.parametrize("mask", ["TASK_ERROR", print, True])
def test_a_listener_is_for_constants(mask: Any) -> None:
    with pytest.raises(TypeError, match=r"from asyncz\.events\.constants import TASK_ERROR"):
        NativeAsyncIOScheduler().on(mask)


@pytest.mark.parametrize("path", ["healthz", True, 5])
def test_health_is_served_at_a_path(path: Any) -> None:
    async def app(*args: Any) -> None: ...

    with pytest.raises(ConfigurationError, match="begins with '/'"):
        NativeAsyncIOScheduler().asgi(app, health_path=path)


def test_progress_is_a_number() -> None:
    run: Any = CurrentRun("a", None, datetime(2026, 1, 1))
    for bad in ("half", None, True):
        with pytest.raises(TaskOptionError, match="progress: give a number"):
            run.progress(bad)


def test_a_time_span_can_be_waited_for() -> None:
    assert RetryAfter(timedelta(minutes=5)).seconds == 300


def test_a_scheduler_that_has_not_started_says_so_when_it_is_asked_for_a_run() -> None:
    with pytest.raises(SchedulerNotRunningError):
        NativeAsyncIOScheduler().get_run(RUN_ID)


async def test_a_run_names_itself(scheduler: NativeAsyncIOScheduler, clock: VirtualClock) -> None:
    await scheduler.aadd_task(jobs.fails, args=[0], id="a")
    await clock.advance(seconds=1)
    (run,) = await scheduler.aget_runs("a")
    assert (await scheduler.aget_run(run)).id == run.id
    assert (await scheduler.acancel_run(run)).state is RunState.SUCCEEDED
    assert (await scheduler.await_run(run, timeout=5)).state is RunState.SUCCEEDED


async def test_a_run_can_be_waited_for_in_a_thread_but_not_on_the_loop() -> None:
    go = asyncio.Event()
    async with NativeAsyncIOScheduler() as scheduler:
        scheduler.add_task(go.wait, id="a")
        while not (runs := scheduler.get_runs("a")):
            await asyncio.sleep(0.01)
        with pytest.raises(BlockingCallError, match=r"await scheduler\.await_run"):
            scheduler.wait_run(runs[0])
        waiting = asyncio.create_task(asyncio.to_thread(scheduler.wait_run, runs[0], timeout=5))
        go.set()
        assert (await waiting).state is RunState.SUCCEEDED
        assert scheduler.wait_run(runs[0]).state is RunState.SUCCEEDED


async def test_one_task_that_cannot_be_run_does_not_stop_the_others(clock: VirtualClock) -> None:
    executors = {"gone": AsyncIOExecutor()}
    async with NativeAsyncIOScheduler(
        clock=clock, timezone="UTC", executors=executors
    ) as scheduler:
        for task_id, executor in {"a": "gone", "b": "default", "c": "default"}.items():
            scheduler.add_task(
                work, "interval", hours=1, id=task_id, executor=executor, tags=["all"]
            )
        await scheduler.aremove_executor("gone")
        with pytest.raises(
            SomeTasksError, match=r"1 of the tasks with the tag 'all'.*'a'"
        ) as caught:
            await scheduler.arun_tasks("all")
        assert (list(caught.value.errors), caught.value.changed) == (["a"], ["b", "c"])
        assert len(await scheduler.apause_tasks("all")) == 3
        assert len(await scheduler.aresume_tasks("all")) == 3
        assert (await scheduler.aupdate_task("a", name="x", executor="default")).name == "x"
