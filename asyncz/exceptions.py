"""Every error asyncz raises on purpose: what was wrong, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from asyncz.text import text_of

__all__ = [
    "AsynczException",
    "AsynczLookupError",
    "BlockingCallError",
    "ConfigurationError",
    "ConflictError",
    "ConflictIdError",
    "MaximumInstancesError",
    "NoCurrentRunError",
    "PluginLookupError",
    "RemoteTaskError",
    "RetryAfter",
    "RunLookupError",
    "RunTimeoutError",
    "SchedulerAlreadyRunningError",
    "SchedulerLookupError",
    "SchedulerNotRunningError",
    "SerializationError",
    "Skip",
    "SomeTasksError",
    "StoreError",
    "StoreFormatError",
    "StoreFullError",
    "StoreInUseError",
    "StoreTimeoutError",
    "TaskLookupError",
    "TaskOptionError",
    "TransientTaskError",
    "UnreadableRecordError",
]


MOST_SHOWN = 5
"""Tasks that an error about several names."""


class AsynczException(Exception):
    """An error of asyncz."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(args or (self._default_message(),)))

    @classmethod
    def _default_message(cls) -> str:
        return (cls.__doc__ or cls.__name__).strip().splitlines()[0]

    def __str__(self) -> str:
        # KeyError, a base of the conflict errors, would show the repr of the message.
        return " ".join(str(arg) for arg in self.args)


class AsynczLookupError(AsynczException, LookupError):
    """What was asked for is not here."""


class TaskLookupError(AsynczLookupError):
    """No such task."""

    def __init__(self, task_id: str | None, store: str | None = None) -> None:
        where = f"in the store {store!r}" if store else "in any store of this scheduler"
        super().__init__(f"No task with the id {task_id!r} {where}.")
        self.task_id = task_id
        self.store = store

    def __reduce__(self) -> tuple[type[TaskLookupError], tuple[str | None, str | None]]:
        return type(self), (self.task_id, self.store)


class SchedulerLookupError(AsynczLookupError):
    """No such scheduler."""


class PluginLookupError(AsynczLookupError):
    """No store, executor, trigger or alias of that name."""


class ConflictError(AsynczException, KeyError):
    """Something of that name is there already."""


class ConflictIdError(ConflictError):
    """A task of that id is there already."""

    def __init__(self, task_id: str | None, store: str | None = None) -> None:
        where = f" in the store {store!r}" if store else ""
        super().__init__(
            f"A task with the id {task_id!r} exists already{where}; "
            "give another id, or replace_existing=True to put this one in its place."
        )
        self.task_id = task_id
        self.store = store

    def __reduce__(self) -> tuple[type[ConflictIdError], tuple[str | None, str | None]]:
        return type(self), (self.task_id, self.store)


class ConfigurationError(AsynczException, ValueError):
    """An option of the scheduler, or its value, is not one it can work with."""


class TaskOptionError(AsynczException, TypeError, ValueError):
    """An option or argument of a task is not one it can work with; nothing was changed."""


class TransientTaskError(AsynczException, ValueError):
    """The task's callable has no importable reference, so a persistent store cannot keep it."""


class SerializationError(AsynczException, TypeError, ValueError):
    """A value of the task cannot be written to its store."""


class UnreadableRecordError(AsynczException, ValueError):
    """A record of a store cannot be read; it is kept as it is."""


class MaximumInstancesError(AsynczException):
    """As many runs of the task are going on as its max_instances allows."""

    def __init__(self, task_id: str, total: int) -> None:
        super().__init__(
            f"{total} run(s) of the task {task_id!r} are going on, as many as its max_instances "
            "allows; wait for one to end, or raise max_instances."
        )
        self.task_id = task_id
        self.total = total

    def __reduce__(self) -> tuple[type[MaximumInstancesError], tuple[str, int]]:
        return type(self), (self.task_id, self.total)


