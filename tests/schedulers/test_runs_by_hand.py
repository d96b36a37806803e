"""What a run by hand leaves behind in the records."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from asyncz import NativeAsyncIOScheduler
from asyncz.enums import RunKind, RunState
from asyncz.runs.base import Run
from asyncz.testing import VirtualClock

START = datetime(2026, 1, 1, tzinfo=UTC)


async def job() -> None:
    """Does nothing."""


async def runs_of_what_was_due(clock: VirtualClock, **options: Any) -> list[Run]:
    """What is recorded after a run by hand, 35 s after a task of every 10 s was paused in."""
    scheduler = NativeAsyncIOScheduler(clock=clock, timezone="UTC", shutdown_timeout=5)
    await scheduler.start(paused=True)
    scheduler.add_task(job, "interval", seconds=10, start_at=START, id="a", **options)
    await clock.advance(35)
    await scheduler.arun_task("a")
    await clock.advance(0)
    runs = await scheduler.aget_runs("a")
    await scheduler.shutdown()
    return runs


async def test_occurrences_that_are_folded_into_it_are_recorded(clock: VirtualClock) -> None:
    made, folded = await runs_of_what_was_due(clock)
    assert (made.kind, made.state) == (RunKind.MANUAL, RunState.SUCCEEDED)
    assert made.scheduled_time == START + timedelta(seconds=30)
    assert (folded.state, folded.occurrences) == (RunState.COALESCED, 3)
    assert folded.last_scheduled_time == START + timedelta(seconds=20)


async def test_occurrences_that_are_too_late_for_it_are_recorded(clock: VirtualClock) -> None:
    runs = await runs_of_what_was_due(clock, mistrigger_grace_time=1.0)
    assert [(run.kind, run.state, run.occurrences) for run in runs] == [
        (RunKind.MANUAL, RunState.SUCCEEDED, 1),
        (RunKind.SCHEDULED, RunState.MISSED, 4),
    ]
