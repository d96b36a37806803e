"""The calendar interval against a slow reading of its rule, and at its edges."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncz.triggers import AndTrigger, CalendarIntervalTrigger, CronTrigger

from .strategies import ORDINARY, zones

MICROSECOND = timedelta(microseconds=1)
DAY = timedelta(days=1)
START = datetime(2026, 1, 31, tzinfo=UTC)

# What a user may ask for, with the anchor on a day that some months lack as often as not.
STEPS = st.one_of(
    st.fixed_dictionaries({"days": st.integers(1, 40)}),
    st.fixed_dictionaries({"weeks": st.integers(0, 3), "days": st.integers(0, 9)}),
    st.fixed_dictionaries({"months": st.integers(1, 14)}),
    st.fixed_dictionaries({"years": st.integers(0, 2), "months": st.integers(0, 5)}),
)
ANCHORS = st.one_of(
    st.dates(date(2010, 1, 1), date(2024, 12, 31)),
    st.sampled_from([date(2011, 12, 30), date(2012, 2, 29), date(2016, 1, 31), date(2018, 8, 31)]),
)


def _is_counted(day: date, anchor: date, step: dict[str, Any]) -> bool:
    months = 12 * step.get("years", 0) + step.get("months", 0)
    if months:
        passed = 12 * (day.year - anchor.year) + day.month - anchor.month
        return day.day == anchor.day and passed % months == 0
    return (day - anchor).days % (7 * step.get("weeks", 0) + step.get("days", 0) or 1) == 0


def _first_instant(wall: datetime, zone: ZoneInfo) -> datetime:
    """Return the first instant at which the clock shows `wall` or, after a leap, more."""
    low = wall.replace(tzinfo=UTC) - 2 * DAY
    # Both turns of an ambiguous time; of one that was leapt over the offsets around it.
    found = [wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)]
    shown = [t for t in found if t.astimezone(zone).replace(tzinfo=None) == wall]
    if shown:
        return min(shown)
    high = wall.replace(tzinfo=UTC) + 2 * DAY
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) // 2
        if middle.astimezone(zone).replace(tzinfo=None) < wall:
            low = middle
        else:
            high = middle
    return high.replace(microsecond=0)


@ORDINARY
@given(STEPS, ANCHORS, st.times(), zones, st.integers(0, 500), st.integers(1, 300))
def test_it_has_the_times_of_looking_at_every_day(
    step: dict[str, Any], anchor: date, at: time, zone: ZoneInfo, ahead: int, length: int
) -> None:
    at = at.replace(microsecond=0)
    trigger = CalendarIntervalTrigger(
        **step, hour=at.hour, minute=at.minute, second=at.second, start_at=anchor, timezone=zone
    )
    assert trigger.start_at is not None
    anchor = trigger.start_at.date()  # another where the clocks leapt over a whole day
    first = datetime.combine(anchor, time(), UTC) + ahead * DAY
    last = first + length * DAY
    days = [anchor + n * DAY for n in range(ahead + length + 3)]
    walls = [datetime.combine(day, at) for day in days if _is_counted(day, anchor, step)]
    everything = sorted({_first_instant(wall, zone) for wall in walls})
    expected = [t for t in everything if first <= t <= last]

    found = trigger.get_run_times(first, last, 10_000)
    latest = [trigger.last_before(t.astimezone(UTC) - MICROSECOND) for t in found[1:]]

    assert [t.astimezone(UTC) for t in found] == expected
    assert trigger.count_between(first - MICROSECOND, last) == len(expected)
    assert trigger.last_before(last, after=first - MICROSECOND) == (found[-1] if found else None)
    assert latest == found[:-1]


@ORDINARY
@given(STEPS, ANCHORS, st.integers(0, 23), zones)
def test_without_a_start_each_time_counts_from_the_one_before(
    step: dict[str, Any], anchor: date, hour: int, zone: ZoneInfo
) -> None:
    trigger = CalendarIntervalTrigger(**step, hour=hour, timezone=zone)
    now = datetime.combine(anchor, time(12), UTC)

    first = trigger.get_next_trigger_time(None, None, now)
    assert first is not None
    second = trigger.get_next_trigger_time(None, first)

    assert now <= first.astimezone(UTC) < now + 2 * DAY + timedelta(hours=2)
    assert second is not None
    day = first.date()
    # A leap over midnight shows the day after the one that is counted.
    days = (day, day - DAY)
    assert any(_is_counted((second - n * DAY).date(), d, step) for d in days for n in (0, 1))
    assert trigger.last_before(second, after=first) == second
    assert trigger.last_before(second.astimezone(UTC) - MICROSECOND, after=first) is None
    assert trigger.count_between(first, second) == 1


@pytest.mark.parametrize("offset", [0, 1])
def test_start_and_end_are_inclusive_to_the_microsecond(offset: int) -> None:
    start, end = START.replace(hour=9), START.replace(hour=9) + 2 * DAY
    step: dict[str, Any] = {"hour": 9, "timezone": "UTC"}
    inside = CalendarIntervalTrigger(start_at=start, end_at=end, **step)
    outside = CalendarIntervalTrigger(
        start_at=start + MICROSECOND, end_at=end - MICROSECOND, **step
    )
    span = START - DAY, START + 9 * DAY

    assert inside.get_run_times(*span, 9) == [start, start + DAY, end]
    assert outside.get_run_times(*span, 9) == [start + DAY]
    assert (inside.count_between(*span), outside.count_between(*span)) == (3, 1)
    assert (inside.last_before(span[1]), outside.last_before(span[1])) == (end, start + DAY)
    assert outside.last_before(start) is None
    assert inside.last_before(start - MICROSECOND) is None
    assert inside.get_next_trigger_time(None, end - offset * MICROSECOND) == (
        end if offset else None
    )


def test_it_ends_with_the_calendar() -> None:
    far = datetime(9990, 1, 1, tzinfo=UTC)
    leap = CalendarIntervalTrigger(years=3, start_at="2024-02-29", timezone="UTC")
    daily = CalendarIntervalTrigger(days=400, start_at="2024-02-29", timezone="UTC")

    assert leap.get_run_times(far, None, 9) == [datetime(9992, 2, 29, tzinfo=UTC)]
    assert len(daily.get_run_times(far, None, 99)) == 9
    assert leap.last_before(datetime.max.replace(tzinfo=UTC)) == datetime(9992, 2, 29, tzinfo=UTC)
    assert CalendarIntervalTrigger(years=1_000_000, start_at=START).get_run_times(
        START, None, 3
    ) == [START]


def test_a_day_that_never_comes_again_is_the_end() -> None:
    # Counted by 400 years from a month that the end of the calendar cuts off.
    trigger = CalendarIntervalTrigger(years=400, start_at="9600-02-29", timezone="UTC")
    once = datetime(9600, 2, 29, tzinfo=UTC)

    assert trigger.get_next_trigger_time(None, once) is None
    assert trigger.count_between(once, datetime(9700, 1, 1, tzinfo=UTC)) == 0
    assert trigger.last_before(datetime(9999, 1, 1, tzinfo=UTC)) == once


def test_months_without_the_day_are_passed_over_backwards_and_counted_as_nothing() -> None:
    trigger = CalendarIntervalTrigger(months=1, start_at="2026-01-31", timezone="UTC")
    april = datetime(2026, 4, 30, tzinfo=UTC)

    assert trigger.last_before(april) == datetime(2026, 3, 31, tzinfo=UTC)
    assert trigger.last_before(START - DAY) is None
    assert trigger.count_between(START, april) == 1
    assert trigger.count_between(datetime(2026, 4, 1, tzinfo=UTC), april) == 0


def test_inside_a_combination_it_counts_from_a_common_day() -> None:
    either = AndTrigger(
        [CalendarIntervalTrigger(weeks=1, timezone="UTC"), CronTrigger(day=1, timezone="UTC")]
    )

    found = either.get_run_times(START, None, 2)

    # 1970-01-01 was a Thursday.
    assert [f"{t:%a %Y-%m-%d}" for t in found] == ["Thu 2026-10-01", "Thu 2027-04-01"]


def test_asked_as_a_part_it_goes_on_from_the_time_before() -> None:
    trigger = CalendarIntervalTrigger(days=10, hour=9, timezone="UTC")
    nine = START.replace(hour=9)

    assert trigger.first_from(nine, UTC, None, START) == nine
    assert trigger.first_from(nine + DAY, UTC, nine, None) == nine + 10 * DAY
    assert trigger.first_from(nine + 11 * DAY, UTC, nine, None) == nine + 20 * DAY


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({}, "every day at 00:00"),
        ({"days": 1, "second": 5}, "every day at 00:00:05"),
        ({"years": 1, "months": 6}, "every year and 6 months at 00:00"),
        ({"weeks": 2, "start_at": START}, "every 2 weeks at 00:00, counted from 2026-01-31"),
    ],
)
def test_it_is_told_in_plain_words(step: dict[str, Any], words: str) -> None:
    assert CalendarIntervalTrigger(**step).describe() == words
