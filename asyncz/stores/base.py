"""The contract of a store: it keeps tasks and says which are due; it decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from datetime import datetime, tzinfo
from logging import Logger
from threading import RLock
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field

from asyncz.clock import Clock
from asyncz.exceptions import StoreError, StoreFullError, StoreInUseError
from asyncz.tasks.base import Task
from asyncz.tasks.inspection import TaskInfo
from asyncz.tasks.query import FoundTasks, TaskCounts, TaskQuery
from asyncz.triggers.base import BaseTrigger

__all__ = [
    "BaseStore",
    "ExpectingTasks",
    "QuarantineNews",
    "QuarantinedTask",
    "StoreHost",
    "TaskAdvance",
    "is_same_instant",
]

NO_IDS: frozenset[str] = frozenset()


def is_same_instant(one: datetime | None, other: datetime | None) -> bool:
    """Whether two times are the same instant, or both are None.

    Not `==`: Python takes the two passes of a repeated hour in one zone for equal, and each of
    them for unequal to the same time in another zone.
    """
    if one is None or other is None:
        return one is other
    return one is other or one.timestamp() == other.timestamp()


class StoreHost(Protocol):
    """What a store is handed when it starts: the scheduler, as far as a store may know it."""

    @property
    def clock(self) -> Clock: ...
    @property
    def timezone(self) -> tzinfo: ...
    @property
    def loggers(self) -> Mapping[str, Logger]: ...
    @property
    def trigger_types(self) -> Mapping[str, type[BaseTrigger]]:
        """The trigger classes by alias, plugins included: what a record's trigger may be."""

    def quarantine_changed(self, store: str, news: Sequence[QuarantineNews]) -> None:
        """Say which records cannot be read, or can be again. Called on any thread, once for each.

        Args:
            store: The alias of the store.
            news: In the order in which it was come across.
        """


class TaskAdvance(NamedTuple):
    """One step of a task's schedule: its due run times were planned, it is due again later.

    Args:
        task: The task as `get_due_tasks` gave it.
        expected: The next run time it had then. If the store has another one by now, somebody
            else was faster, and the step is not made.
        next_run_time: When it is due again; None: never, and the store forgets the task.
    """

    task: Task
    expected: datetime
    next_run_time: datetime | None


class QuarantinedTask(NamedTuple):
    """A record that is kept but cannot be made into a task.

    Args:
        task_id: Its id, or where it lies if even that cannot be read.
        error: Why, in words.
    """

    task_id: str
    error: str


class QuarantineNews(NamedTuple):
    """A record went into the quarantine or came out of it.

    Args:
        task_id: As in `QuarantinedTask`.
        error: Why it cannot be read, in words, on one line; None: it can be again.
    """

    task_id: str
    error: str | None


class ExpectingTasks(NamedTuple):
    """Some of the tasks that have `expect_every`.

    Args:
        found: Each with the instant at which it was added, where the store knows that.
        rest: What gives those that come next, if it is handed back; None: these were the last.
    """

    found: list[tuple[Task, datetime | None]]
    rest: Any = None


