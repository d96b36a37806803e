"""The scheduler as its stores and executors know it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, tzinfo
from logging import Logger

from asyncz.clock import Clock
from asyncz.events.base import SchedulerEvent
from asyncz.executors.base import BaseExecutor, Outcome
from asyncz.runs.current import CurrentRun
from asyncz.schedulers.attempts import judge
from asyncz.schedulers.engine import DEFAULT, Engine
from asyncz.schedulers.quarantine import report_soon
from asyncz.schedulers.reactions import react
from asyncz.stores.base import BaseStore, QuarantineNews
from asyncz.tasks.base import Task
from asyncz.triggers.base import BaseTrigger

__all__ = ["SchedulerHost"]

FIRST = (1, 1)


class SchedulerHost:
    """What `StoreHost` and `ExecutorHost` ask for, from the engine."""

    _engine: Engine

    @property
    def clock(self) -> Clock:
        """Where the time comes from."""
        return self._engine.clock

    @property
    def timezone(self) -> tzinfo:
        """The zone of triggers that name none."""
        return self._engine.timezone

    @property
    def identity(self) -> str:
        """The name of this scheduler, unique unless one was given."""
        return self._engine.identity

    @property
    def loggers(self) -> Mapping[str, Logger]:
        """Loggers by name."""
        return self._engine.loggers

    @property
    def started_at(self) -> datetime | None:
        """When it started; None while it is stopped."""
        return self._engine.started_at

    @property
    def stores(self) -> Mapping[str, BaseStore]:
        """The stores by alias."""
        return self._engine.stores

    @property
    def executors(self) -> Mapping[str, BaseExecutor]:
        """The executors by alias."""
        return self._engine.executors

    @property
    def instances(self) -> dict[tuple[str | None, str], int]:
        """How many runs are going on, by store alias and task id."""
        return self._engine.instances

    @property
    def engine_loop(self) -> asyncio.AbstractEventLoop:
        """The loop that stores are used and events are raised on."""
        return self._engine.loop

    @property
    def is_resting(self) -> bool:
        """Whether no pass over a store is going on, nor anything else beside the runs."""
        return self._engine.is_resting

    @property
    def going(self) -> list[object]:
        """The asyncio tasks and futures of the runs that go on."""
        return [run for executor in self._engine.executors.values() for run in executor.going]

    @property
    def task_loop(self) -> asyncio.AbstractEventLoop:
        """The loop that coroutine functions run on."""
        return self._engine.task_loop

    @property
    def shutdown_timeout(self) -> float:
        """Seconds that a shutdown may take."""
        return self._engine.settings.shutdown_timeout

    @property
    def trigger_types(self) -> Mapping[str, type[BaseTrigger]]:
        """The trigger classes by alias, plugins included."""
        return self._engine.plugins.trigger_types

    def run_succeeded(self, store: str | None, task_id: str, run_time: datetime) -> None:
        """Take note that the run of one instant ended well."""
        lane = self._engine.lanes.get(store)  # type: ignore[arg-type]  # None is none of them
        if lane is not None:
            lane.ledger.run_succeeded(task_id, run_time)
            if self._engine.waiting_for_runs:
                self._engine.a_run_has_ended()

    def run_ended(self, store: str | None, task_id: str, outcomes: Sequence[Outcome]) -> None:
        """Take note of how a run ended."""
        for ledger in self._engine.ledgers_of(store):
            ledger.run_ended(task_id, outcomes)
        self._engine.a_run_has_ended()

    def unknown_run_ended(self, store: str | None, task_id: str, code: int) -> None:
        """Take note that a run of that task ended."""
        for ledger in self._engine.ledgers_of(store):
            ledger.unknown_run_ended(task_id, code)

    def judge(self, task: Task, head: datetime, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """The same outcomes, but those failures that are to be tried again are `TASK_RETRYING`."""
        return judge(self._engine, task, head, outcomes)

    def react(self, task: Task, head: datetime, outcomes: Sequence[Outcome]) -> None:
        """Call what the task wants to have called after such outcomes."""
        react(self._engine, task, head, outcomes)

    def numbers_of(self, task: Task, head: datetime) -> tuple[int, int]:
        """Which attempt at an occurrence it is that goes on, counted from 1, and its fence."""
        lane = self._engine.lanes.get(task.store_alias)  # type: ignore[arg-type]  # None is none
        return FIRST if lane is None else lane.ledger.numbers_of(str(task.id), head)

    def run_says(self, task: Task, head: datetime, run: CurrentRun) -> None:
        """Take note that a run has said something of itself. From any thread."""
        for ledger in self._engine.ledgers_of(task.store_alias):
            ledger.run_says(str(task.id), head, run)

    def dispatch_event(self, event: SchedulerEvent) -> None:
        """Give an event to the listeners that want it."""
        self._engine.dispatch(event)

    def quarantine_changed(self, store: str, news: Sequence[QuarantineNews]) -> None:
        """Log and report which records of a store cannot be read, or can be again."""
        report_soon(self._engine, store, news)

    def seconds_behind(self, store: str | None) -> float:
        """By how many seconds the machine's clock is behind that of a store that is shared."""
        engine = self._engine
        lane = engine.lanes.get(store or DEFAULT)
        if lane is None or not lane.ledger.is_shared:
            return 0.0
        return (lane.now() - engine.clock.now()).total_seconds()

    def wants_event(self, code: int) -> bool:
        """Whether any listener wants events of this code; if not, they need not be built."""
        return bool(self._engine.events.mask & code)
