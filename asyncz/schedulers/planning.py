"""What to do about a due task. Pure: a task and an instant in, a plan out.

Times are compared in UTC: Python compares two times of one zone by their wall clocks, which go
back once a year.
"""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from typing import Any, NamedTuple

from asyncz.exceptions import TaskOptionError
from asyncz.tasks.base import Task
from asyncz.triggers.base import BaseTrigger, in_utc

__all__ = ["Missed", "Plan", "PlanningError", "count_owed", "plan_task", "run_time_after"]

ONE_MICROSECOND = timedelta(microseconds=1)


class PlanningError(TaskOptionError):
    """The trigger of a task gives run times that cannot be right."""


class Missed(NamedTuple):
    """Run times too late to be run: how many, the first and the last of them."""

    total: int
    first: datetime
    last: datetime


class Plan(NamedTuple):
    """What a due task comes to at an instant.

    Args:
        run_times: To be run now, oldest first.
        coalesced: How many earlier ones are folded into the one run time.
        missed: Those later than the task's grace allows, or more than are caught up with.
        next_run_time: The first run time after the instant, or None if there is none.
        last_coalesced: The last of those that are folded; the first is the task's own.
    """

    run_times: list[datetime]
    coalesced: int
    missed: Missed | None
    next_run_time: datetime | None
    last_coalesced: datetime | None = None


def run_time_after(
    task_id: str | None,
    trigger: BaseTrigger,
    previous: datetime | None,
    now: datetime,
    timezone: tzinfo,
) -> datetime | None:
    """Ask a trigger for its next run time; None: it has no more.

    Raises:
        PlanningError: What it gave is no instant, as can happen with a trigger of somebody else's.
    """
    moment: Any = trigger.get_next_trigger_time(timezone, previous, now)
    if moment is not None and (not isinstance(moment, datetime) or moment.tzinfo is None):
        raise PlanningError(
            f"The trigger {type(trigger).__name__} of the task {task_id!r} gave {moment!r} as a "
            "run time; it must be a datetime with a time zone, or None."
        )
    found: datetime | None = moment
    return found


def plan_task(task: Task, now: datetime, timezone: tzinfo, max_catchup: int) -> Plan:
    """Plan a task that is due.

    Costs the same however long the task has been due: where there is more than one run time,
    the trigger is asked for the last ones, and how many there are, by arithmetic.

    Args:
        task: Its `next_run_time` is at or before `now`.
        now: The instant to plan for.
        timezone: The scheduler's zone.
        max_catchup: At most so many run times are run or looked at.

    Raises:
        PlanningError: The trigger gave a run time that is not after the one before.
    """
    first, trigger = task.next_run_time, task.trigger
    if first is None or trigger is None:
        raise PlanningError(f"Task {task.id!r} has no next run time or no trigger to plan with.")
    grace = task.mistrigger_grace_time
    oldest = None if grace is None else now - timedelta(seconds=grace)
    following = _next_after(task, trigger, first, now, timezone)
    if following is None or following > now:
        if oldest is not None and in_utc(first) < oldest:
            return Plan([], 0, Missed(1, first, first), following)
        return Plan([first], 0, None, following)
    return _plan_backlog(task, trigger, now, timezone, oldest or in_utc(first), max_catchup)


def count_owed(first: datetime, trigger: BaseTrigger, until: datetime, timezone: tzinfo) -> Missed:
    """The run times from `first` to `until`, both included: how many there are, by arithmetic."""
    last = trigger.last_before(until, after=first, timezone=timezone)
    if last is None:
        return Missed(1, first, first)
    return Missed(1 + (trigger.count_between(first, last, timezone) or 1), first, last)


def _next_after(
    task: Task, trigger: BaseTrigger, moment: datetime, now: datetime, timezone: tzinfo
) -> datetime | None:
    following = run_time_after(task.id, trigger, moment, now, timezone)
    if following is not None and in_utc(following) <= in_utc(moment):
        # Planned with, such a trigger would be due again at once, for ever.
        raise PlanningError(
            f"The trigger {trigger} of the task {task.id!r} gave {following} as the run time "
            f"after {moment}; it must be later."
        )
    return following


def _plan_backlog(
    task: Task,
    trigger: BaseTrigger,
    now: datetime,
    timezone: tzinfo,
    oldest: datetime,
    max_catchup: int,
) -> Plan:
    first: datetime = task.next_run_time  # type: ignore[assignment]  # plan_task saw to it
    latest = _latest(trigger, first, now, timezone, 1 if task.coalesce else max_catchup)
    # A trigger that cannot look back so far goes on from now.
    seen = latest[-1] if latest else now
    following = _next_after(task, trigger, seen, now, timezone)
    if following is not None and following <= now:
        raise PlanningError(
            f"The trigger {trigger} of the task {task.id!r} gave {seen} as its last run time "
            f"before {now}, and {following} after it."
        )
    latest = latest or [first]
    run_times = [moment for moment in latest if moment >= oldest]
    counted = 1 + (trigger.count_between(first, latest[-1], timezone) or 0)
    left = max(counted, len(latest) + (latest[0] != first)) - len(run_times)
    if not left:
        return Plan(run_times, 0, None, following)
    end = in_utc(run_times[0]) - ONE_MICROSECOND if run_times else latest[-1]
    last = trigger.last_before(end, after=first, timezone=timezone)
    if run_times and task.coalesce:
        return Plan(run_times, left, None, following, last or first)
    return Plan(run_times, 0, Missed(left, first, last or first), following)


def _latest(
    trigger: BaseTrigger, first: datetime, now: datetime, timezone: tzinfo, limit: int
) -> list[datetime]:
    """The last run times from `first` to `now`, at most `limit`, oldest first; none if unknown."""
    newest_first: list[datetime] = []
    moment = trigger.last_before(now, after=first, timezone=timezone)
    if moment is None:
        return []
    while moment is not None and len(newest_first) < limit:
        newest_first.append(moment)
        before = in_utc(moment) - ONE_MICROSECOND
        moment = trigger.last_before(before, after=first, timezone=timezone)
    if len(newest_first) < limit:
        newest_first.append(first)
    return newest_first[::-1]
