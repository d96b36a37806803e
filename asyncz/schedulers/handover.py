"""From what is due in a store to what its executors carry out: plan, claim, hand over."""

from __future__ import annotations

import asyncio
from datetime import datetime
from random import randrange
from typing import TYPE_CHECKING

from asyncz.events.base import TaskEvent
from asyncz.events.constants import TASK_REMOVED
from asyncz.executors.base import BaseExecutor
from asyncz.schedulers.accounts import why_missed
from asyncz.schedulers.collecting import PagedCollection
from asyncz.schedulers.contested import Contested
from asyncz.schedulers.ledger import Step
from asyncz.schedulers.planning import Plan, plan_task
from asyncz.schedulers.quarantine import report_quarantined, report_recovered
from asyncz.schedulers.rota import Rota
from asyncz.schedulers.starting import Start
from asyncz.schedulers.submission import report_missed, report_skipped, submit
from asyncz.stores.cluster import ClusterStore, Fired
from asyncz.stores.quarantine import reason
from asyncz.tasks.base import Task

if TYPE_CHECKING:
    from asyncz.schedulers.engine import Engine
    from asyncz.schedulers.lane import StoreLane

__all__ = ["HandOver"]

PAGE = 64
"""Tasks that are taken at a time from a store in this process. What they start lives at once, and
few enough objects do not set off the garbage collector, whose pauses are longer than ours."""
PLACES = 64
"""Pages of a backlog among which those who hand it over together choose."""
RIVALS = 8
"""Tasks of a page that somebody else has moved on, after which the next page is chosen so."""
OTHERS_TURN = 0.02
"""Seconds that others have to move on what was handed out to them, before it is asked for again."""
SLICE = 0.005
"""Seconds of work before the event loop gets its turn."""


