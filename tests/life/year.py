"""A year in the life of 200 tasks: each occurrence has one record that says what became of it.

Whatever happens to them: failures, attempts, long runs, pauses, restarts, days without a worker,
clocks that are set. In virtual time, on a store that has the protocol
and no disk. One number says what happens, so that a year can be had again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from asyncz import History, NativeAsyncIOScheduler, Retry, RetryAfter, Skip
from asyncz.runs.base import RunQuery
from asyncz.stores.base import BaseStore, StoreHost
from asyncz.testing import VirtualClock
from asyncz.triggers import (
    BaseTrigger,
    CalendarIntervalTrigger,
    CronTrigger,
    IntervalTrigger,
    OrTrigger,
)
from tests.stores.model_store import ModelStore

__all__ = ["Year"]

START = datetime(2026, 1, 1, tzinfo=UTC)
TASKS = 200
OFTEN = 6
"""Of the tasks, those that are due every few minutes for a part of the year."""
DAYS = 365
FOR_EVER = History(count=1_000_000, age=timedelta(days=3_650))


class KeptStore(ModelStore):
    """One that outlives its schedulers, as a database does, and forgets none of their runs."""

    async def start(self, scheduler: StoreHost, alias: str) -> None:
        if self.alias is not None:
            await BaseStore.start(self, scheduler, alias)
            return
        await super().start(scheduler, alias)
        self._runs._settled = deque()

    async def shutdown(self) -> None:
        await BaseStore.shutdown(self)

    async def prune_runs(self, *_: Any, **__: Any) -> int:
        return 0  # without looking at all there are


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
        # By one question: this store looks at all of them for each.
        self.runs = await self.store.get_runs(RunQuery(limit=10_000_000))
        await scheduler.shutdown()

    def _worker(self) -> NativeAsyncIOScheduler:
        return NativeAsyncIOScheduler(
            clock=self.clock, timezone="UTC", stores={"default": self.store}, history=FOR_EVER,
            shutdown_timeout=5,
        )  # fmt: skip

    async def _add(self, scheduler: NativeAsyncIOScheduler, task_id: str) -> None:
        rng = self.rng
        trigger = self._often() if len(self.triggers) < OFTEN else self._now_and_then()
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
            delivery=rng.choice(["at_least_once", "at_most_once"]),
        )  # fmt: skip

    def _often(self) -> BaseTrigger:
        """Every few minutes, for a day and a half."""
        rng = self.rng
        begin = START + timedelta(days=rng.uniform(0, max(1, DAYS - 40)))
        return IntervalTrigger(
            minutes=rng.uniform(3, 15), start_at=begin, end_at=begin + timedelta(days=1.5),
            timezone="UTC",
        )  # fmt: skip

    def _now_and_then(self) -> BaseTrigger:
        rng = self.rng
        hour, minute = rng.randrange(24), rng.randrange(60)
        kind = rng.choice(["interval", "interval", "cron", "cron", "calendar", "or"])
        if kind == "interval":
            seconds = rng.uniform(2 * 86_400, 60 * 86_400)
            return IntervalTrigger(seconds=seconds, start_at=START, timezone="UTC")
        if kind == "calendar":
            return CalendarIntervalTrigger(
                days=rng.randint(2, 20), hour=hour, minute=minute, start_at=START.date(),
                timezone=rng.choice(["UTC", "Europe/Berlin", "America/New_York"]),
            )  # fmt: skip
        week = rng.choice(["sun", "wed", "tue,sat"])
        weekly = CronTrigger(hour=hour, minute=minute, day_of_week=week, timezone="UTC")
        if kind == "cron":
            return weekly
        return OrTrigger([weekly, CronTrigger(day=rng.randint(1, 28), hour=9, timezone="UTC")])

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
        elif chance < 0.95:
            for run in await scheduler.aget_runs(state="retrying", limit=3):
                await scheduler.acancel_run(run.id)
        return scheduler

    async def _pause_or_resume(self, scheduler: NativeAsyncIOScheduler, task_id: str) -> None:
        # What is due at this very instant, or before it, belongs to the task as it was, and is not
        # asked for: to be dropped once a change of a schedule says what became of that.
        await self.clock.advance()
        task = await scheduler.aget_task(task_id)
        if task is None:
            return  # its last run time is over
        now = self.clock.now()
        if task.next_run_time is not None:
            owed_from = task.next_run_time
            await scheduler.apause_task(task_id)
            self.pauses[task_id].append((min(owed_from, now), datetime.max.replace(tzinfo=UTC)))
        else:
            begin, _ = self.pauses[task_id].pop()
            await scheduler.aresume_task(task_id)
            resumed = await scheduler.aget_task(task_id)
            end = resumed.next_run_time if resumed is not None else None
            self.pauses[task_id].append((begin, end or datetime.max.replace(tzinfo=UTC)))

    async def _resume_all(self, scheduler: NativeAsyncIOScheduler) -> None:
        for task_id in self.triggers:
            task = await scheduler.aget_task(task_id)
            if task is not None and task.next_run_time is None:
                await self._pause_or_resume(scheduler, task_id)

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
            # In UTC: a microsecond before a clock leaps, it shows a time that does not exist.
            first = run.scheduled_time.astimezone(UTC) - timedelta(microseconds=1)
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
