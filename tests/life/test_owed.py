"""What was due before a schedule was changed, and had not been run, has its record all the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from asyncz import (
    IntervalTrigger,
    NativeAsyncIOScheduler,
    Run,
    RunState,
    SchedulerEvent,
    TaskExecutionEvent,
)
from asyncz.events.constants import TASK_CANCELLED, TASK_MISSED
from asyncz.testing import VirtualClock

from . import jobs
from .conftest import MakeScheduler
from .test_attempts import after

HOUR = 3_600
TAGS = ["all"]
CHANGED = "its schedule was changed before it was run"
PAUSED = "it was paused before it was run"
DELETED = "its task was deleted before it was run"


@pytest_asyncio.fixture
async def late(
    make_scheduler: MakeScheduler, clock: VirtualClock
) -> AsyncIterator[NativeAsyncIOScheduler]:
    """A scheduler that comes back, paused still, after ten hours; its task was due ten times."""
    first = make_scheduler()
    async with first:
        await add(first, "hourly", hours=1)
        await add(first, "later", hours=100)
        if first.stores["default"].in_process:
            first.pause()
            await clock.advance(hours=10, minutes=30)
            yield first
            return
    await clock.advance(hours=10, minutes=30)
    second = make_scheduler()
    await second.start(paused=True)
    yield second
    await second.shutdown()


async def add(scheduler: NativeAsyncIOScheduler, task_id: str, hours: int, **options: Any) -> None:
    await scheduler.aadd_task(
        jobs.fails, "interval", hours=hours, start_at=after(hours * HOUR), args=[0], id=task_id,
        tags=TAGS, **options,
    )  # fmt: skip


Change = Callable[[NativeAsyncIOScheduler], Awaitable[Any]]
CHANGES: dict[str, tuple[Change, RunState, str]] = {
    "rescheduled": (
        lambda s: s.areschedule_task("hourly", trigger="interval", hours=3),
        RunState.MISSED,
        CHANGED,
    ),
    "due at another time": (
        lambda s: s.aupdate_task("hourly", next_run_time=after(20 * HOUR)),
        RunState.MISSED,
        CHANGED,
    ),
    "declared again": (
        lambda s: add(s, "hourly", hours=2, replace_existing=True),
        RunState.MISSED,
        CHANGED,
    ),
    "paused": (lambda s: s.apause_task("hourly"), RunState.CANCELLED, PAUSED),
    "paused by tag": (lambda s: s.apause_tasks("all"), RunState.CANCELLED, PAUSED),
    "deleted": (lambda s: s.adelete_task("hourly"), RunState.CANCELLED, DELETED),
    "deleted by tag": (lambda s: s.adelete_tasks("all"), RunState.CANCELLED, DELETED),
    "deleted with all": (lambda s: s.aremove_all_tasks(), RunState.CANCELLED, DELETED),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_what_is_owed_is_one_record_and_one_event(
    late: NativeAsyncIOScheduler, clock: VirtualClock, change: str
) -> None:
    events: list[tuple[str, str, int, datetime, datetime | None]] = []

    def listen(event: SchedulerEvent) -> None:
        assert isinstance(event, TaskExecutionEvent)
        when = event.scheduled_run_time, event.last_scheduled_run_time
        events.append((event.code_name, event.task_id, event.run_count, *when))

    late.add_listener(listen, TASK_MISSED | TASK_CANCELLED)
    act, state, reason = CHANGES[change]
    await act(late)
    (run,) = await late.aget_runs()
    first, last = after(HOUR), after(10 * HOUR)
    assert (run.task_id, run.state, run.reason) == ("hourly", state, reason)
    assert (run.occurrences, run.scheduled_time, run.last_scheduled_time) == (10, first, last)
    assert events == [(f"TASK_{state.name}", "hourly", 10, first, last)]
    late.resume()
    await clock.advance(seconds=1)
    assert await late.aget_runs() == [run]
    assert jobs.ATTEMPTS["hourly"] == 0


async def test_what_is_declared_again_as_it_was_owes_what_it_owed(
    late: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    await add(late, "hourly", hours=1, replace_existing=True)
    await late.aupdate_task("hourly", name="another name")
    assert await late.aget_runs() == []
    late.resume()
    await clock.advance(seconds=1)
    (run,) = await late.aget_runs()
    assert (run.state, run.occurrences) == (RunState.MISSED, 10)


async def test_what_is_put_off_within_the_past_owes_the_part_before(
    late: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    await late.aupdate_task("hourly", coalesce=False, mistrigger_grace_time=None)
    await late.aupdate_task("hourly", next_run_time=after(8 * HOUR))
    late.resume()
    await clock.advance(seconds=1)
    *ran, owed = await late.aget_runs("hourly")
    assert [run.scheduled_time for run in ran] == [after(n * HOUR) for n in (10, 9, 8)]
    assert (owed.state, owed.reason, owed.occurrences) == (RunState.MISSED, CHANGED, 7)


async def test_a_refused_change_settles_nothing(late: NativeAsyncIOScheduler) -> None:
    with pytest.raises(ValueError, match="max_instances"):
        await late.aupdate_task("hourly", next_run_time=None, max_instances=0)
    assert await late.aget_runs() == []
    task = await late.aget_task("hourly")
    assert task is not None
    assert task.next_run_time == after(HOUR)


async def test_who_misses_runs_by_a_change_is_told(
    late: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    await late.aupdate_task("hourly", on_missed=jobs.notice)
    await late.areschedule_task("hourly", trigger="interval", hours=3)
    await clock.advance(seconds=1)
    told: list[Run] = [run for _, run in jobs.REACTIONS]
    assert [(run.state, run.occurrences, run.reason) for run in told] == [
        (RunState.MISSED, 10, CHANGED)
    ]


async def test_a_year_of_seconds_is_counted_and_not_walked_through(
    late: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    await late.aadd_task(jobs.fails, "interval", seconds=1, args=[0], id="often")
    clock.jump(timedelta(days=365))
    await late.apause_task("often")
    (run,) = await late.aget_runs("often")
    assert (run.occurrences, run.reason) == (365 * 86_400, PAUSED)


class Broken(IntervalTrigger):
    """A trigger of somebody's that cannot say what was due."""

    def last_before(self, *args: Any, **kwargs: Any) -> datetime | None:
        raise OSError("on purpose")


async def test_a_trigger_that_fails_keeps_nobody_from_pausing_its_task(
    clock: VirtualClock,
) -> None:
    async with NativeAsyncIOScheduler(clock=clock, timezone="UTC") as scheduler:
        scheduler.pause()
        scheduler.add_task(jobs.fails, Broken.model_validate({"hours": 1}), args=[0], id="a")
        await clock.advance(hours=3)
        scheduler.pause_task("a")
        (run,) = scheduler.get_runs("a")
    assert (run.state, run.occurrences) == (RunState.CANCELLED, 1)
