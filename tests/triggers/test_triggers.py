"""What each trigger does, one behaviour a test."""

from __future__ import annotations

import copy
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import pytest
import pytz
from pydantic import BaseModel

from asyncz.timezones import as_timezone, zone_name
from asyncz.triggers import (
    AndTrigger,
    BaseTrigger,
    CalendarIntervalTrigger,
    CronTrigger,
    DateTrigger,
    IntervalTrigger,
    OrTrigger,
    ShutdownTrigger,
    load_trigger,
)

NOW = datetime(2026, 3, 1, 10, 17, 23, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


def _next(trigger: BaseTrigger, count: int = 3, start: datetime = NOW) -> list[str]:
    times = trigger.get_run_times(start, None, count, UTC)
    return [time.strftime("%a %Y-%m-%d %H:%M:%S") for time in times]


ALL = [
    (DateTrigger(), "date[now]", {"type": "date"}),
    (
        DateTrigger("2030-01-01T10:00", timezone=BERLIN),
        "date[2030-01-01 10:00:00 CET]",
        {"type": "date", "run_at": "2030-01-01T10:00:00+01:00", "timezone": "Europe/Berlin"},
    ),
    (IntervalTrigger(), "interval[0:00:01]", {"type": "interval"}),
    (
        IntervalTrigger(hours=1, minutes=30, jitter=5),
        "interval[1:30:00]",
        {"type": "interval", "hours": 1, "minutes": 30, "jitter": 5},
    ),
    (CronTrigger(), "cron[]", {"type": "cron"}),
    (
        CronTrigger(hour="9-17", minute="*/5"),
        "cron[hour='9-17', minute='*/5']",
        {"type": "cron", "hour": "9-17", "minute": "*/5"},
    ),
    (
        CronTrigger.from_crontab("*/5  9-17 * * 1-5", timezone="+02:00"),
        "cron[day_of_week='mon-fri', hour='9-17', minute='*/5']",
        {"type": "cron", "timezone": "+02:00", "crontab": "*/5 9-17 * * 1-5"},
    ),
    (
        CalendarIntervalTrigger(months=1, hour=9),
        "calendarinterval[1 month, 09:00:00]",
        {"type": "calendarinterval", "months": 1, "hour": 9},
    ),
    (AndTrigger([]), "and[]", {"type": "and", "triggers": []}),
    (
        OrTrigger([CronTrigger(hour=9), ShutdownTrigger()]),
        "or[cron[hour='9'], shutdown]",
        {"type": "or", "triggers": [{"type": "cron", "hour": "9"}, {"type": "shutdown"}]},
    ),
    (ShutdownTrigger(), "shutdown", {"type": "shutdown"}),
]


@pytest.mark.parametrize(("trigger", "text", "record"), ALL, ids=[str(row[0]) for row in ALL])
def test_a_trigger_has_a_text_and_a_record_that_gives_it_back(
    trigger: BaseTrigger, text: str, record: dict[str, Any]
) -> None:
    assert str(trigger) == text
    assert trigger.model_dump(mode="json") == record
    assert load_trigger(record) == trigger
    assert type(trigger).model_validate(record) == trigger
    assert type(trigger)(**record) == trigger
    assert type(trigger).model_validate_json(trigger.model_dump_json()) == trigger
    assert type(trigger).model_validate(trigger.model_dump()) == trigger
    assert copy.deepcopy(trigger) == trigger
    assert len({trigger, load_trigger(record)}) == 1


def test_a_field_of_another_model_takes_triggers_and_their_records() -> None:
    class Plan(BaseModel):
        trigger: BaseTrigger

    record = {"type": "cron", "hour": "9"}

    assert Plan.model_validate({"trigger": record}).trigger == CronTrigger(hour=9)
    assert Plan(trigger=CronTrigger(hour=9)).model_dump(mode="json") == {"trigger": record}


def test_a_copy_with_changes_is_checked() -> None:
    trigger = CronTrigger(hour=9)

    assert trigger.model_copy() is trigger
    assert trigger.model_copy(update={"minute": 30}) == CronTrigger(hour=9, minute=30)
    with pytest.raises(ValueError, match="hour: '30' is out of range"):
        trigger.model_copy(update={"hour": 30})


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, ["Sun 2026-03-01 10:17:23", "Sun 2026-03-01 10:17:24"]),
        ({"second": 5}, ["Sun 2026-03-01 10:18:05", "Sun 2026-03-01 10:19:05"]),
        ({"minute": 5}, ["Sun 2026-03-01 11:05:00", "Sun 2026-03-01 12:05:00"]),
        ({"hour": 9}, ["Mon 2026-03-02 09:00:00", "Tue 2026-03-03 09:00:00"]),
        ({"day_of_week": 0}, ["Mon 2026-03-02 00:00:00", "Mon 2026-03-09 00:00:00"]),
        ({"day_of_week": "sat, sun", "hour": "8"},
         ["Sat 2026-03-07 08:00:00", "Sun 2026-03-08 08:00:00"]),
        ({"week": 53}, ["Mon 2026-12-28 00:00:00", "Tue 2026-12-29 00:00:00"]),
        ({"day": 31}, ["Tue 2026-03-31 00:00:00", "Sun 2026-05-31 00:00:00"]),
        ({"day": "last"}, ["Tue 2026-03-31 00:00:00", "Thu 2026-04-30 00:00:00"]),
        ({"day": "2nd fri"}, ["Fri 2026-03-13 00:00:00", "Fri 2026-04-10 00:00:00"]),
        ({"day": "5th sun"}, ["Sun 2026-03-29 00:00:00", "Sun 2026-05-31 00:00:00"]),
        ({"day": "last mon, 5"}, ["Thu 2026-03-05 00:00:00", "Mon 2026-03-30 00:00:00"]),
        ({"month": "FEB"}, ["Mon 2027-02-01 00:00:00", "Tue 2028-02-01 00:00:00"]),
        ({"year": 2030}, ["Tue 2030-01-01 00:00:00"]),
        ({"year": 2020}, []),
        ({"hour": "6-8,11-12"}, ["Sun 2026-03-01 11:00:00", "Sun 2026-03-01 12:00:00"]),
        ({"minute": "5/20"}, ["Sun 2026-03-01 10:25:00", "Sun 2026-03-01 10:45:00"]),
        ({"year": "2001/4,2024", "day": 29, "month": 2}, []),
    ],
)  # fmt: skip
def test_keyword_fields_have_their_times(arguments: dict[str, Any], expected: list[str]) -> None:
    assert _next(CronTrigger(**arguments), 2) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 9 * * 0", ["Sun 2026-03-08 09:00:00", "Sun 2026-03-15 09:00:00"]),
        ("0 9 * * 7", ["Sun 2026-03-08 09:00:00", "Sun 2026-03-15 09:00:00"]),
        ("0 9 * * Fri-Sun", ["Fri 2026-03-06 09:00:00", "Sat 2026-03-07 09:00:00"]),
        ("0 0 13 * 5", ["Fri 2026-03-06 00:00:00", "Fri 2026-03-13 00:00:00"]),
        ("0 0 */2 * 5", ["Fri 2026-03-13 00:00:00", "Fri 2026-03-27 00:00:00"]),
        ("0 0 L * *", ["Tue 2026-03-31 00:00:00", "Thu 2026-04-30 00:00:00"]),
        ("0 0 lw * *", ["Tue 2026-03-31 00:00:00", "Thu 2026-04-30 00:00:00"]),
        ("0 0 LW 5 *", ["Fri 2026-05-29 00:00:00", "Mon 2027-05-31 00:00:00"]),
        ("0 0 * * 5L", ["Fri 2026-03-27 00:00:00", "Fri 2026-04-24 00:00:00"]),
        ("0 0 * * 1#2", ["Mon 2026-03-09 00:00:00", "Mon 2026-04-13 00:00:00"]),
        ("30 0 0 1 1 *", ["Fri 2027-01-01 00:00:30", "Sat 2028-01-01 00:00:30"]),
        ("0 0 29 2 *", ["Tue 2028-02-29 00:00:00", "Sun 2032-02-29 00:00:00"]),
        ("0 0 29 2 1", ["Mon 2027-02-01 00:00:00", "Mon 2027-02-08 00:00:00"]),
        ("@Yearly", ["Fri 2027-01-01 00:00:00", "Sat 2028-01-01 00:00:00"]),
        ("@annually", ["Fri 2027-01-01 00:00:00", "Sat 2028-01-01 00:00:00"]),
        ("@monthly", ["Wed 2026-04-01 00:00:00", "Fri 2026-05-01 00:00:00"]),
        ("@weekly", ["Sun 2026-03-08 00:00:00", "Sun 2026-03-15 00:00:00"]),
        ("@daily", ["Mon 2026-03-02 00:00:00", "Tue 2026-03-03 00:00:00"]),
        ("@midnight", ["Mon 2026-03-02 00:00:00", "Tue 2026-03-03 00:00:00"]),
        ("@hourly", ["Sun 2026-03-01 11:00:00", "Sun 2026-03-01 12:00:00"]),
    ],
)
def test_crontabs_have_their_times(text: str, expected: list[str]) -> None:
    assert _next(CronTrigger.from_crontab(text), 2) == expected


