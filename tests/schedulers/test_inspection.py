"""Lists of snapshots: filtered, sorted and printed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from asyncz import (
    AsyncIOScheduler,
    CronTrigger,
    IntervalTrigger,
    NativeAsyncIOScheduler,
    Task,
    TaskInfo,
    TaskScheduleState,
)
from asyncz.schedulers.inspection import format_tasks
from asyncz.tasks.query import SORTERS, TaskQuery
from asyncz.testing import VirtualClock

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def info(id: str, hours: float | None = 0, **options: Any) -> TaskInfo:
    due = NOON + timedelta(hours=hours) if hours is not None else None
    found: dict[str, Any] = {
        "trigger": IntervalTrigger(hours=1, timezone="UTC"),
        "executor": "default",
        "store_alias": "default",
        "pending": False,
        **options,
    }
    return Task(print, id=id, next_run_time=due, **found).snapshot()


INFOS = [
    info("b", 2, name="Reports", executor="threads"),
    info("a", 1, name="Mail", trigger=CronTrigger(hour=3, timezone="UTC")),
    info("d", None, name="alpha", store_alias="jobs"),
    info("c", 3, name="zeta", pending=True),
]


def query(
    *,
    schedule_state: TaskScheduleState | str | None = None,
    executor: str | None = None,
    trigger: str | None = None,
    q: str | None = None,
    sort_by: str = "id",
    descending: bool = False,
) -> str:
    """The ids of what is found, in order."""
    wanted = TaskQuery(schedule_state, executor, trigger, q, sort_by, descending)
    return "".join(str(found.id) for found in wanted.select(INFOS).infos)


@pytest.mark.parametrize(
    ("sort_by", "expected"),
    [
        ("id", "abcd"),
        ("name", "dabc"),
        ("next_run_time", "abcd"),
        ("schedule_state", "dcab"),
        ("executor", "acdb"),
        ("store", "abcd"),
        ("trigger", "abcd"),
    ],
)
def test_snapshots_are_sorted_by_any_of_the_orders(sort_by: str, expected: str) -> None:
    assert query(sort_by=sort_by) == expected
    assert query(sort_by=sort_by, descending=True) == expected[::-1]


def test_every_order_is_tested_above() -> None:
    assert len(SORTERS) == 7


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, "abcd"),
        ({"schedule_state": "scheduled"}, "ab"),
        ({"schedule_state": TaskScheduleState.PAUSED}, "d"),
        ({"schedule_state": " Pending "}, "c"),
        ({"schedule_state": "quarantined"}, ""),
        ({"executor": "threads"}, "b"),
        ({"executor": "thread"}, ""),
        ({"trigger": "cron"}, "a"),
        ({"trigger": "CRONtrigger"}, "a"),
        ({"q": "rep"}, "b"),
        ({"q": "JOBS"}, "d"),
        ({"q": "  "}, "abcd"),
        ({"q": "pending"}, "c"),
        ({"q": "builtins:print"}, "abcd"),
        ({"q": "nothing has this"}, ""),
        ({"q": "alpha", "executor": "threads"}, ""),
    ],
)
def test_snapshots_are_filtered(wanted: dict[str, Any], expected: str) -> None:
    assert query(**wanted) == expected


def test_an_unknown_order_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="sort_by must be one of id, name, next_run_time, "):
        query(sort_by="size")


def test_an_unknown_state_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="one of pending, paused, scheduled, quarantined, not 'x'"):
        query(schedule_state="x")


def test_a_list_for_people_has_each_store_with_its_tasks() -> None:
    text = format_tasks([("default", INFOS[1:3]), ("empty", [])])
    assert text.splitlines() == [
        "Store default:",
        f"    Mail (id: a, trigger: {INFOS[1].trigger_description}, "
        "next run at 2026-01-01 13:00:00+00:00)",
        f"    alpha (id: d, trigger: {INFOS[2].trigger_description}, paused)",
        "Store empty:",
        "    No tasks",
    ]


def test_a_name_cannot_move_the_cursor_of_a_terminal() -> None:
    text = format_tasks([("s", [info("a", name="\x1b[2J\nfake (id: b)")])])
    assert len(text.splitlines()) == 2
    assert "\x1b" not in text
    assert r"\x1b[2J\nfake" in text


def test_a_task_that_is_held_back_is_listed_with_its_error() -> None:
    held = INFOS[0].model_copy(
        update={"schedule_state": TaskScheduleState.QUARANTINED, "error": "no executor"}
    )
    assert "quarantined: no executor)" in format_tasks([("s", [held])])


async def test_a_scheduler_reports_on_itself(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    scheduler.add_task(print, "interval", hours=1, id="a")
    scheduler.add_task(print, "interval", hours=1, id="b", next_run_time=None)
    await clock.advance(minutes=5)
    found = scheduler.get_scheduler_info()
    assert (found.state_label, found.running, found.standby) == ("running", True, False)
    assert (found.task_count, found.scheduled_task_count, found.paused_task_count) == (2, 1, 1)
    assert (found.store_aliases, found.executor_aliases) == (("default",), ("default",))
    assert (found.uptime_seconds, found.timezone, found.degraded) == (300, "UTC", {})
    with pytest.raises(ValidationError, match="frozen"):
        found.task_count = 5


def test_a_scheduler_that_has_not_started_reports_what_is_pending(clock: VirtualClock) -> None:
    scheduler = AsyncIOScheduler(clock=clock, timezone="UTC")
    scheduler.add_task(print, "interval", hours=1, id="a")
    found = scheduler.get_scheduler_info()
    assert (found.state_label, found.running, found.uptime_seconds) == ("stopped", False, None)
    assert (found.task_count, found.pending_task_count) == (1, 1)
