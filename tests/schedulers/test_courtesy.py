"""Schedulers on one store leave what is due to the one that sees to it already."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, timedelta
from itertools import pairwise
from pathlib import Path

from asyncz import NativeAsyncIOScheduler, current_run
from asyncz.schedulers.courtesy import FIRST, LONGEST, MANY, Courtesy
from asyncz.schedulers.lane import StoreLane
from asyncz.stores.sqlalchemy import SQLAlchemyStore

RUNS: Counter[str] = Counter()


async def tick() -> None:
    """The callable of the task."""
    run = current_run()
    RUNS[run.id] += 1


def lane_of(scheduler: NativeAsyncIOScheduler) -> StoreLane:
    return scheduler._engine.lanes["default"]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def test_who_comes_in_vain_waits_longer_each_time_up_to_a_limit() -> None:
    courtesy = Courtesy()
    courtesy.meet(others=True)
    pauses = []
    for _ in range(5):
        courtesy.came_in_vain()
        pauses.append(courtesy.pause)
    assert pauses == [FIRST, 2 * FIRST, LONGEST, LONGEST, LONGEST]


def test_who_is_needed_waits_less_and_after_many_tasks_not_at_all() -> None:
    courtesy = Courtesy()
    courtesy.meet(others=True)
    for _ in range(3):
        courtesy.came_in_vain()
    courtesy.was_needed(1)
    assert courtesy.pause == LONGEST / 2
    for _ in range(4):
        courtesy.was_needed(1)
    assert courtesy.pause == 0
    courtesy.came_in_vain()
    courtesy.was_needed(MANY)
    assert courtesy.pause == 0


def test_what_is_known_here_first_is_not_waited_for() -> None:
    courtesy = Courtesy()
    courtesy.meet(others=True)
    courtesy.came_in_vain()
    courtesy.is_asked()
    assert courtesy.pause == 0


def test_who_is_alone_never_waits() -> None:
    courtesy = Courtesy()
    courtesy.came_in_vain()
    assert courtesy.pause == 0
    courtesy.meet(others=True)
    courtesy.came_in_vain()
    courtesy.meet(others=False)
    assert courtesy.pause == 0


async def test_one_sees_to_what_is_due_and_when_it_goes_another_does(tmp_path: Path) -> None:
    RUNS.clear()

    def scheduler() -> NativeAsyncIOScheduler:
        database = f"sqlite:///{tmp_path / 'tasks.db'}"
        store = SQLAlchemyStore(database=database, allowed_callables=("*:tick",))
        return NativeAsyncIOScheduler(stores={"default": store}, timezone=UTC, lease=1.5)

    async with AsyncExitStack() as stack:
        first = scheduler()
        await first.start()
        other = await stack.enter_async_context(scheduler())
        await other.aadd_task(
            tick, "interval", seconds=0.1, id="tick", coalesce=False, max_instances=9
        )
        pauses = [lane_of(each)._courtesy for each in (first, other)]
        await until(lambda: max(each.pause for each in pauses) == LONGEST)
        await first.shutdown()
        runs = len(RUNS)
        await until(lambda: len(RUNS) >= runs + 10)
        await until(lambda: not pauses[1].pause)
        await other.apause_task("tick")
        found = await other.aget_runs("tick", limit=1_000)
    assert set(RUNS.values()) == {1}
    times = sorted(run.scheduled_time for run in found)
    assert all(later - sooner == timedelta(milliseconds=100) for sooner, later in pairwise(times))
