"""Steps of a sequence of operations on tasks: each asks a store and the model, and compares."""

# ruff: noqa: S101  # these are tests

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from asyncz.enums import Delivery
from asyncz.exceptions import ConflictIdError, TaskLookupError
from asyncz.stores.base import TaskAdvance
from asyncz.tasks.base import Task
from asyncz.tasks.query import TaskQuery
from asyncz.testing.clock import VirtualClock
from asyncz.testing.store_model import Kept, TaskView
from asyncz.testing.store_suite_tools import make_task

__all__ = [
    "NAMES",
    "Add",
    "Advance",
    "Count",
    "Delete",
    "Draft",
    "Due",
    "Find",
    "Look",
    "NextRunTime",
    "Pass",
    "RemoveAll",
    "Step",
    "Update",
    "World",
    "id_of",
    "seen",
]

NAMES = {"a": "a", "b": "b's ✓ {x}", "c": "c" * 300}
"""The ids there are, by what they are called in steps: a plain one, one with letters that
languages have a use for, a long one."""
TICK = timedelta(milliseconds=1)
"""What each step takes, so that no two stores add a task at the same instant."""

Seen = tuple[TaskView, datetime | None]


class World:
    """A store, or several on the same tasks, and the model of them.

    Args:
        stores: All are started.
        model: Without tasks, as they are.
        clock: That of all.
    """

    def __init__(self, stores: Sequence[Any], model: Any, clock: VirtualClock) -> None:
        self.stores = stores
        self.model = model
        self.clock = clock
        self.start = clock.now()
        self._checks = 0

    def store(self, number: int) -> Any:
        """One of them."""
        return self.stores[number % len(self.stores)]

    def at(self, seconds: float | None) -> datetime | None:
        """An instant so much after the beginning; None for None."""
        return None if seconds is None else self.start + timedelta(seconds=seconds)

    async def check(self) -> None:
        """The store knows what the model knows; another one of them is asked each time."""
        self._checks += 1
        found = await self.store(self._checks).get_all_tasks()
        assert list(map(seen, found)) == expected(self.model.in_order())

    def goes_on(self, task_id: str) -> bool:
        """Whether there are open runs of a task."""
        return False

    def tick(self) -> None:
        """A little time passes."""
        self.clock.jump(TICK)


class Step:
    """One operation. Subclasses are frozen, and are what a failing example shows."""

    @abstractmethod
    async def play(self, world: World) -> None:
        """Do it to both, and compare."""


class Draft(NamedTuple):
    """A task to be; `due` in seconds after the beginning."""

    name: str
    due: float | None
    title: str = "A"
    most: int = 1
    once: bool = False

    def task(self, world: World) -> Task:
        """The task."""
        return make_task(
            id_of(self.name),
            world.at(self.due),
            name=self.title,
            max_instances=self.most,
            delivery=Delivery.AT_MOST_ONCE if self.once else Delivery.AT_LEAST_ONCE,
        )


@dataclass(frozen=True)
class Add(Step):
    """Add one task, or several at once."""

    by: int
    drafts: tuple[Draft, ...]

    async def play(self, world: World) -> None:
        store, tasks = world.store(self.by), [draft.task(world) for draft in self.drafts]
        try:
            if len(tasks) == 1:
                await store.add_task(tasks[0])
            else:
                await store.add_tasks(tasks)
            added = True
        except ConflictIdError:
            added = False
        assert added is world.model.add([draft.task(world) for draft in self.drafts])


@dataclass(frozen=True)
class Update(Step):
    """Put another task in the place of one."""

    by: int
    draft: Draft

    async def play(self, world: World) -> None:
        found = await succeeds(world.store(self.by).update_task(self.draft.task(world)))
        assert found is world.model.update(self.draft.task(world))


@dataclass(frozen=True)
class Delete(Step):
    """Delete a task."""

    by: int
    name: str

    async def play(self, world: World) -> None:
        found = await succeeds(world.store(self.by).delete_task(id_of(self.name)))
        assert found is world.model.delete(id_of(self.name))


@dataclass(frozen=True)
class RemoveAll(Step):
    """Remove all tasks."""

    by: int

    async def play(self, world: World) -> None:
        await world.store(self.by).remove_all_tasks()
        world.model.tasks.clear()


