"""Tasks that belong together are changed together."""

from __future__ import annotations

import pytest

from asyncz import NativeAsyncIOScheduler
from asyncz.exceptions import TaskOptionError
from asyncz.testing import VirtualClock

from . import jobs
from .test_attempts import after


@pytest.fixture(autouse=True)
async def some_tasks(scheduler: NativeAsyncIOScheduler) -> None:
    tags = {"a": ["red", "blue"], "b": "red", "c": ["blue"], "d": None}
    for task_id, of_it in tags.items():
        await scheduler.aadd_task(
            jobs.takes, "date", run_at=after(3_600), args=[1], id=task_id, tags=of_it
        )


async def test_they_are_found(scheduler: NativeAsyncIOScheduler) -> None:
    assert {task.id for task in await scheduler.aget_tasks(tag="red")} == {"a", "b"}
    infos = await scheduler.aget_task_infos(tag="blue", sort_by="id", descending=True)
    assert [(info.id, info.tags) for info in infos] == [("c", ("blue",)), ("a", ("blue", "red"))]
    page = await scheduler.aget_task_page(tag="red", limit=1, sort_by="id")
    assert ([info.id for info in page.tasks], page.total) == (["a"], 2)
    assert await scheduler.aget_tasks(tag="green") == []


async def test_they_are_paused_resumed_run_and_deleted(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    def ids(tasks: list[object]) -> set[str]:
        return {str(task.id) for task in tasks}  # type: ignore[attr-defined]

    paused = await scheduler.apause_tasks("red")
    assert {str(task.id) for task in paused} == {"a", "b"}
    assert all(task.paused for task in await scheduler.aget_tasks(tag="red"))
    resumed = await scheduler.aresume_tasks("red")
    assert {str(task.id) for task in resumed} == {"a", "b"}
    started = await scheduler.arun_tasks("blue")
    assert {str(task.id) for task in started} == {"a", "c"}
    await clock.advance(seconds=2)
    assert {run.task_id for run in await scheduler.aget_runs()} == {"a", "c"}
    deleted = await scheduler.adelete_tasks("red")
    assert {str(task.id) for task in deleted} == {"b"}  # the others were one-offs
    assert {str(task.id) for task in await scheduler.aget_tasks()} == {"d"}
    assert await scheduler.apause_tasks("red") == []


async def test_what_goes_on_already_is_passed_over(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    await scheduler.aadd_task(jobs.takes, "interval", hours=1, args=[60], id="e", tags=["blue"])
    await scheduler.arun_task("e")
    await clock.advance(seconds=1)
    started = await scheduler.arun_tasks("blue")
    assert {str(task.id) for task in started} == {"a", "c"}
    await clock.advance(seconds=60)


async def test_bad_tags_are_refused(scheduler: NativeAsyncIOScheduler) -> None:
    for bad in ([""], [1], "x" * 101):
        with pytest.raises(TaskOptionError, match="tags"):
            await scheduler.aadd_task(jobs.takes, args=[1], id="x", tags=bad)  # type: ignore[arg-type]
    assert len(await scheduler.aget_tasks()) == 4
