"""The contract of an executor: it carries out runs and says how they ended."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Mapping, Sequence
from datetime import datetime
from logging import ERROR, INFO, WARNING, Logger, getLogger
from typing import Any, ClassVar, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict

from asyncz.clock import Clock
from asyncz.events.base import SchedulerEvent, TaskExecutionEvent
from asyncz.events.constants import (
    NAMES,
    TASK_CANCELLED,
    TASK_ERROR,
    TASK_EXECUTED,
    TASK_MISSED,
    TASK_RETRYING,
    TASK_SKIPPED,
)
from asyncz.exceptions import MaximumInstancesError, SchedulerNotRunningError
from asyncz.runs.current import CurrentRun
from asyncz.runs.results import noted_result
from asyncz.tasks.base import Task

__all__ = ["BaseExecutor", "ExecutorHost", "Outcome", "format_traceback"]

MAX_TRACEBACK = 16_384


class ExecutorHost(Protocol):
    """What an executor is handed when it starts: the scheduler, as far as it may know it."""

    @property
    def clock(self) -> Clock: ...
    @property
    def identity(self) -> str: ...
    @property
    def loggers(self) -> Mapping[str, Logger]: ...
    @property
    def engine_loop(self) -> asyncio.AbstractEventLoop:
        """The loop that the executor is called on, and that it reports outcomes on."""

    @property
    def task_loop(self) -> asyncio.AbstractEventLoop:
        """The loop that coroutine functions run on; often the same."""

    @property
    def shutdown_timeout(self) -> float:
        """Seconds that a shutdown may take."""

    @property
    def instances(self) -> dict[tuple[str | None, str], int]:
        """How many runs are going on, by store alias and task id."""

    def run_succeeded(self, store: str | None, task_id: str, run_time: datetime) -> None:
        """Take note that the run of one instant ended well; the quickest way to say so."""

    def run_ended(self, store: str | None, task_id: str, outcomes: Sequence[Outcome]) -> None:
        """Take note of how a run ended: an outcome for each of its run times.

        Args:
            store: The alias of the task's store; None: the executor does not know.
            task_id: The task's.
            outcomes: In the order of the run times.
        """

    def unknown_run_ended(self, store: str | None, task_id: str, code: int) -> None:
        """Take note that a run of that task ended; the executor does not say which."""

    def judge(self, task: Task, head: datetime, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """The same outcomes, but those failures that are to be tried again are `TASK_RETRYING`."""

    def react(self, task: Task, head: datetime, outcomes: Sequence[Outcome]) -> None:
        """Call what the task wants to have called after such outcomes."""

    def numbers_of(self, task: Task, head: datetime) -> tuple[int, int]:
        """Which attempt at an occurrence it is that goes on, counted from 1, and its fence."""

    def run_says(self, task: Task, head: datetime, run: CurrentRun) -> None:
        """Take note that a run has said something of itself. From any thread."""

    def seconds_behind(self, store: str | None) -> float:
        """By how many seconds the machine's clock is behind that of a store."""

    def wants_event(self, code: int) -> bool: ...
    def dispatch_event(self, event: SchedulerEvent) -> None: ...


class Outcome(NamedTuple):
    """How one run ended: the code of the event that says so, and what belongs to it."""

    code: int
    run_time: datetime
    value: Any = None
    exception: BaseException | None = None
    traceback: str | None = None
    reason: str | None = None
    notes: Mapping[str, Any] | None = None
    """What the run has said of itself, by fields of `Run`."""
    retry_in: float | None = None
    """Seconds until it is tried again."""

    def __repr__(self) -> str:
        # asyncio writes what it calls into its log in debug mode; the value may be a secret.
        return f"<Outcome {NAMES[self.code]} due {self.run_time}>"


def _outcome_of(event: TaskExecutionEvent) -> Outcome:
    return Outcome(
        event.code,
        event.scheduled_run_time,
        event.return_value,
        event.exception,
        event.traceback,
    )


_LOG_LEVELS = {
    TASK_EXECUTED: INFO,
    TASK_ERROR: ERROR,
    TASK_MISSED: WARNING,
    TASK_CANCELLED: WARNING,
    TASK_SKIPPED: INFO,
    TASK_RETRYING: WARNING,
}
_WORDS = {
    TASK_EXECUTED: "succeeded",
    TASK_ERROR: "failed",
    TASK_MISSED: "was missed: it would have started later than its mistrigger_grace_time allows",
    TASK_CANCELLED: "was cut off",
    TASK_SKIPPED: "has skipped itself",
    TASK_RETRYING: "failed, and is tried again",
}
RESULT = frozenset({"result", "result_repr"})
FAILURES = (TASK_ERROR, TASK_RETRYING)


