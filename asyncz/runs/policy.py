"""What is done about a run that failed, and how long its record is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    PlainSerializer,
)

from asyncz.enums import RunState
from asyncz.exceptions import RemoteTaskError, RetryAfter, class_names
from asyncz.runs.checked import Checked
from asyncz.runs.waits import LONGEST, Backoff, TenacityWait, as_wait, dump_wait

__all__ = ["History", "Retry"]


def _names(value: Any) -> Any:
    """Classes of exceptions by their names: a record must not make anybody import something."""
    several = [value] if isinstance(value, str | type) else value
    if not isinstance(several, Iterable):
        raise ValueError("give exception classes")
    return tuple(_name(each) for each in several)


def _name(kind: Any) -> str:
    if isinstance(kind, str) and kind.count(":") == 1:
        return kind
    if isinstance(kind, type) and issubclass(kind, BaseException):
        return f"{kind.__module__}:{kind.__qualname__}"
    raise ValueError(f"give exception classes, not {kind!r}")


ExceptionKinds = type[BaseException] | str | Iterable[type[BaseException] | str]
Kinds = Annotated[tuple[str, ...], BeforeValidator(_names)]


class Retry(Checked):
    """Whether and when a run that failed is tried again.

    The attempts are of one occurrence, which has one record; they outlive restarts, and any worker
    may make the next. An attempt waits for a place among `max_instances`; while an occurrence only
    waits for its next attempt it takes none, so the next occurrence runs when it is due.

    Args:
        attempts: How often it is tried in all, the first time included; None: without end.
        wait: Seconds between attempts, a `Backoff`, or a wait strategy of tenacity. A persistent
            store can keep tenacity's own, not one that you have derived.
        on: Classes of the exceptions that are worth another attempt; others fail at once. By
            default any `Exception`.
        give_up_on: Classes of exceptions that are not, whatever `on` says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    attempts: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] | None = 3
    wait: Annotated[
        InstanceOf[Backoff] | InstanceOf[TenacityWait],
        BeforeValidator(as_wait),
        PlainSerializer(dump_wait),
    ] = Backoff()
    on: Kinds = ("builtins:Exception",)
    give_up_on: Kinds = ()

    if TYPE_CHECKING:  # what may be given is more than what the fields hold

        def __init__(
            self,
            *,
            attempts: int | None = 3,
            wait: float | Backoff | Mapping[str, Any] | Callable[..., Any] = ...,
            on: ExceptionKinds = Exception,
            give_up_on: ExceptionKinds = (),
        ) -> None: ...

    def seconds_after(self, attempt: int, error: BaseException | None) -> float | None:
        """Seconds until the next attempt after one has failed; None: that was the last.

        Args:
            attempt: Which has failed, counted from 1.
            error: What it raised. `RetryAfter` is another attempt whatever `on` says.
        """
        if self.attempts is not None and attempt >= self.attempts:
            return None
        if isinstance(error, RetryAfter):
            return error.seconds
        if not _is_of(error, self.on) or _is_of(error, self.give_up_on):
            return None
        return min(max(0.0, self.wait.seconds(attempt, error)), LONGEST)


def _is_of(error: BaseException | None, kinds: tuple[str, ...]) -> bool:
    """Whether an exception is of one of these classes, as `except` would see it."""
    names = {*class_names(type(error))}
    if isinstance(error, RemoteTaskError):  # which stands for another
        names |= error.kinds
    return not names.isdisjoint(kinds)


DAY = timedelta(days=1)
FAILURES = frozenset({RunState.FAILED, RunState.LOST, RunState.ABANDONED})
"""What is kept for longer."""


def _timedelta(value: Any) -> Any:
    # Records have it as text. A number would be taken for seconds; who writes 30 means days.
    if not isinstance(value, timedelta | str):
        raise ValueError("give a timedelta, such as timedelta(days=30)")
    return value


Age = Annotated[timedelta, Field(gt=timedelta(0)), BeforeValidator(_timedelta)]


class History(Checked):
    """How long the records of a task's runs are kept.

    Args:
        count: The latest so many. Of those that failed, were lost or were abandoned, so many
            beside the others.
        age: Not longer than this after their end.
        failures_age: The same for those that failed, were lost or were abandoned.
    """

    count: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] = 100
    age: Age = 30 * DAY
    failures_age: Age = 90 * DAY
