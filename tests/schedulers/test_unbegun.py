"""Runs that are cancelled before they begin, or taken over beside one that is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from asyncz import NativeAsyncIOScheduler, RunState
from asyncz.enums import Delivery, RunKind
from asyncz.runs.base import Run
from asyncz.stores.cluster import Firing, Node, RunRef
from asyncz.stores.sqlalchemy import SQLAlchemyStore
from asyncz.tasks.base import Task

PATIENCE = 20.0
BEGUN: list[str] = []
TOLD: list[Run] = []


class Slow(SQLAlchemyStore):
    """A store that is slow to say that runs may begin, and fails to look something up."""

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self._may_start = asyncio.Event()
        self._may_start.set()
        self._fails = False

    async def start_runs(self, node_id: str, refs: Sequence[RunRef]) -> list[bool]:
        await self._may_start.wait()
        return await super().start_runs(node_id, refs)

    async def lookup_task(self, task_id: str) -> Task | None:
        if task_id == "once" and self._fails:
            self._fails = False
            raise OSError("connection lost")
        return await super().lookup_task(task_id)


def slow_store(path: Path) -> Slow:
    return Slow(database=f"sqlite+aiosqlite:///{path}/tasks.db")


async def goes_on() -> None:
    BEGUN.append("goes_on")
    await asyncio.Event().wait()


async def begins() -> None:
    BEGUN.append("begins")


async def tell(run: Run) -> None:
    TOLD.append(run)


async def until_run(scheduler: NativeAsyncIOScheduler, run_id: str, state: RunState) -> Run:
    async with asyncio.timeout(PATIENCE):
        while (run := await scheduler.aget_run(run_id)).state is not state:
            await asyncio.sleep(0.01)
    return run


async def test_a_run_that_is_cancelled_before_it_begins_does_not(tmp_path: Path) -> None:
    BEGUN.clear()
    store = slow_store(tmp_path)
    async with NativeAsyncIOScheduler(stores={"default": store}, shutdown_timeout=1) as scheduler:
        await scheduler.aadd_task(
            goes_on, "interval", hours=1, id="a", delivery=Delivery.AT_MOST_ONCE, max_instances=2
        )
        await scheduler.arun_task("a")
        store._may_start.clear()
        beginning = asyncio.create_task(scheduler.arun_task("a"))
        async with asyncio.timeout(PATIENCE):
            while not (claimed := await scheduler.aget_runs("a", state="claimed")):
                await asyncio.sleep(0.01)
        await scheduler.acancel_run(claimed[0].id, by="ann")
        store._may_start.set()
        await beginning
        run = await until_run(scheduler, claimed[0].id, RunState.CANCELLED)
        assert run.reason == "cancelled by ann"
        assert BEGUN == ["goes_on"]
        for run in await scheduler.aget_runs("a", state="running"):
            await scheduler.acancel_run(run.id)


async def test_a_look_up_that_fails_holds_up_no_run_that_is_taken_over(tmp_path: Path) -> None:
    BEGUN.clear()
    TOLD.clear()
    store = slow_store(tmp_path)
    now = datetime.now(UTC)
    async with NativeAsyncIOScheduler(stores={"default": store}) as scheduler:
        await scheduler.aadd_task(begins, "interval", hours=1, id="w")
        await scheduler.aadd_task(
            begins, "interval", hours=1, id="once", delivery="at_most_once", on_failure=tell
        )
        await store.join_node(Node("ghost", "ghost", "elsewhere", 1), 60)
        for name in ("once", "w"):
            task = await store.lookup_task(name)
            assert task is not None
            due = task.next_run_time
            firing = Firing(task, due, due, False, RunKind.SCHEDULED, (now,))
            await store.fire("ghost", f"claim {name}", [firing])
        await store.start_runs("ghost", [RunRef("once", RunKind.SCHEDULED, now, 1)])
        store._fails = True
        await store.leave_node("ghost")
        async with asyncio.timeout(PATIENCE):
            while not TOLD:
                await asyncio.sleep(0.01)
        assert not store._fails
        assert [(run.task_id, run.state) for run in TOLD] == [("once", RunState.LOST)]
        assert BEGUN == ["begins"]