class HandOver:
    """Takes the due tasks of one lane through plan, record and hand-over."""

    def __init__(self, engine: Engine, lane: StoreLane, rota: Rota) -> None:
        self._engine = engine
        self._lane = lane
        self._rota = rota
        self._unanswered: list[Step] = []
        self._has_rivals = False
        self._places = PLACES
        self.contested = Contested()

    @property
    def waits_for_an_answer(self) -> bool:
        """Whether a store has not said yet what became of the last page."""
        return bool(self._unanswered)

    async def drain(self, now: datetime) -> None:
        """Hand over everything that is due at `now`, page by page.

        The event loop gets its turn after each page, and sooner when planning one takes long.
        """
        engine, lane = self._engine, self._lane
        moment = engine.clock.monotonic()
        passed_over = self.contested.begin(moment) | lane.holds.held_at(moment)
        page = PAGE if lane.store.in_process else lane.store.due_page
        self._has_rivals, self._places = False, PLACES
        collection = PagedCollection()
        try:
            while engine.is_handing_out:
                async with lane.exclusive():
                    is_last = await self._take_page(now, page, passed_over)
                if is_last:
                    break
                await asyncio.sleep(0)
                if not lane.store.in_process:
                    collection.page_is_over()
        finally:
            collection.end()

    async def read_ahead(self, now: datetime, until: datetime) -> None:
        """Learn what is going to be due, up to an instant; but not of more than one page of it."""
        lane, page = self._lane, self._lane.store.due_page
        moment = self._engine.clock.monotonic()
        passed_over = self.contested.waiting_at(moment) | lane.holds.held_at(moment)
        ahead = await lane.ask(lane.store.get_due_tasks(until, page, passed_over))
        if len(ahead) >= page:
            until = ahead[-1].next_run_time or until
        self._rota.read(ahead, now, until)

    async def _take_page(self, now: datetime, page: int, passed_over: set[str]) -> bool:
        """Hand over so many tasks at most; whether there are no more."""
        if self._unanswered:
            await self._hand_over(self._unanswered, passed_over)
        due, is_all = await self._next_page(now, page, passed_over)
        if is_all and self._lane.ledger.is_shared:
            # While there is more than a page of it, nobody waits for anybody.
            due = self._rota.ours(due, now)
        while due and self._engine.is_handing_out:
            steps, planned = self._plan_page(due, now, passed_over)
            await self._hand_over(steps, passed_over)
            if due := due[planned:]:
                await asyncio.sleep(0)
        return is_all

    async def _next_page(
        self, now: datetime, page: int, passed_over: set[str]
    ) -> tuple[list[Task], bool]:
        """A page of what is due, and whether there is no more."""
        lane = self._lane
        store = lane.store
        due: list[Task] = []
        if isinstance(store, ClusterStore) and store.hands_out:
            due, is_all = await lane.ask(store.get_due_tasks_apart(now, page, passed_over))
            if due or is_all:
                return due, is_all
            await asyncio.sleep(OTHERS_TURN)
        elif self._has_rivals and isinstance(store, ClusterStore):
            due = await self._due_behind(store, now, page, passed_over)
        if due:
            return due, False
        due = await lane.ask(store.get_due_tasks(now, page, passed_over))
        return due, len(due) < page

    async def _due_behind(
        self, store: ClusterStore, now: datetime, page: int, passed_over: set[str]
    ) -> list[Task]:
        """A page from somewhere in a long backlog, where with luck nobody else is at work."""
        while skip := page * randrange(self._places):  # noqa: S311  # not a secret
            behind = store.get_due_tasks_behind(now, skip, page, passed_over)
            due: list[Task] = await self._lane.ask(behind)
            if due:
                return due
            # So long it is not, or not any more.
            self._places = skip // page
        return []

    def _plan_page(
        self, due: list[Task], now: datetime, passed_over: set[str]
    ) -> tuple[list[Step], int]:
        """The steps for tasks of a page, and how many there was time to look at."""
        engine = self._engine
        executors, timezone = engine.executors, engine.timezone
        max_catchup, time = engine.settings.max_catchup, engine.loop.time
        deadline = time() + SLICE
        steps: list[Step] = []
        for planned, task in enumerate(due, 1):
            try:
                executor = executors.get(task.executor) or engine.executor(str(task.executor))  # type: ignore[arg-type]  # None is none of them
                steps.append((task, plan_task(task, now, timezone, max_catchup), executor))
            except KeyboardInterrupt:
                raise
            except BaseException as exc:
                # A trigger's SystemExit would end the app, its CancelledError the pass.
                self._hold(str(task.id), exc)
                passed_over.add(str(task.id))
            if time() > deadline:
                return steps, planned
        return steps, len(due)

    async def _hand_over(self, steps: list[Step], passed_over: set[str]) -> None:
        if not steps:
            return
        ledger = self._lane.ledger
        # If no answer comes they are asked for again: a store that was able to write, but not to
        # say so, would otherwise have forgotten runs that nobody has started.
        self._unanswered = steps
        fired = await ledger.fire(steps)
        self._unanswered = []
        won: list[Step] = []
        lost = 0
        for step, what in zip(steps, fired, strict=True):
            if what is Fired.WON:
                won.append(step)
            elif what in (Fired.LOST, Fired.FENCED):
                # Changed by somebody else between reading and writing: the next pass sees how.
                lost += 1
                self._rota.lost()
                self._pass_over(step[0], passed_over, what)
            else:
                self._not_run(step, what)
        self._has_rivals = self._has_rivals or lost > RIVALS
        if ledger.is_shared:
            again = [(str(task.id), plan.next_run_time) for task, plan, _ in won]
            self._rota.follow(again, self._lane.now())
        if not ledger.may_have_to_wait(won):
            for task, plan, executor in won:
                self._submit(task, plan, executor)
            return
        for task, plan, _ in won:
            self._submit(task, plan, None)
        await ledger.start(
            [
                Start(executor, task, plan.run_times, plan.coalesced)
                for task, plan, executor in won
                if plan.run_times
            ]
        )

    def _pass_over(self, task: Task, passed_over: set[str], what: Fired) -> None:
        """Somebody else has moved a task on, or is about to, or has taken this node for dead."""
        passed_over.add(str(task.id))
        now = self._engine.clock.monotonic()
        if what is Fired.FENCED or self.contested.note(str(task.id), task.next_run_time, now):
            self._lane.look_again()

    def _not_run(self, step: Step, what: Fired) -> None:
        """The task moved on, and what was due is not run."""
        task, plan, _ = step
        self._submit(task, plan, None)
        if what is Fired.SKIPPED:
            why = f"{task.max_instances} run(s) go on, as many as max_instances allows."
            report_skipped(self._engine, task, plan.run_times, plan.coalesced, why)
        else:
            self._engine.logger.info(
                "The run of the task %r due %s has been made before.", task.id, plan.run_times[-1]
            )

    def _submit(self, task: Task, plan: Plan, executor: BaseExecutor | None) -> None:
        """Hand a run over, unless there is no executor, and say what else became of the task."""
        engine, lane = self._engine, self._lane
        run_times, coalesced, missed, next_run_time, _ = plan
        if task.expect_every is not None:
            engine.overdue.watch(task)
        if lane.holds and lane.holds.release(str(task.id)):
            report_recovered(engine, lane.alias, str(task.id))
        if missed is not None:
            why = why_missed(task, plan, lane.now(), engine.settings.max_catchup)
            report_missed(engine, task, missed, why)
        if run_times and executor is not None:
            submit(engine, executor, task, run_times, coalesced)
        if next_run_time is None and engine.events.mask & TASK_REMOVED:
            engine.dispatch(
                TaskEvent(
                    code=TASK_REMOVED,
                    task_id=str(task.id),
                    store=lane.alias,
                    scheduler_identity=engine.identity,
                )
            )

    def _hold(self, task_id: str, error: BaseException) -> None:
        engine, lane = self._engine, self._lane
        text = f"{type(error).__name__}: {reason(error)}"
        if lane.holds.hold(task_id, text, engine.clock.monotonic()):
            engine.logger.error(
                "The task %r of the store %r cannot be run; it is kept and tried again: %s",
                task_id,
                lane.alias,
                text,
                exc_info=error,
            )
            report_quarantined(engine, lane.alias, task_id, text)
