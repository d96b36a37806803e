"""A trigger that fires again after an equal time."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any, ClassVar, Never

from asyncz.triggers.arguments import (
    check_flag,
    check_jitter,
    check_order,
    in_zone,
    is_number,
    known_clock,
    read_moment,
    read_zone,
    refuse_unknown,
    shown,
)
from asyncz.triggers.base import (
    ValueTrigger,
    in_utc,
    none_off_the_calendar,
    require_aware,
    require_moment,
)
from asyncz.triggers.localtime import ZoneClock, clock_for, localize

_put = object.__setattr__
_ZERO = timedelta(0)
_DEFAULT = timedelta(seconds=1)
_UNITS = ("weeks", "days", "hours", "minutes", "seconds")


class IntervalTrigger(ValueTrigger):
    """Fires every so many weeks to seconds of elapsed time, whatever the clocks on walls do.

    With `start_at` the times are start_at, start_at + interval, and so on. Without, the first
    is one interval after the first ask, and each other one interval after the previous time.

    Args:
        weeks, days, hours, minutes, seconds: added up; fractions are allowed, to the
            microsecond. All 0 stands for one second.
        start_at: the first time, inclusive; a datetime, a date or ISO text. A naive one is a
            time in `timezone`: of a time that comes twice the first, for one that the clock
            leaps over the first instant after the leap.
        end_at: the latest time, inclusive; read like `start_at`.
        timezone: the zone of the results; by default that of `start_at` or `end_at`, else the
            scheduler's.
        jitter: the most seconds by which a run is put off at random, always less than would
            reach the next one. Without `start_at` the delays add up, as each time counts from
            the one before.
        allow_mistrigger_by_default: whether a run may be late by any amount.

    Raises `ValueError` for what cannot be read and for a negative interval.
    """

    __slots__ = ("_anchor", "_clock", "interval")

    alias: ClassVar[str] = "interval"
    search_cost: ClassVar[int] = 1

    weeks: float = 0
    days: float = 0
    hours: float = 0
    minutes: float = 0
    seconds: float = 0
    start_at: datetime | None = None
    end_at: datetime | None = None
    timezone: tzinfo | None = None

    if TYPE_CHECKING:
        interval: timedelta
        _anchor: datetime | None
        _clock: ZoneClock | None

    def __init__(
        self,
        weeks: float = 0,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        start_at: datetime | date | str | None = None,
        end_at: datetime | date | str | None = None,
        timezone: tzinfo | str | None = None,
        jitter: float | None = None,
        allow_mistrigger_by_default: bool = False,
        **unknown: Never,
    ) -> None:
        if unknown:
            refuse_unknown(type(self), unknown)
        _put(self, "jitter", jitter)
        _put(self, "allow_mistrigger_by_default", allow_mistrigger_by_default)
        _put(self, "weeks", weeks)
        _put(self, "days", days)
        _put(self, "hours", hours)
        _put(self, "minutes", minutes)
        _put(self, "seconds", seconds)
        _put(self, "interval", _read_interval(type(self), weeks, days, hours, minutes, seconds))
        if start_at is None and end_at is None and timezone is None and jitter is None:
            # By far the most common; nothing else is left to read.
            check_flag(type(self), allow_mistrigger_by_default)
            _put(self, "start_at", None)
            _put(self, "end_at", None)
            _put(self, "timezone", None)
            _put(self, "_clock", None)
            _put(self, "_anchor", None)
        else:
            self._read_bounds(start_at, end_at, timezone)
        self._seal()

    def _read_bounds(self, start_at: Any, end_at: Any, timezone: Any) -> None:
        cls = type(self)
        check_jitter(cls, self.jitter)
        check_flag(cls, self.allow_mistrigger_by_default)
        start = read_moment(cls, "start_at", start_at)
        end = read_moment(cls, "end_at", end_at)
        zone = read_zone(cls, timezone, start, end)
        clock = known_clock(zone)
        start = None if start is None else in_zone(cls, "start_at", start, clock)
        end = None if end is None else in_zone(cls, "end_at", end, clock)
        check_order(cls, start, end)
        _put(self, "start_at", start)
        _put(self, "end_at", end)
        _put(self, "timezone", zone)
        _put(self, "_clock", clock)
        # The instant that all times are counted from, where it is known without an ask.
        _put(self, "_anchor", None if start is None or clock is None else start.astimezone(UTC))

    def get_next_trigger_time(
        self,
        timezone: tzinfo | None,
        previous_time: datetime | None,
        now: datetime | None = None,
    ) -> datetime | None:
        """Return the next time to run, or None when there is none; see `BaseTrigger`."""
        if self.jitter:
            return super().get_next_trigger_time(timezone, previous_time, now)
        return self.next_base_time(timezone, previous_time, now)

    def next_base_time(
        self, timezone: tzinfo | None, previous_time: datetime | None, now: datetime | None
    ) -> datetime | None:
        clock = self._clock or clock_for(timezone)
        moment = previous_time or now
        if moment is None or moment.tzinfo is None:
            moment = require_moment(previous_time, now)
        try:
            if self.start_at is None:
                found = _elapse(moment, self.interval, clock)
            else:
                anchor = self._anchor or self._anchor_in(clock)
                elapsed = moment - anchor
                found = anchor
                if elapsed >= _ZERO:
                    rest = elapsed % self.interval
                    if previous_time is not None or rest:
                        elapsed += self.interval - rest
                    found += elapsed
                zone = clock.zone
                if zone is not UTC:
                    # What `astimezone` does, at a quarter of its cost.
                    found = zone.fromutc(found.replace(tzinfo=zone))
        except OverflowError:
            return None
        if self.end_at is not None and in_utc(found) > in_utc(localize(self.end_at, clock)):
            return None
        return found

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
        origin = require_moment(previous_time, now)
        steps = max(1, -((in_utc(origin) - in_utc(moment)) // self.interval))
        before = in_utc(origin) + self.interval * (steps - 1)
        return self.next_base_time(timezone, before, None)

    @none_off_the_calendar
    def last_before(
        self,
        moment: datetime,
        *,
        after: datetime | None = None,
        timezone: tzinfo | None = None,
    ) -> datetime | None:
        """Return the latest occurrence t with t <= moment, and t > after where that is given.

        Without `start_at` the occurrences are counted from `after`, and there is none without it.
        """
        clock = self._clock or clock_for(timezone)
        origin = self._origin(clock, after)
        if origin is None:
            return None
        steps = self._steps_until(origin, moment, clock)
        if steps < (1 if self.start_at is None else 0):
            return None
        found = origin + self.interval * steps
        if after is not None and found <= require_aware("after", after):
            return None
        return found.astimezone(clock.zone)

    @none_off_the_calendar
    def count_between(
        self, after: datetime, until: datetime, timezone: tzinfo | None = None
    ) -> int | None:
        clock = self._clock or clock_for(timezone)
        origin = self._origin(clock, after)
        if origin is None:
            return 0
        # Counted with the origin itself; the unanchored origin is `after`, which is not one.
        first = max(0, (in_utc(after) - origin) // self.interval + 1)
        return max(0, self._steps_until(origin, until, clock) + 1 - first)

    def describe(self) -> str:
        """Return the schedule in plain words, such as `every 1 hour 30 minutes`."""
        return f"every {_interval_words(self.interval)}"

    def __str__(self) -> str:
        return f"interval[{self.interval}]"

    def _origin(self, clock: ZoneClock, after: datetime | None) -> datetime | None:
        if self.start_at is not None:
            return self._anchor or self._anchor_in(clock)
        return None if after is None else in_utc(require_aware("after", after))

    def _anchor_in(self, clock: ZoneClock) -> datetime:
        start_at = self.start_at
        if start_at is None:
            raise ValueError("IntervalTrigger: start_at is missing")
        return localize(start_at, clock).astimezone(UTC)

    def _steps_until(self, origin: datetime, moment: datetime, clock: ZoneClock) -> int:
        """Return the number of the last occurrence at or before `moment`, counted from 0."""
        last = in_utc(require_aware("moment", moment))
        if self.end_at is not None:
            last = min(last, in_utc(localize(self.end_at, clock)))
        return (last - origin) // self.interval

    def _end_in(self, timezone: tzinfo | None) -> datetime | None:
        if self.end_at is None:
            return None
        return localize(self.end_at, self._clock or clock_for(timezone))


def _read_interval(
    cls: type[IntervalTrigger], weeks: Any, days: Any, hours: Any, minutes: Any, seconds: Any
) -> timedelta:
    amounts = (weeks, days, hours, minutes, seconds)
    try:
        interval = timedelta(days, seconds, 0, 0, minutes, hours, weeks)
        right = interval > _ZERO and weeks >= 0 <= days and hours >= 0 <= minutes and seconds >= 0
    except (TypeError, ValueError, OverflowError):
        interval, right = _ZERO, False
    # Each amount is looked at only when one of them looks wrong.
    if right and True not in amounts[:4] and seconds is not True:
        return interval
    return _check_amounts(cls, amounts, interval)


def _check_amounts(
    cls: type[IntervalTrigger], amounts: tuple[Any, ...], interval: timedelta
) -> timedelta:
    for name, amount in zip(_UNITS, amounts, strict=True):
        if not is_number(amount) or not 0 <= amount < math.inf:
            raise ValueError(
                f"{cls.__name__}: {name} must be a number, 0 or more, not {shown(amount)}"
            )
    if not any(amounts):
        return _DEFAULT
    if interval <= _ZERO:
        raise ValueError(
            f"{cls.__name__}: the interval must be from 1 microsecond to "
            f"{timedelta.max.days} days; given were "
            + ", ".join(f"{n}={shown(a)}" for n, a in zip(_UNITS, amounts, strict=True) if a)
        )
    return interval


def _elapse(moment: datetime, interval: timedelta, clock: ZoneClock) -> datetime:
    zone = clock.zone
    if moment.tzinfo is zone:
        found = moment + interval
        if clock.fixed:
            return found
        group = moment.toordinal() >> 2
        if group == found.toordinal() >> 2 and clock.is_plain(group):
            return found
    return (moment.astimezone(UTC) + interval).astimezone(zone)


def _interval_words(interval: timedelta) -> str:
    minutes, seconds = divmod(interval.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    exact = seconds + interval.microseconds / 1_000_000
    parts = [
        f"{amount:g} {unit if amount == 1 else unit + 's'}"
        for amount, unit in (
            (interval.days, "day"),
            (hours, "hour"),
            (minutes, "minute"),
            (round(exact, 6), "second"),
        )
        if amount
    ]
    return parts[0].removeprefix("1 ") if len(parts) == 1 else " ".join(parts)
