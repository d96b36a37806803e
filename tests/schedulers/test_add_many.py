"""Adding several tasks at once: all of them, or none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from asyncz import AsyncIOScheduler, DateTrigger, FileStore, NativeAsyncIOScheduler, Task
from asyncz.events.base import SchedulerEvent
from asyncz.events.constants import TASK_ADDED
from asyncz.exceptions import ConflictIdError, TaskOptionError
from asyncz.testing import VirtualClock

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def job() -> None:
    pass


def made(*ids: str, **options: Any) -> list[Task]:
    return [Task(job, id=task_id, trigger=DateTrigger(NOON), **options) for task_id in ids]


def ids_in(scheduler: NativeAsyncIOScheduler | AsyncIOScheduler) -> list[str | None]:
    return [task.id for task in scheduler.get_tasks()]


async def test_tasks_added_at_once_run(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    events: list[SchedulerEvent] = []
    scheduler.add_listener(events.append, TASK_ADDED)

    added = scheduler.add_tasks(made("a", "b", "c"))

    assert [task.pending for task in added] == [False] * 3
    assert [getattr(event, "task_id", None) for event in events] == ["a", "b", "c"]
    assert [run.task_id for run in await clock.advance(hours=13)] == ["a", "b", "c"]


async def test_before_the_start_they_are_noted_down() -> None:
    scheduler = NativeAsyncIOScheduler(timezone="UTC", clock=VirtualClock())
    scheduler.add_tasks(made("a", "b"))
    assert ids_in(scheduler) == ["a", "b"]
    async with scheduler:
        assert ids_in(scheduler) == ["a", "b"]


@pytest.mark.parametrize("running", [True, False])
async def test_a_conflict_keeps_all_out_and_leaves_them_as_they_were(running: bool) -> None:
    scheduler = NativeAsyncIOScheduler(timezone="UTC", clock=VirtualClock())
    if running:
        await scheduler.start()
    scheduler.add_tasks(made("b"))
    tasks = made("a", "b", "c")
    before = [dict(task.__dict__) for task in tasks]

    with pytest.raises(ConflictIdError, match="'b'"):
        scheduler.add_tasks(tasks)

    assert ids_in(scheduler) == ["b"]
    assert [dict(task.__dict__) for task in tasks] == before
    scheduler.add_tasks([tasks[0], tasks[2]])
    assert sorted(map(str, ids_in(scheduler))) == ["a", "b", "c"]
    if running:
        await scheduler.shutdown()


@pytest.mark.parametrize(
    ("tasks", "text"),
    [
        ([*made("a"), "b"], "Task objects"),
        ([*made("a"), Task(trigger=DateTrigger(NOON))], "decorator"),
        ([*made("a", store_alias="x"), *made("b")], "several stores"),
        (made("a") * 2, "twice"),
        (made("a", executor="nowhere"), "nowhere"),
    ],
)
async def test_bad_input_is_refused_and_adds_nothing(
    scheduler: NativeAsyncIOScheduler, tasks: list[Task], text: str
) -> None:
    with pytest.raises((TaskOptionError, LookupError), match=text):
        scheduler.add_tasks(tasks)
    assert scheduler.get_tasks() == []


async def test_a_task_that_was_added_cannot_be_added_again(
    scheduler: NativeAsyncIOScheduler,
) -> None:
    added = scheduler.add_tasks(made("a"))
    with pytest.raises(TaskOptionError, match="added already"):
        scheduler.add_tasks(added)


async def test_a_persistent_store_takes_them_too(tmp_path: Path) -> None:
    stores = {"default": FileStore(tmp_path / "tasks")}
    async with NativeAsyncIOScheduler(timezone="UTC", stores=stores) as scheduler:
        later = datetime.now(UTC) + timedelta(hours=1)
        tasks = [Task(job, id=name, trigger=DateTrigger(later)) for name in "ab"]
        await scheduler.aadd_tasks(tasks)
        assert [task.id for task in await scheduler.aget_tasks()] == ["a", "b"]