def test_start_and_end_are_inclusive() -> None:
    trigger = CronTrigger(minute=0, start_at="2026-03-01T12:00Z", end_at="2026-03-01T14:00Z")

    assert [time[-8:] for time in _next(trigger, 9)] == ["12:00:00", "13:00:00", "14:00:00"]
    assert trigger.count_between(NOW, NOW + timedelta(days=1)) == 3
    assert str(trigger.last_before(NOW + timedelta(days=1))) == "2026-03-01 14:00:00+00:00"
    assert trigger.last_before(NOW) is None


def test_an_interval_counts_from_its_start_and_has_an_end() -> None:
    trigger = IntervalTrigger(
        hours=2, start_at="2026-03-01T09:00:00Z", end_at="2026-03-01T13:00:00Z"
    )

    assert [time[-8:] for time in _next(trigger, 9)] == ["11:00:00", "13:00:00"]
    assert trigger.get_next_trigger_time(None, NOW) == NOW.replace(hour=11, minute=0, second=0)
    assert trigger.count_between(NOW - timedelta(days=9), NOW + timedelta(days=9)) == 3


def test_an_interval_without_a_start_counts_from_the_first_ask() -> None:
    trigger = IntervalTrigger(minutes=5)

    first = trigger.get_next_trigger_time(UTC, None, NOW)

    assert first == NOW + timedelta(minutes=5)
    assert trigger.get_next_trigger_time(UTC, first) == NOW + timedelta(minutes=10)
    assert trigger.last_before(NOW + timedelta(minutes=14), after=NOW, timezone=UTC) == first + (
        timedelta(minutes=5)
    )
    assert trigger.last_before(NOW, timezone=UTC) is None
    assert trigger.count_between(NOW, NOW + timedelta(minutes=14), UTC) == 2


