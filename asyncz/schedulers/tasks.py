"""The scheduler's public operations on tasks: each as a coroutine and as a synchronous call."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from asyncz.enums import Delivery
from asyncz.exceptions import TaskOptionError
from asyncz.runs.checked import near
from asyncz.runs.policy import History, Retry
from asyncz.schedulers.bridge import blocking, on_engine
from asyncz.schedulers.task_inspection import TaskInspection
from asyncz.schedulers.transactions import joins_transaction
from asyncz.tasks.base import Task
from asyncz.triggers.base import BaseTrigger, ValueTrigger
from asyncz.triggers.defaults import UNCHANGING
from asyncz.typing import Undefined, undefined

__all__ = ["TaskOperations"]

Fn = Callable[..., Any]


class TaskOperations(TaskInspection):
    """Adding, finding, changing and running tasks.

    Every operation exists twice: `await scheduler.aadd_task(…)` and `scheduler.add_task(…)`. The
    coroutine can be awaited on any event loop. The synchronous call works before the start, with
    stores that live in this process, and from other threads; where it would block the event loop
    it raises `BlockingCallError`, which names the coroutine.

    `store` is a store's alias; left out, all stores are searched, and new tasks go to `default`.
    `task_id` is an id or a `Task`. An unknown one raises `TaskLookupError`, if nothing else is
    said.
    """

    _last_trigger: tuple[type[BaseTrigger], dict[str, Any], BaseTrigger] | None = None

    def create_trigger(
        self, trigger: BaseTrigger | str | None, trigger_args: Mapping[str, Any]
    ) -> BaseTrigger:
        """A trigger from its alias and options; a trigger object is returned as it is.

        Raises:
            PluginLookupError: There is no trigger of that alias.
            TaskOptionError: Options beside a trigger object.
            ValueError: A bad option; the message names it.
        """
        if isinstance(trigger, BaseTrigger):
            if trigger_args:
                raise TaskOptionError(
                    f"Unknown options: {', '.join(sorted(trigger_args))}. Beside a trigger "
                    "object, options of a trigger can only be given to the object itself."
                )
            return trigger
        if trigger is not None and not isinstance(trigger, str):
            raise TaskOptionError(
                f"A trigger is a trigger object or its alias, not {type(trigger).__name__}."
            )
        found = self._engine.plugins.find("trigger", trigger or "date")
        if "timezone" in found.model_fields and "timezone" not in trigger_args:
            trigger_args = {**trigger_args, "timezone": self._engine.timezone}
        try:
            return self._made_or_shared(found, trigger_args)
        except ValueError as exc:
            unknown = trigger_args.keys() - found.model_fields.keys()
            meant = {each for name in unknown for each in near(name, Task.model_fields)}
            if not meant:
                raise
            options = ", ".join(sorted(meant))
            raise TaskOptionError(f"{exc}. Among the options of a task is {options}.") from None

    def _made_or_shared(self, kind: type[BaseTrigger], options: Mapping[str, Any]) -> BaseTrigger:
        """A new trigger, or the last one if it was made of the very same options.

        Triggers of ours are values, so 100,000 tasks that are added with one schedule can have one
        trigger: that is a third of the objects which the garbage collector has to look at.
        """
        last = self._last_trigger
        if last is not None and last[0] is kind and last[1].keys() == options.keys():
            before = last[1]
            if all(value is before[name] for name, value in options.items()):
                return last[2]
        made = kind(**options)
        if issubclass(kind, ValueTrigger) and all(
            isinstance(value, UNCHANGING) for value in options.values()
        ):
            self._last_trigger = kind, dict(options), made
        return made

    @joins_transaction
    @on_engine
    async def aadd_task(
        self,
        /,
        fn_or_task: Fn | Task | str | None = None,
        trigger: BaseTrigger | str | None = None,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        id: str | None = None,
        name: str | None = None,
        mistrigger_grace_time: float | Undefined | None = undefined,
        coalesce: bool | Undefined = undefined,
        max_instances: int | Undefined = undefined,
        next_run_time: datetime | str | Undefined | None = undefined,
        delivery: Delivery | str | Undefined = undefined,
        store: str | None = None,
        executor: str | None = None,
        replace_existing: bool = False,
        fn: Fn | str | None = None,
        connection: Any = None,
        retry: Retry | None = None,
        timeout: float | None = None,
        tags: str | Iterable[str] | None = None,
        on_success: Fn | str | None = None,
        on_failure: Fn | str | None = None,
        on_missed: Fn | str | None = None,
        store_result: bool | None = None,
        history: History | None = None,
        expect_every: float | None = None,
        **trigger_args: Any,
    ) -> Task:
        """Add a task; without a function: return a decorator that adds what it decorates.

        Args:
            fn_or_task: A callable, a reference to one (`package.module:name`), or a `Task`.
            trigger: A trigger, or its alias with its options as further keyword arguments.
                Left out: `date` with those options, so without any: once, now.
            args, kwargs: What the callable is called with.
            id: Unique in its store. Left out: a random one; in a persistent store, before the
                start or as a decorator, the callable's reference.
            name: For people; the callable's name by default.
            mistrigger_grace_time: Seconds a run may be late; None: any lateness. By default 60,
                and any lateness for one-off tasks.
            coalesce: Whether several due runs become one. True by default.
            max_instances: How many runs may go on at once. 1 by default.
            next_run_time: When to run first, whatever the trigger says; None: add it paused.
            delivery: What happens to a run whose worker is killed: `at_least_once`, which is the
                default: it is started again; `at_most_once`: it is not, if it may have been.
            store, executor: Their aliases.
            replace_existing: Take the place of a task of this id. With an unchanged trigger the
                next run time stays, so a restart postpones nothing.
            connection: With a `SQLAlchemyStore`: an `AsyncConnection` or `AsyncSession`, whose
                transaction the task is added in. It runs once that is committed, or never.
            retry, timeout, tags: What is done about failures, seconds that a run may take, and
                texts to name tasks by that belong together; see `Task`.
            on_success, on_failure, on_missed: Called with the `Run` that has ended so.
            expect_every: Seconds within which it should succeed; otherwise it is overdue.
            store_result, history: Whether what it returns is kept, and for how long its runs are.

        Raises:
            TaskOptionError: An option is wrong. Nothing was changed.
            ConflictIdError: There is a task of this id, and `replace_existing` is not set.
            PluginLookupError: There is no such store, executor or trigger.
            TransientTaskError, SerializationError: The store cannot keep this callable, or one of
                its arguments.
            StoreError: The store failed, or it has no transactions for `connection` to be of.
        """
        if fn is not None:
            warnings.warn("fn is now called fn_or_task", DeprecationWarning, stacklevel=2)
            fn_or_task = fn
        given: dict[str, Any] = {"args": args, "kwargs": kwargs, "id": id, "name": name}
        given |= {"store_alias": store, "executor": executor, "retry": retry, "timeout": timeout}
        given |= {"tags": tags, "store_result": store_result, "history": history}
        given |= {"expect_every": expect_every}
        given |= {"on_success": on_success, "on_failure": on_failure, "on_missed": on_missed}
        options = {key: value for key, value in given.items() if value is not None}
        if trigger is not None or trigger_args or not isinstance(fn_or_task, Task):
            options["trigger"] = self.create_trigger(trigger, trigger_args)
        optional = {
            "mistrigger_grace_time": mistrigger_grace_time, "coalesce": coalesce,
            "max_instances": max_instances, "next_run_time": next_run_time, "delivery": delivery,
        }  # fmt: skip
        options.update((key, value) for key, value in optional.items() if value is not undefined)
        if fn_or_task is None:
            return Task(scheduler=self, **options)
        if isinstance(fn_or_task, Task):
            task = fn_or_task
            if options:
                task.update_task(**options)
        else:
            task = Task(fn_or_task, **options)
        return await self._operations.add(task, replace_existing, connection)

    add_task = blocking(aadd_task)

    @joins_transaction
    @on_engine
    async def aadd_tasks(self, tasks: Sequence[Task], *, connection: Any = None) -> list[Task]:
        """Add several tasks to one store: all of them, or, if one is refused, none.

        Args:
            tasks: Made with `Task(fn, trigger=…)`, not added yet, all for the same store. A store
                with a server takes them in one round trip, or in few.
            connection: As for `aadd_task`; they are then added one after the other.

        Raises:
            TaskOptionError: A task is wrong, or they are for several stores.
            ConflictIdError: An id is taken, or is there twice.
            TransientTaskError, SerializationError: The store cannot keep one of them.
            StoreError: The store failed, or it has no transactions for `connection` to be of.
        """
        added = list(tasks)
        await self._operations.add_many(added, connection)
        return added

    add_tasks = blocking(aadd_tasks)

    @on_engine
    async def areal_add_task(
        self,
        task: Task,
        replace_existing: bool = False,
        start_task: bool = True,
        min_dtime: datetime | None = None,
    ) -> None:
        """Put a task into its store now.

        Args:
            task: Not added yet.
            replace_existing: Take the place of a task of this id.
            start_task: False: add it paused.
            min_dtime: It does not run before this instant.
        """
        if not start_task:
            task.update_task(next_run_time=None)
        await self._operations.add_to_store(task, replace_existing, min_dtime)

    real_add_task = blocking(areal_add_task)

    @joins_transaction
    @on_engine
    async def aupdate_task(
        self,
        /,
        task_id: Task | str,
        store: str | None = None,
        *,
        connection: Any = None,
        **updates: Any,
    ) -> Task:
        """Change options of a task: `fn`, `args`, `name`, `max_instances` and so on.

        Everything is checked before anything is changed. A new trigger gives a new next run time,
        unless `next_run_time` is given too.

        Args:
            task_id, store: The task.
            connection: As for `aadd_task`: the change counts once the transaction is committed.
            updates: The options.

        Raises:
            TaskOptionError: An option does not exist, cannot be changed, or has a bad value.
            StoreError: The store failed, or it has no transactions for `connection` to be of.
        """
        return await self._operations.update(task_id, store, updates, connection)

    update_task = blocking(aupdate_task)

    @on_engine
    async def areschedule_task(
        self,
        /,
        task_id: Task | str,
        store: str | None = None,
        trigger: BaseTrigger | str | None = None,
        **trigger_args: Any,
    ) -> Task:
        """Give a task another trigger, and the next run time that comes from it."""
        made = self.create_trigger(trigger, trigger_args)
        return await self._operations.update(task_id, store, {"trigger": made})

    reschedule_task = blocking(areschedule_task)

    @on_engine
    async def apause_task(self, task_id: Task | str, store: str | None = None) -> Task:
        """Keep a task from running until it is resumed."""
        return await self._operations.update(task_id, store, {"next_run_time": None})

    pause_task = blocking(apause_task)

    @on_engine
    async def aresume_task(self, task_id: Task | str, store: str | None = None) -> Task | None:
        """Let a paused task run again. Returns None if it had no more run times: it is deleted."""
        return await self._operations.resume(task_id, store)

    resume_task = blocking(aresume_task)

    @on_engine
    async def arun_task(
        self,
        task_id: Task | str,
        store: str | None = None,
        *,
        force: bool = True,
        remove_finished: bool = True,
    ) -> Task | None:
        """Run a task now, apart from its schedule, which stays as it is.

        Args:
            task_id, store: The task.
            force: Run it also when it is not due.
            remove_finished: Delete a task that has no run times after now; False: pause it.

        Returns:
            The task, or None if it was deleted.

        Raises:
            SchedulerNotRunningError: The scheduler has not started.
            MaximumInstancesError: As many runs go on as its `max_instances` allows.
        """
        return await self._operations.run(task_id, store, force, remove_finished)

    run_task = blocking(arun_task)

    @on_engine
    async def adelete_task(self, task_id: Task | str, store: str | None = None) -> None:
        """Take a task out of its store."""
        await self._operations.delete(task_id, store)

    delete_task = blocking(adelete_task)

    @on_engine
    async def aremove_all_tasks(self, store: str | None = None) -> None:
        """Take all tasks out of a store, or out of all stores."""
        await self._operations.delete_all(store)

    remove_all_tasks = blocking(aremove_all_tasks)

    # Those that belong together.

    @on_engine
    async def apause_tasks(self, tag: str, store: str | None = None) -> list[Task]:
        """`pause_task` for each task with this tag. Returns those that are paused now."""
        return await self._operations.each_tagged(tag, store, self._operations.pause)

    pause_tasks = blocking(apause_tasks)

    @on_engine
    async def aresume_tasks(self, tag: str, store: str | None = None) -> list[Task]:
        """`resume_task` for each task with this tag. Returns those that run again."""
        return await self._operations.each_tagged(tag, store, self._operations.resume)

    resume_tasks = blocking(aresume_tasks)

    @on_engine
    async def arun_tasks(self, tag: str, store: str | None = None) -> list[Task]:
        """`run_task` for each task with this tag.

        Returns:
            Those that were started, as they were before. One that goes on as often as its
            `max_instances` allows is passed over; `TASK_MAX_INSTANCES` tells of it.
        """
        return await self._operations.each_tagged(tag, store, self._operations.run_if_possible)

    run_tasks = blocking(arun_tasks)

    @on_engine
    async def adelete_tasks(self, tag: str, store: str | None = None) -> list[Task]:
        """`delete_task` for each task with this tag. Returns those that were deleted."""
        return await self._operations.each_tagged(tag, store, self._operations.delete_known)

    delete_tasks = blocking(adelete_tasks)
