"""What holds for every schedule, checked against a slow and simple reading of the rules."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from asyncz.triggers import BaseTrigger, CalendarIntervalTrigger, CronTrigger, IntervalTrigger

from .strategies import ORDINARY, ZONE_NAMES, crontabs, field_texts, keyword_fields, moments, zones

MINUTE = timedelta(minutes=1)
MICROSECOND = timedelta(microseconds=1)
# Instants around which these zones changed their clocks.
CHANGES = (
    ("America/New_York", "2024-03-10T07:00"),
    ("America/New_York", "2024-11-03T06:00"),
    ("Europe/Berlin", "2024-03-31T01:00"),
    ("Europe/Berlin", "2024-10-27T01:00"),
    ("Australia/Lord_Howe", "2024-10-05T15:30"),
    ("Australia/Lord_Howe", "2024-04-06T15:00"),
    ("America/Santiago", "2024-04-07T03:00"),
    ("America/Santiago", "2024-09-08T04:00"),
    ("Africa/Cairo", "2024-04-25T22:00"),
    ("Asia/Beirut", "2024-10-26T21:00"),
    ("Africa/Casablanca", "2024-03-10T02:00"),
    ("Asia/Kathmandu", "1985-12-31T18:30"),
    ("Pacific/Apia", "2011-12-30T10:00"),
    ("America/Sao_Paulo", "2018-11-04T03:00"),
    ("Asia/Tehran", "2022-09-21T19:30"),
    ("UTC", "2024-03-10T07:00"),
)
WINDOW = timedelta(hours=27)


@st.composite
def daily_schedules(draw: st.DrawFn) -> tuple[str, str]:
    """Draw the minute and the hour field of a schedule that is the same on every day."""
    minute = draw(st.one_of(st.just("*/7"), st.sampled_from(("0", "30", "0,15,45", "5-50/9"))))
    hour = draw(st.one_of(st.just("*"), st.just("*/2"), field_texts(0, 23)))
    return minute, hour


def _numbers(text: str, high: int) -> set[int]:
    """Read a field the slow way, from what its parts mean."""
    numbers = set()
    for part in text.split(","):
        body, _, step = part.partition("/")
        first, last = (
            (0, high) if body == "*" else (int(body.split("-")[0]), int(body.split("-")[-1]))
        )
        numbers |= {n for n in range(first, last + 1) if (n - first) % int(step or 1) == 0}
    return numbers


@cache
def _walls(zone: ZoneInfo, start: datetime) -> list[tuple[datetime, datetime]]:
    """Return each minute of the window with what the clock on the wall shows then."""
    instants = [start + n * MINUTE for n in range(int(2 * WINDOW / MINUTE) + 1)]
    return [(i, i.astimezone(zone).replace(tzinfo=None, fold=0)) for i in instants]


def _by_brute_force(minute: str, hour: str, zone: ZoneInfo, start: datetime) -> list[datetime]:
    """Return the times in the window by looking at every minute of both time lines."""
    minutes, hours = _numbers(minute, 59), _numbers(hour, 23)
    walls = _walls(zone, start)
    if minute[0] == "*" or hour[0] == "*":
        return [i for i, wall in walls if wall.minute in minutes and wall.hour in hours]
    shown = {wall: i for i, wall in reversed(walls)}
    found = set()
    wall = min(shown)
    while wall <= max(shown):
        if wall.minute in minutes and wall.hour in hours:
            later = wall
            while later not in shown:
                later += MINUTE
            found.add(shown[later])
        wall += MINUTE
    return sorted(found)


@ORDINARY
@given(daily_schedules(), st.sampled_from(CHANGES))
def test_no_instant_is_skipped_or_added_around_a_change(
    schedule: tuple[str, str], change: tuple[str, str]
) -> None:
    minute, hour = schedule
    zone, at = ZoneInfo(change[0]), datetime.fromisoformat(change[1]).replace(tzinfo=UTC)
    start, end = at - WINDOW, at + WINDOW
    trigger = CronTrigger.from_crontab(f"{minute} {hour} * * *", timezone=zone)
    expected = _by_brute_force(minute, hour, zone, start)

    found = [t.astimezone(UTC) for t in trigger.get_run_times(start, end, 10_000)]

    # The wall time of the first minutes may have had its turn before the window.
    edge = start + timedelta(hours=2)
    assert [t for t in found if t >= edge] == [t for t in expected if t >= edge]
    assert trigger.count_between(start - MICROSECOND, end) == len(found)
    back = []
    moment: datetime | None = trigger.last_before(end)
    while moment is not None and moment.astimezone(UTC) >= start:
        back.append(moment.astimezone(UTC))
        moment = trigger.last_before(back[-1] - MICROSECOND)
    assert back == found[::-1]


@ORDINARY
@given(crontabs(seconds=True), moments(), zones)
def test_times_strictly_increase_and_match_their_fields(
    expression: str, moment: datetime, zone: ZoneInfo
) -> None:
    trigger = _crontab_or_skip(expression, zone)
    second, minute, hour = expression.split()[:3]
    period = minute[0] == "*" or hour[0] == "*"

    following: datetime | None = moment
    for _ in range(5):
        previous = following
        assert previous is not None
        following = trigger.get_next_trigger_time(None, previous)
        if following is None:
            return
        assert following.astimezone(UTC) > previous.astimezone(UTC)
        assert following.tzinfo is zone
        if period or following.utcoffset() == (following - timedelta(days=1)).utcoffset():
            assert following.second in _numbers(second, 59)
            assert following.minute in _numbers(minute, 59)
            assert following.hour in _numbers(hour, 23)


@ORDINARY
@given(crontabs(), moments(), zones)
def test_last_before_and_count_agree_with_going_forward(
    expression: str, moment: datetime, zone: ZoneInfo
) -> None:
    trigger = _crontab_or_skip(expression, zone)
    times = trigger.get_run_times(moment, None, 8)
    assume(len(times) == 8)

    count = trigger.count_between(moment - MICROSECOND, times[-1])
    latest = [trigger.last_before(time) for time in times]
    just_before = [trigger.last_before(t.astimezone(UTC) - MICROSECOND) for t in times[1:]]

    assert count == 8
    assert latest == times
    assert just_before == times[:-1]


@ORDINARY
@given(st.integers(1, 10**10), moments(), moments(), st.booleans())
def test_an_interval_computes_what_steps_would_reach(
    micros: int, start: datetime, moment: datetime, inclusive: bool
) -> None:
    trigger = IntervalTrigger(seconds=micros / 10**6, start_at=start)
    step = trigger.interval

    if inclusive:
        found = trigger.get_next_trigger_time(UTC, None, moment)
    else:
        found = trigger.get_next_trigger_time(UTC, moment)

    assert found is not None
    assert (found - start) % step == timedelta(0)
    assert found >= start
    assert found > moment or (inclusive and found == moment) or found == start
    assert found == start or found - step < moment or (not inclusive and found - step == moment)


@ORDINARY
@given(st.integers(60, 10**6), moments(), st.integers(0, 50), zones)
def test_counting_an_interval_agrees_with_going_forward(
    seconds: int, start: datetime, steps: int, zone: ZoneInfo
) -> None:
    trigger = IntervalTrigger(seconds=seconds, start_at=start, timezone=zone)
    times = trigger.get_run_times(start - MINUTE, None, steps + 1)

    assert trigger.count_between(start - MINUTE, times[-1]) == steps + 1
    assert trigger.count_between(start, times[-1]) == steps
    assert trigger.last_before(times[-1].astimezone(UTC) + MICROSECOND) == times[-1]


@ORDINARY
@given(
    st.sampled_from(("years", "months", "weeks", "days")),
    st.integers(1, 40),
    st.integers(0, 23),
    moments(),
    zones,
)
def test_a_calendar_interval_goes_back_and_counts_as_it_goes_forward(
    unit: str, amount: int, hour: int, start: datetime, zone: ZoneInfo
) -> None:
    step: dict[str, Any] = {unit: amount}
    trigger = CalendarIntervalTrigger(
        **step, hour=hour, start_at=start.astimezone(zone).date(), timezone=zone
    )
    times = trigger.get_run_times(start, None, 6)
    assume(len(times) == 6)

    assert times == sorted(set(times))
    assert trigger.count_between(times[0], times[-1]) == 5
    assert [trigger.last_before(time) for time in times] == times
    assert [trigger.last_before(t.astimezone(UTC) - MICROSECOND) for t in times[1:]] == times[:-1]


@ORDINARY
@given(keyword_fields(), st.sampled_from(ZONE_NAMES))
def test_keyword_triggers_survive_json_and_pickle(fields: dict[str, str], zone: str) -> None:
    try:
        trigger = CronTrigger(**fields, timezone=zone)  # type: ignore[arg-type]
    except ValueError:
        assume(False)

    _assert_round_trip(trigger)


@ORDINARY
@given(crontabs(), st.sampled_from(ZONE_NAMES))
def test_crontab_triggers_survive_json_and_pickle(expression: str, zone: str) -> None:
    _assert_round_trip(_crontab_or_skip(expression, ZoneInfo(zone)))


@ORDINARY
@given(crontabs())
def test_every_crontab_has_a_short_text_and_plain_words(expression: str) -> None:
    trigger = _crontab_or_skip(expression, ZoneInfo("UTC"))

    assert str(trigger).startswith("cron[")
    assert trigger.describe()
    assert trigger.describe().isprintable()


@ORDINARY
@given(keyword_fields())
def test_every_keyword_schedule_has_plain_words(fields: dict[str, str]) -> None:
    try:
        trigger = CronTrigger(**fields)  # type: ignore[arg-type]
    except ValueError:
        assume(False)

    assert trigger.describe()


@ORDINARY
@given(st.text(alphabet="0123456789*/-,#LWlw@ monjanfri\t\n\0\u0665\xa0é", max_size=30))
def test_any_text_is_a_crontab_or_a_value_error(text: str) -> None:
    try:
        trigger = CronTrigger.from_crontab(text)
    except ValueError as error:
        message = str(error)
    else:
        message = str(trigger)

    assert message.startswith(("CronTrigger: ", "cron["))


def _crontab_or_skip(expression: str, zone: ZoneInfo) -> CronTrigger:
    try:
        return CronTrigger.from_crontab(expression, timezone=zone)
    except ValueError:
        assume(False)
        raise


def _assert_round_trip(trigger: BaseTrigger) -> None:
    record = trigger.model_dump(mode="json")
    again = BaseTrigger.model_validate(record)
    assert again == trigger
    assert hash(again) == hash(trigger)
    assert again.model_dump(mode="json") == record
    assert pickle.loads(pickle.dumps(trigger)) == trigger  # noqa: S301


def test_a_year_of_seconds_is_counted_and_not_gone_through() -> None:
    trigger = CronTrigger.from_crontab("* * * * * *", timezone="America/New_York")
    start = datetime(2024, 1, 1, tzinfo=ZoneInfo("America/New_York"))

    assert trigger.count_between(start, start.replace(year=2025)) == 366 * 86_400


@pytest.mark.parametrize("name", ZONE_NAMES)
def test_the_distance_of_a_schedule_to_itself_is_nothing(name: str) -> None:
    trigger = CronTrigger.from_crontab("* * * * *", timezone=name)
    moment = datetime(2024, 6, 1, tzinfo=UTC)

    assert trigger.count_between(moment, moment) == 0
    assert trigger.count_between(moment + MINUTE, moment) == 0
    assert trigger.last_before(moment, after=moment) is None
