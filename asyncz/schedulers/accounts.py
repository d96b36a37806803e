"""Plans and outcomes in the words of a store that keeps runs."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from asyncz.enums import RunKind, RunState
from asyncz.events.constants import (
    TASK_CANCELLED,
    TASK_ERROR,
    TASK_EXECUTED,
    TASK_MAX_INSTANCES,
    TASK_MISSED,
    TASK_RETRYING,
    TASK_SKIPPED,
)
from asyncz.executors.base import Outcome
from asyncz.runs.base import MAX_ERROR, MAX_TRACEBACK
from asyncz.runs.current import run_id_of
from asyncz.runs.results import noted_result
from asyncz.schedulers.planning import Plan
from asyncz.stores.cluster import Firing, RunOutcome, Unrun
from asyncz.tasks.base import Task
from asyncz.text import spoken, text_of

__all__ = ["Claim", "as_firing", "as_recorded", "as_unrun", "late_by", "why_missed"]

STATES = {
    TASK_EXECUTED: RunState.SUCCEEDED,
    TASK_ERROR: RunState.FAILED,
    TASK_MISSED: RunState.MISSED,
    TASK_CANCELLED: RunState.CANCELLED,
    TASK_MAX_INSTANCES: RunState.SKIPPED,
    TASK_SKIPPED: RunState.SKIPPED,
    TASK_RETRYING: RunState.RETRYING,
}
REASONS = {
    RunState.MISSED: "it would have started later than its mistrigger_grace_time allows",
    RunState.CANCELLED: "it was cut off",
    RunState.SKIPPED: "as many runs as max_instances allows still went on in its worker",
}


class Claim(NamedTuple):
    """What the ledger knows of a run that goes on here, by the fields of `Run`."""

    kind: RunKind = RunKind.SCHEDULED
    attempt: int = 1
    token: int = 1
    claimed_at: datetime | None = None
    started_at: datetime | None = None


def as_firing(task: Task, plan: Plan, now: datetime, max_catchup: int) -> Firing:
    """What a plan, made for about `now`, asks of the store."""
    following = plan.next_run_time
    return Firing(
        task, task.next_run_time, following, following is None, RunKind.SCHEDULED,
        tuple(plan.run_times), as_unrun(task, plan, now, max_catchup),
    )  # fmt: skip


def as_unrun(task: Task, plan: Plan, now: datetime, max_catchup: int) -> tuple[Unrun, ...]:
    """The occurrences that a plan leaves out: none is, without a record."""
    if plan.missed is not None:
        total, first, last = plan.missed
        why = why_missed(task, plan, now, max_catchup)
        return (Unrun(RunState.MISSED, first, last, total, why),)
    if plan.coalesced:
        first = task.next_run_time or plan.run_times[0]
        why = f"folded into the run {run_id_of(str(task.id), plan.run_times[0])}"
        return (
            Unrun(RunState.COALESCED, first, plan.last_coalesced or first, plan.coalesced, why),
        )
    return ()


def why_missed(task: Task, plan: Plan, now: datetime, max_catchup: int) -> str:
    """Why a plan leaves out what it calls missed: how late it is, or how much."""
    if plan.missed is None:
        return ""
    total, first, last = plan.missed
    grace = task.mistrigger_grace_time
    more = f"more were due than the {max_catchup} that max_catchup allows"
    if grace is None:
        return more
    longest, least = (now.timestamp() - moment.timestamp() for moment in (first, last))
    if plan.run_times and least <= grace:
        return more if longest <= grace else f"{more}, or {late_by(longest, grace)}"
    return late_by(least, grace) if total == 1 else f"the last of them {late_by(least, grace)}"


def late_by(seconds: float, grace: float) -> str:
    """That a run would begin too late, in words."""
    return f"{spoken(max(0.0, seconds))} late; mistrigger_grace_time is {grace:g} s"


def as_recorded(outcome: Outcome, now: datetime, cancelled_by: str | None = None) -> RunOutcome:
    """How an occurrence ended, as the store keeps it.

    Args:
        outcome: As the executor says it.
        now: The store's time.
        cancelled_by: Who has asked to cancel the run, if anybody has.
    """
    state = STATES[outcome.code]
    error, traceback = outcome.exception, outcome.traceback
    why = outcome.reason or REASONS.get(state)
    if state is RunState.CANCELLED and cancelled_by is not None:
        why = f"cancelled by {cancelled_by}"
    notes = dict(outcome.notes or {})
    if outcome.value is not None:
        notes |= noted_result(outcome.value)
    return RunOutcome(
        outcome.run_time,
        state,
        None if error is None else _clean(f"{type(error).__name__}: {text_of(error)}"[:MAX_ERROR]),
        None if traceback is None else _clean(traceback[-MAX_TRACEBACK:]),
        None if why is None else _clean(text_of(why)[:MAX_ERROR]),
        notes or None,
        None if outcome.retry_in is None else now + timedelta(seconds=outcome.retry_in),
    )


def _clean(text: str) -> str:
    """Half a surrogate pair is no text that a server takes."""
    return text.encode("utf-8", "backslashreplace").decode()
