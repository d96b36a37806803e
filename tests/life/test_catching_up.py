"""What becomes of the occurrences that a worker was down for: the table of the documentation."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from asyncz import NativeAsyncIOScheduler, RunState
from asyncz.stores.base import BaseStore
from asyncz.testing import VirtualClock

from . import jobs
from .places import MakeStore

PAGE = Path(__file__).parents[2] / "docs" / "runs.md"
START = datetime(2026, 1, 1, tzinfo=UTC)
LINE = re.compile(r"^\| (hourly|one-off) \| (.+) \|$", re.M)


class Line(NamedTuple):
    """A line of the table."""

    kind: str
    coalesce: bool
    grace: float | None
    max_catchup: int
    run: int
    folded: int
    missed: int


def lines() -> list[Line]:
    found = []
    for kind, rest in LINE.findall(PAGE.read_text(encoding="utf-8")):
        coalesce, grace, *numbers = (cell.strip(" `") for cell in rest.split("|"))
        seconds = None if grace == "None" else float(grace)
        found.append(Line(kind, coalesce == "True", seconds, *map(int, numbers)))
    return found


def test_there_is_a_table() -> None:
    assert len(lines()) == 16


def a_scheduler(store: BaseStore, clock: VirtualClock, line: Line) -> NativeAsyncIOScheduler:
    return NativeAsyncIOScheduler(
        clock=clock, timezone="UTC", stores={"default": store}, max_catchup=line.max_catchup
    )


@pytest.mark.parametrize("line", lines(), ids=str)
async def test_after_a_day(make_store: MakeStore, clock: VirtualClock, line: Line) -> None:
    first = a_scheduler(make_store(), clock, line)
    options: dict[str, Any] = {"coalesce": line.coalesce, "mistrigger_grace_time": line.grace}
    schedule: dict[str, Any] = {
        "hourly": {"trigger": "interval", "hours": 1, "start_at": START + timedelta(hours=1)},
        "one-off": {"trigger": "date", "run_at": START + timedelta(hours=12)},
    }[line.kind]
    async with first:
        await clock.advance(minutes=30)
        await first.aadd_task(jobs.fails, args=[0], id="a", **schedule, **options)
        if first.stores["default"].in_process:  # its tasks would not outlive it
            first.pause()
            await clock.advance(days=1)
            first.resume()
            await clock.advance(seconds=1)
            await the_same(first, line)
            return
    await clock.advance(days=1)
    async with a_scheduler(make_store(), clock, line) as second:
        await clock.advance(seconds=1)
        await the_same(second, line)


async def the_same(scheduler: NativeAsyncIOScheduler, line: Line) -> None:
    """What there is a record of is what the line says, and nothing is left out."""
    counts = dict.fromkeys(RunState, 0)
    for run in await scheduler.aget_runs("a"):
        counts[run.state] += run.occurrences
    expected = {
        RunState.SUCCEEDED: line.run,
        RunState.COALESCED: line.folded,
        RunState.MISSED: line.missed,
    }
    assert {state: count for state, count in counts.items() if count} == {
        state: count for state, count in expected.items() if count
    }
    assert jobs.ATTEMPTS["a"] == line.run
