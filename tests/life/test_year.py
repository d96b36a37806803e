"""A year in the life of 200 tasks: each occurrence has one record that says what became of it.

Whatever happens to them: failures, attempts, long runs, pauses, restarts, days without a worker,
clocks that are set. In virtual time, on a store that has the protocol and no disk.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from asyncz import History, NativeAsyncIOScheduler, Retry, RetryAfter, RunState, Skip
from asyncz.schedulers.pruning import Pruner
from asyncz.stores.base import BaseStore, StoreHost
from asyncz.testing import VirtualClock
from asyncz.triggers import BaseTrigger, CronTrigger, IntervalTrigger
from tests.stores import model_runs
from tests.stores.model_store import ModelStore

START = datetime(2026, 1, 1, tzinfo=UTC)
TASKS = 200
DAYS = 365
YEARS = 3 if os.environ.get("ASYNCZ_NIGHTLY") == "1" else 1
FOR_EVER = History(count=1_000_000, age=timedelta(days=3_650))


class KeptStore(ModelStore):
    """One that outlives its schedulers, as a database does."""

    async def start(self, scheduler: StoreHost, alias: str) -> None:
        if self.alias is None:
            await super().start(scheduler, alias)
        else:
            await BaseStore.start(self, scheduler, alias)

    async def shutdown(self) -> None:
        await BaseStore.shutdown(self)


class Year:
    """One year, made up of one number.

    Args:
        number: What everything that is left to chance comes from.
    """

    def __init__(self, number: int) -> None:
        self.rng = Random(number)
        self.clock = VirtualClock(START)
        self.store = KeptStore()
        self.triggers: dict[str, BaseTrigger] = {}
        self.begins: dict[str, datetime] = {}
        self.pauses: dict[str, list[tuple[datetime, datetime]]] = {}
        self.restarts = 0

    # What happens.

    async def pass_by(self) -> None:
        scheduler = self._worker()
        await scheduler.start()
        for number in range(TASKS):
            await self._add(scheduler, f"task-{number}")
        day = 0.0
        while day < DAYS:
            step = self.rng.uniform(1, 12)
            day += step
            await self.clock.advance(days=step)
            scheduler = await self._something_happens(scheduler)
        await self._resume_all(scheduler)
        self.end = self.clock.now()
        await self.clock.advance(days=2)  # what was put off comes to its end
        await self._read_all(scheduler)
        await scheduler.shutdown()

    def _worker(self) -> NativeAsyncIOScheduler:
        return NativeAsyncIOScheduler(
            clock=self.clock, timezone="UTC", stores={"default": self.store}, history=FOR_EVER,
            shutdown_timeout=5,
        )  # fmt: skip

    async def _add(self, scheduler: NativeAsyncIOScheduler, task_id: str) -> None:
        rng = self.rng
        trigger: BaseTrigger
        if rng.random() < 0.5:
            trigger = IntervalTrigger(
                seconds=rng.uniform(2 * 86_400, 60 * 86_400), start_at=START, timezone="UTC"
            )
        else:
            hour, minute = rng.randrange(24), rng.randrange(60)
            week = rng.choice(["sun", "wed", "tue,sat"])
            trigger = CronTrigger(hour=hour, minute=minute, day_of_week=week, timezone="UTC")
        policy = Retry(attempts=rng.randint(1, 4), wait=rng.uniform(1, 40_000))
        self.triggers[task_id] = trigger
        self.begins[task_id] = self.clock.now()
        self.pauses[task_id] = []
        await scheduler.aadd_task(
            self._work, trigger, args=[task_id], id=task_id,
            coalesce=rng.random() < 0.5, max_instances=rng.randint(1, 2),
            mistrigger_grace_time=rng.choice([None, 60.0, 7_200.0]),
            retry=policy if rng.random() < 0.5 else None,
            timeout=rng.choice([None, None, 3_600.0]),
        )  # fmt: skip

    async def _work(self, task_id: str) -> None:
        chance = self.rng.random()
        if chance < 0.05:
            await self.clock.sleep(self.rng.uniform(1, 30_000))
        if chance > 0.85:
            raise ValueError("on purpose")
        if chance > 0.82:
            raise Skip("nothing to do")
        if chance > 0.80:
            raise RetryAfter(self.rng.uniform(1, 5_000))

    async def _something_happens(self, scheduler: NativeAsyncIOScheduler) -> NativeAsyncIOScheduler:
        rng = self.rng
        chance = rng.random()
        if chance < 0.4:
            for task_id in rng.sample(list(self.triggers), 5):
                await self._pause_or_resume(scheduler, task_id)
        elif chance < 0.6:
            await scheduler.shutdown(wait=rng.random() < 0.5)
            await self.clock.advance(days=rng.choice([0.0, 0.01, 12.0]))
            scheduler = self._worker()
            await scheduler.start()
            self.restarts += 1
        elif chance < 0.75:
            self.clock.jump(hours=rng.uniform(-30, 30))
        elif chance < 0.85:
            for run in await scheduler.aget_runs(state="retrying", limit=3):
                await scheduler.acancel_run(run.id)
        return scheduler

    async def _pause_or_resume(self, scheduler: NativeAsyncIOScheduler, task_id: str) -> None:
        task = await scheduler.aget_task(task_id)
        assert task is not None
        # What is due at this very instant belongs to the task as it was.
        await self.clock.advance()
        now = self.clock.now()
        if task.next_run_time is not None:
            owed_from = task.next_run_time
            await scheduler.apause_task(task_id)
            self.pauses[task_id].append((min(owed_from, now), datetime.max.replace(tzinfo=UTC)))
        else:
            begin, _ = self.pauses[task_id].pop()
            await scheduler.aresume_task(task_id)
            resumed = await scheduler.aget_task(task_id)
            assert resumed is not None
            assert resumed.next_run_time is not None
            self.pauses[task_id].append((begin, resumed.next_run_time))

    async def _resume_all(self, scheduler: NativeAsyncIOScheduler) -> None:
        for task_id in self.triggers:
            task = await scheduler.aget_task(task_id)
            assert task is not None
            if task.next_run_time is None:
                await self._pause_or_resume(scheduler, task_id)

    async def _read_all(self, scheduler: NativeAsyncIOScheduler) -> None:
        self.runs = []
        for task_id in self.triggers:
            self.runs += await scheduler.aget_runs(task_id, limit=10_000)

    # What is to be found afterwards.

    def owed(self, task_id: str) -> set[datetime]:
        """The instants of a task in the year, those of its pauses left out."""
        begin, pauses = self.begins[task_id], self.pauses[task_id]
        return {
            moment
            for moment in self._instants(task_id, begin, self.end)
            if not any(start <= moment < end for start, end in pauses)
        }

    def _instants(self, task_id: str, begin: datetime, end: datetime) -> Iterator[datetime]:
        trigger = self.triggers[task_id]
        moment = trigger.get_next_trigger_time(UTC, None, begin)
        while moment is not None and moment <= end:
            yield moment.astimezone(UTC)
            moment = trigger.get_next_trigger_time(UTC, moment, moment)

    def problems(self) -> Iterator[str]:
        """What is not as it should be."""
        told: dict[str, Counter[datetime]] = {task_id: Counter() for task_id in self.triggers}
        for run in self.runs:
            last = run.last_scheduled_time or run.scheduled_time
            first = run.scheduled_time - timedelta(microseconds=1)
            covered = list(self._instants(run.task_id, first, last))
            if len(covered) != run.occurrences:
                yield f"{run.id} stands for {run.occurrences}, and there are {len(covered)}"
            if run.state.is_open and run.scheduled_time <= self.end:
                yield f"{run.id} is {run.state} still"
            told[run.task_id].update(covered)
        for task_id, counts in told.items():
            owed = self.owed(task_id)
            yield from (f"{task_id}: nothing is known of {at}" for at in sorted(owed - set(counts)))
            yield from (
                f"{task_id}: there are {count} records of {at}"
                for at, count in counts.items()
                if count > 1
            )


@pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")
def test_no_occurrence_is_unaccounted_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hypothesis says which number the year was made of if it fails."""
    monkeypatch.setattr(model_runs, "KEPT_RUNS", None)
    # All are kept, and the model would look through all of them each time.
    monkeypatch.setattr(Pruner, "note", lambda *_: None)

    @seed(20260101)
    @settings(max_examples=YEARS, deadline=None, database=None)
    @given(number=st.integers(0, 2**32))
    def a_year(number: int) -> None:
        year = Year(number)
        asyncio.run(year.pass_by())
        problems = list(year.problems())
        assert not problems, f"year {number}: {len(problems)} problems: {problems[:5]}"
        states = Counter(run.state for run in year.runs)
        wanted: set[Any] = {RunState.SUCCEEDED, RunState.FAILED, RunState.SKIPPED}
        assert states.keys() >= wanted | {RunState.COALESCED, RunState.MISSED}, states
        assert year.restarts > 0

    a_year()
