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


def a_scheduler(store: BaseStore, clock: VirtualClock, max_catchup: int) -> NativeAsyncIOScheduler:
    return NativeAsyncIOScheduler(
        clock=clock, timezone="UTC", stores={"default": store}, max_catchup=max_catchup
    )


@pytest.mark.parametrize("max_catchup", sorted({line.max_catchup for line in lines()}))
async def test_after_a_day(make_store: MakeStore, clock: VirtualClock, max_catchup: int) -> None:
    tasks = {str(line): line for line in lines() if line.max_catchup == max_catchup}
    first = a_scheduler(make_store(), clock, max_catchup)
    async with first:
        await clock.advance(minutes=30)
        for task_id, line in tasks.items():
            await first.aadd_task(jobs.fails, args=[0], id=task_id, **options_of(line))
        if first.stores["default"].in_process:  # its tasks would not outlive it
            first.pause()
            await clock.advance(days=1)
            first.resume()
            await clock.advance(seconds=1)
            await all_is_as_written(first, tasks)
            return
    await clock.advance(days=1)
    async with a_scheduler(make_store(), clock, max_catchup) as second:
        await clock.advance(seconds=1)
        await all_is_as_written(second, tasks)


def options_of(line: Line) -> dict[str, Any]:
    schedule = {
        "hourly": {"trigger": "interval", "hours": 1, "start_at": START + timedelta(hours=1)},
        "one-off": {"trigger": "date", "run_at": START + timedelta(hours=12)},
    }[line.kind]
    return {"coalesce": line.coalesce, "mistrigger_grace_time": line.grace, **schedule}


async def all_is_as_written(scheduler: NativeAsyncIOScheduler, tasks: dict[str, Line]) -> None:
    """What there is a record of is what each line says, and nothing is left out."""
    for task_id, line in tasks.items():
        counts = dict.fromkeys(RunState, 0)
        for run in await scheduler.aget_runs(task_id):
            counts[run.state] += run.occurrences
        expected = {
            RunState.SUCCEEDED: line.run,
            RunState.COALESCED: line.folded,
            RunState.MISSED: line.missed,
        }
        found = {state: count for state, count in counts.items() if count}
        assert found == {state: count for state, count in expected.items() if count}, line
        assert jobs.ATTEMPTS[task_id] == line.run
