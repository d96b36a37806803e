"""Starts, shutdowns and calls from several threads at once, and from a process that was forked."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from asyncz import AsyncIOScheduler, NativeAsyncIOScheduler
from asyncz.events.base import SchedulerEvent
from asyncz.events.constants import SCHEDULER_STARTED
from asyncz.exceptions import ConfigurationError, SchedulerNotRunningError
from asyncz.stores.memory import MemoryStore

PATIENCE = 20.0


def job() -> None:
    """Does nothing."""


@pytest.fixture
def threads_change_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def at_once(*calls: Callable[[], object]) -> None:
    """Make the calls, each in a thread of its own, and wait for them."""
    begin = threading.Barrier(len(calls))

    def make(call: Callable[[], object]) -> None:
        begin.wait(PATIENCE)
        call()

    threads = [threading.Thread(target=make, args=[call], daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.usefixtures("threads_change_often")
def test_no_task_is_lost_that_a_thread_adds_while_another_starts_the_scheduler() -> None:
    for _ in range(20):
        scheduler = AsyncIOScheduler()

        def add_some(scheduler: AsyncIOScheduler = scheduler) -> None:
            for _ in range(10):
                scheduler.add_task(job, "interval", hours=1)

        at_once(scheduler.start, *[add_some] * 10)
        states = [info.schedule_state for info in scheduler.get_task_infos()]
        scheduler.shutdown()
        assert states == ["scheduled"] * 100


@pytest.mark.usefixtures("threads_change_often")
@pytest.mark.parametrize("isolated", [False, True])
def test_starts_and_shutdowns_of_many_threads_leave_nothing_behind(isolated: bool) -> None:
    scheduler = AsyncIOScheduler(isolated_event_loop=isolated, shutdown_timeout=5)

    def start_and_stop() -> None:
        for _ in range(40):
            scheduler.start()
            scheduler.add_task(job, "interval", hours=1)
            with suppress(SchedulerNotRunningError):
                scheduler.shutdown()

    at_once(*[start_and_stop] * 6)
    assert not scheduler.running  # and `no_thread_is_left` looks at the rest


def test_a_shutdown_waits_for_the_start_that_another_thread_makes() -> None:
    opening, go_on = threading.Event(), threading.Event()

    class SlowStore(MemoryStore):
        async def start(self, scheduler: object, alias: str) -> None:
            opening.set()
            await asyncio.to_thread(go_on.wait, PATIENCE)
            await super().start(scheduler, alias)  # type: ignore[arg-type]

    scheduler = AsyncIOScheduler(stores={"default": SlowStore()})
    starting = threading.Thread(target=scheduler.start, daemon=True)
    starting.start()
    assert opening.wait(PATIENCE)
    stopping = threading.Thread(target=scheduler.shutdown, daemon=True)
    stopping.start()
    go_on.set()
    starting.join(PATIENCE)
    stopping.join(PATIENCE)
    assert not scheduler.running
    with pytest.raises(SchedulerNotRunningError):
        scheduler.shutdown()


@pytest.mark.parametrize("isolated", [False, True])
async def test_a_listener_may_shut_the_scheduler_down_as_soon_as_it_has_started(
    isolated: bool,
) -> None:
    scheduler = AsyncIOScheduler(isolated_event_loop=isolated)

    def stop(event: SchedulerEvent) -> None:
        scheduler.shutdown()

    scheduler.add_listener(stop, SCHEDULER_STARTED)
    await scheduler.astart()
    async with asyncio.timeout(PATIENCE):
        while scheduler.running:
            await asyncio.sleep(0.001)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="This system has no fork().")
def test_a_forked_process_is_told_so_instead_of_waiting_for_ever() -> None:
    with AsyncIOScheduler() as scheduler:
        child = os.fork()
        if child == 0:
            signal.alarm(5)
            refused = 0
            for call in (scheduler.get_tasks, scheduler.start, scheduler.shutdown):
                try:
                    call()
                except SchedulerNotRunningError as exc:
                    refused += "forked" in str(exc)
            os._exit(refused)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 3


async def test_a_lock_path_that_cannot_be_opened_is_refused_at_the_start(tmp_path: Path) -> None:
    scheduler = NativeAsyncIOScheduler(lock_path=tmp_path / "none" / "lock")
    with pytest.raises(ConfigurationError, match=r"lock_path .* No such file"):
        await scheduler.start()
    assert not scheduler.running
