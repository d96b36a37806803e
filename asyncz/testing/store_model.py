"""A store as it should be, in one dictionary: what real ones are compared with, step by step."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import Any, NamedTuple

from asyncz.enums import Delivery
from asyncz.stores.base import NO_IDS
from asyncz.tasks.base import Task

__all__ = ["Kept", "TaskModel", "TaskView"]


class TaskView(NamedTuple):
    """What is compared of a task."""

    id: str
    name: str
    max_instances: int
    delivery: Delivery

    @classmethod
    def of(cls, task: Any) -> TaskView:
        """Of a task."""
        return cls(task.id, task.name, task.max_instances, task.delivery)


@dataclass
class Kept:
    """A task in the model.

    Args:
        generation: Tells it from another task that had its id before; the order of insertion.
    """

    view: TaskView
    due: datetime | None
    generation: int

    @property
    def id(self) -> str:
        """Its id."""
        return self.view.id


class TaskModel:
    """The tasks of a store."""

    def __init__(self) -> None:
        self.tasks: dict[str, Kept] = {}
        self._generations = count()

    def add(self, tasks: Sequence[Task]) -> bool:
        """Keep all of them; False: an id is taken, and none is kept."""
        ids = {str(task.id) for task in tasks}
        if len(ids) < len(tasks) or not ids.isdisjoint(self.tasks):
            return False
        for task in tasks:
            kept = Kept(TaskView.of(task), task.next_run_time, next(self._generations))
            self.tasks[kept.id] = kept
        return True

    def update(self, task: Task) -> bool:
        """Replace the task of that id, which keeps its place; False: there is none."""
        kept = self.tasks.get(str(task.id))
        if kept is None:
            return False
        kept.view, kept.due = TaskView.of(task), task.next_run_time
        return True

    def delete(self, task_id: str) -> bool:
        """Forget a task; False: there is none."""
        return self.tasks.pop(task_id, None) is not None

    def advance(self, task_id: str, expected: datetime, following: datetime | None) -> bool:
        """Make a step of a schedule, if the task has the run time that was expected."""
        kept = self.tasks.get(task_id)
        if kept is None or kept.due != expected:
            return False
        if following is None:
            del self.tasks[task_id]
        else:
            kept.due = following
        return True

    def in_order(self) -> list[Kept]:
        """All tasks, by next run time, then by insertion; paused ones last."""
        scheduled = [kept for kept in self.tasks.values() if kept.due is not None]
        scheduled.sort(key=lambda kept: (kept.due, kept.generation))
        paused = [kept for kept in self.tasks.values() if kept.due is None]
        return scheduled + sorted(paused, key=lambda kept: kept.generation)

    def due(
        self, now: datetime, limit: int | None = None, exclude: Set[str] = NO_IDS
    ) -> list[Kept]:
        """Those that are due."""
        due = [kept for kept in self.in_order() if kept.due is not None and kept.due <= now]
        return [kept for kept in due if kept.id not in exclude][:limit]

    def next_run_time(self, after: datetime | None = None) -> datetime | None:
        """The earliest there is, later than that."""
        moments = [kept.due for kept in self.tasks.values() if kept.due is not None]
        return min((at for at in moments if after is None or at > after), default=None)
