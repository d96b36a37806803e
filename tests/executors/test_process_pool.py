"""Runs in other processes, and what survives the way there and back."""

from __future__ import annotations

import asyncio
import fcntl
import multiprocessing
import os
import threading
from collections.abc import AsyncIterator
from contextvars import copy_context
from datetime import timedelta
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, TextIO

import pytest
import pytest_asyncio

from asyncz import NativeAsyncIOScheduler, ProcessPoolExecutor, SystemClock, TaskExecutionEvent
from asyncz.exceptions import ConfigurationError, RemoteTaskError, TaskOptionError
from asyncz.executors.process_pool import run_in_worker
from asyncz.testing import VirtualClock

from . import jobs
from .waiting import until

HERE = jobs.__name__


@pytest_asyncio.fixture
async def processes(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> AsyncIterator[ProcessPoolExecutor]:
    """One worker process, on a clock that waits for it."""
    clock.patience = 30
    pool = ProcessPoolExecutor(max_workers=1)
    scheduler.add_executor(pool, "processes")
    yield pool


async def fire(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock, *calls: tuple[Any, list[Any]]
) -> list[TaskExecutionEvent]:
    for number, (fn, args) in enumerate(calls):
        scheduler.add_task(fn, args=args, executor="processes", id=f"{fn.__name__} {number}")
    return await clock.advance(seconds=1)


@pytest.mark.usefixtures("processes")
async def test_plain_and_coroutine_functions_run_in_another_process(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    fired = await fire(
        scheduler,
        clock,
        (jobs.own_pid, []),
        (jobs.own_pid_later, []),
        (jobs.add, [1, 2]),
        (jobs.add_later, [3, 4]),
    )
    plain, later, *sums = [run.return_value for run in fired]
    assert plain == later != os.getpid()
    assert sums == [3, 7]


@pytest.mark.usefixtures("processes")
async def test_what_a_task_raises_in_a_process_is_its_failure(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    fired = await fire(
        scheduler,
        clock,
        (jobs.fail, ["plain"]),
        (jobs.fail_later, ["later"]),
        (jobs.leave, []),
        (jobs.leave_later, []),
        (jobs.add, [1]),
    )
    assert [run.code_name for run in fired] == ["TASK_ERROR"] * 4 + ["TASK_EXECUTED"]
    assert [str(run.exception) for run in fired[:4]] == ["plain", "later", "3", "3"]
    assert "in fail_later" in str(fired[1].traceback)


@pytest.mark.usefixtures("processes")
async def test_what_cannot_come_back_is_described_and_breaks_nothing(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    fired = await fire(
        scheduler,
        clock,
        (jobs.own_pid, []),
        (jobs.fail_obstinately, []),
        (jobs.return_a_lock, []),
        (jobs.take, [jobs.Unreturnable()]),
        (jobs.own_pid, []),
    )
    before, obstinate, lock, unreturnable, after = fired
    assert isinstance(obstinate.exception, RemoteTaskError)
    assert str(obstinate.exception) == f"{HERE}.Obstinate: not portable"
    assert "in fail_obstinately" in str(obstinate.traceback)
    assert lock.return_value == "<lock, not picklable>"
    assert isinstance(unreturnable.exception, LookupError)
    assert before.return_value == after.return_value


async def test_a_worker_that_is_killed_fails_its_run_and_the_next_run_works(
    scheduler: NativeAsyncIOScheduler,
    clock: VirtualClock,
    processes: ProcessPoolExecutor,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (killed,) = await fire(scheduler, clock, (jobs.die, []))
    assert killed.code_name == "TASK_ERROR"
    assert type(killed.exception).__name__ == "BrokenProcessPool"
    (next_one,) = await fire(scheduler, clock, (jobs.add, [1, 1]))
    assert next_one.return_value == 2
    assert "it is rebuilt" in caplog.text
    assert processes.going == []


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"fn_or_task": lambda: None}, r"fn \(function\)"),
        ({"fn_or_task": jobs.take, "args": [threading.Lock()]}, r"args\[0\] \(lock\)"),
        ({"fn_or_task": jobs.add, "args": [1, lambda: 2]}, r"args\[1\] \(function\)"),
        ({"fn_or_task": jobs.take, "kwargs": {"value": threading.Lock()}}, r"kwargs\['value'\]"),
    ],
)
@pytest.mark.usefixtures("processes")
async def test_what_cannot_be_pickled_is_refused_and_nothing_is_changed(
    scheduler: NativeAsyncIOScheduler, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(TaskOptionError, match=named):
        scheduler.add_task(**options, executor="processes")
    assert scheduler.get_tasks() == []


@pytest.mark.usefixtures("processes")
async def test_an_update_to_what_cannot_be_pickled_changes_nothing(
    scheduler: NativeAsyncIOScheduler,
) -> None:
    task = scheduler.add_task(jobs.take, "interval", hours=1, args=[1], executor="processes")
    with pytest.raises(TaskOptionError, match=r"args\[0\] \(lock\)"):
        task.update(args=[threading.Lock()], max_instances=9)
    assert (task.args, task.max_instances) == ((1,), 1)


async def test_an_argument_that_has_become_unpicklable_is_a_failed_run(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock, processes: ProcessPoolExecutor
) -> None:
    value: list[object] = []
    scheduler.add_task(jobs.take, args=[value], executor="processes", id="a")
    value.append(threading.Lock())
    (fired,) = await clock.advance(seconds=1)
    assert fired.code_name == "TASK_ERROR"
    assert processes.going == []
    assert not scheduler.instances


async def test_unknown_pool_kwargs_are_refused_and_the_known_ones_listed(
    scheduler: NativeAsyncIOScheduler,
) -> None:
    pool = ProcessPoolExecutor(pool_kwargs={"thread_name_prefix": "x"})
    with pytest.raises(ConfigurationError, match="thread_name_prefix unknown; known are initargs"):
        scheduler.add_executor(pool, "processes")


async def test_an_initializer_prepares_each_process(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    clock.patience = 30
    options = {"initializer": jobs.note_start, "initargs": ("ready",), "max_tasks_per_child": 5}
    scheduler.add_executor(ProcessPoolExecutor(max_workers=1, pool_kwargs=options), "processes")
    (fired,) = await fire(scheduler, clock, (jobs.started_names, []))
    assert fired.return_value == ["ready"]
    assert jobs.started == []


async def test_a_shutdown_kills_what_does_not_end_and_reports_it_as_cut_off(
    scheduler: NativeAsyncIOScheduler,
    clock: VirtualClock,
    processes: ProcessPoolExecutor,
    caplog: pytest.LogCaptureFixture,
) -> None:
    events: list[str] = []
    scheduler.add_listener(lambda event: events.append(event.code_name), (1 << 13) | (1 << 18))
    (warm,) = await fire(scheduler, clock, (jobs.own_pid, []))
    scheduler.add_task(jobs.block_for_ever, executor="processes", id="blocked")
    clock.patience = 0
    await clock.advance(seconds=1)
    (future,) = processes.going
    await until(future.running)  # type: ignore[attr-defined]
    await processes.drain(wait=False, timeout=5)
    assert events == ["TASK_CANCELLED"]
    assert processes.going == []
    await until(lambda: not _is_alive(warm.return_value))
    assert "left behind" not in caplog.text


async def test_after_a_kill_the_pool_takes_runs_again(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock, processes: ProcessPoolExecutor
) -> None:
    await fire(scheduler, clock, (jobs.own_pid, []))
    clock.patience = 0
    await fire(scheduler, clock, (jobs.block_for_ever, []))
    (future,) = processes.going
    await until(future.running)  # type: ignore[attr-defined]
    await processes.drain(wait=False, timeout=5)
    clock.patience = 30
    fired = await fire(scheduler, clock, (jobs.add, [2, 2]))
    assert [run.return_value for run in fired if run.code_name == "TASK_EXECUTED"] == [4]


async def test_the_processes_are_gone_after_a_shutdown(clock: VirtualClock) -> None:
    clock.patience = 30
    async with NativeAsyncIOScheduler(clock=clock, timezone="UTC") as scheduler:
        scheduler.add_executor("processpool", "processes", max_workers=2)
        (fired,) = await fire(scheduler, clock, (jobs.own_pid, []))
        assert _is_alive(fired.return_value)
    assert not _is_alive(fired.return_value)


async def _hold(path: str) -> None:
    async with NativeAsyncIOScheduler(timezone="UTC") as scheduler:
        scheduler.add_executor(ProcessPoolExecutor(max_workers=2), "processes")
        scheduler.add_task(jobs.hold_a_lock, args=[path], executor="processes", id="held")
        scheduler.add_task(jobs.own_pid, executor="processes", id="idle")
        await asyncio.Event().wait()


def _schedule(path: str) -> None:
    asyncio.run(_hold(path))


async def test_the_processes_end_with_their_scheduler(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    killed = multiprocessing.get_context("spawn").Process(target=_schedule, args=(str(lock),))
    killed.start()
    try:
        await until(lambda: lock.exists() and bool(lock.read_text()), 30)
    finally:
        killed.kill()
        await asyncio.to_thread(killed.join)
        killed.close()
    # Not by its number: it may not have been taken away by whoever has inherited it.
    with lock.open() as file:
        await until(lambda: _can_lock(file), 10)


def _can_lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def test_a_worker_misses_what_is_too_late_by_the_clock_of_the_machine() -> None:
    now = SystemClock().now()
    late = now - timedelta(seconds=11)
    work = bytes(ForkingPickler.dumps((jobs.add, (1,), {})))
    # It makes the run the current one, for good: a worker has no others beside it.
    outcomes = copy_context().run(run_in_worker, work, [late, now], 10, ("a", "default", 1, 1))
    assert [(o.code, o.value) for o in outcomes] == [(1 << 14, None), (1 << 12, 1)]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
