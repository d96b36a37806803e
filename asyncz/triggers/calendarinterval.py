"""A trigger that fires every so many months, weeks or days, at a time of day."""

from __future__ import annotations

from datetime import date, datetime, tzinfo
from typing import TYPE_CHECKING, Any, ClassVar, Never

from asyncz.triggers.arguments import (
    check_flag,
    check_jitter,
    check_order,
    in_zone,
    known_clock,
    read_moment,
    read_zone,
    refuse_unknown,
    shown,
)
from asyncz.triggers.base import (
    MICROSECOND,
    ValueTrigger,
    in_utc,
    none_off_the_calendar,
    require_moment,
)
from asyncz.triggers.localtime import (
    DAY,
    ZoneClock,
    clock_for,
    count_instants,
    first_instant,
    last_instant,
    localize,
    naive_datetime,
    wall_second,
)

_put = object.__setattr__
_LAST_DAY = date.max.toordinal()
_LAST_MONTH = 9999 * 12 + 11
# So many months without the day are passed over; 29 February can lack for some hundred years.
_MOST_MISSING = 400


class CalendarIntervalTrigger(ValueTrigger):
    """Fires every n months (or years), or every n days (or weeks), at a local time of day.

    With `start_at` the days are counted from its day. Without, the first is the next time of
    day after the first ask, and each other is counted from the day of the previous time. A day
    that a month lacks is skipped: every month from 31 January goes on with 31 March. If the
    clocks leap over the time of day, it fires at the first instant after the leap; if it comes
    twice, the first time.

    Args:
        years, months: added up; not together with weeks and days.
        weeks, days: added up; not together with years and months.
        hour, minute, second: the time of day.
        start_at: the earliest time, inclusive; its day is the first one counted. A datetime, a
            date or ISO text; read like that of `CronTrigger`.
        end_at: the latest time, inclusive.
        timezone: the zone of the time of day; by default that of `start_at` or `end_at`, else
            the scheduler's.
        jitter: the most seconds by which a run is put off at random.
        allow_mistrigger_by_default: whether a run may be late by any amount.

    Raises `ValueError` for what cannot be read; with nothing given it is every day.
    """

    __slots__ = ("_clock",)

    alias: ClassVar[str] = "calendarinterval"

    years: int = 0
    months: int = 0
    weeks: int = 0
    days: int = 0
    hour: int = 0
    minute: int = 0
    second: int = 0
    start_at: datetime | None = None
    end_at: datetime | None = None
    timezone: tzinfo | None = None

    if TYPE_CHECKING:
        _clock: ZoneClock | None

    def __init__(
        self,
        years: int = 0,
        months: int = 0,
        weeks: int = 0,
        days: int = 0,
        hour: int = 0,
        minute: int = 0,
        second: int = 0,
        start_at: datetime | date | str | None = None,
        end_at: datetime | date | str | None = None,
        timezone: tzinfo | str | None = None,
        jitter: float | None = None,
        allow_mistrigger_by_default: bool = False,
        **unknown: Never,
    ) -> None:
        cls = type(self)
        refuse_unknown(cls, unknown)
        check_jitter(cls, jitter)
        check_flag(cls, allow_mistrigger_by_default)
        steps = {"years": years, "months": months, "weeks": weeks, "days": days}
        _check_steps(cls, steps)
        times = {"hour": hour, "minute": minute, "second": second}
        for name, value in times.items():
            _check_number(cls, name, value, 23 if name == "hour" else 59)
        _put(self, "jitter", jitter)
        _put(self, "allow_mistrigger_by_default", allow_mistrigger_by_default)
        for name, value in {**steps, **times}.items():
            _put(self, name, value)
        self._read_bounds(start_at, end_at, timezone)
        self._seal()

    def _read_bounds(self, start_at: Any, end_at: Any, timezone: Any) -> None:
        cls = type(self)
        start = read_moment(cls, "start_at", start_at)
        end = read_moment(cls, "end_at", end_at)
        zone = read_zone(cls, timezone, start, end)
        clock = known_clock(zone)
        start = None if start is None else in_zone(cls, "start_at", start, clock)
        end = None if end is None else in_zone(cls, "end_at", end, clock)
        check_order(cls, start, end)
        if start is None and (self.jitter or 0) >= DAY:
            raise ValueError(
                f"{cls.__name__}: jitter={self.jitter} must be less than a day ({DAY} s) "
                f"without start_at, as days are then counted from the previous time"
            )
        _put(self, "start_at", start)
        _put(self, "end_at", end)
        _put(self, "timezone", zone)
        _put(self, "_clock", clock)

    @none_off_the_calendar
    def next_base_time(
        self, timezone: tzinfo | None, previous_time: datetime | None, now: datetime | None
    ) -> datetime | None:
        clock = self._clock or clock_for(timezone)
        moment = require_moment(previous_time, now)
        schedule = self._schedule(clock, previous_time, moment)
        if previous_time is not None:
            moment = in_utc(moment) + MICROSECOND
        return self._found_from(schedule, clock, moment)

    def _found_from(
        self, schedule: MonthSchedule | DaySchedule, clock: ZoneClock, moment: datetime
    ) -> datetime | None:
        """Return the earliest time at or after `moment` that lies within the bounds."""
        if self.start_at is not None:
            moment = max(moment, localize(self.start_at, clock), key=in_utc)
        first = clock.to_instant(moment) + (1 if moment.microsecond else 0)
        instant = first_instant(schedule, clock, first, period=False)
        found = None if instant is None else clock.to_datetime(instant)
        if found is None or self.end_at is None:
            return found
        return None if in_utc(found) > in_utc(localize(self.end_at, clock)) else found

    @none_off_the_calendar
    def first_from(
        self,
        moment: datetime,
        timezone: tzinfo | None,
        previous_time: datetime | None,
        now: datetime | None,
    ) -> datetime | None:
        if self.start_at is not None:
            return self.next_base_time(timezone, None, moment)
        found = self.next_base_time(timezone, previous_time, now)
        if found is None or in_utc(found) >= moment:
            return found
        # All further ones are counted from the first.
        clock = self._clock or clock_for(timezone)
        return self._found_from(self._schedule(clock, found, found), clock, moment)

    @none_off_the_calendar
    def last_before(
        self,
        moment: datetime,
        *,
        after: datetime | None = None,
        timezone: tzinfo | None = None,
    ) -> datetime | None:
        """Return the latest occurrence t with t <= moment, and t > after where that is given.

        Without `start_at` the days are counted from `after`, and there is none without it.
        """
        clock = self._clock or clock_for(timezone)
        moment = require_moment(moment, None)
        if self.end_at is not None:
            moment = min(moment, localize(self.end_at, clock), key=in_utc)
        if self.start_at is None and after is None:
            return None
        schedule = self._schedule(clock, after, moment)
        instant = last_instant(schedule, clock, clock.to_instant(moment), period=False)
        found = None if instant is None else clock.to_datetime(instant)
        if found is None or (after is not None and in_utc(found) <= require_moment(after, None)):
            return None
        if self.start_at is not None and in_utc(found) < in_utc(localize(self.start_at, clock)):
            return None
        return found

    @none_off_the_calendar
    def count_between(
        self, after: datetime, until: datetime, timezone: tzinfo | None = None
    ) -> int | None:
        clock = self._clock or clock_for(timezone)
        after, until = require_moment(after, None), require_moment(until, None)
        schedule = self._schedule(clock, after, until)
        if self.start_at is not None:
            # In UTC, as a microsecond before the end of a leap is a wall time that does not exist.
            after = max(after, in_utc(localize(self.start_at, clock)) - MICROSECOND, key=in_utc)
        if self.end_at is not None:
            until = min(until, localize(self.end_at, clock), key=in_utc)
        first, last = clock.to_instant(after), clock.to_instant(until)
        return count_instants(schedule, clock, first, last, period=False)

    def describe(self) -> str:
        """Return the schedule in plain words, such as `every 2 weeks at 09:00`."""
        counts = self._counts() or [(1, "day")]
        words = [unit if n == 1 else f"{n} {unit}s" for n, unit in counts]
        clock = f"{self.hour:02}:{self.minute:02}" + (f":{self.second:02}" if self.second else "")
        start = "" if self.start_at is None else f", counted from {self.start_at:%Y-%m-%d}"
        return f"every {' and '.join(words)} at {clock}{start}"

    def __str__(self) -> str:
        counts = self._counts() or [(1, "day")]
        words = " ".join(f"{n} {unit}{'' if n == 1 else 's'}" for n, unit in counts)
        return f"calendarinterval[{words}, {self.hour:02}:{self.minute:02}:{self.second:02}]"

    def _counts(self) -> list[tuple[int, str]]:
        rows = ((self.years, "year"), (self.months, "month"), (self.weeks, "week"))
        return [row for row in (*rows, (self.days, "day")) if row[0]]

    def _schedule(
        self, clock: ZoneClock, previous: datetime | None, moment: datetime
    ) -> MonthSchedule | DaySchedule:
        time_of_day = self.hour * 3600 + self.minute * 60 + self.second
        if self.start_at is None and previous is None:
            # Before the first time of all, any day will do.
            return DaySchedule(localize(moment, clock).date(), 1, time_of_day)
        if self.start_at is not None:
            anchor = localize(self.start_at, clock).date()
        else:
            # A previous time put off past midnight still belongs to the day before.
            shown = wall_second(localize(previous or moment, clock))
            anchor = naive_datetime(shown - time_of_day).date()
        if self.years or self.months:
            return MonthSchedule(anchor, 12 * self.years + self.months, time_of_day)
        return DaySchedule(anchor, 7 * self.weeks + self.days or 1, time_of_day)

    def _end_in(self, timezone: tzinfo | None) -> datetime | None:
        if self.end_at is None:
            return None
        return localize(self.end_at, self._clock or clock_for(timezone))


