"""Calling a task's function once for each run time, and turning what happens into outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, Protocol

from asyncz.events.constants import (
    TASK_CANCELLED,
    TASK_ERROR,
    TASK_EXECUTED,
    TASK_MISSED,
    TASK_SKIPPED,
)
from asyncz.exceptions import RunTimeoutError, Skip
from asyncz.executors.base import Outcome, format_traceback
from asyncz.text import text_of

__all__ = [
    "Progress",
    "await_each",
    "call_each",
    "cut_off",
    "failed",
    "is_torn_down",
    "raised",
    "timed_out",
]

TooLate = Callable[[datetime], bool]
IsCutOff = Callable[[], bool]


class Progress(Protocol):
    """Follows a run through its run times."""

    def begin(self, run_time: datetime) -> None:
        """The function is about to be called for this one."""

    def end(self, outcome: Outcome) -> Outcome:
        """It has ended so. Returns the outcome that counts."""


class NoProgress:
    """Follows nothing."""

    def begin(self, run_time: datetime) -> None:
        """It does not matter."""

    def end(self, outcome: Outcome) -> Outcome:
        """As it is."""
        return outcome


NO_PROGRESS = NoProgress()

NEVER_RUN = (CoroutineType, GeneratorType, AsyncGeneratorType)
"""What a function returns whose body has not begun yet."""


def failed(run_time: datetime, error: BaseException) -> Outcome:
    """The outcome of a run that raised."""
    if isinstance(error, Skip):
        reason = text_of(getattr(error, "reason", "")) or "the task has skipped it"
        return Outcome(TASK_SKIPPED, run_time, reason=reason)
    return Outcome(TASK_ERROR, run_time, exception=error, traceback=format_traceback(error))


def timed_out(run_time: datetime, seconds: float | None, what: str) -> Outcome:
    """The outcome of a run that took longer than the task's timeout."""
    text = f"It took longer than its timeout of {seconds:g} s; {what}."
    return Outcome(TASK_ERROR, run_time, exception=RunTimeoutError(text))


def cut_off(run_times: Sequence[datetime], done: Sequence[Outcome] = ()) -> list[Outcome]:
    """The outcomes of a run that was cut off after it had got through `done` of its run times."""
    rest = run_times[len(done) :]
    return [*done, *(Outcome(TASK_CANCELLED, run_time) for run_time in rest)]


def call_each(
    fn: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    run_times: Sequence[datetime],
    too_late: TooLate,
    is_cut_off: IsCutOff | None = None,
    progress: Progress = NO_PROGRESS,
) -> list[Outcome]:
    """Call a plain function. Whatever it raises, SystemExit included, is the run's failure.

    A thread that was cut off cannot be stopped within a call; it begins no further one.
    """
    outcomes: list[Outcome] = []
    for run_time in run_times:
        if is_cut_off is not None and is_cut_off():
            return cut_off(run_times, outcomes)
        if too_late(run_time):
            outcomes.append(Outcome(TASK_MISSED, run_time))
            continue
        progress.begin(run_time)
        try:
            outcome = Outcome(TASK_EXECUTED, run_time, _returned(fn(*args, **kwargs)))
        except BaseException as exc:
            outcome = failed(run_time, exc)
        outcomes.append(progress.end(outcome))
    return outcomes


def _returned(value: Any) -> Any:
    if isinstance(value, NEVER_RUN):
        if isinstance(value, CoroutineType):
            value.close()
        raise TypeError(
            f"The task's function only returned a {type(value).__name__}, and nothing has run. "
            "Give a coroutine function itself, not a lambda or a plain wrapper around it; a "
            "generator cannot be a task."
        )
    return value


def raised(run_time: datetime, error: BaseException) -> Outcome:
    """The outcome of a coroutine that raised; called in the asyncio task that awaited it.

    SystemExit is a failure too: it would otherwise end the process that serves the app.
    """
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
        return Outcome(TASK_CANCELLED, run_time)
    # Also if the function awaited something that was cancelled: nobody cancelled the run.
    return failed(run_time, error)


def is_torn_down(error: BaseException, own: object) -> bool:
    """Whether a coroutine is being thrown away, with its loop, instead of having raised.

    Args:
        error: What came out of an await.
        own: The asyncio task that the coroutine is run by.
    """
    if not isinstance(error, GeneratorExit):
        return False
    try:
        return asyncio.current_task() is not own
    except RuntimeError:  # no loop runs any more
        return True


async def await_each(
    fn: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    run_times: Sequence[datetime],
    too_late: TooLate,
    progress: Progress = NO_PROGRESS,
    is_cut_off: IsCutOff | None = None,
) -> list[Outcome]:
    """Call and await a coroutine function. A cancellation from outside cuts off what is left."""
    outcomes: list[Outcome] = []
    task = asyncio.current_task()
    for run_time in run_times:
        if task is not None and task.cancelling():  # the call before has ignored it
            return cut_off(run_times, outcomes)
        if is_cut_off is not None and is_cut_off():
            return cut_off(run_times, outcomes)
        if too_late(run_time):
            outcomes.append(Outcome(TASK_MISSED, run_time))
            continue
        progress.begin(run_time)
        try:
            value = await fn(*args, **kwargs)
        except BaseException as exc:
            if is_torn_down(exc, task):
                raise
            outcome = raised(run_time, exc)
        else:
            outcome = Outcome(TASK_EXECUTED, run_time, value)
        outcomes.append(progress.end(outcome))
    return outcomes
