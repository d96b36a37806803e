"""Bad input is refused by an error that names the field, the part at fault and what is allowed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

import pytest
from pydantic import ValidationError

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

BAD_CRONTABS = [
    ("", "0 fields"),
    ("* * * *", "4 fields"),
    ("* * * * * * *", "7 fields"),
    ("@reboot", "@hourly"),
    ("60 * * * *", "minute: '60' is out of range: '60'; allowed are 0 to 59"),
    ("* 24 * * *", "hour: '24' is out of range"),
    ("* * 0 * *", "day: '0' is out of range: '0'; allowed are 1 to 31"),
    ("* * * 13 *", "month: '13' is out of range: '13'; allowed are 1 to 12 or jan to dec"),
    ("* * * * 8", "day_of_week: '8' is out of range: '8'; allowed are 0 to 7"),
    ("*/0 * * * *", "minute: a step must be 1 or more: '*/0'"),
    ("*/61 * * * *", "minute: a step of '61' is longer than the range, 60 at most"),
    ("5-1 * * * *", "minute: the range ends before it starts: '5-1'"),
    ("1,,2 * * * *", "minute: empty part: '' in '1,,2'"),
    ("1, * * * *", "minute: empty part"),
    ("5/ * * * *", "minute: cannot be read: '5/'"),
    ("-5 * * * *", "minute: cannot be read: '-5'"),
    ("1.5 * * * *", "minute: cannot be read"),
    ("99999999999999999999999 * * * *", "is out of range"),
    ("*/99999999999999999999999 * * * *", "is longer than the range"),
    ("\u0665 * * * *", "contains '\u0665'"),
    ("5\x00 * * * *", "contains '\\x00'"),
    ("5\n6 * * * *", "contains '\\n'"),
    ("* * * * *\u00a0", "contains '\\xa0'"),
    ("* * * foo *", "month: 'foo' is not a name here"),
    ("* * * mon *", "month: 'mon' is not a name here"),
    ("* * * jan-sun *", "month: 'sun' is not a name here"),
    ("L * * * *", "minute: 'l' is not a name here"),
    ("* * L-1 * *", "day: 'l' is not a name here"),
    ("* * last * *", "day: 'last' is not a name here"),
    ("* * * * 1#6", "day_of_week: '6' is not from 1 to 5"),
    ("* * * * 1#0", "'0' is not from 1 to 5"),
    ("* * * * L", "day_of_week: 'l' is not a name here"),
    ("* * * * 9L", "'9' is out of range"),
    ("* * 2nd * *", "day: cannot be read"),
    ("0 0 31 2 *", "day: '31' never comes with month='2'"),
    ("0 0 31 4,6,9,11 *", "never comes"),
    ("0 0 30-31 feb *", "never comes"),
    ("* " * 50_000, "100000 characters; at most 1000 are allowed"),
    ("9" * 100_000, "100000 characters"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD_CRONTABS, ids=lambda text: text[:30])
def test_a_bad_crontab_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        CronTrigger.from_crontab(text)

    assert message in str(caught.value)
    assert str(caught.value).startswith("CronTrigger: ")
    assert len(str(caught.value)) < 400


BAD_FIELDS = [
    ({"hour": ""}, "hour: empty part: ''; allowed are 0 to 23"),
    ({"hour": " "}, "hour: empty part"),
    ({"hour": 24}, "hour: '24' is out of range: '24'; allowed are 0 to 23"),
    ({"hour": -1}, "hour: cannot be read: '-1'"),
    ({"minute": 10**5000}, "minute: '1000000000000' is out of range"),
    ({"minute": True}, "minute must be a number or an expression such as '*/5', not True"),
    ({"minute": 1.5}, "minute must be a number or an expression"),
    ({"minute": ["1"]}, "minute must be a number or an expression"),
    ({"minute": b"1"}, "minute must be a number or an expression"),
    ({"minute": "*/60"}, "minute: a step of '60' is longer than the range, 59 at most"),
    ({"minute": "10-20/11"}, "a step of '11' is longer than the range, 10 at most"),
    ({"minute": "*/0"}, "a step must be 1 or more"),
    ({"minute": "5-1"}, "the range ends before it starts"),
    ({"minute": "\u0665"}, "minute: cannot be read"),
    ({"minute": "5\n"}, "minute: cannot be read"),
    ({"minute": "5" * 100_000}, "has 100000 characters; at most 1000 are allowed"),
    ({"year": 1969}, "year: '1969' is out of range: '1969'; allowed are 1970 to 9999"),
    ({"week": 54}, "week: '54' is out of range: '54'; allowed are 1 to 53"),
    ({"week": 0}, "week: '0' is out of range"),
    ({"day_of_week": 7}, "day_of_week: '7' is out of range: '7'; allowed are 0 to 6 or mon to sun"),
    ({"day_of_week": "fri-mon"}, "the range ends before it starts"),
    ({"day": "6th fri"}, "day: '6th' is not one of 1st, 2nd, 3rd, 4th, 5th, last"),
    ({"day": "2nd foo"}, "day: 'foo' is not one of mon, tue"),
    ({"day": "2nd"}, "day: cannot be read"),
    ({"day": "L"}, "day: 'l' is not a name here"),
    ({"day": 31, "month": 2}, "day: '31' never comes with month='2'; allowed are"),
    ({"week": 53, "month": 6}, "week: '53' never comes with month='6'"),
    ({"year": 2025, "month": 2, "day": 29}, "day: '29' never comes with month='2' and year='2025'"),
    ({"timezone": "Mars/Olympus"}, "timezone: unknown time zone 'Mars/Olympus'"),
    ({"timezone": 5}, "timezone: time zone must be an IANA name"),
    ({"start_at": "soon"}, "start_at must be a datetime, a date or ISO text"),
    ({"start_at": 5}, "start_at must be a datetime"),
    ({"start_at": "2024-02-02", "end_at": "2024-02-01"}, "end_at=2024-02-01T00:00:00 is before"),
    ({"jitter": -1}, "jitter must be a number of seconds from 0 to 1000000000, not -1"),
    ({"jitter": float("nan")}, "jitter must be"),
    ({"jitter": "5"}, "jitter must be"),
    ({"allow_mistrigger_by_default": "no"}, "allow_mistrigger_by_default must be True or False"),
    ({"hours": 5}, "unknown argument 'hours'; allowed are"),
    ({"type": "date"}, "type must be 'cron', not 'date'"),
    ({"crontab": "* * * * *", "hour": 0}, "give crontab or hour, not both"),
    ({"crontab": 5}, "crontab must be text, not 5"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), BAD_FIELDS, ids=map(str, range(len(BAD_FIELDS))))
def test_bad_cron_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        CronTrigger(**arguments)

    assert message in str(caught.value)
    assert str(caught.value).startswith("CronTrigger: ")


@pytest.mark.parametrize(
    ("cls", "arguments", "message"),
    [
        (IntervalTrigger, {"seconds": -1}, "seconds must be a number, 0 or more, not -1"),
        (IntervalTrigger, {"hours": 5, "seconds": -1}, "seconds must be a number"),
        (IntervalTrigger, {"minutes": "5"}, "minutes must be a number, 0 or more, not '5'"),
        (IntervalTrigger, {"days": True}, "days must be a number, 0 or more, not True"),
        (IntervalTrigger, {"seconds": True}, "seconds must be a number, 0 or more, not True"),
        (IntervalTrigger, {"weeks": float("nan")}, "weeks must be a number, 0 or more, not nan"),
        (IntervalTrigger, {"weeks": float("inf")}, "weeks must be a number, 0 or more, not inf"),
        (IntervalTrigger, {"seconds": 1e-9}, "the interval must be from 1 microsecond"),
        (IntervalTrigger, {"weeks": 10**30}, "the interval must be from 1 microsecond"),
        (IntervalTrigger, {"weeks": 10**5000}, "weeks=a huge int"),
        (IntervalTrigger, {"second": 1}, "unknown argument 'second'; allowed are"),
        (IntervalTrigger, {"seconds": 1, "jitter": True}, "jitter must be"),
        (DateTrigger, {"run_at": "tomorrow"}, "run_at must be a datetime, a date or ISO text"),
        (DateTrigger, {"run_at": 1.5}, "run_at must be a datetime"),
        (DateTrigger, {"run_at": "٢٠٢٤-01-01"}, "run_at must be a datetime"),
        (DateTrigger, {"at": NOW}, "unknown argument 'at'; allowed are"),
        (ShutdownTrigger, {"when": 1}, "unknown argument 'when'; allowed are"),
        (CalendarIntervalTrigger, {"months": 1, "days": 1}, "give years and months, or weeks and"),
        (CalendarIntervalTrigger, {"days": -1}, "days must be a whole number from 0 to 1000000"),
        (CalendarIntervalTrigger, {"hour": 24}, "hour must be a whole number from 0 to 23"),
        (CalendarIntervalTrigger, {"days": 1.5}, "days must be a whole number"),
        (CalendarIntervalTrigger, {"days": 1, "jitter": 86_400}, "must be less than a day"),
        (AndTrigger, {"triggers": "cron"}, "triggers must be a list of triggers"),
        (OrTrigger, {"triggers": [5]}, "triggers must hold triggers or their records, not 5"),
        (OrTrigger, {"triggers": [{}]}, "must be an object with a 'type'"),
    ],
)
def test_bad_arguments_are_refused(
    cls: type[BaseTrigger], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        cls(**arguments)

    assert message in str(caught.value)


def test_triggers_nested_without_end_are_refused() -> None:
    record: dict[str, Any] = {"type": "cron"}
    for _ in range(500):
        record = {"type": "or", "triggers": [record]}

    with pytest.raises(ValueError, match="nested more than"):
        load_trigger(record)


def test_a_naive_moment_is_refused() -> None:
    naive = NOW.replace(tzinfo=None)
    for trigger in (CronTrigger(hour=9), IntervalTrigger(seconds=5), CalendarIntervalTrigger()):
        with pytest.raises(ValueError, match=r"previous_time=2026-03-01T10:17:23 has no time zone"):
            trigger.get_next_trigger_time(UTC, naive)
        with pytest.raises(ValueError, match=r"now=2026-03-01T10:17:23 has no time zone"):
            trigger.get_next_trigger_time(UTC, None, naive)


def test_a_trigger_does_not_read_the_clock_in_place_of_an_answer() -> None:
    with pytest.raises(ValueError, match="give previous_time or now"):
        CronTrigger(hour=9).get_next_trigger_time(UTC, None)


def test_an_unknown_type_is_a_lookup_error_that_lists_the_known_ones() -> None:
    with pytest.raises(LookupError, match=r"unknown trigger type 'os.system'; known are and, cal"):
        load_trigger({"type": "os.system", "args": ["true"]})


@pytest.mark.parametrize("record", [None, [], "cron", {}, {"type": 5}, {"hour": 5}])
def test_what_is_not_a_record_is_refused(record: Any) -> None:
    with pytest.raises(ValueError, match="must be an object with a 'type'"):
        load_trigger(record)


def test_a_record_with_a_bad_field_is_a_validation_error() -> None:
    with pytest.raises(ValidationError, match="hour: '25' is out of range"):
        load_trigger({"type": "cron", "hour": "25"})


def test_triggers_are_frozen() -> None:
    trigger = CronTrigger(hour=9)

    with pytest.raises(ValidationError, match="frozen"):
        trigger.hour = "10"


@pytest.mark.parametrize(
    "name", ["", " ", "Nowhere", "America", "../etc/passwd", "/etc/passwd", "Europe/Berlin\0", "é",
             "x" * 5000, "+25:00", "+01:99", "++1", "5", "\ud800"],
)  # fmt: skip
def test_a_zone_that_does_not_exist_is_an_error_that_says_so(name: str) -> None:
    with pytest.raises(ValueError, match="time zone") as caught:
        as_timezone(name)

    assert type(caught.value) is ValueError
    assert len(str(caught.value)) < 200


def test_a_zone_that_cannot_be_named_is_refused() -> None:
    class Swatch(tzinfo):
        def utcoffset(self, when: datetime | None) -> timedelta | None:
            return None if when is None else timedelta(hours=1)

        def dst(self, when: datetime | None) -> timedelta | None:
            return None

        def tzname(self, when: datetime | None) -> str:
            return "@"

    with pytest.raises(ValueError, match="of type Swatch has no IANA name"):
        as_timezone(Swatch())
    with pytest.raises(TypeError, match="not int"):
        as_timezone(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="whole number of seconds"):
        zone_name(timezone(timedelta(microseconds=1)))
