"""The thread pool: every task in a thread."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import Any

import pytest
from pydantic import ValidationError

from asyncz import NativeAsyncIOScheduler, ThreadPoolExecutor
from asyncz.exceptions import ConfigurationError
from asyncz.executors.workers import WorkerPool
from asyncz.testing import VirtualClock

from . import jobs
from .waiting import until


async def loop_and_thread() -> tuple[object, str]:
    return asyncio.get_running_loop(), threading.current_thread().name


@pytest.mark.parametrize("alias", ["pool", "threadpool"])
async def test_a_plain_function_runs_in_the_pool(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock, alias: str
) -> None:
    scheduler.add_executor(alias, "threads", max_workers=2)
    scheduler.add_task(jobs.thread_name, executor="threads", id="a")
    (fired,) = await clock.advance(seconds=1)
    assert fired.return_value.startswith("asyncz threads")


async def test_a_coroutine_function_runs_in_a_loop_of_the_threads_own(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    scheduler.add_executor(ThreadPoolExecutor(), "threads")
    scheduler.add_task(loop_and_thread, executor="threads", id="a")
    (fired,) = await clock.advance(seconds=1)
    loop, thread = fired.return_value
    assert thread.startswith("asyncz threads")
    assert loop is not asyncio.get_running_loop()


@pytest.mark.parametrize("fn", [jobs.fail, jobs.fail_later, jobs.leave, jobs.leave_later])
async def test_what_a_task_raises_in_a_thread_is_its_failure(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock, fn: Any
) -> None:
    scheduler.add_executor(ThreadPoolExecutor(), "threads")
    scheduler.add_task(fn, executor="threads", id="a")
    (fired,) = await clock.advance(seconds=1)
    assert fired.code_name == "TASK_ERROR"
    assert isinstance(fired.exception, ValueError | SystemExit)


async def test_pool_kwargs_name_and_prepare_the_threads(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    prepared: list[str] = []
    options = {
        "thread_name_prefix": "asyncz mine",
        "initializer": prepared.append,
        "initargs": ("ready",),
    }
    scheduler.add_executor(ThreadPoolExecutor(max_workers=1, pool_kwargs=options), "threads")
    for name in "ab":
        scheduler.add_task(jobs.thread_name, executor="threads", id=name)
    fired = await clock.advance(seconds=1)
    assert [run.return_value for run in fired] == ["asyncz mine 1", "asyncz mine 1"]
    assert prepared == ["ready"]


async def test_a_failing_initializer_fails_each_run_and_hangs_nothing(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    pool = ThreadPoolExecutor(max_workers=1, pool_kwargs={"initializer": jobs.leave})
    scheduler.add_executor(pool, "threads")
    for name in "ab":
        scheduler.add_task(jobs.add, args=[1], executor="threads", id=name)
    fired = await clock.advance(seconds=1)
    assert [type(run.exception) for run in fired] == [SystemExit, SystemExit]


async def test_unknown_pool_kwargs_are_refused_and_the_known_ones_listed(
    scheduler: NativeAsyncIOScheduler,
) -> None:
    pool = ThreadPoolExecutor(pool_kwargs={"max_tasks": 1})
    with pytest.raises(ConfigurationError, match="max_tasks unknown; known are initargs, init"):
        scheduler.add_executor(pool, "threads")
    assert "threads" not in scheduler.executors


@pytest.mark.parametrize("workers", [0, -1, "many"])
def test_a_pool_has_at_least_one_worker(workers: Any) -> None:
    with pytest.raises(ValidationError, match="max_workers"):
        ThreadPoolExecutor(max_workers=workers)


async def test_no_more_runs_go_on_than_there_are_workers(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    release, going, most = threading.Event(), [0], [0]

    def hold() -> None:
        going[0] += 1
        most[0] = max(most[0], going[0])
        release.wait(20)
        going[0] -= 1

    clock.patience = 0
    scheduler.add_executor(ThreadPoolExecutor(max_workers=2), "threads")
    for number in range(5):
        scheduler.add_task(hold, executor="threads", id=str(number))
    await clock.advance(seconds=1)
    await until(lambda: going[0] == 2)
    release.set()
    await until(lambda: not scheduler.instances)
    assert most == [2]


def test_a_waiting_call_can_be_cancelled_until_it_begins() -> None:
    pool, release, begun = WorkerPool(1), threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        release.wait(20)

    first = pool.submit(hold)
    second = pool.submit(lambda: pytest.fail("was cancelled"))
    assert begun.wait(20)
    assert second.cancel()
    assert not first.cancel()
    release.set()
    first.result(20)
    pool.close()
    pool.join(20)
    assert pool.busy_names == []


def test_a_closed_pool_takes_no_more_calls_and_ends_those_it_has() -> None:
    pool, release = WorkerPool(1), threading.Event()
    futures = [pool.submit(lambda: release.wait(20)) for _ in range(3)]
    pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(lambda: None)
    release.set()
    assert [future.result(20) for future in futures] == [True] * 3
    pool.join(20)


def test_joining_does_not_wait_longer_than_asked_for_all_threads_together() -> None:
    pool, release = WorkerPool(8), threading.Event()
    futures = [pool.submit(lambda: release.wait(20)) for _ in range(8)]
    pool.close()
    pool.join(0.01)
    assert len(pool.busy_names) == 8
    release.set()
    assert all(future.result(20) for future in futures)
    pool.join(20)


def test_an_idle_thread_is_used_again() -> None:
    pool = WorkerPool(4)
    seen = {pool.submit(jobs.thread_name).result(20)}
    assert pool._idle.acquire(timeout=20)  # the thread has said that it is idle
    pool._idle.release()
    seen.add(pool.submit(jobs.thread_name).result(20))
    pool.close()
    pool.join(20)
    assert len(seen) == 1


def test_when_no_thread_can_be_started_the_call_is_refused_or_waits_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool, release = WorkerPool(2), threading.Event()

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as without_threads:
        without_threads.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            pool.submit(lambda: pytest.fail("was refused"))
    holding = pool.submit(lambda: release.wait(20))
    with monkeypatch.context() as without_threads:
        without_threads.setattr(threading.Thread, "start", refuse)
        waiting = pool.submit(jobs.thread_name)
    release.set()
    assert holding.result(20)
    assert waiting.result(20) == "asyncz worker 1"
    pool.close()
    pool.join(20)


def blocked(pool: WorkerPool) -> tuple[Future[bool], threading.Event]:
    """A call that has begun, and what lets it end."""
    begun, let_go = threading.Event(), threading.Event()

    def call() -> bool:
        begun.set()
        return let_go.wait(20)

    future = pool.submit(call)
    assert begun.wait(20)
    return future, let_go


def test_a_thread_that_is_given_up_is_replaced_and_ends_with_its_call() -> None:
    pool = WorkerPool(1, "asyncz given up")
    hanging, let_go = blocked(pool)
    next_one = pool.submit(threading.get_ident)
    assert pool.give_up(hanging)
    assert next_one.result(20)
    assert len(pool.busy_names) == 2
    let_go.set()
    assert hanging.result(20)
    assert pool.submit(threading.get_ident).result(20) == next_one.result()
    pool.close()


def test_there_is_an_end_to_replacing() -> None:
    pool = WorkerPool(1, "asyncz given up")
    first, let_go_first = blocked(pool)
    assert pool.give_up(first)
    second, let_go_second = blocked(pool)
    assert not pool.give_up(second)
    waits = pool.submit(threading.get_ident)
    let_go_first.set()  # the first thread now stands in for the second
    assert waits.result(20)
    let_go_second.set()
    assert second.result(20)
    assert pool.give_up(second)
    assert pool.submit(threading.get_ident).result(20) == waits.result()
    pool.close()


async def test_runs_that_hang_do_not_use_up_the_threads(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    let_go = threading.Event()
    ran = threading.Event()
    scheduler.add_executor(ThreadPoolExecutor(max_workers=1), "own")
    for number in range(2):
        scheduler.add_task(let_go.wait, args=[20], id=f"h{number}", timeout=5.0, executor="own")
        await clock.advance(seconds=1)
        scheduler.add_task(ran.set, id="fine", executor="own")
        await clock.advance(seconds=1)
        assert not ran.is_set()
        await clock.advance(seconds=5)
        assert await asyncio.to_thread(ran.wait, 20 if number == 0 else 0.01) is (number == 0)
        assert ("Too many threads of the executor 'own'" in caplog.text) is (number == 1)
        ran.clear()
    let_go.set()
    assert await asyncio.to_thread(ran.wait, 20)
