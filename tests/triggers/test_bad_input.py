"""Bad input is refused by an error that names the field, the part at fault and what is allowed."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from importlib.resources import files
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from asyncz.timezones import as_timezone, local_timezone, zone_name
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


def _deep(levels: int) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for _ in range(levels):
        record = {"trigger": record}
    return record


HUGE = "1," * 50_000
HUGE_INPUT: tuple[Callable[[], object], ...] = (
    lambda: CronTrigger.from_crontab(HUGE),
    lambda: CronTrigger.from_crontab("* " * 50_000),
    lambda: CronTrigger(minute=HUGE),
    lambda: CronTrigger(day=[1] * 100_000),  # type: ignore[arg-type]
    lambda: CronTrigger(month="1," * 499 + "13"),
    lambda: CronTrigger(year="1971/2", day=29, week=9, month=2),
    lambda: CronTrigger(year="2001/4", day=31, week=5, month="2-12"),
    lambda: CronTrigger(hour=9, timezone=HUGE),
    lambda: CronTrigger(hour=9, start_at=HUGE),
    lambda: IntervalTrigger(seconds=HUGE),  # type: ignore[arg-type]
    lambda: IntervalTrigger(seconds=_deep(50_000)),  # type: ignore[arg-type]
    lambda: CalendarIntervalTrigger(days=HUGE),  # type: ignore[arg-type]
    lambda: DateTrigger(HUGE),
    lambda: DateTrigger("1" * 100_000),
    lambda: DateTrigger("2024-01-01T00:00:00." + "0" * 100_000),
    lambda: AndTrigger(HUGE),  # type: ignore[arg-type]
    lambda: OrTrigger([CronTrigger(hour=9)] * 100_000),
    lambda: load_trigger(_deep(50_000)),
    lambda: load_trigger({"type": HUGE}),
    lambda: as_timezone(HUGE),
)


@pytest.mark.parametrize("make", HUGE_INPUT, ids=map(str, range(len(HUGE_INPUT))))
def test_huge_input_is_refused_at_once(make: Callable[[], object]) -> None:
    spent = []
    for _ in range(4):
        began = time.thread_time()  # of this thread alone: the machine may be busy
        with pytest.raises((ValueError, LookupError)) as caught:
            make()
        spent.append(time.thread_time() - began)

    assert len(str(caught.value)) < 600
    # About a millisecond at most where nothing else runs, with the making of the input.
    assert min(spent) < 0.05


@pytest.mark.parametrize(
    "text",
    ["2024", "2024-01-01x10:00", "20240101 1", "1" * 20, "2024-01-01T10:00+",
     "2024-01-01T\u06600:00",
     "2024-13-01", "2024-01-01T25:00", "", "T10:00", "2024-01-01T10:00 Z"],
)  # fmt: skip
def test_what_only_resembles_iso_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="run_at must be a datetime, a date or ISO text"):
        DateTrigger(text)


@pytest.mark.parametrize(
    "text",
    ["2030-01-31", "20300131", "2030-W05-4", "2030-01-31T09", "2030-01-31 09:00",
     "20300131T090000Z", "2030-01-31T09:00:00.123456789+01:00", "2030-01-31T09:00:00,5-03:30:15",
     " 2030-01-31T09:00Z "],
)  # fmt: skip
def test_iso_text_in_all_its_forms_is_read(text: str) -> None:
    trigger = DateTrigger(text)

    assert trigger.run_at is not None
    assert trigger.run_at.date() == date(2030, 1, 31)
    assert load_trigger(trigger.model_dump(mode="json")) == trigger


def test_a_start_outside_of_the_calendar_of_its_zone_is_refused() -> None:
    first = datetime.min.replace(tzinfo=timezone(timedelta(hours=2)))
    for make in (CronTrigger, IntervalTrigger, CalendarIntervalTrigger):
        with pytest.raises(ValueError, match=r"start_at=0001-01-01T00:00:00.02:00 is outside of"):
            make(start_at=first)


def test_a_moment_in_a_zone_that_cannot_be_stored_is_refused_with_its_text() -> None:
    odd = NOW.astimezone(timezone(timedelta(microseconds=1)))

    with pytest.raises(ValueError, match=r"DateTrigger: 2026-03-01T10:17:23.* whole number"):
        DateTrigger(odd)


def test_a_trigger_that_holds_what_cannot_be_stored_says_so() -> None:
    class Odd(BaseTrigger):
        what: object

        def get_next_trigger_time(
            self,
            timezone: tzinfo | None,
            previous_time: datetime | None,
            now: datetime | None = None,
        ) -> datetime | None:
            return now

    with pytest.raises(ValueError, match="a trigger cannot store <object"):
        Odd(what=object()).model_dump(mode="json")
    assert Odd(what=1).describe()


def test_a_zone_read_from_a_file_without_a_name_is_refused() -> None:
    with files("tzdata.zoneinfo.Europe").joinpath("Berlin").open("rb") as data:
        unnamed = ZoneInfo.from_file(data)

    with pytest.raises(ValueError, match="time zone has no IANA name"):
        as_timezone(unnamed)


def test_the_zone_of_the_machine_has_a_name() -> None:
    assert as_timezone(zone_name(local_timezone())) == local_timezone()
    assert CronTrigger(hour=9).get_next_trigger_time(None, NOW) is not None
