"""Which task snapshots are wanted, in which order, and which page of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from heapq import nlargest, nsmallest
from math import inf
from operator import add
from typing import Any, NamedTuple

from asyncz.enums import TaskScheduleState
from asyncz.tasks.base import Task
from asyncz.tasks.callables import callable_name
from asyncz.tasks.inspection import TaskInfo
from asyncz.tasks.options import checked_tag

__all__ = ["FoundTasks", "TaskCounts", "TaskQuery", "TaskSummary"]


class FoundTasks(NamedTuple):
    """One page of what a query asks for.

    Args:
        infos: The page.
        total: How many there are on all pages.
    """

    infos: list[TaskInfo]
    total: int


class TaskCounts(NamedTuple):
    """How many tasks there are of each state."""

    scheduled: int = 0
    paused: int = 0
    pending: int = 0
    quarantined: int = 0

    def __add__(self, other: TaskCounts) -> TaskCounts:  # type: ignore[override]  # not a tuple's
        return TaskCounts(*map(add, self, other))


class TaskSummary(NamedTuple):
    """What may be asked of a task, as texts that a store can keep beside its record.

    All texts but `executor` are in lower case. They order as their UTF-8 bytes do, so a store that
    sorts them must not use a collation of people's.

    Args:
        id, name, executor: As they are in the task.
        trigger: The trigger's alias, or the name of its class if it has none.
        trigger_name: The name of its class.
        search: All that text is searched in, a line each.
        expects: Whether it has `expect_every`.
    """

    id: str
    name: str
    executor: str
    trigger: str
    trigger_name: str
    search: str
    expects: bool = False

    @property
    def texts(self) -> tuple[str, ...]:
        """All but the mark."""
        return self.id, self.name, self.executor, self.trigger, self.trigger_name, self.search

    @classmethod
    def of(cls, task: Task) -> TaskSummary:
        """The summary of a task."""
        alias = trigger_name = described = ""
        if (trigger := task.trigger) is not None:
            alias, trigger_name = trigger.alias.lower(), type(trigger).__name__.lower()
            described = str(trigger)
        texts = (
            task.id,
            task.name,
            callable_name(task.fn) if task.fn is not None else None,
            task.fn_reference,
            alias,
            trigger_name,
            described,
            task.executor,
        )
        return cls(
            low(task.id),
            low(task.name),
            task.executor or "",
            alias or trigger_name,
            trigger_name,
            "\n".join([text or "" for text in texts]).lower(),
            task.expect_every is not None,
        )


def low(text: str | None) -> str:
    """In lower case; None is nothing."""
    return (text or "").lower()


def _when(info: TaskInfo) -> float:
    return inf if info.next_run_time is None else info.next_run_time.timestamp()


SORTERS: dict[str, Callable[[TaskInfo], tuple[Any, ...]]] = {
    "id": lambda info: (low(info.id),),
    "name": lambda info: (low(info.name), low(info.id)),
    "next_run_time": lambda info: (_when(info), low(info.name), low(info.id)),
    "schedule_state": lambda info: (info.schedule_state.value, _when(info), low(info.id)),
    "executor": lambda info: (info.executor or "", low(info.id)),
    "store": lambda info: (low(info.store_alias), low(info.id)),
    "trigger": lambda info: (low(info.trigger_alias or info.trigger_name), low(info.id)),
}


class TaskQuery:
    """Which task snapshots are wanted, and in which order.

    Args:
        schedule_state: A `TaskScheduleState` or its value.
        executor: An executor's alias.
        trigger: A trigger's alias or the name of its class, in any case.
        q: Text to be found, in any case, in what names or describes the task.
        sort_by: One of `SORTERS`.
        descending: The other way round.
        limit: At most so many; None: all.
        offset: Leave out so many at the beginning.
        tag: One of the task's tags.

    Raises:
        ValueError: The state or the order is not one there is, or the page is none; the message
            says what is allowed.
    """

    def __init__(
        self,
        schedule_state: TaskScheduleState | str | None = None,
        executor: str | None = None,
        trigger: str | None = None,
        q: str | None = None,
        sort_by: str = "next_run_time",
        descending: bool = False,
        limit: int | None = None,
        offset: int = 0,
        tag: str | None = None,
    ) -> None:
        if sort_by not in SORTERS:
            raise ValueError(f"sort_by must be one of {', '.join(SORTERS)}, not {sort_by!r}.")
        self.schedule_state = _state(schedule_state)
        self.executor = executor or None
        self.trigger = trigger.lower() if trigger else None
        self.needle = q.strip().lower() if q else ""
        self.sort_by = sort_by
        self.descending = descending
        self.limit = None if limit is None else _count("limit", limit)
        self.offset = _count("offset", offset)
        self.tag = None if tag is None else checked_tag(tag)

    def up_to_page(self) -> TaskQuery:
        """The same query for this page and all before it: what each of several stores is asked."""
        return TaskQuery(
            self.schedule_state, self.executor, self.trigger, self.needle, self.sort_by,
            self.descending, None if self.limit is None else self.limit + self.offset, 0, self.tag,
        )  # fmt: skip

    @property
    def is_for_a_server(self) -> bool:
        """Whether a store can ask its server: about states and tags that does not know."""
        return self.tag is None and self.schedule_state not in (
            TaskScheduleState.QUARANTINED,
            TaskScheduleState.PENDING,
        )

    def select(self, infos: Iterable[TaskInfo]) -> FoundTasks:
        """The page of those that are wanted, and how many are.

        Keeps no more of them than the page needs.
        """
        total = 0

        def wanted() -> Iterator[TaskInfo]:
            nonlocal total
            for info in infos:
                if self.matches(info):
                    total += 1
                    yield info

        all_of_them = wanted()
        page = self.page(all_of_them)
        deque(all_of_them, maxlen=0)  # a page of none does not look at any
        return FoundTasks(page, total)

    def page(self, infos: Iterable[TaskInfo]) -> list[TaskInfo]:
        """The page of these, which all match."""
        key = SORTERS[self.sort_by]
        if self.limit is None:
            return sorted(infos, key=key, reverse=self.descending)[self.offset :]
        best = nlargest if self.descending else nsmallest
        return best(self.offset + self.limit, infos, key=key)[self.offset :]

    def matches(self, info: TaskInfo) -> bool:
        """Whether this one is wanted."""
        return (
            (self.schedule_state is None or info.schedule_state is self.schedule_state)
            and (self.executor is None or info.executor == self.executor)
            and (
                self.trigger is None
                or self.trigger in (low(info.trigger_alias), low(info.trigger_name))
            )
            and (self.tag is None or self.tag in info.tags)
            and (not self.needle or any(self.needle in text for text in _texts(info)))
        )


def _count(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} must be a whole number, 0 or more, not {value!r}.")
    return int(value)


def _state(value: TaskScheduleState | str | None) -> TaskScheduleState | None:
    if value is None:
        return None
    try:
        return TaskScheduleState(str(value).strip().lower())
    except ValueError:
        known = ", ".join(TaskScheduleState)
        raise ValueError(f"schedule_state must be one of {known}, not {value!r}.") from None


def _texts(info: TaskInfo) -> Iterable[str]:
    return map(
        low,
        (
            info.id,
            info.name,
            info.callable_name,
            info.callable_reference,
            info.trigger_alias,
            info.trigger_name,
            info.trigger_description,
            info.executor,
            info.store_alias,
            info.schedule_state.value,
        ),
    )
