"""The triggers of APScheduler 3: translated, they fire at the same times."""

from __future__ import annotations

import pickle
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import pytz
from apscheduler.triggers.base import BaseTrigger as OldTrigger
from apscheduler.triggers.calendarinterval import CalendarIntervalTrigger
from apscheduler.triggers.combining import AndTrigger, OrTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncz.migration.triggers import translate_trigger

START = datetime(2031, 1, 1, 0, 30, tzinfo=UTC)
TOKYO = ZoneInfo("Asia/Tokyo")
END = START + timedelta(days=40)

TRIGGERS: dict[str, Any] = {
    "date": DateTrigger(START + timedelta(hours=3)),
    "date in a zone": DateTrigger("2031-01-01 12:00:00", timezone=TOKYO),
    "interval": IntervalTrigger(hours=7, minutes=1, start_date=START, timezone=TOKYO),
    "interval with fractions": IntervalTrigger(seconds=0.25, start_date=START),
    "interval with an end": IntervalTrigger(days=9, start_date=START, end_date=END),
    "interval of pytz": IntervalTrigger(
        weeks=1, start_date=START, timezone=pytz.timezone("Asia/Tokyo")
    ),
    "every second": CronTrigger(timezone="UTC"),
    "hour": CronTrigger(hour="3,7-23/5", timezone=TOKYO),
    "minute": CronTrigger(minute="*/25", timezone="UTC", start_date=START, end_date=END),
    "weekdays": CronTrigger(day_of_week="mon-fri", hour=9, timezone=TOKYO),
    "weekdays by number": CronTrigger(day_of_week="0,6", timezone="UTC"),
    "days": CronTrigger(day="2nd fri, last sun, last", hour=1, minute=5, timezone="UTC"),
    "months and weeks": CronTrigger(
        month="jan-mar/2", week="1-9", second=3, minute=1, timezone="UTC"
    ),
    "years": CronTrigger(year="2031-2060/3", month=2, day=29, timezone="UTC"),
    "crontab": CronTrigger.from_crontab("5 0,12 1-7 * mon", timezone="UTC"),
    "calendar": CalendarIntervalTrigger(
        months=1, start_date=date(2031, 1, 31), hour=4, minute=5, second=6, timezone=TOKYO
    ),
    "calendar weeks": CalendarIntervalTrigger(weeks=2, start_date=date(2031, 1, 5), timezone="UTC"),
    "calendar with an end": CalendarIntervalTrigger(
        days=3, start_date=date(2031, 1, 5), end_date=date(2031, 1, 11), hour=23, timezone=TOKYO
    ),
    "and": AndTrigger(
        [CronTrigger(hour="*/2", timezone="UTC"), CronTrigger(hour="*/3", timezone="UTC")]
    ),
    "or": OrTrigger([CronTrigger(hour=2, timezone="UTC"), CronTrigger(hour=5, timezone=TOKYO)]),
    "nested": OrTrigger(
        [
            AndTrigger(
                [CronTrigger(day=5, timezone="UTC"), CronTrigger(day_of_week="sun", timezone="UTC")]
            ),
            CronTrigger(day=9, timezone="UTC"),
        ]
    ),
}


def fire_times(trigger: OldTrigger, number: int = 30) -> list[datetime]:
    """From the start on, as APScheduler asks for them; but its `and` can then go on for ever."""
    combined = isinstance(trigger, AndTrigger | OrTrigger)
    times: list[datetime] = []
    moment = trigger.get_next_fire_time(None, START)
    while moment is not None and len(times) < number:
        times.append(moment)
        previous = None if combined else moment
        moment = trigger.get_next_fire_time(previous, moment + timedelta(seconds=1))
    return times


def our_times(trigger: OldTrigger, number: int = 30) -> list[datetime]:
    ours = translate_trigger(pickle.loads(pickle.dumps(trigger)))  # noqa: S301
    times: list[datetime] = []
    moment = ours.get_next_trigger_time(UTC, None, START)
    while moment is not None and len(times) < number:
        times.append(moment)
        moment = ours.get_next_trigger_time(UTC, moment, moment)
    return times


@pytest.mark.parametrize("name", TRIGGERS)
def test_it_fires_at_the_same_times(name: str) -> None:
    expected = fire_times(TRIGGERS[name])
    assert our_times(TRIGGERS[name]) == expected
    assert expected != []


@settings(max_examples=150, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "month": st.sampled_from(["1-6", "*/4", "jan,oct"]),
            "day": st.sampled_from(["1-20/3", "last", "*/9"]),
            "day_of_week": st.sampled_from(["mon-wed", "5", "0-4/2"]),
            "hour": st.sampled_from(["*/6", "0", "22-23"]),
            "minute": st.sampled_from(["*/20", "59", "*"]),
            "second": st.sampled_from(["0", "30", "*/40"]),
        },
    )
)
def test_any_fields_fire_at_the_same_times(fields: dict[str, str]) -> None:
    trigger = CronTrigger(timezone="UTC", **fields)
    assert our_times(trigger, 12) == fire_times(trigger, 12)


@pytest.mark.parametrize("name", ["interval", "hour", "calendar", "and", "or"])
def test_its_jitter_is_kept(name: str) -> None:
    trigger = pickle.loads(pickle.dumps(TRIGGERS[name]))  # noqa: S301
    assert translate_trigger(trigger).jitter is None
    trigger.jitter = 12
    assert translate_trigger(trigger).jitter == 12


def test_a_trigger_of_somebody_else_is_named() -> None:
    class Own(IntervalTrigger):  # type: ignore[misc]  # APScheduler has no types
        pass

    with pytest.raises(ValueError, match="Own"):
        translate_trigger(OrTrigger([Own(hours=1)]))