class BaseStore(BaseModel):
    """Base of all stores. Every operation is a coroutine and runs on the scheduler's loop.

    A subclass implements the abstract operations; `asyncz.testing` has the suite that says
    whether it does so rightly. Times are compared at microsecond precision.

    Args:
        alias: The name the scheduler knows it by; set at `start`.
        max_tasks: How many tasks it takes; None: any number. What several processes add within
            a second of one another may go beyond it.
    """

    # The value of a wrong option may be a password.
    model_config = ConfigDict(
        arbitrary_types_allowed=True, extra="forbid", hide_input_in_errors=True
    )

    in_process: ClassVar[bool] = False
    """Whether every operation ends without ever waiting, and the tasks live only in this process.

    Such a store may be used by synchronous calls on the event loop's own thread."""

    alias: str | None = None
    max_tasks: Annotated[int, Field(ge=1)] | None = None

    def model_post_init(self, context: Any, /) -> None:
        # Ordinary attributes: Pydantic's private ones take several times as long to find.
        self._host: StoreHost | None = None

    @property
    def due_page(self) -> int:
        """How many due tasks a pass takes at a time, unless the store is in this process.

        Each page costs a few round trips. What it starts begins in one go, and with more of it the
        event loop would wait too long for its turn.
        """
        return 192

    async def start(self, scheduler: StoreHost, alias: str) -> None:
        """Get ready: connect, make tables or directories.

        Raises:
            StoreInUseError: It is in use under another alias or by another scheduler.
        """
        if self._host is not None:
            raise StoreInUseError(
                f"The store {self.alias!r} ({type(self).__name__}) is in use already; "
                "give each scheduler and each alias a store object of its own."
            )
        self._host = scheduler
        self.alias = alias

    async def shutdown(self) -> None:
        """Release what `start` took. Harmless when not started."""
        self._host = None

    async def add_task(self, task: Task) -> None:
        """Keep a task.

        Raises:
            ConflictIdError: Its id is taken, perhaps by a record that cannot be read.
            StoreFullError: There are `max_tasks` tasks already.
        """
        raise self._lacks("add_task")

    async def add_tasks(self, tasks: Sequence[Task]) -> None:
        """Keep several tasks: all of them, or, if one is refused, none.

        Raises:
            ConflictIdError: An id is taken, or is there twice.
            StoreFullError: They would be more than `max_tasks`.
        """
        added: list[str] = []
        try:
            for task in tasks:
                await self.add_task(task)
                added.append(str(task.id))
        except BaseException:
            for task_id in added:
                await self.delete_task(task_id)
            raise

    def within(self, connection: Any) -> BaseStore:
        """This store inside a transaction of the caller's. Raises StoreError if it has none."""
        raise StoreError(
            f"The store {self.alias!r} ({type(self).__name__}) cannot join a transaction; "
            "leave connection out, or use a SQLAlchemyStore."
        )

    async def when_ended(self, tell: Callable[[bool], None]) -> None:
        """Have `tell` called when the transaction that this store is `within` has ended.

        Args:
            tell: Called on the running loop, with whether it was committed.
        """
        raise self._lacks("when_ended")

    async def update_task(self, task: Task) -> None:
        """Replace the task of that id. Raises TaskLookupError if there is none."""
        raise self._lacks("update_task")

    async def update_task_if(self, task: Task, expected: datetime | None) -> bool:
        """Replace the task of that id, if its next run time is still `expected` (None: paused).

        Whoever has read a task and writes it back would otherwise set the clock of its schedule
        back, if another scheduler has fired it meanwhile. A store that several may share does it
        as one atomic change; this one is for those that nobody else uses.

        Returns:
            False: it has moved on. Raises TaskLookupError if there is none.
        """
        stored = await self.lookup_task(str(task.id))
        if stored is not None and not is_same_instant(stored.next_run_time, expected):
            return False
        await self.update_task(task)
        return True

    async def delete_task(self, task_id: str) -> None:
        """Forget a task. Raises TaskLookupError if there is none."""
        raise self._lacks("delete_task")

    async def remove_all_tasks(self) -> None:
        """Forget all tasks."""
        raise self._lacks("remove_all_tasks")

    async def lookup_task(self, task_id: str) -> Task | None:
        """The task of that id; None if there is none or its record cannot be read."""
        raise self._lacks("lookup_task")

    async def get_task(self, task_id: str) -> Task | None:
        """The same as `lookup_task`."""
        return await self.lookup_task(task_id)

    async def get_due_tasks(
        self, now: datetime, limit: int | None = None, exclude: Set[str] = NO_IDS
    ) -> list[Task]:
        """The tasks due at or before `now`, earliest first, equal ones in order of insertion.

        Args:
            now: Aware. It may be ahead of the time, to see what is going to be due.
            limit: At most so many; that there are less says that these are all.
            exclude: Ids to pass over.
        """
        raise self._lacks("get_due_tasks")

    async def get_next_run_time(self, after: datetime | None = None) -> datetime | None:
        """The earliest next run time there is (later than `after`), or None."""
        raise self._lacks("get_next_run_time")

    async def get_all_tasks(self) -> list[Task]:
        """All readable tasks, by next run time, equal ones in order of insertion, paused last."""
        raise self._lacks("get_all_tasks")

    async def find_tasks(self, query: TaskQuery, exclude: Set[str] = NO_IDS) -> FoundTasks:
        """A page of snapshots, those of unreadable records included.

        This one looks at all tasks; a store that may have many asks its server.

        Args:
            query: Which, in which order, from which place on.
            exclude: Ids to pass over.
        """
        infos = [task.snapshot() for task in await self.get_all_tasks() if task.id not in exclude]
        for task_id, error in await self.get_quarantined_tasks():
            infos.append(TaskInfo.of_unreadable(task_id, self.alias, error))
        return query.select(infos)

    async def get_expecting_tasks(self, rest: Any = None) -> ExpectingTasks:
        """The tasks that have `expect_every`, some at a time, in any order.

        This one looks at all tasks; a store that may have many asks its server.

        Args:
            rest: As the answer before had it; None: from the beginning.
        """
        tasks = await self.get_all_tasks()
        return ExpectingTasks([(task, None) for task in tasks if task.expect_every is not None])

    async def count_tasks(self) -> TaskCounts:
        """How many tasks it has: scheduled, paused and unreadable ones."""
        tasks = await self.get_all_tasks()
        paused = sum(task.next_run_time is None for task in tasks)
        unreadable = await self.get_quarantined_tasks()
        return TaskCounts(len(tasks) - paused, paused, quarantined=len(unreadable))

    async def advance_tasks(self, advances: Sequence[TaskAdvance]) -> list[bool]:
        """Make the steps, and say for each whether it was made.

        A step is made only if the task still has the next run time that was expected. This one
        is right for a store with one scheduler; a store that can, does each as one atomic change.
        """
        made = []
        for task, expected, next_run_time in advances:
            task_id = str(task.id)
            stored = await self.lookup_task(task_id)
            won = stored is not None and is_same_instant(stored.next_run_time, expected)
            if stored is not None and won:
                if next_run_time is None:
                    await self.delete_task(task_id)
                else:
                    stored.next_run_time = next_run_time
                    await self.update_task(stored)
            made.append(won)
        return made

    async def get_quarantined_tasks(self) -> list[QuarantinedTask]:
        """The records that are kept but cannot be read."""
        return []

    async def repair_task(self, task_id: str, reference: str) -> Task:
        """Put another callable in the place of the one that a quarantined record names.

        Nothing else of the record is changed, and nothing at all if it fails.

        Args:
            task_id: Its id.
            reference: To the callable, `package.module:qualified.name`.

        Raises:
            TaskLookupError: There is no record of that id.
            TaskOptionError: The record can be read as it is.
            UnreadableRecordError: It cannot be read with that callable either.
        """
        raise self._lacks("repair_task")

    def create_lock(self) -> RLock:
        """A lock for state that threads of this store share."""
        return RLock()

    def conditional_encrypt(self, inp: bytes) -> bytes:
        """A record as it goes into the store. This store keeps it in the clear."""
        return inp

    def conditional_decrypt(self, inp: bytes) -> bytes:
        """The reverse of `conditional_encrypt`."""
        return inp

    def fix_paused_tasks(self, tasks: list[Task]) -> None:
        """Move the paused tasks of a list to its end, in place; the order is kept otherwise."""
        tasks.sort(key=lambda task: task.next_run_time is None)

    def check_task_id(self, task_id: str | None) -> None:
        """Raise ValueError unless the id is one that this store can keep."""
        if not isinstance(task_id, str) or not task_id:
            raise ValueError(f"A task id must be a non-empty string, not {task_id!r}.")

    @property
    def host(self) -> StoreHost:
        """The scheduler that started this store. Raises StoreError when there is none."""
        if self._host is None:
            raise StoreError(f"The store {self.alias!r} ({type(self).__name__}) is not started.")
        return self._host

    def _check_room(self, there: int, adding: int = 1) -> None:
        """Raise StoreFullError if so many more would be too many."""
        if self.max_tasks is not None and there + adding > self.max_tasks:
            raise StoreFullError(
                f"The store {self.alias!r} has {there:,} task(s) and cannot take {adding:,} more: "
                f"max_tasks={self.max_tasks:,}. Delete some, or raise max_tasks."
            )

    def _lacks(self, operation: str) -> StoreError:
        return StoreError(f"{type(self).__name__} does not have the operation {operation!r}.")

    def __repr__(self) -> str:
        # A store's options may hold a password.
        return f"<{type(self).__name__} alias={self.alias!r}>"

    __str__ = __repr__
