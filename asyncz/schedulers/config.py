"""The options of a scheduler, checked."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from datetime import tzinfo
from typing import Annotated, Any
from uuid import uuid4

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from asyncz.clock import Clock, SystemClock
from asyncz.exceptions import ConfigurationError
from asyncz.runs.policy import History
from asyncz.tasks.base import DEFAULT_GRACE_TIME
from asyncz.timezones import as_timezone

__all__ = ["ClassicLogging", "SchedulerOptions", "TaskDefaults", "read_options"]


CLOCK_METHODS = ("now", "monotonic", "call_later", "attach", "detach")


class ClassicLogging(dict[str, logging.Logger]):
    """Loggers by name, from the standard library."""

    def __missing__(self, name: str) -> logging.Logger:
        self[name] = logger = logging.getLogger(name)
        return logger


class TaskDefaults(BaseModel):
    """What holds for a task that does not say otherwise."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mistrigger_grace_time: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = (
        DEFAULT_GRACE_TIME
    )
    coalesce: bool = True
    max_instances: Annotated[int, Field(ge=1)] = 1


def _local_timezone() -> tzinfo:
    import tzlocal  # only a scheduler without a timezone needs the machine's

    return tzlocal.get_localzone()


def _timezone(value: Any) -> tzinfo:
    try:
        return as_timezone(value)
    except TypeError as exc:  # Pydantic lets it through
        raise ValueError(str(exc)) from None


def _new_identity() -> str:
    return f"{os.uname().nodename if hasattr(os, 'uname') else 'host'}-{os.getpid()}-{uuid4().hex}"


def _clock(value: Any) -> Any:
    lacking = [name for name in CLOCK_METHODS if not callable(getattr(value, name, None))]
    if lacking:
        raise ValueError(f"a clock has {', '.join(CLOCK_METHODS)}; this lacks {', '.join(lacking)}")
    return value


Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class SchedulerOptions(BaseModel):
    """All options of a scheduler.

    Args:
        timezone: The zone of triggers that name none; the machine's by default.
        identity: A name for this scheduler, unique among those that share its stores.
        logger_name: Added to `asyncz.schedulers` for the scheduler's logger.
        loggers_class: A mapping of logger names to loggers, for frameworks with their own.
        task_defaults: Grace time, coalescing and instances of tasks that do not say.
        stores, executors: By alias: an object, or a mapping with its `type` and options.
        triggers: Further trigger classes by alias.
        store_timeout: Seconds an operation of a store may take.
        store_retry_interval: Seconds between tries of a store that fails, at most.
        startup_timeout: Seconds for which a start tries a store again that cannot be reached; 0:
            it fails at once.
        shutdown_timeout: Seconds a shutdown may take, whatever the tasks do.
        max_catchup: How many run times of a backlog are run at most.
        lease: Seconds after which a scheduler that was not heard of is taken for dead, and its
            runs are taken over by others that share its store.
        history: How long the records of runs are kept, of tasks that do not say.
        poll_interval: Seconds between looks at a store that others may change, at most.
        lock_path: Of the schedulers with the same path, on one machine, only one is active.
        startup_delay: Seconds that tasks declared before the start wait, with a `lock_path`.
        isolated_event_loop: Run in a thread with an event loop of its own.
        event_loop: The loop that coroutine functions run on.
        clock: Where the time comes from; see `asyncz.testing.VirtualClock`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", frozen=True)

    timezone: Annotated[tzinfo, BeforeValidator(_timezone)] = Field(default_factory=_local_timezone)
    identity: Annotated[str, Field(min_length=1)] = Field(default_factory=_new_identity)
    logger_name: str | None = None
    loggers_class: Callable[[], Any] = ClassicLogging
    task_defaults: TaskDefaults = TaskDefaults()
    stores: dict[str, Any] = Field(default_factory=dict)
    executors: dict[str, Any] = Field(default_factory=dict)
    triggers: dict[str, Any] = Field(default_factory=dict)
    store_timeout: Annotated[float, Field(gt=0)] = 30.0
    store_retry_interval: Annotated[float, Field(gt=0)] = 1.0
    startup_timeout: Seconds = 0.0
    shutdown_timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    max_catchup: Annotated[int, Field(ge=1, le=10_000)] = 100
    lease: Annotated[float, Field(ge=0.5, le=86_400)] = 30.0
    poll_interval: Annotated[float, Field(ge=0.01, le=3_600)] = 1.0
    history: History = History()
    lock_path: str | os.PathLike[str] | None = None
    startup_delay: Seconds = 1.0
    isolated_event_loop: bool = False
    event_loop: Any = None
    clock: Annotated[Any, AfterValidator(_clock)] = Field(default_factory=SystemClock)

    @property
    def time(self) -> Clock:
        """The clock."""
        clock: Clock = self.clock
        return clock


def read_options(
    global_config: Mapping[str, Any] | None, prefix: str | None, options: Mapping[str, Any]
) -> SchedulerOptions:
    """Put dotted settings and keyword options together and check them.

    Args:
        global_config: `{"asyncz.stores.default.type": "file", …}`; keys without the prefix are
            somebody else's.
        prefix: Their prefix, `asyncz.` by default; None: the whole mapping is ours.
        options: These win.

    Raises:
        ConfigurationError: An option is unknown or has a bad value.
    """
    merged = _unfold(global_config or {}, prefix or "")
    for key, value in options.items():
        _put(merged, [key], value)
    try:
        return SchedulerOptions(**merged)
    except ValidationError as exc:
        raise ConfigurationError(_explain(exc)) from None


def _unfold(settings: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in settings.items():
        if key.startswith(prefix):
            _put(tree, key.removeprefix(prefix).split("."), value)
    return tree


def _put(tree: dict[str, Any], path: list[str], value: Any) -> None:
    *parents, last = path
    for name in parents:
        below = tree.setdefault(name, {})
        if not isinstance(below, dict):
            raise ConfigurationError(
                f"The option {'.'.join(path)!r} is below {name!r}, which has a value of its own."
            )
        tree = below
    if isinstance(value, Mapping) and isinstance(tree.get(last), dict):
        tree[last] = {**tree[last], **value}
    else:
        tree[last] = dict(value) if isinstance(value, Mapping) else value


def _explain(error: ValidationError) -> str:
    # Without the values: the options of a store may hold a password.
    parts = []
    for item in error.errors(include_input=False, include_url=False, include_context=False):
        path = ".".join(str(step) for step in item["loc"])
        if item["type"] == "extra_forbidden":
            model = TaskDefaults if path.startswith("task_defaults.") else SchedulerOptions
            known = ", ".join(sorted(model.model_fields))
            parts.append(f"{path} is not an option (the options are {known})")
        else:
            parts.append(f"{path}: {item['msg']}")
    return "Bad scheduler options: " + "; ".join(parts) + "."
