"""Cases worked out by hand, from the dates on which each zone changed its clocks."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from asyncz.triggers import CalendarIntervalTrigger, CronTrigger, DateTrigger, IntervalTrigger

# zone, expression, the time before, the times that follow.
TIMES_OF_DAY = [
    # New York: 10 March 2024 has no 02:00 to 03:00, 3 November 2024 has 01:00 to 02:00 twice.
    ("America/New_York", "30 2 * * *", "2024-03-09T02:30-05:00",
     ["2024-03-10T03:00-04:00", "2024-03-11T02:30-04:00"]),
    ("America/New_York", "15,45 2 * * *", "2024-03-09T12:00-05:00",
     ["2024-03-10T03:00-04:00", "2024-03-11T02:15-04:00"]),
    ("America/New_York", "0 2,3 * * *", "2024-03-09T12:00-05:00",
     ["2024-03-10T03:00-04:00", "2024-03-11T02:00-04:00"]),
    ("America/New_York", "30 1 * * *", "2024-11-02T12:00-04:00",
     ["2024-11-03T01:30-04:00", "2024-11-04T01:30-05:00"]),
    ("America/New_York", "0,30 1 * * *", "2024-11-03T00:00-04:00",
     ["2024-11-03T01:00-04:00", "2024-11-03T01:30-04:00", "2024-11-04T01:00-05:00"]),
    ("America/New_York", "30 1 * * *", "2024-11-03T01:10-05:00", ["2024-11-04T01:30-05:00"]),
    ("America/New_York", "0 2 * * *", "2024-11-03T01:59-05:00",
     ["2024-11-03T02:00-05:00", "2024-11-04T02:00-05:00"]),
    # Berlin: 31 March 2024 has no 02:00 to 03:00, 27 October 2024 has it twice.
    ("Europe/Berlin", "0 2 * * *", "2024-03-30T12:00+01:00",
     ["2024-03-31T03:00+02:00", "2024-04-01T02:00+02:00"]),
    ("Europe/Berlin", "0 2 * * *", "2024-10-26T12:00+02:00",
     ["2024-10-27T02:00+02:00", "2024-10-28T02:00+01:00"]),
    ("Europe/Berlin", "59 2 31 3 *", "2024-01-01T00:00+01:00",
     ["2024-03-31T03:00+02:00", "2025-03-31T02:59+02:00"]),
    # Lord Howe changes by half an hour, on 6 October and 7 April 2024, both at 02:00.
    ("Australia/Lord_Howe", "15 2 * * *", "2024-10-05T12:00+10:30",
     ["2024-10-06T02:30+11:00", "2024-10-07T02:15+11:00"]),
    ("Australia/Lord_Howe", "45 1 * * *", "2024-04-06T12:00+11:00",
     ["2024-04-07T01:45+11:00", "2024-04-08T01:45+10:30"]),
    # Santiago goes from 24:00 to 23:00 on 6 April 2024, and from 00:00 to 01:00 on 8 September.
    ("America/Santiago", "30 23 * * *", "2024-04-06T12:00-03:00",
     ["2024-04-06T23:30-03:00", "2024-04-07T23:30-04:00"]),
    ("America/Santiago", "0 0 * * *", "2024-09-07T12:00-04:00",
     ["2024-09-08T01:00-03:00", "2024-09-09T00:00-03:00"]),
    # Cairo: 26 April 2024 begins at 01:00, 31 October 2024 has its last hour twice.
    ("Africa/Cairo", "30 0 * * *", "2024-04-25T12:00+02:00",
     ["2024-04-26T01:00+03:00", "2024-04-27T00:30+03:00"]),
    ("Africa/Cairo", "15 23 * * *", "2024-10-31T12:00+03:00",
     ["2024-10-31T23:15+03:00", "2024-11-01T23:15+02:00"]),
    # Beirut: 31 March 2024 begins at 01:00, 26 October 2024 has its last hour twice.
    ("Asia/Beirut", "0 0 * * *", "2024-03-30T12:00+02:00",
     ["2024-03-31T01:00+03:00", "2024-04-01T00:00+03:00"]),
    ("Asia/Beirut", "0 0 * * *", "2024-10-26T23:30+03:00", ["2024-10-27T00:00+02:00"]),
    # Casablanca goes back for Ramadan, 10 March 2024, and forward after it, 14 April 2024.
    ("Africa/Casablanca", "30 2 * * *", "2024-03-09T12:00+01:00",
     ["2024-03-10T02:30+01:00", "2024-03-11T02:30+00:00"]),
    ("Africa/Casablanca", "30 2 * * *", "2024-04-13T12:00+00:00",
     ["2024-04-14T03:00+01:00", "2024-04-15T02:30+01:00"]),
    # Kathmandu moved on by a quarter of an hour at the beginning of 1986.
    ("Asia/Kathmandu", "5 0 * * *", "1985-12-31T12:00+05:30",
     ["1986-01-01T00:15+05:45", "1986-01-02T00:05+05:45"]),
    # Apia had no 30 December 2011.
    ("Pacific/Apia", "0 10 * * *", "2011-12-29T10:00-10:00",
     ["2011-12-31T00:00+14:00", "2011-12-31T10:00+14:00"]),
    ("Pacific/Apia", "0 0 30 12 *", "2011-12-29T10:00-10:00",
     ["2011-12-31T00:00+14:00", "2012-12-30T00:00+14:00"]),
    # Sao Paulo: 4 November 2018 begins at 01:00, 17 February 2018 has its last hour twice.
    ("America/Sao_Paulo", "0 0 * * *", "2018-11-03T12:00-03:00",
     ["2018-11-04T01:00-02:00", "2018-11-05T00:00-02:00"]),
    ("America/Sao_Paulo", "30 23 * * *", "2018-02-17T12:00-02:00",
     ["2018-02-17T23:30-02:00", "2018-02-18T23:30-03:00"]),
    # Tehran: 22 March 2022 begins at 01:00, 21 September 2022 has its last hour twice.
    ("Asia/Tehran", "0 0 * * *", "2022-03-21T12:00+03:30",
     ["2022-03-22T01:00+04:30", "2022-03-23T00:00+04:30"]),
    ("Asia/Tehran", "30 23 * * *", "2022-09-21T12:00+04:30",
     ["2022-09-21T23:30+04:30", "2022-09-22T23:30+03:30"]),
    ("UTC", "30 2 * * *", "2024-03-10T02:30+00:00",
     ["2024-03-11T02:30+00:00", "2024-03-12T02:30+00:00"]),
]  # fmt: skip

PERIODS = [
    ("America/New_York", "*/30 * * * *", "2024-03-10T01:00-05:00",
     ["2024-03-10T01:30-05:00", "2024-03-10T03:00-04:00", "2024-03-10T03:30-04:00"]),
    ("America/New_York", "*/30 2 * * *", "2024-03-09T12:00-05:00",
     ["2024-03-11T02:00-04:00", "2024-03-11T02:30-04:00"]),
    ("America/New_York", "30 * * * *", "2024-11-03T00:45-04:00",
     ["2024-11-03T01:30-04:00", "2024-11-03T01:30-05:00", "2024-11-03T02:30-05:00"]),
    ("America/New_York", "*/30 1 * * *", "2024-11-03T00:00-04:00",
     ["2024-11-03T01:00-04:00", "2024-11-03T01:30-04:00", "2024-11-03T01:00-05:00",
      "2024-11-03T01:30-05:00", "2024-11-04T01:00-05:00"]),
    ("Europe/Berlin", "0 */2 * * *", "2024-03-31T00:00+01:00",
     ["2024-03-31T04:00+02:00", "2024-03-31T06:00+02:00"]),
    ("Europe/Berlin", "15 * * * *", "2024-10-27T02:15+02:00",
     ["2024-10-27T02:15+01:00", "2024-10-27T03:15+01:00"]),
    ("Australia/Lord_Howe", "0 * * * *", "2024-10-06T01:00+10:30",
     ["2024-10-06T03:00+11:00", "2024-10-06T04:00+11:00"]),
    ("Australia/Lord_Howe", "*/15 * * * *", "2024-10-06T01:45+10:30", ["2024-10-06T02:30+11:00"]),
    ("Australia/Lord_Howe", "45 * * * *", "2024-04-07T00:45+11:00",
     ["2024-04-07T01:45+11:00", "2024-04-07T01:45+10:30", "2024-04-07T02:45+10:30"]),
    ("America/Santiago", "0 * * * *", "2024-09-07T23:00-04:00",
     ["2024-09-08T01:00-03:00", "2024-09-08T02:00-03:00"]),
    ("America/Santiago", "0 * * * *", "2024-04-06T22:00-03:00",
     ["2024-04-06T23:00-03:00", "2024-04-06T23:00-04:00", "2024-04-07T00:00-04:00"]),
    ("Africa/Cairo", "0 * * * *", "2024-10-31T23:00+03:00",
     ["2024-10-31T23:00+02:00", "2024-11-01T00:00+02:00"]),
    ("Africa/Cairo", "*/30 * * * *", "2024-04-25T23:30+02:00", ["2024-04-26T01:00+03:00"]),
    ("Asia/Beirut", "20 * * * *", "2024-10-26T23:20+03:00",
     ["2024-10-26T23:20+02:00", "2024-10-27T00:20+02:00"]),
    ("Africa/Casablanca", "10 * * * *", "2024-03-10T02:10+01:00",
     ["2024-03-10T02:10+00:00", "2024-03-10T03:10+00:00"]),
    ("Africa/Casablanca", "10 * * * *", "2024-04-14T01:10+00:00", ["2024-04-14T03:10+01:00"]),
    ("Asia/Kathmandu", "*/5 * * * *", "1985-12-31T23:55+05:30",
     ["1986-01-01T00:15+05:45", "1986-01-01T00:20+05:45"]),
    ("Pacific/Apia", "0 */6 * * *", "2011-12-29T18:00-10:00",
     ["2011-12-31T00:00+14:00", "2011-12-31T06:00+14:00"]),
    ("America/Sao_Paulo", "0 * * * *", "2018-02-17T22:00-02:00",
     ["2018-02-17T23:00-02:00", "2018-02-17T23:00-03:00", "2018-02-18T00:00-03:00"]),
    ("Asia/Tehran", "0 * * * *", "2022-03-21T23:00+03:30", ["2022-03-22T01:00+04:30"]),
    ("Asia/Tehran", "15 * * * *", "2022-09-21T23:15+04:30", ["2022-09-21T23:15+03:30"]),
    ("UTC", "*/30 * * * *", "2024-03-31T01:30+00:00",
     ["2024-03-31T02:00+00:00", "2024-03-31T02:30+00:00"]),
]  # fmt: skip

CASES = TIMES_OF_DAY + PERIODS


@pytest.mark.parametrize(("zone", "expression", "before", "expected"), CASES)
def test_the_next_times_are_those_of_the_table(
    zone: str, expression: str, before: str, expected: list[str]
) -> None:
    trigger = CronTrigger.from_crontab(expression, timezone=zone)
    moment: datetime | None = datetime.fromisoformat(before)

    found = []
    for _ in expected:
        moment = trigger.get_next_trigger_time(None, moment)
        assert moment is not None
        found.append(moment.isoformat(timespec="minutes"))

    assert found == expected


@pytest.mark.parametrize(("zone", "expression", "before", "expected"), CASES)
def test_going_back_gives_the_same_times(
    zone: str, expression: str, before: str, expected: list[str]
) -> None:
    trigger = CronTrigger.from_crontab(expression, timezone=zone)
    moment = datetime.fromisoformat(expected[-1])

    found = []
    for _ in expected:
        latest = trigger.last_before(moment, after=datetime.fromisoformat(before))
        assert latest is not None
        found.append(latest.isoformat(timespec="minutes"))
        # From the text, as subtraction forgets which of two equal wall times it was.
        moment = datetime.fromisoformat(found[-1]) - timedelta(microseconds=1)

    assert found == expected[::-1]
    assert trigger.last_before(moment, after=datetime.fromisoformat(before)) is None


@pytest.mark.parametrize(("zone", "expression", "before", "expected"), CASES)
def test_the_count_is_that_of_the_table(
    zone: str, expression: str, before: str, expected: list[str]
) -> None:
    trigger = CronTrigger.from_crontab(expression, timezone=zone)

    after, until = datetime.fromisoformat(before), datetime.fromisoformat(expected[-1])

    assert trigger.count_between(after, until) == len(expected)
    assert trigger.count_between(after, until - timedelta(microseconds=1)) == len(expected) - 1


def test_keyword_fields_left_out_decide_between_time_of_day_and_period() -> None:
    zone = ZoneInfo("Europe/Berlin")
    before = datetime(2024, 3, 30, 12, tzinfo=zone)

    time_of_day = CronTrigger(hour=2, timezone=zone).get_next_trigger_time(None, before)
    period = CronTrigger(hour="2", minute="*", timezone=zone).get_next_trigger_time(None, before)

    assert str(time_of_day) == "2024-03-31 03:00:00+02:00"
    assert str(period) == "2024-04-01 02:00:00+02:00"


def test_an_interval_is_elapsed_time_through_both_changes() -> None:
    spring = IntervalTrigger(days=1, start_at="2024-03-09T12:00", timezone="America/New_York")
    autumn = IntervalTrigger(hours=1, start_at="2024-11-03T00:30", timezone="America/New_York")
    first = datetime.fromisoformat("2024-03-09T12:00-05:00")
    second = datetime.fromisoformat("2024-11-03T00:30-04:00")

    days = spring.get_run_times(first, None, 3)
    hours = autumn.get_run_times(second, None, 4)

    assert [f"{t:%d %H:%M %z}" for t in days] == [
        "09 12:00 -0500",
        "10 13:00 -0400",
        "11 13:00 -0400",
    ]
    assert [f"{t:%H:%M %z}" for t in hours] == [
        "00:30 -0400",
        "01:30 -0400",
        "01:30 -0500",
        "02:30 -0500",
    ]


def test_an_interval_without_a_start_is_elapsed_time_as_well() -> None:
    trigger = IntervalTrigger(hours=24, timezone="America/New_York")

    following = trigger.get_next_trigger_time(
        None, datetime.fromisoformat("2024-03-09T12:00-05:00")
    )

    assert str(following) == "2024-03-10 13:00:00-04:00"


@pytest.mark.parametrize(
    ("naive", "expected"),
    [
        ("2024-03-10T02:30", "2024-03-10T03:00:00-04:00"),
        ("2024-11-03T01:30", "2024-11-03T01:30:00-04:00"),
        ("2024-07-01T09:00", "2024-07-01T09:00:00-04:00"),
    ],
)
def test_a_naive_time_is_read_in_the_zone_of_the_trigger(naive: str, expected: str) -> None:
    run = DateTrigger(naive, timezone="America/New_York").get_next_trigger_time(
        None, None, datetime.fromisoformat("2020-01-01T00:00+00:00")
    )

    assert run is not None
    assert run.isoformat() == expected


def test_a_calendar_interval_keeps_its_time_of_day() -> None:
    trigger = CalendarIntervalTrigger(
        days=1, hour=2, minute=30, start_at="2024-03-09", timezone="America/New_York"
    )

    times = trigger.get_run_times(datetime.fromisoformat("2024-03-01T00:00-05:00"), None, 3)

    assert [t.isoformat(timespec="minutes") for t in times] == [
        "2024-03-09T02:30-05:00",
        "2024-03-10T03:00-04:00",
        "2024-03-11T02:30-04:00",
    ]