def format_traceback(error: BaseException) -> str:
    """The traceback of an error as text, its middle left out when it is very long."""
    try:
        text = "".join(traceback.format_exception(error))
    except Exception as exc:  # parts of it are made by the user's code
        return f"<{type(error).__name__}, whose traceback fails: {type(exc).__name__}>"
    if len(text) <= MAX_TRACEBACK:
        return text
    half = MAX_TRACEBACK // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"


def with_result(task: Task, outcome: Outcome) -> Outcome:
    """The outcome with what is kept of the value, worked out once, where the run has ended."""
    notes = outcome.notes or {}
    if outcome.value is None or not task.store_result or notes.keys() & RESULT:
        return outcome
    return outcome._replace(notes={**notes, **noted_result(outcome.value)})


def _bare(outcome: Outcome) -> Outcome:
    """Only how it ended, without all that may not be fit to be recorded."""
    code = TASK_ERROR if outcome.code == TASK_RETRYING else outcome.code
    return Outcome(code, outcome.run_time, reason="what else is known of it could not be recorded")


class BaseExecutor(BaseModel):
    """Base of all executors.

    A subclass implements `do_send_task`: it starts the work and returns without waiting for it,
    and when the work has ended, on the engine's loop, it calls `run_task_success` with the
    outcomes' events, or `run_task_error`. The scheduler calls every method on the engine's loop.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    _knows_its_runs: ClassVar[bool] = False
    """Whether it calls `_finish` with the task itself, instead of `run_task_success`."""

    def model_post_init(self, context: Any, /) -> None:
        # Ordinary attributes: Pydantic's private ones are found by a way that takes longer than
        # all the rest of handing a run over.
        self._host: ExecutorHost | None = None
        self._instances: dict[tuple[str | None, str], int] = {}
        self._sent: list[tuple[Task, Sequence[datetime]]] = []
        self._alias = ""
        self._logger = getLogger("asyncz.executors")

    def start(self, scheduler: ExecutorHost, alias: str) -> None:
        """Get ready to run tasks of this scheduler under this alias."""
        self._host = scheduler
        self._instances = scheduler.instances
        self._alias = alias
        self._logger = scheduler.loggers[f"asyncz.executors.{alias}"]

    @property
    def going(self) -> list[object]:
        """The asyncio tasks and futures of the runs that go on, as far as they are known."""
        return []

    @property
    def ends_at_once(self) -> bool:
        """Whether `shutdown`, called now, would not have to wait for anything."""
        return True

    async def drain(self, wait: bool, timeout: float) -> None:
        """End the runs that go on within `timeout` seconds; the executor stays usable."""

    async def shutdown(self, wait: bool = True) -> None:
        """End the runs that go on: let them finish if `wait`, else cut them off.

        Never takes longer than the scheduler's `shutdown_timeout`; what ignores being cut off is
        left behind, and the log says so.
        """
        self._host = None

    def check_task(self, task: Task) -> None:
        """Raise TaskOptionError if this executor could never run the task."""

    def send_task(self, task: Task, run_times: Sequence[datetime]) -> None:
        """Start a run of the task.

        Args:
            task: The task.
            run_times: The run times it stands for, oldest first; the task is called for each,
                one after the other.

        Raises:
            MaximumInstancesError: As many runs go on as `task.max_instances` allows.
        """
        if self._host is None:
            _ = self.host  # raises
        instances = self._instances
        key: tuple[str | None, str] = (task.store_alias, task.id)  # type: ignore[assignment]
        running = instances.get(key, 0)
        if running >= task.max_instances:
            self.sweep()
            running = instances.get(key, 0)
            if running >= task.max_instances:
                raise MaximumInstancesError(key[1], task.max_instances)
        instances[key] = running + 1
        if not self._knows_its_runs:
            self._sent.append((task, run_times))
        try:
            self.do_send_task(task, run_times)
        except BaseException:
            self._release(key)
            self._taken_back(task.store_alias, key[1], run_times[0] if run_times else None)
            raise

    def do_send_task(self, task: Task, run_times: Sequence[datetime]) -> None:
        """Start the work; to be implemented by the subclass."""
        raise TypeError(f"{type(self).__name__} must implement do_send_task().")

    def run_task_success(
        self, task_id: str, events: Sequence[TaskExecutionEvent], store: str | None = None
    ) -> None:
        """A run has ended, well or badly; `events` say how."""
        if store is None and events:
            store = events[0].store
        first = events[0].scheduled_run_time if events else None
        if sent := self._taken_back(store, task_id, first):
            task, run_times = sent
            outcomes = [_outcome_of(event) for event in events]
            self._finish(task, outcomes or [Outcome(TASK_EXECUTED, at) for at in run_times])
            return
        if events:
            self.host.run_ended(store, task_id, [_outcome_of(event) for event in events])
        else:
            self.host.unknown_run_ended(store, task_id, TASK_EXECUTED)
        self._report((store, task_id), events)

    def run_task_error(self, task_id: str, store: str | None = None) -> None:
        """A run could not be carried out, through no fault of the task. Call it in `except`."""
        self._logger.error("The executor could not run the task %r.", task_id, exc_info=True)
        if sent := self._taken_back(store, task_id, None):
            task, run_times = sent
            error = sys.exc_info()[1] or RuntimeError("The executor could not run it.")
            text = format_traceback(error)
            self._finish(
                task,
                [Outcome(TASK_ERROR, at, exception=error, traceback=text) for at in run_times],
            )
            return
        self._release((store, task_id))
        self.host.unknown_run_ended(store, task_id, TASK_ERROR)

    def _taken_back(
        self, store: str | None, task_id: str, first: datetime | None
    ) -> tuple[Task, Sequence[datetime]] | None:
        """The run of a report: that with this first run time, or the oldest of the task."""
        for index, (task, run_times) in enumerate(self._sent):
            is_its = task.id == task_id and store in (None, task.store_alias)
            if is_its and run_times and first in (None, run_times[0]):
                return self._sent.pop(index)
        return None

    def _report(self, key: tuple[str | None, str], events: Sequence[TaskExecutionEvent]) -> None:
        self._release(key)
        host = self.host
        for event in events:
            host.dispatch_event(event)

    @property
    def host(self) -> ExecutorHost:
        """The scheduler that started this executor. Raises SchedulerNotRunningError if none."""
        if self._host is None:
            raise SchedulerNotRunningError(
                f"The executor {self._alias!r} ({type(self).__name__}) is not started."
            )
        return self._host

    def _grace_of(self, task: Task) -> float | None:
        """The grace time of a task by the clock of this machine: due is what the store says."""
        grace = task.mistrigger_grace_time
        return None if grace is None else grace - self.host.seconds_behind(task.store_alias)

    def cancel_run(self, store: str | None, task_id: str, head: datetime) -> bool:
        """Cut off the run of a task that begins with this run time. False: not known here."""
        return False

    def sweep(self) -> None:
        """Notice runs that ended without a word, before a new one is refused for their sake."""

    def _release(self, key: tuple[str | None, str]) -> None:
        instances = self._instances
        if key not in instances:  # an executor that does not know the store its task came from
            key = next((known for known in instances if known[1] == key[1]), key)
        running = instances.pop(key, 1)
        if running > 1:
            instances[key] = running - 1

    def _finish(self, task: Task, outcomes: Sequence[Outcome]) -> None:
        """Log the outcomes and report those that a listener wants to know of."""
        host, key, events = self.host, (task.store_alias, str(task.id)), []
        try:
            events = self._settle(host, task, outcomes)
        except Exception:
            # Whatever it was, a run that has ended must not keep its place, nor be begun again.
            self._logger.exception("What became of a run of the task %r is not clear.", task.id)
            host.run_ended(*key, [_bare(outcome) for outcome in outcomes])
        finally:
            self._report(key, events)

    def _settle(
        self, host: ExecutorHost, task: Task, outcomes: Sequence[Outcome]
    ) -> list[TaskExecutionEvent]:
        """Have the outcomes judged and recorded. Returns the events that are wanted."""
        logger, head, events = self._logger, outcomes[0].run_time, []
        if any(outcome.code in (TASK_ERROR, TASK_MISSED) for outcome in outcomes):
            outcomes = host.judge(task, head, outcomes)
        for outcome in outcomes:
            if logger.isEnabledFor(_LOG_LEVELS[outcome.code]):
                self._log_outcome(task, outcome)
            if host.wants_event(outcome.code):
                events.append(self._event(task, outcome))
        outcomes = [with_result(task, outcome)._replace(value=None) for outcome in outcomes]
        if task.has_reactions:  # which are called a moment later, when it has been taken note of
            host.react(task, head, outcomes)
        host.run_ended(task.store_alias, str(task.id), outcomes)
        return events

    def _log_outcome(self, task: Task, outcome: Outcome) -> None:
        self._logger.log(
            _LOG_LEVELS[outcome.code],
            "Task %r (due %s) %s.",
            task.id,
            outcome.run_time,
            _WORDS[outcome.code],
            exc_info=outcome.exception if outcome.code in FAILURES else None,
        )

    def _event(self, task: Task, outcome: Outcome) -> TaskExecutionEvent:
        return TaskExecutionEvent(
            code=outcome.code,
            task_id=str(task.id),
            store=task.store_alias,
            scheduler_identity=self.host.identity,
            scheduled_run_time=outcome.run_time,
            return_value=outcome.value,
            exception=outcome.exception,
            traceback=outcome.traceback,
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} alias={self._alias!r}>"

    __str__ = __repr__
