"""Several schedulers that hand over one long backlog."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from asyncz import NativeAsyncIOScheduler, Task
from asyncz.schedulers import handover
from asyncz.stores.sqlalchemy import SQLAlchemyStore
from asyncz.triggers import DateTrigger

MANY = 1_500
RUNS: Counter[int] = Counter()


async def count(number: int) -> None:
    """The callable of the tasks."""
    RUNS[number] += 1


async def test_they_choose_different_pages_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    RUNS.clear()
    monkeypatch.setattr(handover, "RIVALS", 0)
    monkeypatch.setattr(SQLAlchemyStore, "due_page", 16)
    chosen: list[int] = []

    class Watched(SQLAlchemyStore):
        async def get_due_tasks_behind(self, now, skip, limit, exclude=frozenset()):  # type: ignore[no-untyped-def]
            chosen.append(skip)
            return await super().get_due_tasks_behind(now, skip, limit, exclude)

    def scheduler() -> NativeAsyncIOScheduler:
        database = f"sqlite:///{tmp_path / 'tasks.db'}"
        store = Watched(database=database, allowed_callables=("*:count",))
        return NativeAsyncIOScheduler(stores={"default": store}, timezone=UTC)

    async with AsyncExitStack() as stack:
        started = [await stack.enter_async_context(scheduler()) for _ in range(3)]
        due = datetime.now(UTC) + timedelta(seconds=1)
        await started[0].aadd_tasks(
            [Task(count, args=[n], id=f"t{n}", trigger=DateTrigger(due)) for n in range(MANY)]
        )
        async with asyncio.timeout(60):
            while len(RUNS) < MANY:
                await asyncio.sleep(0.05)
        assert await started[0].aget_task_infos() == []
    assert set(RUNS.values()) == {1}
    assert chosen
    assert all(skip % 16 == 0 and 0 < skip < 16 * handover.PLACES for skip in chosen)
