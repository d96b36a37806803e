"""Every error asyncz raises on purpose: what was wrong, and what to do about it."""

from __future__ import annotations

__all__ = [
    "AsynczException",
    "AsynczLookupError",
    "BlockingCallError",
    "ConfigurationError",
    "ConflictError",
    "ConflictIdError",
    "MaximumInstancesError",
    "PluginLookupError",
    "RemoteTaskError",
    "SchedulerAlreadyRunningError",
    "SchedulerLookupError",
    "SchedulerNotRunningError",
    "SerializationError",
    "StoreError",
    "StoreFullError",
    "StoreInUseError",
    "StoreTimeoutError",
    "TaskLookupError",
    "TaskOptionError",
    "TransientTaskError",
    "UnreadableRecordError",
]


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


class RemoteTaskError(AsynczException):
    """A task failed in another process with an exception that could not be brought back."""


class SchedulerAlreadyRunningError(AsynczException):
    """The scheduler is running already; do this before start(), or shut it down first."""


class SchedulerNotRunningError(AsynczException):
    """The scheduler is not running; call start() first."""


class BlockingCallError(AsynczException, RuntimeError):
    """This call would block the event loop; await its coroutine form instead."""


class StoreError(AsynczException):
    """A store could not do what was asked of it."""


class StoreFullError(StoreError):
    """The store has as many tasks as its max_tasks allows; delete some, or raise it."""


class StoreInUseError(StoreError):
    """The store object is in use under another alias or by another scheduler."""


class StoreTimeoutError(StoreError, TimeoutError):
    """A store did not answer in time."""