def test_a_date_comes_once_however_late() -> None:
    trigger = DateTrigger("2020-05-01T08:00:00Z")

    found = trigger.get_next_trigger_time(UTC, None, NOW)

    assert found == datetime(2020, 5, 1, 8, tzinfo=UTC)
    assert trigger.get_next_trigger_time(UTC, found) is None
    assert trigger.allow_mistrigger_by_default
    assert trigger.last_before(NOW) == found
    assert trigger.count_between(NOW, NOW + timedelta(days=1)) == 0


def test_a_date_without_a_time_is_the_first_ask() -> None:
    trigger = DateTrigger(timezone=BERLIN)

    assert trigger.get_next_trigger_time(UTC, None, NOW) == NOW
    assert trigger.get_next_trigger_time(UTC, NOW, NOW) is None


def test_a_day_is_its_midnight() -> None:
    trigger = DateTrigger(date(2026, 7, 1))

    assert str(trigger.get_next_trigger_time(BERLIN, None, NOW)) == "2026-07-01 00:00:00+02:00"


def test_a_calendar_interval_skips_what_a_month_lacks() -> None:
    monthly = CalendarIntervalTrigger(months=1, hour=9, start_at="2026-01-31", timezone="UTC")
    leap = CalendarIntervalTrigger(years=1, start_at="2024-02-29", timezone="UTC")
    weekly = CalendarIntervalTrigger(weeks=2, hour=9, start_at="2026-03-02", timezone="UTC")

    assert [t[4:14] for t in _next(monthly)] == ["2026-03-31", "2026-05-31", "2026-07-31"]
    assert [t[4:14] for t in _next(leap, 2)] == ["2028-02-29", "2032-02-29"]
    assert [t[4:14] for t in _next(weekly)] == ["2026-03-02", "2026-03-16", "2026-03-30"]


