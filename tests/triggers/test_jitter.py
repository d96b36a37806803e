"""Jitter puts an occurrence off, and never repeats, skips or overtakes one."""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncz.triggers import (
    AndTrigger,
    BaseTrigger,
    CalendarIntervalTrigger,
    CronTrigger,
    DateTrigger,
    IntervalTrigger,
    OrTrigger,
)

from .strategies import ORDINARY, zones

START = datetime(2024, 3, 9, 12, 0, 30, tzinfo=UTC)

SCHEDULES = [
    {"type": "cron", "crontab": "*/5 * * * *"},
    {"type": "cron", "crontab": "30 0,1,2,3 * * *"},
    {"type": "interval", "hours": 7, "start_at": "2024-03-01T00:00:00Z"},
    {"type": "calendarinterval", "days": 1, "hour": 23, "minute": 59},
    {"type": "calendarinterval", "months": 1, "hour": 2, "start_at": "2024-01-31"},
    {"type": "or", "triggers": [{"type": "cron", "hour": "*/3"}, {"type": "cron", "minute": "50"}]},
    {
        "type": "and",
        "triggers": [{"type": "cron", "hour": "*/3"}, {"type": "cron", "hour": "9-17"}],
    },
]


@ORDINARY
@given(st.sampled_from(SCHEDULES), st.floats(0, 80_000), zones, st.integers(0, 2**32))
def test_each_occurrence_comes_once_in_order_and_within_its_jitter(
    record: dict[str, object], jitter: float, zone: object, seed: int
) -> None:
    random.seed(seed)
    plain = BaseTrigger.model_validate(record)
    jittered = BaseTrigger.model_validate({**record, "jitter": jitter})
    bases = plain.get_run_times(START, None, 8, zone)  # type: ignore[arg-type]

    moment = jittered.get_next_trigger_time(zone, None, START)  # type: ignore[arg-type]
    for base, following in itertools.pairwise(bases):
        assert moment is not None
        delay = moment.astimezone(UTC) - base.astimezone(UTC)
        assert timedelta(0) <= delay <= timedelta(seconds=jitter)
        assert moment.astimezone(UTC) < following.astimezone(UTC)
        moment = jittered.get_next_trigger_time(zone, moment)  # type: ignore[arg-type]


def test_jitter_stops_at_the_end() -> None:
    end = START + timedelta(seconds=2)
    trigger = CronTrigger(second=30, end_at=end, jitter=1_000)

    for _ in range(100):
        found = trigger.get_next_trigger_time(UTC, None, START)
        assert found is not None
        assert START <= found <= end


def test_a_jittered_interval_without_a_start_keeps_at_least_its_length() -> None:
    trigger = IntervalTrigger(seconds=10, jitter=60)
    moment = START

    for _ in range(100):
        following = trigger.get_next_trigger_time(UTC, moment)
        assert following is not None
        assert timedelta(seconds=10) <= following - moment < timedelta(seconds=20)
        moment = following


def test_a_jittered_date_still_comes_once() -> None:
    trigger = DateTrigger(START, jitter=30)

    first = trigger.get_next_trigger_time(None, None, START)

    assert first is not None
    assert START <= first <= START + timedelta(seconds=30)
    assert trigger.get_next_trigger_time(None, first) is None


def test_previews_and_counts_leave_jitter_out() -> None:
    trigger = CronTrigger(minute=0, jitter=600)
    hour = START.replace(minute=0, second=0) + timedelta(hours=1)

    assert trigger.get_run_times(START, hour, 5, UTC) == [hour]
    assert trigger.last_before(hour + timedelta(minutes=5), timezone=UTC) == hour
    assert trigger.count_between(START, hour, UTC) == 1


def test_the_jitter_of_triggers_inside_a_combination_is_left_out() -> None:
    inner = CronTrigger(minute=0, jitter=600)
    hour = START.replace(minute=0, second=0) + timedelta(hours=1)

    assert OrTrigger([inner]).get_next_trigger_time(UTC, None, START) == hour
    assert AndTrigger([inner, inner]).get_next_trigger_time(UTC, None, START) == hour


def test_apply_jitter_adds_up_to_the_seconds_given() -> None:
    trigger = IntervalTrigger(seconds=5)

    delays = {trigger.apply_jitter(START, 3, START) for _ in range(50)}

    assert trigger.apply_jitter(None, 3, START) is None
    assert trigger.apply_jitter(START, None, START) == START
    assert len(delays) > 1
    assert all(d is not None and START <= d <= START + timedelta(seconds=3) for d in delays)


@pytest.mark.parametrize("hour", [0, 12, 23])
def test_a_calendar_interval_put_off_past_midnight_does_not_drift(hour: int) -> None:
    random.seed(3)
    trigger = CalendarIntervalTrigger(days=2, hour=hour, jitter=86_000)
    moment = trigger.get_next_trigger_time(UTC, None, START)
    assert moment is not None
    first = moment - timedelta(hours=hour)

    for number in range(1, 20):
        moment = trigger.get_next_trigger_time(UTC, moment)
        assert moment is not None
        assert (moment - timedelta(hours=hour)).date() == first.date() + timedelta(days=2 * number)
