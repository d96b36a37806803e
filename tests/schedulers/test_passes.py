"""Passes over stores: nothing that goes wrong with one task or store stops another."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence, Set
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, ClassVar

import pytest

from asyncz import AsyncIOScheduler, BaseTrigger, MemoryStore, NativeAsyncIOScheduler, Task
from asyncz.events.base import SchedulerEvent, TaskExecutionEvent, TaskSubmissionEvent
from asyncz.events.constants import (
    CLOCK_JUMPED,
    STORE_DEGRADED,
    STORE_RECOVERED,
    TASK_ERROR,
    TASK_MAX_INSTANCES,
    TASK_MISSED,
    TASK_QUARANTINED,
    TASK_REMOVED,
    TASK_SUBMITTED,
)
from asyncz.stores.base import NO_IDS, TaskAdvance
from asyncz.testing import VirtualClock

START = datetime(2026, 1, 1, tzinfo=UTC)


async def job() -> None:
    """Does nothing."""


class BrokenTrigger(BaseTrigger):
    """Gives its first run time, and raises when it is asked for the next."""

    alias: ClassVar[str] = "broken"

    def get_next_trigger_time(
        self,
        timezone: tzinfo | None,
        previous_time: datetime | None,
        now: datetime | None = None,
    ) -> datetime | None:
        if previous_time is None:
            return START + timedelta(seconds=1)
        raise RuntimeError("no idea what comes next")


class StuckTrigger(BaseTrigger):
    """Gives the same run time again and again."""

    alias: ClassVar[str] = "stuck"

    def get_next_trigger_time(
        self,
        timezone: tzinfo | None,
        previous_time: datetime | None,
        now: datetime | None = None,
    ) -> datetime | None:
        return START + timedelta(seconds=1)


class MoodyStore(MemoryStore):
    """A store in memory that fails while it is told to."""

    failing: bool = False

    async def get_due_tasks(
        self, now: datetime, limit: int | None = None, exclude: Set[str] = NO_IDS
    ) -> list[Task]:
        if self.failing:
            raise ConnectionError("the server went away")
        return await super().get_due_tasks(now, limit, exclude)


class HangingStore(MemoryStore):
    """A store that needs I/O, as far as the scheduler knows, and does not answer."""

    in_process: ClassVar[bool] = False

    async def get_due_tasks(
        self, now: datetime, limit: int | None = None, exclude: Set[str] = NO_IDS
    ) -> list[Task]:
        await asyncio.Event().wait()
        return []


class ContestedStore(MemoryStore):
    """A store in which somebody else is faster at every other step."""

    lost: int = 0

    async def advance_tasks(self, advances: Sequence[TaskAdvance]) -> list[bool]:
        self.lost += 1
        if self.lost % 2:
            for task, expected, _ in advances:
                stored = await self.lookup_task(str(task.id))
                assert stored is not None
                stored.next_run_time = expected + timedelta(seconds=30)
                await self.update_task(stored)
            return [False] * len(advances)
        return await super().advance_tasks(advances)


class Heard:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.events: list[SchedulerEvent] = []

    def __call__(self, event: SchedulerEvent) -> None:
        self.events.append(event)

    @property
    def names(self) -> list[str]:
        return [event.code_name for event in self.events]


@pytest.mark.parametrize("trigger", [BrokenTrigger(), StuckTrigger()])
async def test_a_trigger_that_fails_harms_only_its_own_task(trigger: BaseTrigger) -> None:
    clock, heard = VirtualClock(START), Heard()
    async with NativeAsyncIOScheduler(clock=clock, timezone="UTC") as scheduler:
        scheduler.add_listener(heard, TASK_QUARANTINED)
        scheduler.add_task(job, trigger, id="bad")
        scheduler.add_task(job, "interval", seconds=1, id="good")
        fired = await clock.advance(seconds=10)
        infos = {info.id: info for info in scheduler.get_task_infos()}

    assert [run.task_id for run in fired] == ["good"] * 10
    assert infos["bad"].schedule_state == "quarantined"
    assert infos["bad"].error is not None
    assert heard.names == ["TASK_QUARANTINED"]


async def test_a_task_that_was_held_back_runs_once_it_is_mended() -> None:
    clock = VirtualClock(START)
    async with NativeAsyncIOScheduler(clock=clock, timezone="UTC") as scheduler:
        scheduler.add_task(job, BrokenTrigger(), id="bad", mistrigger_grace_time=None)
        await clock.advance(seconds=5)
        scheduler.reschedule_task("bad", trigger="interval", seconds=1)
        fired = await clock.advance(seconds=2)
        info = scheduler.get_task_info("bad")

    assert [run.code_name for run in fired] == ["TASK_MISSED", "TASK_EXECUTED", "TASK_EXECUTED"]
    assert info is not None
    assert info.error is None


async def test_many_tasks_that_cannot_run_do_not_starve_the_rest() -> None:
    clock = VirtualClock(START)
    async with NativeAsyncIOScheduler(clock=clock, timezone="UTC") as scheduler:
        for number in range(300):
            scheduler.add_task(job, BrokenTrigger(), id=f"bad {number}")
        scheduler.add_task(job, "interval", seconds=1, id="good")
        fired = await clock.advance(seconds=5)

    assert [run.task_id for run in fired] == ["good"] * 5


async def test_a_store_that_fails_is_tried_again_and_recovers() -> None:
    clock, heard, store = VirtualClock(START), Heard(), MoodyStore()
    async with NativeAsyncIOScheduler(
        clock=clock, timezone="UTC", stores={"default": store}
    ) as scheduler:
        scheduler.add_listener(heard, STORE_DEGRADED | STORE_RECOVERED)
        scheduler.add_task(job, "interval", seconds=10, id="beat")
        store.failing = True
        assert await clock.advance(seconds=15) == []
        degraded = scheduler.get_scheduler_info().degraded
        store.failing = False
        fired = await clock.advance(seconds=10)
        recovered = scheduler.get_scheduler_info().degraded

    assert degraded == {"default": "ConnectionError: the server went away"}
    assert recovered == {}
    assert heard.names == ["STORE_DEGRADED", "STORE_RECOVERED"]
    assert [run.scheduled_run_time.second for run in fired] == [10, 20]


async def test_a_store_that_hangs_holds_up_no_other_store() -> None:
    ran = asyncio.Event()

    async def signal() -> None:
        ran.set()

    scheduler = NativeAsyncIOScheduler(
        timezone="UTC", stores={"stuck": HangingStore()}, store_timeout=0.3, shutdown_timeout=0.5
    )
    async with scheduler:
        scheduler.add_task(signal)
        await asyncio.wait_for(ran.wait(), 5)


async def test_a_store_that_does_not_answer_in_time_is_degraded() -> None:
    degraded = asyncio.Event()
    details: list[str | None] = []

    def hear(event: SchedulerEvent) -> None:
        details.append(event.detail)
        degraded.set()

    scheduler = NativeAsyncIOScheduler(
        timezone="UTC", stores={"stuck": HangingStore()}, store_timeout=0.05, shutdown_timeout=0.2
    )
    scheduler.add_listener(hear, STORE_DEGRADED)
    async with scheduler:
        await asyncio.wait_for(degraded.wait(), 5)

    assert "did not answer within 0.05 s" in str(details[0])


async def test_a_lost_race_is_no_run() -> None:
    clock = VirtualClock(START)
    async with NativeAsyncIOScheduler(
        clock=clock, timezone="UTC", stores={"default": ContestedStore()}
    ) as scheduler:
        scheduler.add_task(job, "date", run_at=START + timedelta(seconds=5), id="once")
        fired = await clock.advance(minutes=2)

    assert [run.scheduled_run_time for run in fired] == [START + timedelta(seconds=35)]


async def test_a_run_that_would_be_one_too_many_is_skipped_and_told() -> None:
    clock, heard = VirtualClock(START), Heard()

    async def slow() -> None:
        await clock.sleep(25)

    async with NativeAsyncIOScheduler(clock=clock, timezone="UTC") as scheduler:
        scheduler.add_listener(heard, TASK_MAX_INSTANCES | TASK_SUBMITTED)
        scheduler.add_task(slow, "interval", seconds=10, id="slow")
        await clock.advance(seconds=45)

    assert heard.names == [
        "TASK_SUBMITTED",
        "TASK_MAX_INSTANCES",
        "TASK_MAX_INSTANCES",
        "TASK_SUBMITTED",
    ]


async def test_a_backlog_is_folded_and_counted() -> None:
    clock, heard = VirtualClock(START), Heard()
    async with NativeAsyncIOScheduler(clock=clock, timezone="UTC") as scheduler:
        scheduler.add_listener(heard, TASK_SUBMITTED)
        scheduler.add_task(job, "interval", seconds=1, id="beat", next_run_time=START)
        scheduler.pause()
        await clock.advance(days=365)
        scheduler.resume()
        await clock.advance()

    (event,) = heard.events
    assert isinstance(event, TaskSubmissionEvent)
    assert event.scheduled_run_times == [START + timedelta(days=365)]
    assert event.coalesced_run_count == 365 * 86_400


async def test_a_pause_holds_back_what_of_a_backlog_is_not_handed_over_yet() -> None:
    clock, ran = VirtualClock(START), 0

    async def work() -> None:
        nonlocal ran
        ran += 1
        if ran == 1:
            scheduler.pause()

    async with NativeAsyncIOScheduler(clock=clock, timezone="UTC") as scheduler:
        await scheduler.aadd_tasks([Task(work, id=f"{number}") for number in range(500)])
        await clock.advance(seconds=1)
        assert 0 < ran < 300
        before = ran
        await clock.advance(minutes=1)
        assert ran == before
        scheduler.resume()
        await clock.advance(seconds=1)
        assert ran == 500


async def test_what_is_too_late_is_missed_and_told_in_one_event() -> None:
    clock, heard = VirtualClock(START), Heard()
    async with NativeAsyncIOScheduler(clock=clock, timezone="UTC") as scheduler:
        scheduler.add_listener(heard, TASK_MISSED)
        scheduler.add_task(
            job, "interval", minutes=1, coalesce=False, mistrigger_grace_time=90, id="beat"
        )
        scheduler.pause()
        await clock.advance(minutes=10)
        scheduler.resume()
        fired = await clock.advance()

    (event,) = heard.events
    assert isinstance(event, TaskExecutionEvent)
    assert event.run_count == 8
    assert event.scheduled_run_time == START + timedelta(minutes=1)
    assert event.last_scheduled_run_time == START + timedelta(minutes=8)
    executed = [run for run in fired if run.code_name == "TASK_EXECUTED"]
    assert [run.scheduled_run_time.minute for run in executed] == [9, 10]


async def test_a_one_off_runs_however_late_it_is() -> None:
    clock = VirtualClock(START)
    async with NativeAsyncIOScheduler(clock=clock, timezone="UTC") as scheduler:
        scheduler.add_task(job, "date", run_at=START - timedelta(days=300), id="old")
        fired = await clock.advance()

    assert [run.task_id for run in fired] == ["old"]


async def test_a_finished_task_is_removed_and_told() -> None:
    clock, heard = VirtualClock(START), Heard()
    async with NativeAsyncIOScheduler(clock=clock, timezone="UTC") as scheduler:
        scheduler.add_listener(heard, TASK_REMOVED)
        scheduler.add_task(job, id="once")
        await clock.advance()
        assert scheduler.get_tasks() == []

    assert heard.names == ["TASK_REMOVED"]


@pytest.mark.parametrize("hours", [5, -5])
async def test_a_jump_of_the_wall_clock_is_noticed(hours: int) -> None:
    clock, heard = VirtualClock(START, longest_wait=30), Heard()
    async with NativeAsyncIOScheduler(clock=clock, timezone="UTC") as scheduler:
        scheduler.add_listener(heard, CLOCK_JUMPED)
        scheduler.add_task(job, "date", run_at=START + timedelta(hours=4), id="later")
        await clock.advance(minutes=1)
        clock.jump(hours=hours)
        fired = await clock.advance(minutes=1)

    assert heard.names == ["CLOCK_JUMPED"]
    assert f"{hours * 3600:+}" in str(heard.events[0].detail)
    assert [run.task_id for run in fired] == (["later"] if hours > 0 else [])


@pytest.mark.parametrize("hours", [5, -5])
async def test_a_task_added_after_a_jump_runs_at_once(hours: int) -> None:
    clock = VirtualClock(START, longest_wait=30)
    async with NativeAsyncIOScheduler(clock=clock, timezone="UTC") as scheduler:
        await clock.advance()
        clock.jump(hours=hours)
        scheduler.add_task(job, id="now")
        assert [run.task_id for run in await clock.advance()] == ["now"]


async def test_one_pass_can_be_made_by_hand() -> None:
    clock = VirtualClock(START)
    async with NativeAsyncIOScheduler(clock=clock, timezone="UTC") as scheduler:
        scheduler.add_task(job, "interval", seconds=10)
        await clock.advance(seconds=3)
        scheduler.stop_timer()

        assert await scheduler.process_tasks() == pytest.approx(7)
        assert await clock.advance(seconds=20) == []
        scheduler.start_timer(5)
        assert len(await clock.advance(seconds=5)) == 1
        scheduler.pause()
        assert await scheduler.process_tasks() is None


async def test_an_executor_that_refuses_a_run_makes_it_a_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    from asyncz.executors import BaseExecutor

    class Refusing(BaseExecutor):
        def do_send_task(self, task: Task, run_times: Sequence[datetime]) -> None:
            raise OSError("no room")

    clock, heard = VirtualClock(START), Heard()
    async with NativeAsyncIOScheduler(
        clock=clock, timezone="UTC", executors={"default": Refusing()}
    ) as scheduler:
        scheduler.add_listener(heard, TASK_ERROR)
        scheduler.add_task(job, "interval", seconds=1, id="beat")
        with caplog.at_level(logging.ERROR):
            await clock.advance(seconds=2)

    assert heard.names == ["TASK_ERROR", "TASK_ERROR"]
    assert "could not be handed to its executor" in caplog.text


async def test_a_listener_that_fails_stops_nobody() -> None:
    clock, heard = VirtualClock(START), Heard()

    def broken(event: SchedulerEvent) -> None:
        raise RuntimeError("a bug in a listener")

    async def broken_too(event: SchedulerEvent) -> None:
        raise RuntimeError("another")

    async with NativeAsyncIOScheduler(clock=clock, timezone="UTC") as scheduler:
        for listener in (broken, broken_too, heard):
            scheduler.add_listener(listener, TASK_SUBMITTED)
        scheduler.add_task(job, "interval", seconds=1)
        fired = await clock.advance(seconds=3)

    assert len(fired) == 3
    assert len(heard.events) == 3


async def test_with_a_lock_path_one_scheduler_is_active_and_the_next_takes_over(
    tmp_path: Path,
) -> None:
    clock = VirtualClock(START)
    ran: list[str] = []

    def make(name: str) -> AsyncIOScheduler:
        scheduler = AsyncIOScheduler(
            clock=clock, timezone="UTC", lock_path=tmp_path / "lock", startup_delay=0
        )
        scheduler.add_task(_note(ran, name), "interval", seconds=10)
        return scheduler

    first, second = make("first"), make("second")
    await first.astart()
    await second.astart()
    await clock.advance(seconds=25)
    standby = [s.get_scheduler_info().standby for s in (first, second)]
    await first.ashutdown()
    await clock.advance(seconds=20)
    await second.ashutdown()

    assert standby == [False, True]
    assert ran[:2] == ["first", "first"]
    assert set(ran[2:]) == {"second"}


async def test_the_startup_delay_holds_declared_tasks_back(tmp_path: Path) -> None:
    clock = VirtualClock(START)
    scheduler = NativeAsyncIOScheduler(
        clock=clock, timezone="UTC", lock_path=tmp_path / "lock", startup_delay=5
    )
    scheduler.add_task(job, id="now")
    async with scheduler:
        assert await clock.advance(seconds=4) == []
        assert len(await clock.advance(seconds=1)) == 1


def _note(ran: list[str], name: str) -> Any:
    async def note() -> None:
        ran.append(name)

    return note
