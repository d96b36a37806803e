"""A trigger that fires once."""

from __future__ import annotations

from datetime import date, datetime, tzinfo
from typing import ClassVar, Never

from asyncz.triggers.arguments import (
    check_flag,
    check_jitter,
    in_zone,
    known_clock,
    read_moment,
    read_zone,
    refuse_unknown,
)
from asyncz.triggers.base import (
    ValueTrigger,
    in_utc,
    none_off_the_calendar,
    require_aware,
    require_moment,
)
from asyncz.triggers.localtime import clock_for, localize

_put = object.__setattr__


class DateTrigger(ValueTrigger):
    """Fires once, at `run_at`, however late it is asked.

    Args:
        run_at: a datetime, a date (its midnight) or ISO text. A naive one is a time in
            `timezone`: of a time that comes twice the first, for one that the clock leaps over
            the first instant after the leap. None means the moment of the first ask.
        timezone: the zone of the result; by default that of `run_at`, else the scheduler's.
        jitter: the most seconds by which the run is put off at random.
        allow_mistrigger_by_default: true, a one-off may run however late it is.

    Raises `ValueError` for what cannot be read, naming the field.
    """

    __slots__ = ()

    alias: ClassVar[str] = "date"
    search_cost: ClassVar[int] = 1

    run_at: datetime | None = None
    timezone: tzinfo | None = None
    allow_mistrigger_by_default: bool = True

    def __init__(
        self,
        run_at: datetime | date | str | None = None,
        timezone: tzinfo | str | None = None,
        jitter: float | None = None,
        allow_mistrigger_by_default: bool = True,
        **unknown: Never,
    ) -> None:
        cls = type(self)
        if unknown:
            refuse_unknown(cls, unknown)
        if jitter is not None:
            check_jitter(cls, jitter)
        check_flag(cls, allow_mistrigger_by_default)
        moment = read_moment(cls, "run_at", run_at)
        zone = read_zone(cls, timezone, moment)
        if moment is not None:
            moment = in_zone(cls, "run_at", moment, known_clock(zone))
        _put(self, "jitter", jitter)
        _put(self, "allow_mistrigger_by_default", allow_mistrigger_by_default)
        _put(self, "run_at", moment)
        _put(self, "timezone", zone)
        self._seal()

    @none_off_the_calendar
    def next_base_time(
        self, timezone: tzinfo | None, previous_time: datetime | None, now: datetime | None
    ) -> datetime | None:
        run_at = self.run_at
        if run_at is None:
            # 'Now' is the moment of the first ask; there is no second one.
            if previous_time is not None:
                return None
            return require_moment(None, now).astimezone(clock_for(self.timezone or timezone).zone)
        if run_at is previous_time:  # what most are asked, once they have run
            return None
        if run_at.tzinfo is None:
            run_at = localize(run_at, clock_for(timezone))
        if previous_time is None:
            return run_at
        return run_at if in_utc(run_at) > require_aware("previous_time", previous_time) else None

    @none_off_the_calendar
    def first_from(
        self,
        moment: datetime,
        timezone: tzinfo | None,
        previous_time: datetime | None,
        now: datetime | None,
    ) -> datetime | None:
        base = self.next_base_time(timezone, previous_time, now)
        return None if base is None or in_utc(base) < moment else base

    @none_off_the_calendar
    def last_before(
        self,
        moment: datetime,
        *,
        after: datetime | None = None,
        timezone: tzinfo | None = None,
    ) -> datetime | None:
        if self.run_at is None:
            return None
        base = self.next_base_time(timezone, after, None)
        return None if base is None or in_utc(base) > require_aware("moment", moment) else base

    @none_off_the_calendar
    def count_between(
        self, after: datetime, until: datetime, timezone: tzinfo | None = None
    ) -> int | None:
        return 0 if self.last_before(until, after=after, timezone=timezone) is None else 1

    def describe(self) -> str:
        if self.run_at is None:
            return "once, at once"
        return f"once, at {self.run_at:%Y-%m-%d %H:%M:%S}{_zone_words(self.run_at)}"

    def __str__(self) -> str:
        if self.run_at is None:
            return "date[now]"
        return f"date[{self.run_at:%Y-%m-%d %H:%M:%S}{_zone_words(self.run_at)}]"


def _zone_words(moment: datetime) -> str:
    name = moment.tzname()
    return f" {name}" if name else ""
