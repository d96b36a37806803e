"""Why an occurrence was not run is said in words that answer the question."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from asyncz import IntervalTrigger, NativeAsyncIOScheduler, Task
from asyncz.schedulers.accounts import as_unrun
from asyncz.schedulers.planning import plan_task
from asyncz.testing import VirtualClock

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


async def work() -> None:
    """The task of these tests."""


def reason(late: timedelta, **options: Any) -> str:
    """What is said when the hourly task, due at noon, is looked at so much later."""
    trigger = IntervalTrigger(hours=1, start_at=NOON, timezone="UTC")
    task = Task(work, id="a", trigger=trigger, next_run_time=NOON, **options)
    now, most = NOON + late, 3
    (unrun,) = as_unrun(task, plan_task(task, now, UTC, most), now, most)
    return unrun.reason


@pytest.mark.parametrize(
    ("late", "options", "said"),
    [
        (13 * HOUR / 60, {}, "13 min late; mistrigger_grace_time is 60 s"),
        (10.5 * HOUR, {}, "the last of them 30 min late; mistrigger_grace_time is 60 s"),
        (
            10 * HOUR,
            {"coalesce": False, "mistrigger_grace_time": None},
            "more were due than the 3 that max_catchup allows",
        ),
        (
            10 * HOUR,
            {"coalesce": False, "mistrigger_grace_time": 18_000.0},
            "more were due than the 3 that max_catchup allows, "
            "or 10 h late; mistrigger_grace_time is 18000 s",
        ),
        (
            3 * HOUR,
            {"mistrigger_grace_time": None},
            "folded into the run a@2026-01-01T15:00:00+00:00",
        ),
    ],
)
def test_it_is_said_how_late_and_what_counted(
    late: timedelta, options: dict[str, Any], said: str
) -> None:
    assert reason(late, **options) == said


async def test_what_comes_too_late_to_its_turn_says_so_too(clock: VirtualClock) -> None:
    async with NativeAsyncIOScheduler(clock=clock, timezone="UTC") as scheduler:

        async def takes_five_minutes() -> None:
            await clock.sleep(300)

        scheduler.pause()
        scheduler.add_task(
            takes_five_minutes, "interval", minutes=1, id="a", coalesce=False,
            mistrigger_grace_time=150.0,
        )  # fmt: skip
        await clock.advance(minutes=2)
        scheduler.resume()
        await clock.advance(minutes=5, seconds=30)
        runs = scheduler.get_runs("a", state="missed")
    assert [run.reason for run in runs] == ["5 min late; mistrigger_grace_time is 150 s"]
