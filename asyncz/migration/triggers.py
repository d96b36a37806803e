"""The triggers of APScheduler 3 as triggers of asyncz."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, time
from typing import Any

from asyncz.triggers import (
    AndTrigger,
    BaseTrigger,
    CalendarIntervalTrigger,
    CronTrigger,
    DateTrigger,
    IntervalTrigger,
    OrTrigger,
)

__all__ = ["translate_trigger"]

HOME = "apscheduler.triggers."


def translate_trigger(trigger: Any) -> BaseTrigger:
    """The trigger that fires when this one of APScheduler 3 does.

    Raises:
        ValueError: There is none, because it is of another kind or has options that have no
            counterpart; the message says which.
    """
    cls = type(trigger)
    translate = _TRANSLATIONS.get(f"{cls.__module__}.{cls.__qualname__}".removeprefix(HOME))
    if translate is None:
        raise ValueError(
            f"its trigger is a {cls.__module__}.{cls.__qualname__}, which asyncz does not know"
        )
    return translate(trigger)


def _date(trigger: Any) -> BaseTrigger:
    return DateTrigger(run_at=trigger.run_date)


def _interval(trigger: Any) -> BaseTrigger:
    interval = trigger.interval
    return IntervalTrigger(
        days=interval.days,
        seconds=interval.seconds + interval.microseconds / 1_000_000,
        **_bounds(trigger),
    )


def _cron(trigger: Any) -> BaseTrigger:
    given: dict[str, Any] = {
        field.name: str(field) for field in trigger.fields if not field.is_default
    }
    # Without any field both fire each second, but ours has to be told.
    given = given or {"second": "*"}
    return CronTrigger(**given, **_bounds(trigger))


def _calendar(trigger: Any) -> BaseTrigger:
    clock = trigger._time
    # Its bounds are days, and the last one counts.
    last = trigger.end_date
    return CalendarIntervalTrigger(
        years=trigger.years,
        months=trigger.months,
        weeks=trigger.weeks,
        days=trigger.days,
        hour=clock.hour,
        minute=clock.minute,
        second=clock.second,
        start_at=datetime.combine(trigger.start_date, time.min),
        end_at=None if last is None else datetime.combine(last, time.max),
        timezone=trigger.timezone,
        jitter=trigger.jitter or None,
    )


def _and(trigger: Any) -> BaseTrigger:
    children = [translate_trigger(child) for child in trigger.triggers]
    return AndTrigger(children, jitter=trigger.jitter or None)


def _or(trigger: Any) -> BaseTrigger:
    children = [translate_trigger(child) for child in trigger.triggers]
    return OrTrigger(children, jitter=trigger.jitter or None)


def _bounds(trigger: Any) -> dict[str, Any]:
    return {
        "start_at": trigger.start_date,
        "end_at": trigger.end_date,
        "timezone": trigger.timezone,
        "jitter": trigger.jitter or None,
    }


_TRANSLATIONS: dict[str, Callable[[Any], BaseTrigger]] = {
    "date.DateTrigger": _date,
    "interval.IntervalTrigger": _interval,
    "cron.CronTrigger": _cron,
    "calendarinterval.CalendarIntervalTrigger": _calendar,
    "combining.AndTrigger": _and,
    "combining.OrTrigger": _or,
}
