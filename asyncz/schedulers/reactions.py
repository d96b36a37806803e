"""What a task wants to have called when its runs have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from asyncz.enums import RunKind, RunState
from asyncz.executors.base import Outcome
from asyncz.executors.tracking import context_of_no_run
from asyncz.runs.base import Run, readable_notes
from asyncz.schedulers.accounts import as_recorded
from asyncz.schedulers.planning import Missed
from asyncz.stores.cluster import RunOutcome
from asyncz.tasks.base import Task
from asyncz.tasks.callables import is_coroutine_callable

if TYPE_CHECKING:
    from asyncz.schedulers.engine import Engine

__all__ = ["react", "react_to_loss", "react_to_missed"]

FAILURES = frozenset({RunState.FAILED, RunState.LOST, RunState.ABANDONED})


def react(engine: Engine, task: Task, head: datetime, outcomes: Sequence[Outcome]) -> None:
    """Call what the task wants to have called after such outcomes.

    Args:
        engine, task: Whose.
        head: The first of the run times that the run stood for.
        outcomes: One for each of its run times.
    """
    attempt = 1
    for ledger in engine.ledgers_of(task.store_alias):
        attempt = ledger.attempt_of(str(task.id), head)
    now = engine.now_in(task.store_alias)
    for outcome in outcomes:
        said = as_recorded(outcome, now)
        if (reaction := _reaction_to(task, said.state)) is not None:
            _call(engine, task, reaction, _run_of(engine, task, said, attempt, now))


def react_to_missed(engine: Engine, task: Task, missed: Missed, why: str) -> None:
    """Run times were not run in time."""
    if task.on_missed is None:
        return
    total, first, last = missed
    run = Run(
        task_id=str(task.id),
        store_alias=task.store_alias,
        scheduled_time=first,
        state=RunState.MISSED,
        occurrences=total,
        last_scheduled_time=last if total > 1 else None,
        owner=engine.identity,
        finished_at=engine.now_in(task.store_alias),
        reason=why,
    )
    _call(engine, task, task.on_missed, run)


def react_to_loss(engine: Engine, task: Task, run: Run) -> None:
    """A run will never be finished, as its worker is gone."""
    if task.on_failure is not None:
        _call(engine, task, task.on_failure, run)


def _reaction_to(task: Task, state: RunState) -> Callable[..., Any] | None:
    if state is RunState.SUCCEEDED:
        return task.on_success
    if state is RunState.MISSED:
        return task.on_missed
    return task.on_failure if state in FAILURES else None


def _run_of(engine: Engine, task: Task, said: RunOutcome, attempt: int, now: datetime) -> Run:
    return Run(
        task_id=str(task.id),
        store_alias=task.store_alias,
        kind=RunKind.SCHEDULED,
        scheduled_time=said.scheduled_time,
        state=said.state,
        owner=engine.identity,
        attempt=attempt,
        finished_at=now,
        reason=said.reason,
        error=said.error,
        traceback=said.traceback,
        **readable_notes(said.notes),
    )


def _call(engine: Engine, task: Task, reaction: Callable[..., Any], run: Run) -> None:
    """Call it beside the engine. Whatever it raises is logged, and changes nothing."""

    async def called() -> None:
        try:
            if is_coroutine_callable(reaction):
                await reaction(run)
            else:
                await asyncio.to_thread(reaction, run)
        except Exception:
            engine.logger.exception(
                "What the task %r has called after its run %s failed.", task.id, run.state.value
            )

    context_of_no_run().run(engine.spawn, called(), f"asyncz reaction of {task.id}")
