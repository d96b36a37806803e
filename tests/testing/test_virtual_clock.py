"""The clock for tests: time passes when the test says so, and everything due in it happens."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta, timezone
from functools import partial

import pytest

from asyncz import AsyncIOScheduler, NativeAsyncIOScheduler, SchedulerEvent
from asyncz.events.constants import CLOCK_JUMPED
from asyncz.testing import VirtualClock

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


async def work() -> str:
    return "done"


async def test_a_week_passes_and_what_was_due_in_it_is_returned_in_order(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    scheduler.add_task(work, "cron", hour=9, id="daily")
    scheduler.add_task(work, "cron", day_of_week="mon", hour=8, id="weekly")
    fired = await clock.advance(weeks=1)
    assert [run.task_id for run in fired] == ["daily"] * 4 + ["weekly"] + ["daily"] * 3
    assert fired[4].scheduled_run_time == datetime(2026, 1, 5, 8, tzinfo=UTC)
    assert {run.return_value for run in fired} == {"done"}
    assert clock.now() == NEW_YEAR + timedelta(weeks=1)


async def test_nothing_happens_until_time_passes(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    scheduler.add_task(work, "interval", seconds=1, id="a")
    for _ in range(100):
        await asyncio.sleep(0)
    assert await clock.advance() == []
    assert len(await clock.advance(1)) == 1


async def test_each_run_sees_its_own_time(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    seen: list[datetime] = []
    scheduler.add_task(lambda: seen.append(clock.now()), "interval", minutes=20)
    await clock.advance(hours=1)
    assert seen == [NEW_YEAR + timedelta(minutes=minutes) for minutes in (20, 40, 60)]


async def test_a_run_is_returned_once(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    scheduler.add_task(work, id="a")
    assert len(await clock.advance(1)) == 1
    assert await clock.advance(1) == []


async def test_time_can_be_moved_to_an_instant(clock: VirtualClock) -> None:
    await clock.advance_to("2026-02-01T00:00:00+01:00")
    assert clock.now() == datetime(2026, 1, 31, 23, tzinfo=UTC)
    await clock.advance_to(clock.now() + timedelta(hours=1))
    assert clock.now() == datetime(2026, 2, 1, tzinfo=UTC)


@pytest.mark.parametrize("back", [timedelta(seconds=-1), -0.5])
async def test_time_does_not_go_back(clock: VirtualClock, back: timedelta | float) -> None:
    with pytest.raises(ValueError, match="Time only goes on"):
        await clock.advance(back)
    assert clock.now() == NEW_YEAR


@pytest.mark.parametrize("start", ["2026-01-01T00:00:00", datetime(2026, 1, 1)])
def test_a_clock_needs_a_time_zone(start: datetime | str) -> None:
    with pytest.raises(ValueError, match="A clock needs a time zone"):
        VirtualClock(start)


def test_a_clock_shows_utc_whatever_zone_it_was_set_in() -> None:
    clock = VirtualClock(datetime(2026, 1, 1, 5, tzinfo=timezone(timedelta(hours=5))))
    assert clock.now() == NEW_YEAR
    assert clock.now().tzinfo is UTC


async def test_a_sleep_on_the_clock_ends_when_its_time_has_come(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    ended: list[datetime] = []

    async def sleep() -> None:
        await clock.sleep(90)
        ended.append(clock.now())

    scheduler.add_task(sleep, id="a")
    assert await clock.advance(seconds=89) == []
    assert [run.task_id for run in await clock.advance(seconds=1)] == ["a"]
    assert ended == [NEW_YEAR + timedelta(seconds=90)]


async def test_a_sleep_that_is_cancelled_is_forgotten(clock: VirtualClock) -> None:
    sleeper = asyncio.create_task(clock.sleep(5))
    await asyncio.sleep(0)
    sleeper.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeper
    assert clock._parked == set()
    await clock.advance(10)


async def test_a_jump_sets_the_wall_clock_and_no_time_passes(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    jumps: list[SchedulerEvent] = []
    scheduler.add_listener(jumps.append, CLOCK_JUMPED)
    scheduler.add_task(work, "interval", hours=1, id="a")
    await clock.advance()
    before = clock.monotonic()
    clock.jump(hours=2)
    assert (clock.now(), clock.monotonic()) == (NEW_YEAR + timedelta(hours=2), before)
    scheduler.wakeup()
    await clock.advance()
    assert [event.detail for event in jumps] == ["The wall clock jumped by +7200.0 s."]


async def test_a_jump_may_go_back(clock: VirtualClock) -> None:
    clock.jump(timedelta(days=-1))
    assert clock.now() == NEW_YEAR - timedelta(days=1)


async def test_a_run_that_waits_for_the_test_does_not_stop_time(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    clock.patience = 0
    release = asyncio.Event()
    scheduler.add_task(release.wait, id="waiting")
    assert await clock.advance(hours=1) == []
    release.set()
    assert [run.task_id for run in await clock.advance()] == ["waiting"]


async def test_a_worker_thread_is_waited_for(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    clock.patience = 20
    begun = threading.Event()

    def slow() -> str:
        begun.set()
        return threading.current_thread().name

    scheduler.add_task(slow, id="a")
    (fired,) = await clock.advance(1)
    assert begun.is_set()
    assert fired.return_value != threading.current_thread().name


async def test_several_schedulers_share_a_clock(clock: VirtualClock) -> None:
    one = NativeAsyncIOScheduler(clock=clock, timezone="UTC")
    two = AsyncIOScheduler(clock=clock, timezone="UTC", isolated_event_loop=True)
    async with one, two:
        one.add_task(work, "interval", seconds=2, id="one")
        await two.aadd_task(work, "interval", seconds=3, id="two")
        fired = await clock.advance(seconds=6)
    assert sorted(str(run.task_id) for run in fired) == ["one"] * 3 + ["two"] * 2
    assert clock._users == []


async def test_a_delay_of_microseconds_is_not_lost(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    due = clock.now() + timedelta(seconds=0.3)
    scheduler.add_task(work, "date", run_at=due, id="a")
    assert await clock.advance(timedelta(microseconds=299_999)) == []
    (fired,) = await clock.advance(timedelta(microseconds=1))
    assert fired.scheduled_run_time == due == clock.now()


async def test_calls_of_one_instant_are_made_in_the_order_they_were_asked_for(
    clock: VirtualClock,
) -> None:
    loop, made = asyncio.get_running_loop(), list[int]()
    timers = [clock.call_later(loop, 1, partial(made.append, number)) for number in range(5)]
    timers[2].cancel()
    await clock.advance(1)
    assert made == [0, 1, 3, 4]


async def test_a_call_that_is_never_due_is_not_kept(clock: VirtualClock) -> None:
    clock.call_later(asyncio.get_running_loop(), float("inf"), pytest.fail)
    await clock.advance(days=365_00)
    assert clock._timers == []


async def test_a_scheduler_wakes_up_from_time_to_time_if_asked_to() -> None:
    clock = VirtualClock(longest_wait=30)
    async with NativeAsyncIOScheduler(clock=clock, timezone="UTC"):
        await clock.advance(minutes=5)
        (timer,) = [timer for timer in clock._timers if not timer.cancelled]
    assert 0 < timer.deadline / 1e6 - clock.monotonic() <= 30
