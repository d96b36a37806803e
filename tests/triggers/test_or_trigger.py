"""An `or` of intervals without a start: none of them may be forgotten."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from asyncz import IntervalTrigger, OrTrigger

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def either() -> OrTrigger:
    minutes = (7, 11)
    return OrTrigger(triggers=[IntervalTrigger(minutes=m, timezone="UTC") for m in minutes])


def run_times(trigger: OrTrigger, until: datetime) -> list[datetime]:
    found: list[datetime] = []
    moment = trigger.get_next_trigger_time(UTC, None, NOON)
    while moment is not None and moment <= until:
        found.append(moment)
        moment = trigger.get_next_trigger_time(UTC, moment, moment)
    return found


def test_the_longer_interval_of_an_or_trigger_fires_too(either: OrTrigger) -> None:
    shorter_alone = 8
    assert len(run_times(either, NOON + timedelta(hours=1))) > shorter_alone


def test_looking_back_finds_what_going_forward_gave(either: OrTrigger) -> None:
    forward = run_times(either, NOON + timedelta(minutes=20))
    back = either.last_before(NOON + timedelta(minutes=20), after=forward[0], timezone=UTC)
    assert back == forward[-1]
