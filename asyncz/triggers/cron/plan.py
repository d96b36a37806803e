"""A cron schedule made ready for search: bit masks for the fields, dates as numbers.

Bit n of a mask stands for the number n. A calendar repeats after 400 years, and a month looks
like any other that starts on the same weekday and is as long: there are 28 kinds of months.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import date, datetime, tzinfo
from functools import lru_cache

from asyncz.triggers.cron.fields import (
    FIELD_NAMES,
    LAST_DAY,
    WORKING_DAY,
    FieldSet,
    Special,
    read_field,
)
from asyncz.triggers.localtime import DAY, LAST_WALL, naive_datetime, wall_second

# The weekly pattern repeated over the at most six weeks that a month touches.
_REPEATED = sum(1 << 7 * week for week in range(6))
_PLANS_KEPT = 1_024
# Any month of the calendar comes again within this many.
_MONTHS_OF_CYCLE = 4_800
# Years of each length and first weekday, and all of these after a leap year and after another.
_YEARS_OF_EACH_KIND = range(2000, 2028)
_LONGEST = (0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
# What the fields below the lowest one given are, in the order of FIELD_NAMES.
_UNSET = ("*", "1", "1", "*", "*", "0", "0", "0")
_NOTHING_GIVEN = (None,) * len(FIELD_NAMES)
# The days that every month has: each of them falls on every weekday in some year.
_SURE_DAYS = 0x1FFFFFFE


def _month_kinds() -> bytes:
    """Return the kind of each month of 400 years: 4 * weekday of its first day + length - 28."""
    kinds = bytearray()
    weekday = 5  # 1 January 2000 was a Saturday
    for year in range(2000, 2400):
        leap = year % 4 == 0 and (year % 100 != 0 or year == 2000)
        for month in range(1, 13):
            length = 28 + leap if month == 2 else _LONGEST[month]
            kinds.append(4 * weekday + length - 28)
            weekday = (weekday + length) % 7
    return bytes(kinds)


_KINDS = _month_kinds()


class CronPlan:
    """The compiled form of a cron schedule, shared by all triggers with the same fields.

    `period` says which rule it follows where the clocks change, see `localtime`.
    """

    __slots__ = (
        "_by_kind",
        "_day",
        "_either",
        "_first",
        "_months",
        "_weekday",
        "_weeks",
        "_years",
        "_years_sorted",
        "hours",
        "minutes",
        "period",
        "seconds",
    )

    def __init__(
        self,
        fields: Sequence[FieldSet],
        *,
        any_year: bool,
        any_week: bool,
        either_day: bool,
        period: bool,
    ) -> None:
        year, month, day, week, weekday, hour, minute, second = fields
        self.hours, self.minutes, self.seconds = hour.mask, minute.mask, second.mask
        self.period = period
        self._first = (
            (hour.mask & -hour.mask).bit_length() - 1,
            (minute.mask & -minute.mask).bit_length() - 1,
            (second.mask & -second.mask).bit_length() - 1,
        )
        self._months = month.mask
        self._day, self._weekday, self._either = day, weekday, either_day
        self._weeks = 0 if any_week else week.mask
        self._years_sorted = () if any_year else tuple(_numbers(year.mask))
        self._years = None if any_year else frozenset(self._years_sorted)
        self._by_kind: dict[int, int] = {}

    def next_time(
        self,
        year: int,
        month: int,
        day: int,
        hour: int,
        minute: int,
        second: int,
        zone: tzinfo | None,
    ) -> datetime | None:
        """Return the earliest matching wall time at or after the one given; 60 s may be given."""
        if self._months >> month & 1 and (self._years is None or year in self._years):
            days = self._by_kind.get(_KINDS[year % 400 * 12 + month - 1])
            if days is None or self._weeks:
                days = self.days_of(year, month)
            first_hour, first_minute, first_second = self._first
            if days >> day & 1:
                if self.hours >> hour & 1:
                    if self.minutes >> minute & 1:
                        rest = self.seconds >> second
                        if rest:
                            second += (rest & -rest).bit_length() - 1
                            return datetime(year, month, day, hour, minute, second, 0, zone)
                    rest = self.minutes >> minute + 1
                    if rest:
                        minute += (rest & -rest).bit_length()
                        return datetime(year, month, day, hour, minute, first_second, 0, zone)
                rest = self.hours >> hour + 1
                if rest:
                    hour += (rest & -rest).bit_length()
                    return datetime(year, month, day, hour, first_minute, first_second, 0, zone)
            rest = days >> day + 1
            if rest:
                day += (rest & -rest).bit_length()
                return datetime(year, month, day, first_hour, first_minute, first_second, 0, zone)
        return self._in_later_month(year, month, zone)

    def _in_later_month(self, year: int, month: int, zone: tzinfo | None) -> datetime | None:
        months = self._months
        for _ in range(_MONTHS_OF_CYCLE):
            rest = months >> month + 1 if self._years is None or year in self._years else 0
            if rest:
                month += (rest & -rest).bit_length()
            else:
                month = (months & -months).bit_length() - 1
                year = self._year_from(year + 1)
                if year > 9999:
                    return None
            days = self._by_kind.get(_KINDS[year % 400 * 12 + month - 1])
            if days is None or self._weeks:
                days = self.days_of(year, month)
            if days:
                day = (days & -days).bit_length() - 1
                return datetime(year, month, day, *self._first, 0, zone)
        return None

    def previous_time(self, moment: datetime) -> datetime | None:
        """Return the latest matching wall time at or before `moment`, in its zone."""
        year, month, day = moment.year, moment.month, moment.day
        at = self._last_of_day(moment.hour, moment.minute, moment.second)
        days = self.days_of(year, month)
        # On the day itself only when there is a time left at or before.
        days &= (2 << day) - 1 if at is not None else (1 << day) - 1
        if at is None or not days >> day & 1:
            at = _highest(self.hours), _highest(self.minutes), _highest(self.seconds)
        for _ in range(_MONTHS_OF_CYCLE):
            if days:
                return datetime(year, month, _highest(days), *at, 0, moment.tzinfo)
            rest = self._months & (1 << month) - 1
            if not rest:
                year = self._year_until(year - 1)
                rest = self._months
            if year < 1:
                return None
            month = _highest(rest)
            days = self.days_of(year, month)
            at = _highest(self.hours), _highest(self.minutes), _highest(self.seconds)
        return None

    def _last_of_day(self, hour: int, minute: int, second: int) -> tuple[int, int, int] | None:
        if self.hours >> hour & 1:
            if self.minutes >> minute & 1:
                rest = self.seconds & (2 << second) - 1
                if rest:
                    return hour, minute, _highest(rest)
            rest = self.minutes & (1 << minute) - 1
            if rest:
                return hour, _highest(rest), _highest(self.seconds)
        rest = self.hours & (1 << hour) - 1
        return (_highest(rest), _highest(self.minutes), _highest(self.seconds)) if rest else None

    def days_of(self, year: int, month: int) -> int:
        """Return the mask of the matching days of a month."""
        if not self._months >> month & 1 or (self._years is not None and year not in self._years):
            return 0
        return self._days_of_any(year, month)

    def _days_of_any(self, year: int, month: int) -> int:
        """Return the days that match in a month, were its year and the month itself allowed."""
        kind = _KINDS[year % 400 * 12 + month - 1]
        days = self._by_kind.get(kind)
        if days is None:
            days = self._by_kind[kind] = self._days_of_kind(kind >> 2, 28 + (kind & 3))
        return days & self._days_in_weeks(year, month) if self._weeks and days else days

    def can_match(self) -> bool:
        """Tell whether any day at all matches."""
        if not self._weeks and self._day.mask & _SURE_DAYS and self._weekday.mask:
            return True
        months = _numbers(self._months)
        some = any(self._days_of_any(year, m) for year in _YEARS_OF_EACH_KIND for m in months)
        if not some or self._years is None:
            return some
        cycle = {year % 400: year for year in self._years_sorted}
        years = {_year_kind(number): year for number, year in cycle.items()}.values()
        return any(self._days_of_any(year, month) for year in years for month in months)

    def _days_of_kind(self, weekday: int, length: int) -> int:
        by_day = self._day.mask
        for special in self._day.specials:
            by_day |= _day_of(special, weekday, length)
        by_weekday = (self._weekday.mask * _REPEATED >> weekday) << 1
        for special in self._weekday.specials:
            by_weekday |= _day_of(special, weekday, length)
        days = by_day | by_weekday if self._either else by_day & by_weekday
        return days & ((2 << length) - 2)

    def _days_in_weeks(self, year: int, month: int) -> int:
        kind = _KINDS[year % 400 * 12 + month - 1]
        first_weekday, length = kind >> 2, 28 + (kind & 3)
        mask, day = 0, 1 - first_weekday
        week = date(year, month, 1).isocalendar()[1]
        while day <= length:
            if self._weeks >> week & 1:
                mask |= 0x7F << day if day > 0 else 0x7F >> -day
            day += 7
            # January may begin in the last week of the year before, and the week that has the
            # first Thursday of a year may begin in December.
            starts_over = (month == 1 and week > 51) or (month == 12 and day > 28)
            week = 1 if starts_over else week + 1
        return mask & ((2 << length) - 2)

    def _year_from(self, year: int) -> int:
        if self._years is None or year in self._years:
            return year
        number = bisect_right(self._years_sorted, year)
        return self._years_sorted[number] if number < len(self._years_sorted) else 10_000

    def _year_until(self, year: int) -> int:
        if self._years is None or year in self._years:
            return year
        number = bisect_left(self._years_sorted, year)
        return self._years_sorted[number - 1] if number else 0

    def first(self, wall: int) -> int | None:
        """Return the earliest matching wall second at or after `wall`."""
        if wall > LAST_WALL:
            return None
        moment = naive_datetime(wall)
        found = self.next_time(
            moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second, None
        )
        return None if found is None else wall_second(found)

    def last(self, wall: int) -> int | None:
        """Return the latest matching wall second at or before `wall`."""
        if wall < 0:
            return None
        found = self.previous_time(naive_datetime(wall))
        return None if found is None else wall_second(found)

    def count(self, after: int, until: int) -> int:
        """Return how many matching wall seconds s there are with after < s <= until."""
        until = min(until, LAST_WALL)
        if until <= after or until < 0:
            return 0
        if after < 0:
            return self.count(0, until) + (self.first(0) == 0)
        start, end = naive_datetime(after), naive_datetime(until)
        per_day = self.hours.bit_count() * self.minutes.bit_count() * self.seconds.bit_count()
        whole = self._count_days(start, end) * per_day
        return whole - self._count_in_day(start, after % DAY) + self._count_in_day(end, until % DAY)

    def _count_days(self, start: datetime, end: datetime) -> int:
        """Return the number of matching days from that of `start` to that before `end`."""
        year, month = start.year, start.month
        total = -(self.days_of(year, month) & (1 << start.day) - 1).bit_count()
        while (year, month) < (end.year, end.month):
            total += self.days_of(year, month).bit_count()
            year, month = (year, month + 1) if month < 12 else (year + 1, 1)
        return total + (self.days_of(year, month) & (1 << end.day) - 1).bit_count()

    def _count_in_day(self, moment: datetime, second_of_day: int) -> int:
        """Return the number of matching seconds of that day up to and with the one given."""
        if not self.days_of(moment.year, moment.month) >> moment.day & 1:
            return 0
        hour, rest = divmod(second_of_day, 3600)
        minute, second = divmod(rest, 60)
        total = 0
        if self.hours >> hour & 1:
            if self.minutes >> minute & 1:
                total = (self.seconds & (2 << second) - 1).bit_count()
            total += (self.minutes & (1 << minute) - 1).bit_count() * self.seconds.bit_count()
        in_hour = self.minutes.bit_count() * self.seconds.bit_count()
        return total + (self.hours & (1 << hour) - 1).bit_count() * in_hour


@lru_cache(maxsize=_PLANS_KEPT)
def compile_plan(texts: tuple[str | None, ...], crontab: bool) -> CronPlan:
    """Return the plan of eight field texts in the order of `FIELD_NAMES`; None is left out.

    Of the fields left out, those above the lowest one given are `*`, those below are at their
    minimum. Raises `ValueError` for a text that cannot be read and for days that never come.
    """
    full = complete(texts)
    fields = [read_field(name, text, crontab) for name, text in zip(FIELD_NAMES, full)]  # noqa: B905
    year, _, day, week, weekday, hour, minute, _ = full
    plan = CronPlan(
        fields,
        any_year=year == "*",
        any_week=week == "*",
        either_day=crontab and not day.startswith("*") and not weekday.startswith("*"),
        period=hour.startswith("*") or minute.startswith("*"),
    )
    if not plan.can_match():
        raise ValueError(_never(dict(zip(FIELD_NAMES, full, strict=True))))
    return plan


def _never(texts: dict[str, str]) -> str:
    names = [name for name in ("day", "week", "day_of_week", "month", "year") if texts[name] != "*"]
    others = " and ".join(f"{name}={texts[name]!r}" for name in names[1:])
    return (
        f"{names[0]}: {texts[names[0]]!r} never comes with {others}; "
        f"allowed are days that some year has"
    )


def complete(texts: tuple[str | None, ...]) -> list[str]:
    """Return the eight field texts with what the ones left out stand for."""
    full = ["*" if text is None else text for text in texts]
    if texts[-1] is None and texts != _NOTHING_GIVEN:
        lowest = max(n for n, text in enumerate(texts) if text is not None)
        full[lowest + 1 :] = _UNSET[lowest + 1 :]
    return full


def _day_of(special: Special, first_weekday: int, length: int) -> int:
    """Return the mask of a special day in a month of this kind; 0 where it lacks it."""
    if special == LAST_DAY:
        return 1 << length
    if special.weekday == WORKING_DAY:
        last_weekday = (first_weekday + length - 1) % 7
        return 1 << length - max(0, last_weekday - 4)
    first = 1 + ((special.weekday or 0) - first_weekday) % 7
    if special.position < 0:
        return 1 << first + (length - first) // 7 * 7
    return 1 << first + 7 * (special.position - 1)


def _numbers(mask: int) -> list[int]:
    return [number for number, bit in enumerate(bin(mask)[:1:-1]) if bit == "1"]


def _year_kind(year: int) -> tuple[int, int, int]:
    """Return what the weeks and days of a year depend on; some twenty kinds there are."""
    # The first weekday, and the length of February in this year and in the one before.
    february = year * 12 + 1
    return _KINDS[february - 1], _KINDS[february] & 3, _KINDS[february - 12] & 3


def _highest(mask: int) -> int:
    return mask.bit_length() - 1