@dataclass(frozen=True)
class Look(Step):
    """Look a task up."""

    by: int
    name: str

    async def play(self, world: World) -> None:
        found = await world.store(self.by).lookup_task(id_of(self.name))
        kept = world.model.tasks.get(id_of(self.name))
        assert [seen(task) for task in [found] if task] == expected([kept] if kept else [])


@dataclass(frozen=True)
class Due(Step):
    """Ask for what is due, so many seconds from now."""

    by: int
    shift: float
    limit: int | None
    exclude: frozenset[str]

    async def play(self, world: World) -> None:
        now = world.clock.now() + timedelta(seconds=self.shift)
        exclude = frozenset(map(id_of, self.exclude))
        found = await world.store(self.by).get_due_tasks(now, self.limit, exclude)
        due = world.model.due(now, self.limit, exclude)
        assert list(map(seen, found)) == expected(due)


@dataclass(frozen=True)
class NextRunTime(Step):
    """Ask for the earliest run time, or that after an instant."""

    by: int
    after: float | None

    async def play(self, world: World) -> None:
        after = world.at(self.after)
        found = await world.store(self.by).get_next_run_time(after)
        assert found == world.model.next_run_time(after)


@dataclass(frozen=True)
class Find(Step):
    """Ask for a page of snapshots."""

    by: int
    query: tuple[tuple[str, Any], ...]
    exclude: frozenset[str]

    async def play(self, world: World) -> None:
        store, query = world.store(self.by), TaskQuery(**dict(self.query))
        tasks = await store.get_all_tasks()
        assert list(map(seen, tasks)) == expected(world.model.in_order())
        exclude = frozenset(map(id_of, self.exclude))
        wanted = query.select(task.snapshot() for task in tasks if task.id not in exclude)
        found = await store.find_tasks(query, exclude)
        pages = [
            [(info.id, info.name, info.next_run_time) for info in each.infos]
            for each in (found, wanted)
        ]
        assert (pages[0], found.total) == (pages[1], wanted.total)


@dataclass(frozen=True)
class Count(Step):
    """Count the tasks."""

    by: int

    async def play(self, world: World) -> None:
        counts = await world.store(self.by).count_tasks()
        paused = sum(kept.due is None for kept in world.model.tasks.values())
        assert tuple(counts) == (len(world.model.tasks) - paused, paused, 0, 0)


@dataclass(frozen=True)
class Advance(Step):
    """Make steps of schedules.

    Args:
        steps: For each task how many seconds on, or None: it is forgotten; and whether from the
            run time that it has, or from another one. None is forgotten while it is run: that
            would be for `fire` to do.
    """

    by: int
    steps: tuple[tuple[str, float | None, bool], ...]

    async def play(self, world: World) -> None:
        advances, wanted = [], []
        for name, seconds, is_right in self.steps:
            task = Draft(name, 0).task(world)
            kept = world.model.tasks.get(id_of(name))
            moment = kept.due if kept and kept.due and is_right else world.clock.now()
            if seconds is None and world.goes_on(id_of(name)):
                seconds = 60
            following = None if seconds is None else moment + timedelta(seconds=seconds)
            advances.append(TaskAdvance(task, moment, following))
            wanted.append(world.model.advance(id_of(name), moment, following))
        assert await world.store(self.by).advance_tasks(advances) == wanted


@dataclass(frozen=True)
class Pass(Step):
    """Let time pass."""

    seconds: float

    async def play(self, world: World) -> None:
        world.clock.jump(self.seconds)


def id_of(name: str) -> str:
    """The id of a task that steps call so."""
    return NAMES.get(name, name)


def seen(task: Any) -> Seen:
    """What is compared of a task of a store's."""
    return TaskView.of(task), task.next_run_time


def expected(tasks: Sequence[Kept]) -> list[Seen]:
    """The same of the model's."""
    return [(kept.view, kept.due) for kept in tasks]


async def succeeds(operation: Any) -> bool:
    """Whether the task of an operation was there."""
    try:
        await operation
    except TaskLookupError:
        return False
    return True
