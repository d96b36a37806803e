"""Whether a failure is the end of a run, or there is another attempt."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from asyncz.events.constants import TASK_ERROR, TASK_MISSED, TASK_RETRYING
from asyncz.exceptions import RetryAfter
from asyncz.executors.base import Outcome
from asyncz.runs.policy import Retry
from asyncz.schedulers.accounts import late_by
from asyncz.tasks.base import Task

if TYPE_CHECKING:
    from asyncz.schedulers.engine import Engine

__all__ = ["judge"]

AS_IT_SAYS = Retry(attempts=None, on=())
"""For a task without a policy: there is another attempt only if it asks for one."""


def judge(
    engine: Engine, task: Task, head: datetime, outcomes: Sequence[Outcome]
) -> Sequence[Outcome]:
    """The same outcomes, but those failures that are to be tried again are `TASK_RETRYING`, and
    what was too late says how late."""
    outcomes = [_explained(engine, task, outcome) for outcome in outcomes]
    policy = task.retry
    if policy is None:
        if not any(isinstance(outcome.exception, RetryAfter) for outcome in outcomes):
            return outcomes
        policy = AS_IT_SAYS
    ledgers = engine.ledgers_of(task.store_alias)
    # What somebody wants to end is not tried again.
    if not ledgers or ledgers[0].is_to_be_cancelled(str(task.id), head):
        return outcomes
    attempt = ledgers[0].attempt_of(str(task.id), head)
    judged = [_judged(engine, task, policy, attempt, outcome) for outcome in outcomes]
    if any(outcome.code == TASK_RETRYING for outcome in judged):
        ledgers[0].will_be_tried_again(task, head)
    return judged


def _explained(engine: Engine, task: Task, outcome: Outcome) -> Outcome:
    grace = task.mistrigger_grace_time
    if outcome.code != TASK_MISSED or grace is None:
        return outcome
    late = engine.now_in(task.store_alias).timestamp() - outcome.run_time.timestamp()
    return outcome._replace(reason=late_by(late, grace))


def _judged(engine: Engine, task: Task, policy: Retry, attempt: int, outcome: Outcome) -> Outcome:
    if outcome.code != TASK_ERROR:
        return outcome
    try:
        seconds = policy.seconds_after(attempt, outcome.exception)
    except Exception:  # a wait strategy may be the user's code
        engine.logger.exception("The wait of the task %r failed; it is not tried again.", task.id)
        return outcome
    if seconds is None:
        return outcome
    why = f"attempt {attempt} failed"
    if isinstance(outcome.exception, RetryAfter):
        why = getattr(outcome.exception, "reason", None) or "it has asked for another attempt"
    return outcome._replace(code=TASK_RETRYING, retry_in=seconds, reason=why)