def test_and_fires_where_all_agree() -> None:
    thirteenth, friday = CronTrigger(day=13), CronTrigger(day_of_week="fri")
    trigger = AndTrigger([thirteenth, friday])

    assert _next(trigger, 2) == ["Fri 2026-03-13 00:00:00", "Fri 2026-11-13 00:00:00"]
    assert (
        str(trigger.last_before(NOW, after=NOW - timedelta(days=30), timezone=UTC))[:10]
        == "2026-02-13"
    )
    assert trigger.count_between(NOW, NOW + timedelta(days=365), UTC) == 2


def test_and_ends_where_its_triggers_never_agree() -> None:
    even, odd = CronTrigger(second="*/2"), CronTrigger(second="1/2")

    assert AndTrigger([even, odd]).get_next_trigger_time(UTC, None, NOW) is None
    assert AndTrigger([even, ShutdownTrigger()]).get_next_trigger_time(UTC, None, NOW) is None
    assert AndTrigger([]).get_next_trigger_time(UTC, None, NOW) is None


def test_and_meets_an_interval_that_has_a_start() -> None:
    trigger = AndTrigger(
        [
            IntervalTrigger(hours=36, start_at="2026-03-01T00:00Z"),
            CronTrigger(day_of_week="mon-fri"),
        ]
    )

    assert _next(trigger) == [
        "Wed 2026-03-04 00:00:00",
        "Tue 2026-03-10 00:00:00",
        "Fri 2026-03-13 00:00:00",
    ]


def test_or_fires_once_where_several_agree() -> None:
    trigger = OrTrigger([CronTrigger(hour="*/6"), CronTrigger(hour="*/4", timezone="UTC")])

    assert [t[-8:-6] for t in _next(trigger, 5)] == ["12", "16", "18", "20", "00"]
    assert trigger.count_between(NOW, NOW + timedelta(days=1), UTC) == 8


def test_or_passes_over_a_past_date_while_something_is_ahead() -> None:
    past = DateTrigger("2020-01-01T00:00:00Z")

    either = OrTrigger([past, CronTrigger(hour=12)])

    assert _next(either, 1) == ["Sun 2026-03-01 12:00:00"]
    assert OrTrigger([past]).get_next_trigger_time(UTC, None, NOW) == past.run_at
    assert _next(OrTrigger([past]), 1) == []


def test_combinations_nest() -> None:
    trigger = OrTrigger([AndTrigger([CronTrigger(day=13), CronTrigger(day_of_week="fri")])])

    assert load_trigger(trigger.model_dump(mode="json")) == trigger
    assert _next(trigger, 1) == ["Fri 2026-03-13 00:00:00"]


def test_shutdown_never_fires_by_time() -> None:
    trigger = ShutdownTrigger()

    assert trigger.get_next_trigger_time(UTC, None, NOW) is None
    assert trigger.last_before(NOW) is None
    assert trigger.count_between(NOW, NOW) == 0
    assert trigger.allow_mistrigger_by_default