class DaySchedule:
    """Every `step` days from the anchor on, in wall seconds."""

    def __init__(self, anchor: date, step: int, time_of_day: int) -> None:
        self._start = (anchor.toordinal() - 1) * DAY + time_of_day
        self._step = step * DAY

    def first(self, wall: int) -> int | None:
        found = self._start + max(0, -((self._start - wall) // self._step)) * self._step
        return found if found < _LAST_DAY * DAY else None

    def last(self, wall: int) -> int | None:
        if wall < self._start:
            return None
        return wall - (wall - self._start) % self._step

    def count(self, after: int, until: int) -> int:
        return self._index(until) - self._index(after)

    def _index(self, wall: int) -> int:
        return max(-1, (wall - self._start) // self._step)


class MonthSchedule:
    """Every `step` months from the anchor on, in wall seconds; months without the day lack."""

    def __init__(self, anchor: date, step: int, time_of_day: int) -> None:
        self._month = anchor.year * 12 + anchor.month - 1
        self._day = anchor.day
        self._step = step
        self._time = time_of_day

    def first(self, wall: int) -> int | None:
        moment = naive_datetime(max(0, wall))
        months = moment.year * 12 + moment.month - 1 - self._month
        number = max(0, -(-months // self._step))
        for _ in range(_MOST_MISSING):
            if self._month + number * self._step > _LAST_MONTH:
                return None
            found = self._wall(number)
            if found is not None and found >= wall:
                return found
            number += 1
        return None

    def last(self, wall: int) -> int | None:
        moment = naive_datetime(max(0, wall))
        number = (moment.year * 12 + moment.month - 1 - self._month) // self._step
        for _ in range(_MOST_MISSING):
            if number < 0:
                return None
            found = self._wall(number)
            if found is not None and found <= wall:
                return found
            number -= 1
        return None

    def count(self, after: int, until: int) -> int:
        first, last = self.first(after + 1), self.last(until)
        if first is None or last is None or last < first:
            return 0
        low, high = self._number(first), self._number(last)
        if self._day <= 28:
            return high - low + 1
        return sum(self._wall(number) is not None for number in range(low, high + 1))

    def _number(self, wall: int) -> int:
        moment = naive_datetime(wall)
        return (moment.year * 12 + moment.month - 1 - self._month) // self._step

    def _wall(self, number: int) -> int | None:
        year, month = divmod(self._month + number * self._step, 12)
        try:
            ordinal = date(year, month + 1, self._day).toordinal()
        except ValueError:
            return None
        return (ordinal - 1) * DAY + self._time


def _check_steps(cls: type[CalendarIntervalTrigger], steps: dict[str, Any]) -> None:
    for name, value in steps.items():
        _check_number(cls, name, value, 1_000_000)
    if (steps["years"] or steps["months"]) and (steps["weeks"] or steps["days"]):
        raise ValueError(
            f"{cls.__name__}: give years and months, or weeks and days, not both; given were "
            + ", ".join(f"{name}={value}" for name, value in steps.items() if value)
        )


def _check_number(cls: type[CalendarIntervalTrigger], name: str, value: Any, highest: int) -> None:
    if type(value) is not int or not 0 <= value <= highest:
        raise ValueError(
            f"{cls.__name__}: {name} must be a whole number from 0 to {highest}, not {shown(value)}"
        )
