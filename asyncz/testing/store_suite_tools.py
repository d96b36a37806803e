"""What the store suite works with: a host, jobs, tasks, cases."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from logging import Logger
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from asyncz.clock import Clock, SystemClock
from asyncz.stores.base import QuarantineNews
from asyncz.tasks.base import Task
from asyncz.triggers import BaseTrigger, IntervalTrigger

__all__ = ["BERLIN", "NOON", "SuiteHost", "after", "cases", "ids_of", "job", "make_task", "raises"]

NOON = datetime(2031, 3, 5, 12, 0, 0, 250_001, tzinfo=UTC)
"""The instant that the suite's tasks are due around; its microseconds are odd on purpose."""

BERLIN = ZoneInfo("Europe/Berlin")

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class SuiteHost:
    """A scheduler, as far as a store knows one."""

    clock: Clock = field(default_factory=SystemClock)
    timezone: tzinfo = BERLIN
    loggers: Mapping[str, Logger] = field(default_factory=dict)
    trigger_types: Mapping[str, type[BaseTrigger]] = field(default_factory=dict)
    news: list[QuarantineNews] = field(default_factory=list)

    def quarantine_changed(self, store: str, news: Sequence[QuarantineNews]) -> None:
        """Keep what a store says of its quarantine."""
        self.news.extend(news)


def job(*args: Any, **kwargs: Any) -> None:
    """The callable of the suite's tasks."""


def after(seconds: float = 0, microseconds: int = 0) -> datetime:
    """An instant so much after noon."""
    return NOON + timedelta(seconds=seconds, microseconds=microseconds)


def make_task(task_id: str, due: datetime | None = NOON, **options: Any) -> Task:
    """A task as a scheduler hands it to a store."""
    options.setdefault("trigger", IntervalTrigger(seconds=60, start_at=NOON))
    options.setdefault("fn", job)
    task = Task(id=task_id, next_run_time=due, pending=False, submitted=True, **options)
    task.settle_options()
    return task


def ids_of(tasks: list[Task]) -> list[str | None]:
    """Their ids, in order."""
    return [task.id for task in tasks]


def cases(**named: Any) -> Callable[[F], F]:
    """Run a test once for each of these, as its argument `case`."""

    def mark(test: F) -> F:
        test.suite_cases = named  # type: ignore[attr-defined]
        return test

    return mark


@contextmanager
def raises(error: type[BaseException], *words: str) -> Iterator[None]:
    """Expect an error whose text has these words in it."""
    try:
        yield
    except error as exc:
        missing = [word for word in words if word not in str(exc)]
        if missing:
            raise AssertionError(f"{missing} not in the text of {exc!r}") from exc
    else:
        raise AssertionError(f"{error.__name__} was not raised")
