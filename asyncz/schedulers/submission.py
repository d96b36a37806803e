"""Handing runs to executors, and saying what became of those that were not run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from asyncz.enums import RunState
from asyncz.events.base import TaskExecutionEvent, TaskSubmissionEvent
from asyncz.events.constants import (
    TASK_CANCELLED,
    TASK_ERROR,
    TASK_LOST,
    TASK_MAX_INSTANCES,
    TASK_MISSED,
    TASK_SUBMITTED,
    TASK_TAKEN_OVER,
)
from asyncz.exceptions import MaximumInstancesError
from asyncz.executors.base import BaseExecutor, Outcome, format_traceback
from asyncz.schedulers.attempts import judge
from asyncz.schedulers.planning import Missed
from asyncz.schedulers.reactions import react, react_to_missed
from asyncz.stores.cluster import OpenRun, RunRef
from asyncz.tasks.base import Task

if TYPE_CHECKING:
    from asyncz.schedulers.engine import Engine

__all__ = [
    "report_cancelled",
    "report_missed",
    "report_refused",
    "report_skipped",
    "report_taken_over",
    "report_unfinished",
    "send",
    "submit",
]

SCHEDULED = "scheduled"
MANUAL = "manual"


def submit(
    engine: Engine,
    executor: BaseExecutor,
    task: Task,
    run_times: Sequence[datetime],
    coalesced: int,
) -> None:
    """Hand a scheduled run over. Whatever goes wrong is logged and becomes an event."""
    try:
        executor.send_task(task, run_times)
    except MaximumInstancesError as exc:
        report_skipped(engine, task, run_times, coalesced, str(exc))
        _refused(engine, task, run_times, exc)
    except Exception as exc:
        engine.logger.exception("The task %r could not be handed to its executor.", task.id)
        _not_begun(engine, task, run_times, exc)
    else:
        if engine.events.mask & TASK_SUBMITTED:
            _announce(engine, TASK_SUBMITTED, task, run_times, SCHEDULED, coalesced)


def report_skipped(
    engine: Engine, task: Task, run_times: Sequence[datetime], coalesced: int, why: str
) -> None:
    """Say that as many runs go on as are allowed, so that these are not run."""
    _announce(engine, TASK_MAX_INSTANCES, task, run_times, SCHEDULED, coalesced)
    engine.logger.warning(
        "The run of the task %r due %s was skipped: %s", task.id, run_times[-1], why
    )


def _refused(engine: Engine, task: Task, run_times: Sequence[datetime], error: Exception) -> None:
    for ledger in engine.ledgers_of(task.store_alias):
        ledger.run_refused(task, run_times, error)


def report_refused(
    engine: Engine, task: Task, run_times: Sequence[datetime], coalesced: int
) -> None:
    """Say that a manual run is one too many."""
    _announce(engine, TASK_MAX_INSTANCES, task, run_times, MANUAL, coalesced)


def report_taken_over(engine: Engine, alias: str, run: OpenRun) -> None:
    """Say that a run of another worker's is started again here."""
    ref = run.ref
    engine.logger.warning(
        "The run of the task %r due %s was taken over: its worker is gone (attempt %d).",
        ref.task_id,
        ref.scheduled_time,
        run.attempt,
    )
    _announce_run(engine, TASK_TAKEN_OVER, alias, ref.task_id, ref.scheduled_time)


def report_unfinished(engine: Engine, alias: str, ref: RunRef, state: RunState) -> None:
    """Say that a run of a worker that is gone ends as it is: lost, abandoned, cancelled."""
    engine.logger.error(
        "The run of the task %r due %s is %s: its worker is gone, and it is not started again.",
        ref.task_id,
        ref.scheduled_time,
        state.value,
    )
    _announce_run(engine, TASK_LOST, alias, ref.task_id, ref.scheduled_time)


def report_cancelled(engine: Engine, alias: str, task_id: str, moment: datetime, why: str) -> None:
    """Say that a run was cancelled that went on nowhere."""
    engine.logger.info("The run of the task %r due %s was cancelled: %s.", task_id, moment, why)
    _announce_run(engine, TASK_CANCELLED, alias, task_id, moment)


def _announce_run(engine: Engine, code: int, alias: str, task_id: str, moment: datetime) -> None:
    if engine.events.mask & code:
        engine.dispatch(
            TaskExecutionEvent(
                code=code,
                task_id=task_id,
                store=alias,
                scheduler_identity=engine.identity,
                scheduled_run_time=moment,
            )
        )


def send(
    engine: Engine,
    executor: BaseExecutor,
    task: Task,
    run_times: Sequence[datetime],
    coalesced: int,
) -> None:
    """Hand a manual run over and tell the listeners. Raises what the executor raises."""
    try:
        executor.send_task(task, run_times)
    except MaximumInstancesError as exc:
        _refused(engine, task, run_times, exc)
        report_refused(engine, task, run_times, coalesced)
        raise
    except Exception as exc:
        _not_begun(engine, task, run_times, exc)
        raise
    _announce(engine, TASK_SUBMITTED, task, run_times, MANUAL, coalesced)


def _announce(
    engine: Engine,
    code: int,
    task: Task,
    run_times: Sequence[datetime],
    source: str,
    coalesced: int,
) -> None:
    if not engine.events.mask & code:
        return
    engine.dispatch(
        TaskSubmissionEvent(
            code=code,
            task_id=str(task.id),
            store=task.store_alias,
            scheduler_identity=engine.identity,
            scheduled_run_times=list(run_times),
            source=source,
            coalesced_run_count=coalesced,
        )
    )


def report_missed(engine: Engine, task: Task, missed: Missed, why: str) -> None:
    """Say that run times were not run in time, and why."""
    total, first, last = missed
    engine.logger.warning(
        "%d run(s) of the task %r, due %s to %s, were missed: %s.",
        total,
        task.id,
        first,
        last,
        why,
    )
    react_to_missed(engine, task, missed, why)
    if engine.events.mask & TASK_MISSED:
        engine.dispatch(
            TaskExecutionEvent(
                code=TASK_MISSED,
                task_id=str(task.id),
                store=task.store_alias,
                scheduler_identity=engine.identity,
                scheduled_run_time=first,
                run_count=total,
                last_scheduled_run_time=last,
            )
        )


def _not_begun(engine: Engine, task: Task, run_times: Sequence[datetime], error: Exception) -> None:
    """An executor would not take a run: an attempt at it that has failed, like others."""
    text = format_traceback(error)
    failed = [Outcome(TASK_ERROR, at, exception=error, traceback=text) for at in run_times]
    outcomes = judge(engine, task, run_times[0], failed)
    if task.has_reactions:
        react(engine, task, run_times[0], outcomes)
    for ledger in engine.ledgers_of(task.store_alias):
        ledger.run_ended(str(task.id), outcomes)
    engine.a_run_has_ended()
    for outcome in outcomes:
        engine.dispatch(
            TaskExecutionEvent(
                code=outcome.code,
                task_id=str(task.id),
                store=task.store_alias,
                scheduler_identity=engine.identity,
                scheduled_run_time=outcome.run_time,
                exception=error,
                traceback=text,
            )
        )