class RetryAfter(AsynczException):
    """Raised by a task: try this occurrence again in so many seconds.

    Without a `retry` of the task's, as often as it is raised; with one, as long as that has
    attempts left.

    Args:
        seconds: From now, 0 or more; or a timedelta.
        reason: Why, in words, or an exception that says so.
    """

    def __init__(self, seconds: float | timedelta, reason: object = None) -> None:
        if isinstance(seconds, timedelta):
            seconds = seconds.total_seconds()
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            kind = type(seconds).__name__
            raise TaskOptionError(f"RetryAfter: give seconds or a timedelta, not {kind}.")
        if not 0 <= seconds < 3.2e7:
            raise TaskOptionError(
                f"RetryAfter: seconds must be between 0 and a year, not {seconds!r}."
            )
        self.reason = None if reason is None else text_of(reason)
        super().__init__(self.reason or f"It is to be tried again in {seconds:g} s.")
        self.seconds = float(seconds)

    def __reduce__(self) -> tuple[type[RetryAfter], tuple[float, str | None]]:
        return type(self), (self.seconds, self.reason)


class Skip(AsynczException):
    """Raised by a task: there is nothing to do for this occurrence, which ends as `skipped`.

    Args:
        reason: Why, in words, or an exception that says so; it is kept with the run.
    """

    def __init__(self, reason: object = "the task has skipped it") -> None:
        self.reason = text_of(reason)
        super().__init__(self.reason)

    def __reduce__(self) -> tuple[type[Skip], tuple[str]]:
        return type(self), (self.reason,)


class RunTimeoutError(AsynczException, TimeoutError):
    """A run took longer than the task's `timeout`."""


class NoCurrentRunError(AsynczException, LookupError):
    """This code is not part of a run: current_run() is for the functions that tasks call."""


class RunLookupError(AsynczLookupError):
    """There is no record of such a run."""

    def __init__(self, run_id: str, store: str | None = None) -> None:
        where = f"the store {store!r}" if store else "any store of this scheduler"
        super().__init__(f"There is no run {run_id!r} in {where}.")
        self.run_id = run_id

    def __reduce__(self) -> tuple[type[RunLookupError], tuple[str]]:
        return type(self), (self.run_id,)


class SomeTasksError(AsynczException):
    """Not all of the tasks with a tag could be changed; the others were.

    Args:
        tag: The tag.
        changed: The ids of those that were changed.
        errors: Of each of the others, by its id, why not.
    """

    def __init__(self, tag: str, changed: list[str], errors: dict[str, Exception]) -> None:
        shown = [f"{task_id!r} ({exc})" for task_id, exc in list(errors.items())[:MOST_SHOWN]]
        more = f" and {len(errors) - MOST_SHOWN} more" if len(errors) > MOST_SHOWN else ""
        super().__init__(
            f"{len(errors)} of the tasks with the tag {tag!r} could not be changed: "
            f"{', '.join(shown)}{more}; {len(changed)} were. The attributes errors and changed "
            "have all of them."
        )
        self.tag = tag
        self.changed = changed
        self.errors = errors

    def __reduce__(self) -> tuple[type[SomeTasksError], tuple[object, ...]]:
        return type(self), (self.tag, self.changed, self.errors)


class RemoteTaskError(AsynczException):
    """A task failed in another process with an exception that could not be brought back.

    Args:
        text: How it looked.
        kinds: The names of its classes, as `Retry` knows them; those that cannot be found here too.
    """

    def __init__(self, text: str | None = None, kinds: Iterable[str] = ()) -> None:
        super().__init__(*([] if text is None else [text]))
        self.kinds = frozenset(kinds)


class SchedulerAlreadyRunningError(AsynczException):
    """The scheduler is running already; do this before start(), or shut it down first."""


class SchedulerNotRunningError(AsynczException):
    """The scheduler is not running; call start() first."""


class BlockingCallError(AsynczException, RuntimeError):
    """This call would block the event loop; await its coroutine form instead."""


class StoreError(AsynczException):
    """A store could not do what was asked of it."""


class StoreFormatError(StoreError):
    """What the store holds, or its server, is not of a kind that this release of asyncz can use."""


class StoreFullError(StoreError):
    """The store has as many tasks as its max_tasks allows; delete some, or raise it."""


class StoreInUseError(StoreError):
    """The store object is in use under another alias or by another scheduler."""


class StoreTimeoutError(StoreError, TimeoutError):
    """A store did not answer in time."""


def class_names(kind: type) -> tuple[str, ...]:
    """The names of a class and those that it is derived from, `module:name`."""
    return tuple(f"{each.__module__}:{each.__qualname__}" for each in kind.__mro__)
