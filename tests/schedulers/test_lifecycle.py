"""Start, shutdown, nesting, failures on the way, and time limits."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from asyncz import AsyncIOScheduler, MemoryStore, NativeAsyncIOScheduler, SchedulerState
from asyncz.events.base import SchedulerEvent, TaskExecutionEvent
from asyncz.events.constants import (
    SCHEDULER_PAUSED,
    SCHEDULER_RESUMED,
    SCHEDULER_SHUTDOWN,
    SCHEDULER_STARTED,
    TASK_CANCELLED,
    TASK_EXECUTED,
)
from asyncz.exceptions import (
    ConfigurationError,
    PluginLookupError,
    SchedulerAlreadyRunningError,
    SchedulerNotRunningError,
    StoreInUseError,
)
from asyncz.executors import AsyncIOExecutor
from asyncz.testing import VirtualClock

SCHEDULERS = [AsyncIOScheduler, NativeAsyncIOScheduler]
AnyScheduler = AsyncIOScheduler | NativeAsyncIOScheduler


class UnreachableStore(MemoryStore):
    """A store whose server is down."""

    async def start(self, scheduler: Any, alias: str) -> None:
        raise ConnectionError("nobody answers")


class NotingStore(MemoryStore):
    """A store that notes whether it was shut down."""

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self._ended = 0

    async def shutdown(self) -> None:
        self._ended += 1
        await super().shutdown()


@pytest.fixture(params=SCHEDULERS)
def make(request: pytest.FixtureRequest) -> Callable[..., AnyScheduler]:
    kind: type[AnyScheduler] = request.param
    return lambda **options: kind(**{"timezone": "UTC", "clock": VirtualClock(), **options})


async def test_start_and_shutdown_say_whether_they_did_anything(
    make: Callable[..., AnyScheduler],
) -> None:
    scheduler = make()

    assert await scheduler.astart() is True
    assert await scheduler.astart() is False
    assert scheduler.running
    assert await scheduler.ashutdown() is False
    assert scheduler.running
    assert await scheduler.ashutdown() is True
    assert not scheduler.running


async def test_shutdown_without_start_is_refused(make: Callable[..., AnyScheduler]) -> None:
    scheduler = make()

    with pytest.raises(SchedulerNotRunningError, match="start"):
        await scheduler.ashutdown()


async def test_states_follow_start_pause_resume_and_shutdown(
    make: Callable[..., AnyScheduler],
) -> None:
    scheduler = make()
    codes: list[int] = []
    scheduler.add_listener(
        lambda event: codes.append(event.code),
        SCHEDULER_STARTED | SCHEDULER_PAUSED | SCHEDULER_RESUMED | SCHEDULER_SHUTDOWN,
    )

    states: list[SchedulerState] = []

    await scheduler.astart(paused=True)
    states.append(scheduler.state)
    scheduler.resume()
    states.append(scheduler.state)
    scheduler.pause()
    scheduler.pause()
    states.append(scheduler.state)
    await scheduler.ashutdown()

    paused, running = SchedulerState.STATE_PAUSED, SchedulerState.STATE_RUNNING
    assert states == [paused, running, paused]
    assert codes == [SCHEDULER_STARTED, SCHEDULER_RESUMED, SCHEDULER_PAUSED, SCHEDULER_SHUTDOWN]


async def test_pause_and_resume_need_a_running_scheduler(
    make: Callable[..., AnyScheduler],
) -> None:
    scheduler = make()

    with pytest.raises(SchedulerNotRunningError):
        scheduler.pause()
    with pytest.raises(SchedulerNotRunningError):
        scheduler.resume()


async def test_what_came_due_while_paused_runs_after_resume() -> None:
    clock = VirtualClock()
    async with NativeAsyncIOScheduler(clock=clock, timezone="UTC") as scheduler:
        scheduler.add_task(_nothing, "interval", seconds=10, id="beat")
        scheduler.pause()
        assert await clock.advance(seconds=35) == []
        scheduler.resume()
        fired = await clock.advance(seconds=0)

    assert [run.scheduled_run_time.second for run in fired] == [30]


async def test_a_store_that_cannot_start_stops_what_had_started() -> None:
    first = NotingStore()
    scheduler = NativeAsyncIOScheduler(
        timezone="UTC", stores={"default": first, "far": UnreachableStore()}
    )
    scheduler.add_task(_nothing, "interval", seconds=1, id="kept")

    with pytest.raises(ConnectionError, match="nobody answers"):
        await scheduler.start()

    assert first._ended == 1
    assert not scheduler.running
    assert scheduler.lookup_executor("default")._host is None
    assert [task.id for task in scheduler.get_tasks()] == ["kept"]
    assert scheduler.get_task_infos()[0].schedule_state == "pending"


async def test_a_start_that_failed_can_be_tried_again() -> None:
    scheduler = NativeAsyncIOScheduler(timezone="UTC", clock=VirtualClock())
    scheduler.add_store(UnreachableStore(), "far")
    scheduler.add_task(_nothing, "interval", seconds=1, id="kept")
    with pytest.raises(ConnectionError):
        await scheduler.start()
    scheduler.remove_store("far")

    assert await scheduler.start() is True

    assert [task.id for task in scheduler.get_tasks()] == ["kept"]
    await scheduler.shutdown()


async def test_a_task_for_an_unknown_store_or_executor_fails_the_start_clearly() -> None:
    scheduler = NativeAsyncIOScheduler(timezone="UTC")
    scheduler.add_task(_nothing, "interval", seconds=1, executor="gpu")

    with pytest.raises(PluginLookupError, match="no executor 'gpu'; it has 'default'"):
        await scheduler.start()

    assert not scheduler.running


async def test_one_store_object_serves_one_scheduler() -> None:
    store = MemoryStore()
    async with NativeAsyncIOScheduler(timezone="UTC", stores={"default": store}):
        other = NativeAsyncIOScheduler(timezone="UTC", stores={"default": store})
        with pytest.raises(StoreInUseError, match="in use"):
            await other.start()
        assert not other.running


async def test_setup_is_refused_while_running(make: Callable[..., AnyScheduler]) -> None:
    scheduler = make()
    await scheduler.astart()

    with pytest.raises(SchedulerAlreadyRunningError):
        scheduler.setup(timezone="Europe/Berlin")

    await scheduler.ashutdown()
    scheduler.setup(timezone="Europe/Berlin")
    assert str(scheduler.timezone) == "Europe/Berlin"


def test_the_native_scheduler_has_no_event_loop_option() -> None:
    with pytest.raises(ConfigurationError, match="event_loop"):
        NativeAsyncIOScheduler(event_loop=object())


async def test_shutdown_lets_runs_finish() -> None:
    finished: list[str] = []
    release = asyncio.Event()

    async def slow() -> None:
        await release.wait()
        finished.append("slow")

    scheduler = NativeAsyncIOScheduler(timezone="UTC")
    await scheduler.start()
    scheduler.add_task(slow)
    await _until(lambda: bool(scheduler.going))
    ending = asyncio.create_task(scheduler.shutdown(wait=True))
    await asyncio.sleep(0)
    release.set()
    await ending

    assert finished == ["slow"]


async def test_shutdown_without_waiting_cancels_runs_and_says_so() -> None:
    cleaned: list[str] = []
    codes: list[int] = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append("endless")

    scheduler = NativeAsyncIOScheduler(timezone="UTC")
    scheduler.add_listener(lambda e: codes.append(e.code), TASK_CANCELLED | TASK_EXECUTED)
    await scheduler.start()
    scheduler.add_task(endless)
    await _until(lambda: bool(scheduler.going))
    await scheduler.shutdown(wait=False)

    assert cleaned == ["endless"]
    assert codes == [TASK_CANCELLED]


async def test_nothing_a_task_does_can_hold_up_shutdown_beyond_its_timeout() -> None:
    stop = threading.Event()
    give_up = asyncio.Event()

    async def endless() -> None:
        await asyncio.Event().wait()

    async def stubborn() -> None:
        while not give_up.is_set():
            try:
                await give_up.wait()
            except asyncio.CancelledError:
                continue

    scheduler = NativeAsyncIOScheduler(timezone="UTC", shutdown_timeout=0.4)
    await scheduler.start()
    for job in (endless, stubborn, stop.wait):
        scheduler.add_task(job)
    await _until(lambda: len(scheduler.going) == 3)
    begun = time.monotonic()
    await scheduler.shutdown(wait=True)
    took = time.monotonic() - begun
    stop.set()
    give_up.set()
    await _until(lambda: len(asyncio.all_tasks()) == 1)

    assert took < 1.5  # a bound, not a measurement: without the timeout it would never end


async def test_shutdown_tasks_run_last_and_once() -> None:
    order: list[str] = []
    release = asyncio.Event()

    async def slow() -> None:
        await release.wait()
        order.append("slow")

    async def farewell() -> None:
        order.append("farewell")

    def plain_farewell() -> None:
        order.append("plain")

    scheduler = NativeAsyncIOScheduler(timezone="UTC")
    scheduler.add_listener(_append_run_to(order), TASK_EXECUTED)
    await scheduler.start()
    scheduler.add_task(slow, id="slow")
    scheduler.add_task(farewell, "shutdown", id="farewell")
    scheduler.add_task(plain_farewell, "shutdown", id="plain")
    await _until(lambda: bool(scheduler.going))
    release.set()
    await scheduler.shutdown()

    assert order[:2] == ["slow", "slow executed"]
    assert sorted(order[2:]) == ["farewell", "farewell executed", "plain", "plain executed"]


async def test_declared_tasks_are_there_again_after_a_restart() -> None:
    clock = VirtualClock()
    scheduler = NativeAsyncIOScheduler(timezone="UTC", clock=clock)
    scheduler.add_task(_nothing, "interval", hours=1, id="declared")
    scheduler.add_task(_nothing, id="once")
    await scheduler.start()
    scheduler.add_task(_nothing, "interval", hours=1, id="added later")
    await clock.advance(minutes=30)
    await scheduler.shutdown()

    assert [task.id for task in scheduler.get_tasks()] == ["declared"]
    await scheduler.start()
    fired = await clock.advance(minutes=31)
    await scheduler.shutdown()

    assert [run.task_id for run in fired] == ["declared"]


async def test_a_running_task_can_add_another_during_shutdown() -> None:
    scheduler = NativeAsyncIOScheduler(timezone="UTC")
    began = asyncio.Event()
    release = asyncio.Event()
    added: list[str] = []

    async def adds() -> None:
        began.set()
        await release.wait()
        task = await scheduler.aadd_task(_nothing, "interval", hours=1, id="late")
        added.append(str(task.schedule_state))

    await scheduler.start()
    scheduler.add_task(adds)
    await began.wait()
    ending = asyncio.create_task(scheduler.shutdown())
    await asyncio.sleep(0)
    release.set()
    await ending

    assert added == ["scheduled"]


async def test_context_managers_nest() -> None:
    scheduler = AsyncIOScheduler(timezone="UTC")

    async with scheduler:
        with scheduler:
            assert scheduler.running
        assert scheduler.running
    assert not scheduler.running


async def test_a_loop_closed_without_shutdown_is_noticed_and_cleared() -> None:
    scheduler = NativeAsyncIOScheduler(timezone="UTC")
    scheduler.add_task(_nothing, "interval", hours=1, id="declared")
    await asyncio.to_thread(asyncio.run, scheduler.start())

    with pytest.raises(SchedulerNotRunningError, match="closed"):
        await scheduler.aget_tasks()
    assert await scheduler.start() is True
    assert [task.id for task in scheduler.get_tasks()] == ["declared"]
    await scheduler.shutdown()


async def test_starting_and_stopping_leaves_nothing_behind() -> None:
    scheduler = AsyncIOScheduler(timezone="UTC", executors={"pool": {"type": "threadpool"}})
    scheduler.add_task(_nothing, "interval", seconds=60, id="beat")
    threads = threading.active_count()

    for _ in range(500):
        scheduler.start()
        scheduler.shutdown()
        await scheduler.astart()
        await scheduler.ashutdown()

    await asyncio.sleep(0)  # what was cancelled last needs a turn of the loop to end
    assert len(asyncio.all_tasks()) == 1
    assert threading.active_count() == threads
    assert [task.id for task in scheduler.get_tasks()] == ["beat"]


async def test_executors_come_and_go_while_running() -> None:
    clock = VirtualClock()
    async with NativeAsyncIOScheduler(clock=clock, timezone="UTC") as scheduler:
        scheduler.add_executor(AsyncIOExecutor(), "second")
        scheduler.add_task(_nothing, "interval", seconds=1, executor="second", id="beat")
        assert len(await clock.advance(seconds=1)) == 1
        await scheduler.aremove_executor("second")
        assert await clock.advance(seconds=5) == []
        info = scheduler.get_task_info("beat")
        assert info is not None
        assert info.schedule_state == "quarantined"
        assert "no executor 'second'" in str(info.error)
        scheduler.add_executor("asyncio", "second")
        recovered = await clock.advance(seconds=10)

    assert recovered[0].task_id == "beat"


async def test_stores_come_and_go_while_running() -> None:
    clock = VirtualClock()
    async with NativeAsyncIOScheduler(clock=clock, timezone="UTC") as scheduler:
        scheduler.add_store("memory", "second")
        scheduler.add_task(_nothing, "interval", seconds=1, store="second", id="beat")
        assert len(await clock.advance(seconds=1)) == 1
        scheduler.remove_store("second", shutdown=False)
        assert await clock.advance(seconds=5) == []
        with pytest.raises(PluginLookupError, match="no store 'second'"):
            scheduler.add_task(_nothing, store="second")


async def _nothing() -> None:
    pass


def _append_run_to(order: list[str]) -> Callable[[SchedulerEvent], None]:
    def listen(event: SchedulerEvent) -> None:
        assert isinstance(event, TaskExecutionEvent)
        order.append(f"{event.task_id} executed")

    return listen


async def _until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait for a condition that real threads or the loop bring about; fail if they do not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        await asyncio.sleep(0.001)
