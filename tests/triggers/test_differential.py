"""Our times against those of cronsim, which is checked against Debian's cron, and APScheduler.

The differences that stay are listed, with their reasons, in docs/triggers-differences.md; each
is left out here by a condition of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given

from asyncz.triggers import CronTrigger

from .strategies import DIFFERENTIAL, ZONE_NAMES, crontabs, keyword_fields, moments, zones

cronsim = pytest.importorskip("cronsim")
peer = pytest.importorskip("apscheduler.triggers.cron")

STEPS = 4


def _theirs(expression: str, moment: datetime) -> list[datetime]:
    try:
        simulation = cronsim.CronSim(expression, moment)
        return [time.astimezone(UTC) for time in itertools.islice(simulation, STEPS)]
    except cronsim.CronSimError:
        return []


def _ours(trigger: CronTrigger, moment: datetime) -> list[datetime]:
    times = []
    following: datetime | None = moment
    for _ in range(STEPS):
        following = trigger.get_next_trigger_time(None, following)
        if following is None:
            break
        times.append(following.astimezone(UTC))
    return times


def _trigger(expression: str, zone: Any) -> CronTrigger | None:
    return _unless_never(lambda: CronTrigger.from_crontab(expression, timezone=zone))


def _unless_never(make: Callable[[], CronTrigger]) -> CronTrigger | None:
    try:
        return make()
    except ValueError as error:
        if "never comes" not in str(error):
            raise
        return None


def _is_period(expression: str) -> bool:
    minute, hour = expression.split()[-5:-3]
    return minute.startswith("*") or hour.startswith("*")


def _near_a_change(times: list[datetime], zone: ZoneInfo) -> bool:
    for time in times:
        around = {(time + timedelta(hours=n)).astimezone(zone).utcoffset() for n in range(-27, 28)}
        if len(around) > 1:
            return True
    return False


@DIFFERENTIAL
@given(crontabs(), moments())
def test_a_crontab_in_utc_has_the_times_of_cronsim(expression: str, moment: datetime) -> None:
    trigger = _trigger(expression, UTC)

    theirs = _theirs(expression, moment)

    assert (_ours(trigger, moment) if trigger else []) == theirs


@DIFFERENTIAL
@given(crontabs(seconds=True), moments())
def test_a_crontab_with_seconds_has_the_times_of_cronsim(expression: str, moment: datetime) -> None:
    trigger = _trigger(expression, UTC)

    theirs = _theirs(expression, moment)

    assert (_ours(trigger, moment) if trigger else []) == theirs


@DIFFERENTIAL
@given(crontabs(), moments(), zones)
def test_a_crontab_in_a_zone_has_the_times_of_cronsim(
    expression: str, moment: datetime, zone: ZoneInfo
) -> None:
    trigger = _trigger(expression, zone)
    theirs = _theirs(expression, moment.astimezone(zone))
    # cronsim goes by hours of 3,600 s from a place that need not exist on such days.
    assume(not (_is_period(expression) and _near_a_change([moment, *theirs], zone)))

    ours = _ours(trigger, moment) if trigger else []

    assert ours == theirs


@pytest.mark.parametrize("name", ZONE_NAMES)
def test_everyday_schedules_follow_cronsim_through_whole_years(name: str) -> None:
    zone = ZoneInfo(name)
    start = datetime(2010, 12, 25, tzinfo=zone)
    for expression in ("30 2 * * *", "0 0 * * *", "15 1,3 * * *", "30 23 * * *", "45 0-4 * * *"):
        trigger = CronTrigger.from_crontab(expression, timezone=zone)
        moment: datetime | None = start
        ours = []
        for _ in range(600):
            moment = trigger.get_next_trigger_time(None, moment)
            assert moment is not None
            ours.append(moment.astimezone(UTC))

        theirs = [
            t.astimezone(UTC) for t in itertools.islice(cronsim.CronSim(expression, start), 700)
        ]

        # cronsim gives an instant again for each time of day that was leapt over.
        assert ours == list(dict.fromkeys(theirs))[:600]


@DIFFERENTIAL
@given(keyword_fields(), moments())
def test_keyword_fields_in_utc_have_the_times_of_apscheduler(
    fields: dict[str, str], moment: datetime
) -> None:
    ours = _unless_never(lambda: CronTrigger(**fields, timezone=UTC))  # type: ignore[arg-type]
    assume(ours is not None)
    theirs = peer.CronTrigger(**fields, timezone=UTC, end_date=moment + timedelta(days=365 * 12))

    expected: datetime | None = moment
    for _ in range(STEPS):
        expected = theirs.get_next_fire_time(expected, expected)
        assert ours is not None
        moment_found = ours.get_next_trigger_time(None, moment)
        if expected is None:
            limit = datetime(2030, 1, 1, tzinfo=UTC)
            assert moment_found is None or moment_found > min(limit, theirs.end_date)
            break
        assert moment_found == expected
        moment = expected
