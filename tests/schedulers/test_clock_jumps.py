"""A wall clock that is set to and fro, across instants at which something is due."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from asyncz import NativeAsyncIOScheduler
from asyncz.events.base import SchedulerEvent
from asyncz.events.constants import CLOCK_JUMPED
from asyncz.testing import VirtualClock

START = datetime(2026, 1, 1, 11, 30, tzinfo=UTC)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
TO_AND_FRO = (1, -1, 24, -24, 1, -24, 24, -1, 24, -24)
"""Hours."""


async def job() -> None:
    """The callable of the tasks."""


@pytest.mark.parametrize(
    ("trigger", "options"),
    [("interval", {"hours": 1, "start_at": NOON}), ("cron", {"minute": 0})],
)
async def test_ten_jumps_across_what_is_due_start_each_instant_exactly_once(
    trigger: str, options: dict[str, Any]
) -> None:
    clock = VirtualClock(START, longest_wait=30)
    jumps: list[SchedulerEvent] = []
    started: Counter[datetime] = Counter()
    async with NativeAsyncIOScheduler(clock=clock, timezone="UTC") as scheduler:
        scheduler.add_listener(jumps.append, CLOCK_JUMPED)
        scheduler.add_task(
            job, trigger, id="hourly", mistrigger_grace_time=None, coalesce=False,
            max_instances=100, **options,
        )  # fmt: skip
        scheduler.add_task(job, "date", run_at=NOON, id="once", mistrigger_grace_time=None)
        await clock.advance()
        ran: Counter[str] = Counter()
        for hours in TO_AND_FRO:
            clock.jump(hours=hours)
            for run in await clock.advance(minutes=1):
                ran[run.task_id] += 1
                if run.task_id == "hourly":
                    started[run.scheduled_run_time] += 1
        furthest = max(started)

    expected = [NOON + timedelta(hours=n) for n in range(int((furthest - NOON).seconds / 3600) + 1)]
    assert len(jumps) == len(TO_AND_FRO)
    assert ran["once"] == 1
    assert sorted(started) == expected
    assert set(started.values()) == {1}