class Doubling(BaseTrigger):
    """A trigger of somebody else: the wait doubles from a first minute."""

    alias: ClassVar[str] = "doubling"
    since: datetime

    def get_next_trigger_time(
        self, timezone: tzinfo | None, previous_time: datetime | None, now: datetime | None = None
    ) -> datetime | None:
        wait = timedelta(minutes=1)
        moment = previous_time or now or self.since
        while self.since + wait <= moment:
            wait *= 2
        return self.since + wait


def test_a_trigger_of_somebody_else_works_by_its_next_time_alone() -> None:
    trigger = Doubling(since=NOW)
    record = trigger.model_dump(mode="json")
    minutes = [timedelta(minutes=n) for n in (1, 2, 4, 8)]

    assert record == {"type": "doubling", "since": "2026-03-01T10:17:23Z"}
    assert load_trigger(record, {"doubling": Doubling}) == trigger
    assert trigger.get_run_times(NOW, None, 4) == [NOW + wait for wait in minutes]
    assert trigger.last_before(NOW + timedelta(minutes=7), after=NOW) == NOW + minutes[2]
    assert trigger.last_before(NOW + timedelta(minutes=7)) is None
    assert trigger.count_between(NOW, NOW + timedelta(minutes=8)) == 4


def test_a_trigger_of_somebody_else_is_loaded_inside_a_combination() -> None:
    trigger = OrTrigger([Doubling(since=NOW), CronTrigger(hour=12)])
    record = trigger.model_dump(mode="json")

    assert load_trigger(record, {"doubling": Doubling}) == trigger
    with pytest.raises(LookupError, match="unknown trigger type 'doubling'"):
        load_trigger(record)


@pytest.mark.parametrize(
    ("value", "expected", "name"),
    [
        ("Europe/Berlin", BERLIN, "Europe/Berlin"),
        (BERLIN, BERLIN, "Europe/Berlin"),
        (pytz.timezone("Europe/Berlin"), BERLIN, "Europe/Berlin"),
        (pytz.timezone("Europe/Berlin").localize(NOW.replace(tzinfo=None)).tzinfo, BERLIN,
         "Europe/Berlin"),
        (pytz.utc, ZoneInfo("UTC"), "UTC"),
        (pytz.FixedOffset(90), timezone(timedelta(minutes=90)), "+01:30"),
        ("utc", ZoneInfo("UTC"), "UTC"),
        (UTC, UTC, "+00:00"),
        ("+02:00", timezone(timedelta(hours=2)), "+02:00"),
        ("-0330", timezone(-timedelta(hours=3, minutes=30)), "-03:30"),
        ("UTC+5", timezone(timedelta(hours=5)), "+05:00"),
        ("+01:02:03", timezone(timedelta(hours=1, minutes=2, seconds=3)), "+01:02:03"),
    ],
)  # fmt: skip
def test_every_spelling_of_a_zone_is_one_zone(value: Any, expected: tzinfo, name: str) -> None:
    zone = as_timezone(value)

    assert zone == expected
    assert zone_name(zone) == name
    assert as_timezone(name) == zone


@pytest.mark.parametrize("zone", ["Europe/Berlin", BERLIN, pytz.timezone("Europe/Berlin")])
def test_results_carry_the_zone_of_the_trigger(zone: Any) -> None:
    for trigger in (
        CronTrigger(hour=9, timezone=zone),
        IntervalTrigger(seconds=5, timezone=zone),
        IntervalTrigger(seconds=5, start_at=NOW, timezone=zone),
        CalendarIntervalTrigger(timezone=zone),
        DateTrigger(NOW, timezone=zone),
    ):
        found = trigger.get_next_trigger_time(UTC, None, NOW)
        assert found is not None
        assert found.tzinfo is BERLIN


