"""Synchronous calls: where they work, where they refuse, and that they never hang."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from asyncz import AsyncIOScheduler, NativeAsyncIOScheduler
from asyncz.events.constants import TASK_ADDED, TASK_EXECUTED
from asyncz.exceptions import BlockingCallError, SchedulerNotRunningError
from asyncz.stores.file import FileStore


async def job() -> None:
    """A task with a reference, so that a persistent store can keep it."""


@pytest.fixture
async def filed(tmp_path: Path) -> AsyncIterator[NativeAsyncIOScheduler]:
    """A scheduler whose store needs I/O, on the running loop."""
    store = FileStore(directory=tmp_path)
    async with NativeAsyncIOScheduler(timezone="UTC", stores={"default": store}) as scheduler:
        yield scheduler


async def test_a_call_that_would_block_the_loop_names_the_coroutine(
    filed: NativeAsyncIOScheduler,
) -> None:
    with pytest.raises(BlockingCallError, match=r"await scheduler\.aadd_task\("):
        filed.add_task(job, "interval", hours=1)
    with pytest.raises(BlockingCallError, match=r"await scheduler\.aget_task_infos\("):
        filed.get_task_infos()
    with pytest.raises(BlockingCallError, match=r"await scheduler\.adelete_task\("):
        filed.delete_task("any")

    assert await filed.aget_tasks() == []


async def test_the_coroutine_forms_work_where_the_plain_ones_refuse(
    filed: NativeAsyncIOScheduler,
) -> None:
    await filed.aadd_task(job, "interval", hours=1, id="beat")
    await filed.apause_task("beat")
    info = await filed.aget_task_info("beat")

    assert info is not None
    assert info.paused


async def test_a_store_in_this_process_can_be_used_beside_one_that_needs_io(
    filed: NativeAsyncIOScheduler,
) -> None:
    filed.add_store("memory", "quick")

    task = filed.add_task(job, "interval", hours=1, store="quick", id="here")

    assert filed.get_task("here", "quick") is task
    with pytest.raises(BlockingCallError):
        filed.get_tasks()


async def test_a_refused_call_on_all_stores_has_changed_none(
    filed: NativeAsyncIOScheduler,
) -> None:
    filed.add_store("memory", "quick")
    filed.add_task(job, "interval", hours=1, store="quick", id="here")

    with pytest.raises(BlockingCallError):
        filed.remove_all_tasks()

    assert filed.get_task("here", "quick") is not None


async def test_a_thread_can_use_any_store(filed: NativeAsyncIOScheduler) -> None:
    await asyncio.to_thread(filed.add_task, job, "interval", hours=1, id="beat")

    infos = await asyncio.to_thread(filed.get_task_infos)

    assert [info.id for info in infos] == ["beat"]


async def test_a_scheduler_with_io_leaves_the_loop_it_was_started_on(tmp_path: Path) -> None:
    ran_on: list[asyncio.AbstractEventLoop] = []
    done = threading.Event()

    async def where() -> None:
        ran_on.append(asyncio.get_running_loop())
        done.set()

    store = FileStore(directory=tmp_path)
    scheduler = AsyncIOScheduler(timezone="UTC", stores={"default": store})
    scheduler.add_store("memory", "quick")
    scheduler.start()
    scheduler.add_task(job, "interval", hours=1, id="filed")
    scheduler.add_task(where, store="quick")
    await asyncio.to_thread(done.wait, 5)

    assert ran_on == [asyncio.get_running_loop()]
    assert scheduler.engine_loop is not asyncio.get_running_loop()
    assert [info.id for info in scheduler.get_task_infos(store="default")] == ["filed"]
    assert await scheduler.ashutdown() is True


async def test_shutdown_on_the_loop_that_tasks_run_on_does_not_wait_for_itself(
    tmp_path: Path,
) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    store = FileStore(directory=tmp_path)
    scheduler = AsyncIOScheduler(timezone="UTC", stores={"default": store})
    scheduler.add_store("memory", "quick")
    scheduler.start()
    scheduler.add_task(slow, store="quick")
    await began.wait()

    scheduler.shutdown(wait=False)

    await asyncio.wait_for(ended.wait(), 5)
    assert not scheduler.running


def test_without_a_running_loop_everything_is_synchronous() -> None:
    ran = threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def on_engine() -> None:
        loops.append(asyncio.get_running_loop())
        ran.set()

    with AsyncIOScheduler(timezone="UTC") as scheduler:
        scheduler.add_task(on_engine)
        assert ran.wait(5)
        assert loops == [scheduler.engine_loop]
    assert not scheduler.running
    assert not [
        t for t in threading.enumerate() if t.name.startswith(f"asyncz {scheduler.identity}")
    ]


async def test_an_isolated_scheduler_runs_tasks_off_the_apps_loop() -> None:
    ran = threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def isolated() -> None:
        loops.append(asyncio.get_running_loop())
        ran.set()

    async with NativeAsyncIOScheduler(timezone="UTC", isolated_event_loop=True) as scheduler:
        await scheduler.aadd_task(isolated)
        assert await asyncio.to_thread(ran.wait, 5)

    assert loops[0] is not asyncio.get_running_loop()


def test_event_loop_says_where_coroutine_tasks_run() -> None:
    ran = threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []
    app_loop = asyncio.new_event_loop()
    thread = threading.Thread(target=app_loop.run_forever)
    thread.start()

    async def on_app_loop() -> None:
        loops.append(asyncio.get_running_loop())
        ran.set()

    with AsyncIOScheduler(timezone="UTC", event_loop=app_loop) as scheduler:
        scheduler.add_task(on_app_loop)
        assert ran.wait(5)
    app_loop.call_soon_threadsafe(app_loop.stop)
    thread.join()
    app_loop.close()

    assert loops == [app_loop]


async def test_a_listener_can_add_and_remove_tasks() -> None:
    done = asyncio.Event()
    async with NativeAsyncIOScheduler(timezone="UTC") as scheduler:
        scheduler.add_listener(
            lambda event: scheduler.add_task(_setter(done), id="second"), TASK_EXECUTED
        )
        scheduler.add_task(job, id="first")
        await asyncio.wait_for(done.wait(), 5)


async def test_a_coroutine_listener_can_use_a_store_that_needs_io(
    filed: NativeAsyncIOScheduler,
) -> None:
    seen = asyncio.Event()

    async def listener(event: object) -> None:
        assert [info.id for info in await filed.aget_task_infos()] == ["beat"]
        seen.set()

    filed.add_listener(listener, TASK_ADDED)
    await filed.aadd_task(job, "interval", hours=1, id="beat")

    await asyncio.wait_for(seen.wait(), 5)


async def test_calls_from_many_threads_at_once_all_arrive() -> None:
    async with NativeAsyncIOScheduler(timezone="UTC") as scheduler:

        def add(number: int) -> None:
            for index in range(20):
                scheduler.add_task(job, "interval", hours=1, id=f"{number}-{index}")

        await asyncio.gather(*(asyncio.to_thread(add, number) for number in range(8)))

        assert len(scheduler.get_tasks()) == 160


async def test_timer_calls_need_a_running_scheduler() -> None:
    scheduler = AsyncIOScheduler(timezone="UTC")

    for call in (scheduler.wakeup, scheduler.stop_timer, scheduler.start_timer):
        with pytest.raises(SchedulerNotRunningError):
            call()


def _setter(event: asyncio.Event):  # type: ignore[no-untyped-def]
    async def set_it() -> None:
        event.set()

    return set_it
