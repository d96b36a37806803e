"""The debug executor: plain functions at once, in the caller."""

from __future__ import annotations

import asyncio
import threading

import pytest

from asyncz import DebugExecutor, NativeAsyncIOScheduler
from asyncz.testing import VirtualClock

from . import jobs
from .waiting import names, record


@pytest.fixture
def debugged(scheduler: NativeAsyncIOScheduler) -> NativeAsyncIOScheduler:
    """The scheduler, with an executor `debug`."""
    scheduler.add_executor("debug", "debug")
    return scheduler


async def test_a_plain_function_is_called_on_the_loop_before_the_call_returns(
    debugged: NativeAsyncIOScheduler,
) -> None:
    seen: list[str] = []

    def note() -> None:
        seen.append(threading.current_thread().name)

    debugged.add_task(note, "interval", hours=1, executor="debug", id="a")
    debugged.run_task("a")
    assert seen == [threading.current_thread().name]


async def test_a_coroutine_function_runs_on_the_loop(
    debugged: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    async def where() -> object:
        return asyncio.get_running_loop()

    debugged.add_task(where, executor="debug", id="a")
    (fired,) = await clock.advance(seconds=1)
    assert fired.return_value is asyncio.get_running_loop()


async def test_a_failure_in_the_caller_stops_nothing(
    debugged: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    events = record(debugged, (1 << 12) | (1 << 13))
    for name, fn in (("a", jobs.fail), ("b", jobs.leave), ("c", jobs.thread_name)):
        debugged.add_task(fn, executor="debug", id=name)
    await clock.advance(seconds=1)
    assert names(events) == ["TASK_ERROR", "TASK_ERROR", "TASK_EXECUTED"]
    assert not debugged.instances


def test_it_is_an_executor_without_options() -> None:
    assert repr(DebugExecutor()) == "<DebugExecutor alias=''>"
