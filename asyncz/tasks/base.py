"""The task: what to call, with what, when and where."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, tzinfo
from typing import Annotated, Any, ClassVar, Protocol, Self, TypeVar

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    StrictBool,
    ValidationError,
)

from asyncz.enums import Delivery, TaskScheduleState
from asyncz.exceptions import SchedulerNotRunningError, TaskOptionError
from asyncz.runs.policy import History, Retry
from asyncz.tasks.callables import (
    callable_name,
    check_arguments,
)
from asyncz.tasks.inspection import TaskInfo
from asyncz.tasks.options import (
    REACTIONS,
    Reaction,
    check_reactions,
    explain_options,
    instant,
    positional,
    resolve_callable,
    tag_texts,
)
from asyncz.text import printable
from asyncz.triggers.base import BaseTrigger, in_utc

__all__ = ["DEFAULT_GRACE_TIME", "Task", "TaskHost"]

DEFAULT_GRACE_TIME = 60.0
"""Seconds a run may be late before it is missed: a busy second must not drop a job."""

MAX_RUN_TIMES = 100

F = TypeVar("F", bound=Callable[..., Any])

_new_model = BaseModel.__new__
_put = object.__setattr__
# What validation puts beside the fields, by the slots themselves: three times faster than by name.
_put_fields_set = BaseModel.__dict__["__pydantic_fields_set__"].__set__
_put_extra = BaseModel.__dict__["__pydantic_extra__"].__set__
_put_private = BaseModel.__dict__["__pydantic_private__"].__set__


class TaskHost(Protocol):
    """What a task needs of its scheduler."""

    def add_task(self, fn_or_task: Any = None, /, *, replace_existing: bool = ...) -> Any: ...
    def update_task(self, task_id: Any, store: str | None = ..., **updates: Any) -> Any: ...
    def reschedule_task(
        self, task_id: Any, store: str | None = ..., trigger: Any = ..., **trigger_args: Any
    ) -> Any: ...
    def pause_task(self, task_id: Any, store: str | None = ...) -> Any: ...
    def resume_task(self, task_id: Any, store: str | None = ...) -> Any: ...
    def delete_task(self, task_id: Any, store: str | None = ...) -> None: ...


class Task(BaseModel):
    """A callable, its arguments, its schedule, and the limits it runs under.

    With `fn` it is a task to be added; without, a decorator that adds what it decorates:
    `@Task(trigger=…, scheduler=scheduler)`.

    Args:
        fn: The callable, or a reference to it (`package.module:name`).
        id: Unique in its store. Left out: the scheduler gives one when the task is added.
        name: For people. Left out: the callable's name.
        args, kwargs: What to call it with; checked against its signature.
        trigger: When. Left out: once, at once.
        executor, store_alias: Where it runs and is kept, by alias.
        mistrigger_grace_time: Seconds a run may be late before it counts as missed; None: any.
        coalesce: Run once for several run times that are due together.
        max_instances: How many runs of it may go on at once.
        delivery: Whether a run whose worker is killed is started again (`at_least_once`) or,
            once it may have been started, is not (`at_most_once`).
        next_run_time: Aware. The first run, whatever the trigger says; None: paused.
        retry: Whether and when a run that failed is tried again.
        timeout: Seconds that a run may take, each attempt by itself.
        tags: Texts to name tasks by that belong together.
        on_success, on_failure, on_missed: Called with the `Run` once it has ended so: coroutine
            functions on the app's loop, others in a thread. `on_failure` not for an attempt that
            is followed by another. For a persistent store, importable like `fn`.
        store_result: Whether what it returns is kept with its run.
        history: How long the records of its runs are kept; None: as the scheduler says.
        expect_every: Seconds within which it should succeed, again and again; its grace time, or
            a minute, is added. If not, it is overdue.
        scheduler: Set by the scheduler, or given to a decorator.

    Raises:
        TaskOptionError: An option has the wrong type or value, or the arguments do not fit.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", validate_default=False)

    id: Annotated[str, Field(strict=True, min_length=1)] | None = None
    name: Annotated[str, Field(strict=True, min_length=1)] | None = None
    fn: Callable[..., Any] | None = Field(default=None, repr=False)
    fn_reference: str | None = None
    args: Annotated[tuple[Any, ...], BeforeValidator(positional)] = Field(default=(), repr=False)
    kwargs: dict[str, Any] = Field(default_factory=dict, repr=False)
    coalesce: StrictBool = True
    trigger: InstanceOf[BaseTrigger] | None = None
    executor: Annotated[str, Field(strict=True, min_length=1)] | None = None
    store_alias: Annotated[str, Field(strict=True, min_length=1)] | None = None
    mistrigger_grace_time: (
        Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] | None
    ) = DEFAULT_GRACE_TIME
    max_instances: Annotated[int, Field(strict=True, ge=1)] = 1
    next_run_time: Annotated[AwareDatetime, BeforeValidator(instant)] | None = None
    delivery: Delivery = Delivery.AT_LEAST_ONCE
    retry: Retry | None = None
    timeout: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] | None = None
    tags: Annotated[tuple[str, ...], BeforeValidator(tag_texts)] = ()
    on_success: Reaction | None = Field(default=None, repr=False)
    on_failure: Reaction | None = Field(default=None, repr=False)
    on_missed: Reaction | None = Field(default=None, repr=False)
    store_result: StrictBool = True
    history: History | None = None
    expect_every: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] | None = None
    scheduler: Any = Field(default=None, repr=False, exclude=True)
    pending: bool = True
    submitted: bool = False

    _all_fields: ClassVar[set[str]]

    def __init__(self, fn: Callable[..., Any] | str | None = None, **options: Any) -> None:
        if fn is not None:
            options.update(resolve_callable(fn))
            options.setdefault("name", None)
            if options["name"] is None:
                options["name"] = callable_name(options["fn"])
        try:
            self._take_checked(options)
        except ValidationError as exc:
            known = type(self).model_fields
            raise TaskOptionError(explain_options(exc, options.get("id"), known)) from None
        if self.fn is not None:
            check_arguments(self.fn, self.args, self.kwargs)
        if self.has_reactions:
            check_reactions({name: getattr(self, name) for name in REACTIONS})

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls._all_fields = set(cls.model_fields)

    def _take_checked(self, options: dict[str, Any]) -> None:
        """Validate the options and keep them, as Pydantic's own `__init__` does, but compactly.

        Pydantic gives each object a new dictionary. An object whose attributes are set one by one
        has an array instead, as its names are those of all others of its class (PEP 412): half of
        the memory, and half of what the garbage collector visits while 100,000 tasks are added.
        """
        if self.__pydantic_post_init__ is not None:
            super().__init__(**options)
            return
        checked = _new_model(BaseModel)
        self.__pydantic_validator__.validate_python(options, self_instance=checked)
        _put_extra(self, checked.__pydantic_extra__)
        _put_private(self, None)
        self.adopt(checked.__dict__, checked.__pydantic_fields_set__)

    @classmethod
    def of_checked(cls, values: dict[str, Any]) -> Self:
        """A settled task of these values for all its fields, which are not validated again.

        The dictionary becomes the task's own: such tasks are many and live for a moment, and one
        assignment takes less time than one for each field.
        """
        task = _new_model(cls)
        _put(task, "__dict__", values)
        _put_extra(task, None)
        _put_private(task, None)
        _put_fields_set(task, cls._all_fields)
        return task

    @property
    def paused(self) -> bool:
        """Whether the task is in a store without a next run time."""
        return not self.pending and self.next_run_time is None

    @property
    def schedule_state(self) -> TaskScheduleState:
        """Pending, paused or scheduled."""
        if self.pending:
            return TaskScheduleState.PENDING
        if self.next_run_time is None:
            return TaskScheduleState.PAUSED
        return TaskScheduleState.SCHEDULED

    @property
    def has_reactions(self) -> bool:
        """Whether something is to be called when its runs end."""
        return not (self.on_success is self.on_failure is self.on_missed is None)

    def settle_options(self) -> None:
        """Forget which options were given and which are defaults: all of them now count.

        Until then the scheduler may fill in its own defaults. One set serves all tasks, which
        keeps a task small.
        """
        self.adopt({})

    def adopt(self, values: dict[str, Any], given: set[str] | None = None) -> None:
        """Take over values that the scheduler has checked or worked out itself.

        Args:
            values: By field. They are not validated again.
            given: The fields that count as given; None: all.
        """
        # By __dict__, or by Pydantic's __setattr__, the task would get a dictionary of its own.
        for name, value in values.items():
            _put(self, name, value)
        _put_fields_set(self, self._all_fields if given is None else given)

    def field_values(self, names: Iterable[str] | None = None) -> dict[str, Any]:
        """The values of these fields, of all by default; what `adopt` puts back."""
        return {name: getattr(self, name) for name in names or type(self).model_fields}

    def get_run_times(
        self, timezone: tzinfo, now: datetime, limit: int = MAX_RUN_TIMES
    ) -> list[datetime]:
        """The run times from `next_run_time` to `now`, both included, at most `limit` of them."""
        run_times: list[datetime] = []
        moment, now = self.next_run_time, in_utc(now)
        while moment is not None and moment <= now and len(run_times) < limit:
            run_times.append(moment)
            if self.trigger is None:
                break
            moment = self.trigger.get_next_trigger_time(timezone, moment, now)
        return run_times

    def update_task(
        self,
        *,
        fn: Callable[..., Any] | str | None = None,
        scheduler: TaskHost | None = None,
        **updates: Any,
    ) -> None:
        """Change this object, and only it: everything is checked before anything is changed.

        To change a task in its store as well, use `update` or the scheduler's `update_task`.

        Raises:
            TaskOptionError: An option does not exist, cannot be changed or has a bad value.
        """
        self._refuse_unknown(updates)
        options = self.field_values()
        del options["fn"]
        options.update(updates)
        if scheduler is not None:
            options["scheduler"] = scheduler
        if fn is None:
            options["fn"] = self.fn
            checked = type(self)(**options)
            # What a reference names need not know its own name: a partial, a callable object.
            checked.fn_reference = self.fn_reference
        else:
            if self.fn is not None and self.name == callable_name(self.fn):
                options["name"] = updates.get("name")
            checked = type(self)(fn, **options)
        given = self.model_fields_set | updates.keys() | ({"fn"} if fn is not None else set())
        settled = self.__pydantic_fields_set__ is self._all_fields
        self.adopt(checked.field_values(), None if settled else given)

    def _refuse_unknown(self, updates: dict[str, Any]) -> None:
        fixed = {"id", "fn_reference", "pending", "submitted"}
        changeable = type(self).model_fields.keys() - fixed
        bad = sorted(key for key in updates if key not in changeable)
        if bad:
            raise TaskOptionError(
                f"Task {self.id!r}: {', '.join(bad)} cannot be changed; "
                f"what can be is {', '.join(sorted(changeable))}."
            )

    def update(self, **updates: Any) -> Task:
        """Change the task, here and in its store; see the scheduler's `update_task`."""
        return self._follow(self._host().update_task(self._own_id(), self.store_alias, **updates))

    def reschedule(self, trigger: BaseTrigger | str | None = None, **trigger_args: Any) -> Task:
        """Give the task another trigger; see the scheduler's `reschedule_task`."""
        return self._follow(
            self._host().reschedule_task(self._own_id(), self.store_alias, trigger, **trigger_args)
        )

    def pause(self) -> Task:
        """Stop running the task until it is resumed."""
        return self._follow(self._host().pause_task(self._own_id(), self.store_alias))

    def resume(self) -> Task:
        """Run the task again; a task whose trigger has no more run times is deleted."""
        return self._follow(self._host().resume_task(self._own_id(), self.store_alias))

    def delete(self) -> None:
        """Take the task out of its store."""
        self._host().delete_task(self._own_id(), self.store_alias)

    def snapshot(self) -> TaskInfo:
        """What can be seen of the task now, as a frozen model."""
        trigger, fn = self.trigger, self.fn
        return TaskInfo(
            id=self.id,
            name=self.name,
            callable_name=callable_name(fn) if fn is not None else None,
            callable_reference=self.fn_reference,
            trigger_alias=trigger.alias if trigger is not None else None,
            trigger_name=type(trigger).__name__ if trigger is not None else None,
            trigger_description=str(trigger) if trigger is not None else None,
            executor=self.executor,
            store_alias=self.store_alias,
            schedule_state=self.schedule_state,
            next_run_time=self.next_run_time,
            coalesce=self.coalesce,
            max_instances=self.max_instances,
            mistrigger_grace_time=self.mistrigger_grace_time,
            pending=self.pending,
            paused=self.paused,
            submitted=self.submitted,
            tags=self.tags,
            timeout=self.timeout,
            args=self.args,
            kwargs=dict(self.kwargs),
        )

    def __call__(self, fn: F) -> F:
        """Decorate: add a task that calls `fn` with this task's options, and return `fn`."""
        given = {
            name: getattr(self, name)
            for name in self.model_fields_set - {"fn", "fn_reference", "pending", "submitted"}
        }
        task = type(self)(fn, **given)
        if self.scheduler is None:
            raise TaskOptionError(
                "A task used as a decorator needs its scheduler: Task(scheduler=…, trigger=…)."
            )
        self.scheduler.add_task(task, replace_existing=task.id is not None)
        return fn

    def _host(self) -> TaskHost:
        if self.scheduler is None:
            raise SchedulerNotRunningError(f"Task {self.id!r} has not been added to a scheduler.")
        host: TaskHost = self.scheduler
        return host

    def _follow(self, stored: Task | None) -> Task:
        # A store that keeps records hands out copies; this one must not fall behind them.
        if stored is not None and stored is not self:
            self.adopt(stored.field_values(), self.__pydantic_fields_set__)
        return self

    def _own_id(self) -> str:
        if self.id is None:
            raise TaskOptionError("This task has no id: it is a decorator, or was not added yet.")
        return self.id

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Task):
            return NotImplemented
        return self is other or (
            self.id is not None and (self.id, self.store_alias) == (other.id, other.store_alias)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Task id={self.id!r} name={self.name!r}>"

    def __str__(self) -> str:
        if self.pending:
            when = "pending"
        elif self.next_run_time is None:
            when = "paused"
        else:
            when = f"next run at {self.next_run_time.isoformat(sep=' ')}"
        return printable(f"{self.name} (trigger: {self.trigger}, {when})")


Task._all_fields = set(Task.model_fields)