def test_without_a_zone_of_its_own_the_one_given_is_used() -> None:
    found = CronTrigger(hour=9).get_next_trigger_time(pytz.timezone("Asia/Tokyo"), NOW)

    assert found is not None
    assert found.tzinfo is ZoneInfo("Asia/Tokyo")
    assert str(found) == "2026-03-02 09:00:00+09:00"


def test_the_zone_of_the_start_is_that_of_the_trigger() -> None:
    assert CronTrigger(hour=9, start_at=NOW.astimezone(BERLIN)).timezone is BERLIN
    assert IntervalTrigger(hours=9, end_at=NOW.astimezone(BERLIN)).timezone is BERLIN


@pytest.mark.parametrize(
    ("trigger", "words"),
    [
        (CronTrigger.from_crontab("* * * * *"), "every minute"),
        (CronTrigger.from_crontab("*/5 * * * *"), "every 5 minutes"),
        (CronTrigger.from_crontab("30 9 * * mon-fri"), "at 09:30, Monday to Friday"),
        (CronTrigger.from_crontab("0 9,17 * * *"), "at 09:00 and 17:00"),
        (CronTrigger.from_crontab("0 0 1,15 * 5"),
         "at 00:00, on days 1 and 15 of the month or Friday"),
        (CronTrigger.from_crontab("0 0 L * *"), "at 00:00, on the last day of the month"),
        (CronTrigger.from_crontab("5 * * * *"), "at minute 5 of every hour"),
        (CronTrigger.from_crontab("0 0 * * 1#2"), "at 00:00, the second Monday of the month"),
        (CronTrigger.from_crontab("0 12 * * 0,7"), "at 12:00, Sunday"),
        (CronTrigger(), "every second"),
        (CronTrigger(month=6), "at 00:00, on day 1 of the month, in June"),
        (CronTrigger(day="last fri", hour=18), "at 18:00, on the last Friday of the month"),
        (IntervalTrigger(hours=1, minutes=30), "every 1 hour 30 minutes"),
        (IntervalTrigger(minutes=1), "every minute"),
        (IntervalTrigger(seconds=0.25), "every 0.25 seconds"),
        (CalendarIntervalTrigger(weeks=2, hour=9), "every 2 weeks at 09:00"),
        (DateTrigger("2030-01-01T00:00Z"), "once, at 2030-01-01 00:00:00 UTC"),
        (DateTrigger(), "once, at once"),
        (ShutdownTrigger(), "when the scheduler shuts down"),
        (AndTrigger([]), "never"),
    ],
)  # fmt: skip
def test_schedules_are_told_in_plain_words(trigger: BaseTrigger, words: str) -> None:
    assert trigger.describe() == words


def test_importing_the_triggers_reaches_for_nothing_heavy() -> None:
    code = "import sys, asyncz.triggers; print(*sys.modules)"

    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()

    for name in ("cron_descriptor", "pytz", "asyncz.triggers.cron.words"):
        assert name not in loaded


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_previews_stop_at_their_limit_and_end(limit: int) -> None:
    trigger = CronTrigger(minute=0)

    assert len(trigger.get_run_times(NOW, None, limit, UTC)) == limit
    assert trigger.get_run_times(NOW, NOW, 5, UTC) == []
    with pytest.raises(ValueError, match="limit must be 0 or more"):
        trigger.get_run_times(NOW, NOW, -1, UTC)


@pytest.mark.parametrize("moment", [datetime.max, datetime(9999, 12, 31, 23, 59), datetime.min])
def test_the_ends_of_the_calendar_are_no_error(moment: datetime) -> None:
    moment = moment.replace(tzinfo=UTC)
    for zone in ("America/New_York", "Asia/Tokyo", "UTC"):
        cron = CronTrigger(day=29, timezone=zone)
        interval = IntervalTrigger(days=40, timezone=zone)
        assert cron.get_next_trigger_time(None, moment) is None or moment.year == 1
        assert interval.get_next_trigger_time(None, moment) is None or moment.year == 1
