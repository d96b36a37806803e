"""Coroutine functions on the loop, plain functions in threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Generator
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import pytest

from asyncz import AsyncIOScheduler, NativeAsyncIOScheduler, TaskExecutionEvent
from asyncz.events.constants import TASK_ERROR
from asyncz.testing import VirtualClock

from . import jobs
from .waiting import record, until

flavour: ContextVar[str] = ContextVar("flavour", default="none")


async def fire_once(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock, fn: Any, **options: Any
) -> TaskExecutionEvent:
    scheduler.add_task(fn, id="a", **options)
    (fired,) = await clock.advance(seconds=1)
    return fired


async def test_a_coroutine_function_runs_on_the_loop(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    async def where() -> object:
        return asyncio.get_running_loop()

    fired = await fire_once(scheduler, clock, where)
    assert fired.return_value is asyncio.get_running_loop()


async def test_a_plain_function_runs_in_a_thread_of_ours(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    fired = await fire_once(scheduler, clock, jobs.thread_name)
    assert fired.return_value.startswith("asyncz default")


async def test_a_plain_function_that_blocks_does_not_hold_up_the_loop(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    release = threading.Event()
    clock.patience = 0
    scheduler.add_task(release.wait, args=[20], id="blocked")
    scheduler.add_task(jobs.add_later, args=[1], id="quick")
    assert [run.task_id for run in await clock.advance(seconds=1)] == ["quick"]
    release.set()
    await until(lambda: not scheduler.instances)
    assert [run.return_value for run in await clock.advance()] == [True]


@pytest.mark.parametrize("kind", ["coroutine", "plain"])
async def test_a_run_has_the_context_variables_of_who_ran_it(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock, kind: str
) -> None:
    async def read() -> str:
        return flavour.get()

    fn = read if kind == "coroutine" else flavour.get
    scheduler.add_task(fn, "interval", hours=1, id="a")
    flavour.set("vanilla")
    scheduler.run_task("a")
    flavour.set("changed later")
    assert [run.return_value for run in await clock.advance()] == ["vanilla"]


@pytest.mark.parametrize("fn", [jobs.leave, jobs.leave_later])
async def test_system_exit_in_a_task_is_a_failed_run(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock, fn: Any
) -> None:
    fired = await fire_once(scheduler, clock, fn)
    assert fired.code_name == "TASK_ERROR"
    assert isinstance(fired.exception, SystemExit)


@pytest.mark.parametrize("isolated", [False, True], ids=["on the loop", "on a loop of its own"])
@pytest.mark.parametrize("error", [GeneratorExit, KeyboardInterrupt, StopIteration])
async def test_whatever_a_coroutine_raises_is_a_failed_run(
    error: type[BaseException], isolated: bool
) -> None:
    async def fail() -> None:
        raise error

    scheduler = NativeAsyncIOScheduler(isolated_event_loop=isolated, timezone="UTC")
    async with scheduler:
        ended = record(scheduler, TASK_ERROR)
        await scheduler.aadd_task(fail, id="a", max_instances=1)
        await until(lambda: ended)
        assert not scheduler.instances


async def test_awaiting_something_cancelled_is_a_failure(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    async def await_cancelled() -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    fired = await fire_once(scheduler, clock, await_cancelled)
    assert fired.code_name == "TASK_ERROR"
    assert isinstance(fired.exception, asyncio.CancelledError)


async def test_a_run_that_somebody_cancels_is_cut_off(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    async def cancel_myself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    fired = await fire_once(scheduler, clock, cancel_myself)
    assert (fired.code_name, fired.exception) == ("TASK_CANCELLED", None)


async def test_a_run_that_swallows_its_cancellation_begins_no_further_call(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    calls = []

    async def swallow() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            calls.append("swallowed")

    scheduler.pause()
    scheduler.add_task(swallow, "interval", seconds=1, id="a", coalesce=False)
    await clock.advance(seconds=3)
    scheduler.resume()
    fired = await clock.advance()
    assert calls == ["swallowed"]
    codes = [run.code_name for run in fired]
    assert codes == ["TASK_EXECUTED", "TASK_CANCELLED", "TASK_CANCELLED"]


async def test_a_failure_carries_the_exception_and_its_traceback(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    fired = await fire_once(scheduler, clock, jobs.fail_later)
    assert (type(fired.exception), str(fired.exception)) == (ValueError, "on purpose")
    assert fired.traceback is not None
    assert "in fail_later" in fired.traceback
    assert fired.return_value is None


async def test_a_very_long_traceback_loses_its_middle(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    fired = await fire_once(scheduler, clock, jobs.fail, args=["x" * 100_000])
    assert fired.traceback is not None
    assert len(fired.traceback) < 17_000
    assert "characters left out" in fired.traceback


def _wrapped() -> Any:
    return jobs.add_later(1)


def _generator() -> Generator[int]:
    yield 1


async def _async_generator() -> AsyncGenerator[int]:
    yield 1


@pytest.mark.parametrize("fn", [_wrapped, _generator, _async_generator])
async def test_a_function_whose_body_would_never_run_is_a_failure(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock, fn: Any
) -> None:
    fired = await fire_once(scheduler, clock, fn)
    assert fired.code_name == "TASK_ERROR"
    assert "nothing has run" in str(fired.exception)


@pytest.mark.parametrize("fn", [jobs.add, jobs.add_later])
async def test_run_times_that_became_too_late_in_line_are_missed(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock, fn: Any
) -> None:
    late = clock.now() - timedelta(seconds=61)
    task = scheduler.add_task(fn, "interval", hours=1, args=[1], id="a")
    scheduler.lookup_executor("default").send_task(task, [late, clock.now()])
    fired = await clock.advance()
    assert [run.code_name for run in fired] == ["TASK_MISSED", "TASK_EXECUTED"]
    assert [run.scheduled_run_time for run in fired] == [late, clock.now()]


async def test_a_task_with_any_lateness_is_never_missed(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    late = clock.now() - timedelta(days=365)
    task = scheduler.add_task(
        jobs.add, "interval", hours=1, args=[1], id="a", mistrigger_grace_time=None
    )
    scheduler.lookup_executor("default").send_task(task, [late])
    assert [run.code_name for run in await clock.advance()] == ["TASK_EXECUTED"]


def test_coroutines_of_a_scheduler_in_a_thread_run_on_the_loop_of_the_app() -> None:
    async def app() -> tuple[object, object]:
        seen = asyncio.get_running_loop().create_future()

        async def where() -> None:
            seen.set_result(asyncio.get_running_loop())

        scheduler = _threaded(asyncio.get_running_loop())
        scheduler.add_task(where, id="a")
        found = await asyncio.wait_for(seen, 10)
        await scheduler.ashutdown()
        return found, asyncio.get_running_loop()

    found, expected = asyncio.run(app())
    assert found is expected


def _threaded(loop: asyncio.AbstractEventLoop) -> AsyncIOScheduler:
    scheduler = AsyncIOScheduler(timezone="UTC", isolated_event_loop=True, event_loop=loop)
    scheduler.start()
    return scheduler


async def test_a_run_on_the_loop_of_the_app_is_cut_off_by_a_shutdown() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def wait_for_ever() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    scheduler = _threaded(asyncio.get_running_loop())
    events: list[str] = []
    scheduler.add_listener(lambda event: events.append(event.code_name))
    scheduler.add_task(wait_for_ever, id="a")
    await asyncio.wait_for(begun.wait(), 10)
    await scheduler.ashutdown(wait=False)
    assert ended.is_set()
    assert "TASK_CANCELLED" in events


async def test_a_failure_on_the_loop_of_the_app_is_reported() -> None:
    failed = asyncio.Event()

    async def note(event: object) -> None:
        failed.set()

    scheduler = _threaded(asyncio.get_running_loop())
    scheduler.add_listener(note, 1 << 13)
    scheduler.add_task(jobs.fail_later, id="a")
    await asyncio.wait_for(failed.wait(), 10)
    await scheduler.ashutdown()
    assert not scheduler.instances
