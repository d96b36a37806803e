"""Times that come twice or never, the ends of the calendar, bounds to the microsecond."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest

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
MICROSECOND = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
NEW_YORK = ZoneInfo("America/New_York")
# 3 November 2024, 01:30, has two turns in New York; 10 March 2024, 02:30, has none.
FIRST_TURN = datetime(2024, 11, 3, 1, 30, tzinfo=NEW_YORK)
SECOND_TURN = FIRST_TURN.replace(fold=1)
LEAPT_OVER = datetime(2024, 3, 10, 2, 30, tzinfo=NEW_YORK)


@pytest.mark.parametrize("given", ["previous", "now"])
@pytest.mark.parametrize(
    ("trigger", "first", "second"),
    [
        (CronTrigger.from_crontab("*/20 * * * *", NEW_YORK), "05:40", "06:40"),
        (CronTrigger.from_crontab("40 1 * * *", NEW_YORK), "05:40", "06:40 next day"),
        (IntervalTrigger(minutes=20, start_at="2024-11-03", timezone=NEW_YORK), "05:40", "06:40"),
        (CalendarIntervalTrigger(hour=1, minute=40, start_at="2024-11-01", timezone=NEW_YORK),
         "05:40", "06:40 next day"),
    ],
)  # fmt: skip
def test_the_turn_of_an_ambiguous_time_is_told_apart(
    trigger: BaseTrigger, first: str, second: str, given: str
) -> None:
    for moment, expected in ((FIRST_TURN, first), (SECOND_TURN, second)):
        # A second later, so that it does not matter whether the moment itself counts.
        asked = (moment.astimezone(UTC) + SECOND).astimezone(NEW_YORK)
        question = (asked, None) if given == "previous" else (None, asked)
        found = trigger.get_next_trigger_time(UTC, *question)
        assert found is not None
        day = " next day" if found.astimezone(UTC).day == 4 else ""
        assert f"{found.astimezone(UTC):%H:%M}{day}" == expected


def test_a_moment_that_was_leapt_over_is_the_instant_python_makes_of_it() -> None:
    every = CronTrigger.from_crontab("*/10 * * * *", NEW_YORK)

    assert str(every.get_next_trigger_time(None, LEAPT_OVER)) == "2024-03-10 03:40:00-04:00"
    assert str(every.last_before(LEAPT_OVER)) == "2024-03-10 03:30:00-04:00"


def test_the_two_turns_of_an_ambiguous_time_make_different_triggers() -> None:
    first, second = (IntervalTrigger(days=1, start_at=t) for t in (FIRST_TURN, SECOND_TURN))

    assert first != second
    assert load_trigger(second.model_dump(mode="json")) == second
    assert pickle.loads(pickle.dumps(second)) == second  # noqa: S301
    assert str(second.start_at) == "2024-11-03 01:30:00-05:00"


def test_an_instant_has_one_form_however_it_is_given() -> None:
    utc = LEAPT_OVER.astimezone(UTC)
    needless = datetime(2026, 1, 1, 9, tzinfo=NEW_YORK, fold=1)
    for given in (LEAPT_OVER, utc, needless):
        trigger = CronTrigger(hour=9, start_at=given, end_at=given, timezone=NEW_YORK)
        assert load_trigger(trigger.model_dump(mode="json")) == trigger
        assert trigger.start_at is not None
        assert trigger.start_at.fold == 0
        assert trigger.start_at.astimezone(UTC) == given.astimezone(UTC)


def test_an_end_is_held_against_a_start_as_instants() -> None:
    ten_past = SECOND_TURN.replace(minute=10)

    trigger = IntervalTrigger(minutes=10, start_at=FIRST_TURN, end_at=ten_past)

    assert len(trigger.get_run_times(FIRST_TURN, None, 99)) == 5
    with pytest.raises(ValueError, match="is before start_at"):
        IntervalTrigger(minutes=10, start_at=ten_past, end_at=FIRST_TURN)
    with pytest.raises(ValueError, match="is before start_at"):
        IntervalTrigger(minutes=10, start_at="2024-01-02", end_at="2024-01-01")


@pytest.mark.parametrize(
    "start", ["2024-03-10T03:00:00-04:00", "2024-03-10T02:30", "2024-11-03T01:00:00-05:00"]
)
def test_a_count_from_a_start_where_the_clocks_change_is_that_of_the_preview(start: str) -> None:
    bounds: dict[str, Any] = {"start_at": start, "timezone": NEW_YORK}
    for trigger in (
        CronTrigger(minute="*/10", **bounds),
        CronTrigger(hour="3,4", minute="10,50", **bounds),
        CalendarIntervalTrigger(hour=3, minute=10, **bounds),
        IntervalTrigger(minutes=10, **bounds),
    ):
        assert trigger.start_at is not None
        begin = trigger.start_at.astimezone(UTC) - DAY
        times = trigger.get_run_times(begin, begin + 3 * DAY, 1_000)
        assert trigger.count_between(begin, begin + 3 * DAY) == len(times)
        assert trigger.last_before(times[0]) == times[0]


STEPS: tuple[Callable[..., BaseTrigger], ...] = (
    lambda **bounds: CronTrigger(second="*", timezone="UTC", **bounds),
    lambda **bounds: IntervalTrigger(seconds=1, timezone="UTC", **bounds),
)


@pytest.mark.parametrize("make", STEPS)
def test_start_and_end_are_inclusive_to_the_microsecond(make: Callable[..., BaseTrigger]) -> None:
    trigger = make(start_at=NOW, end_at=NOW + 2 * SECOND)
    shorter = make(start_at=NOW, end_at=NOW + 2 * SECOND - MICROSECOND)
    span = NOW - DAY, NOW + DAY
    last = NOW + 2 * SECOND

    assert trigger.get_run_times(*span, 9) == [NOW, NOW + SECOND, last]
    assert shorter.get_run_times(*span, 9) == [NOW, NOW + SECOND]
    assert (trigger.count_between(*span), shorter.count_between(*span)) == (3, 2)
    assert (trigger.last_before(span[1]), shorter.last_before(span[1])) == (last, last - SECOND)
    assert trigger.get_next_trigger_time(None, None, last) == last
    assert trigger.get_next_trigger_time(None, last - MICROSECOND) == last
    assert trigger.get_next_trigger_time(None, last) is None
    assert trigger.get_next_trigger_time(None, None, last + MICROSECOND) is None
    assert trigger.last_before(NOW) == NOW
    assert trigger.last_before(NOW - MICROSECOND) is None
    assert trigger.last_before(NOW, after=NOW) is None


def test_a_start_between_two_seconds_leaves_the_first_of_them_out() -> None:
    trigger = CronTrigger(second="*", start_at=NOW + MICROSECOND, timezone="UTC")

    assert trigger.get_next_trigger_time(None, None, NOW - DAY) == NOW + SECOND
    assert trigger.last_before(NOW) is None
    assert trigger.count_between(NOW - DAY, NOW + SECOND) == 1


def test_jitter_never_passes_an_end_to_the_microsecond() -> None:
    end = NOW + 3 * MICROSECOND
    trigger = IntervalTrigger(days=1, start_at=NOW, end_at=end, jitter=50)
    calendar = CalendarIntervalTrigger(
        hour=10, minute=17, second=23, start_at=NOW, end_at=end, jitter=50
    )
    for jittered in (trigger, calendar):
        found = [jittered.get_next_trigger_time(None, None, NOW) for _ in range(60)]
        assert {t - NOW for t in found if t is not None} == {n * MICROSECOND for n in range(4)}


@pytest.mark.parametrize("jitter", [1_000_000_001, 1e300, 10**400, float("inf")])
def test_a_jitter_that_no_calendar_holds_is_refused(jitter: float) -> None:
    with pytest.raises(ValueError, match="jitter must be a number of seconds from 0 to 1000000000"):
        DateTrigger(NOW, jitter=jitter)


def test_a_delay_stays_within_the_calendar() -> None:
    end = datetime.max.replace(tzinfo=UTC)
    trigger = DateTrigger(end - DAY, jitter=10**9)

    assert all(
        end - DAY <= t <= end
        for t in (trigger.get_next_trigger_time(UTC, None, NOW) for _ in range(50))
        if t is not None
    )
    assert trigger.apply_jitter(end, 10**6, NOW) is not None


def _leaves(zone: str | None) -> list[BaseTrigger]:
    return [
        CronTrigger(hour=9, timezone=zone),
        CronTrigger.from_crontab("* * * * *", timezone=zone),
        CronTrigger(second="*", start_at="2024-01-01", end_at="2030-01-01", timezone=zone),
        IntervalTrigger(days=1, timezone=zone),
        IntervalTrigger(weeks=100_000, start_at="2024-01-01", timezone=zone),
        IntervalTrigger(seconds=1, start_at="0001-01-03", end_at="9999-12-30", timezone=zone),
        DateTrigger("2024-01-01", timezone=zone),
        DateTrigger(timezone=zone),
        CalendarIntervalTrigger(timezone=zone),
        CalendarIntervalTrigger(months=1, start_at="2024-01-31", timezone=zone),
        CalendarIntervalTrigger(days=1_000_000, start_at="2024-01-31", timezone=zone),
        ShutdownTrigger(),
    ]


ENDS = [
    end.replace(tzinfo=zone)
    for end in (datetime.min, datetime.min + MICROSECOND, datetime.max, datetime.max - DAY)
    for zone in (UTC, NEW_YORK, ZoneInfo("Asia/Tokyo"), timezone(timedelta(hours=-12)))
]


@pytest.mark.parametrize("zone", [None, "America/New_York", "Asia/Tokyo", "-12:00"])
@pytest.mark.parametrize("moment", ENDS, ids=str)
def test_the_ends_of_the_calendar_are_no_error(moment: datetime, zone: str | None) -> None:
    leaves = _leaves(zone)
    passes_by = (DateTrigger, OrTrigger)  # a one-off runs however late it is
    for trigger in (*leaves, AndTrigger(leaves[:2]), OrTrigger(leaves), AndTrigger(leaves)):
        found = trigger.get_next_trigger_time(NEW_YORK, moment)
        assert found is None or found > moment or moment.year == 1
        found = trigger.get_next_trigger_time(NEW_YORK, None, moment)
        assert found is None or found >= moment or isinstance(trigger, passes_by)
        for after in (None, *ENDS[::5]):
            latest = trigger.last_before(moment, after=after, timezone=NEW_YORK)
            assert latest is None or latest <= moment or moment.year == 1
        for other in ENDS[::5]:
            count = trigger.count_between(other, moment, NEW_YORK)
            assert count is None or count >= 0
        assert len(trigger.get_run_times(moment, None, 2, NEW_YORK)) <= 2


def test_the_last_seconds_of_the_calendar_are_still_found() -> None:
    trigger = CronTrigger(second="*/20", timezone="UTC")
    evening = datetime(9999, 12, 31, 23, 59, tzinfo=UTC)

    assert trigger.get_run_times(evening, None, 9) == [evening + n * SECOND for n in (0, 20, 40)]
    assert trigger.get_next_trigger_time(None, evening + 40 * SECOND) is None
    assert trigger.last_before(datetime.max.replace(tzinfo=UTC)) == evening + 40 * SECOND
    assert trigger.count_between(evening, datetime.max.replace(tzinfo=UTC)) == 2


def test_the_first_seconds_of_the_calendar_are_counted() -> None:
    trigger = CronTrigger(second="*/20", timezone="-12:00")
    morning = datetime(1, 1, 1, tzinfo=UTC)

    # Until noon in UTC the calendar of that zone has not begun.
    assert trigger.count_between(morning, morning + DAY / 2) == 1
    assert trigger.count_between(morning, morning + DAY / 2 + 20 * SECOND) == 2
    assert trigger.count_between(morning, morning + DAY / 4) == 0
    assert trigger.last_before(morning + DAY / 4) is None


def test_previews_begin_at_their_start_and_end_at_their_limit() -> None:
    past = DateTrigger("2020-01-01T00:00:00Z")
    either = OrTrigger([past, CronTrigger(hour=9, timezone="UTC")])
    last_day = datetime.max.replace(tzinfo=UTC) - DAY

    assert past.get_run_times(NOW, None, 5) == []
    assert past.get_run_times(NOW - 3_000 * DAY, None, 5) == [past.run_at]
    assert [t.day for t in either.get_run_times(NOW, NOW + 3 * DAY, 9)] == [2, 3, 4]
    assert len(either.get_run_times(last_day, None, 9)) == 1
    assert either.get_run_times(NOW, NOW - DAY, 9) == []
    with pytest.raises(ValueError, match=r"end=2026-03-01T00:00:00 has no time zone"):
        either.get_run_times(NOW, datetime(2026, 3, 1), 1)


@pytest.mark.parametrize("trigger", _leaves("Asia/Tokyo"), ids=str)
def test_every_trigger_survives_json_pickle_and_copies_inside_others(trigger: BaseTrigger) -> None:
    for whole in (trigger, OrTrigger([AndTrigger([trigger], jitter=1), ShutdownTrigger()])):
        again: list[Any] = [
            load_trigger(whole.model_dump(mode="json")),
            BaseTrigger.model_validate(whole.model_dump()),
            type(whole).model_validate_json(whole.model_dump_json()),
            type(whole).model_construct(**whole.model_dump()),
            pickle.loads(pickle.dumps(whole)),  # noqa: S301
            copy.copy(whole),
            copy.deepcopy(whole),
        ]
        assert all(other == whole and hash(other) == hash(whole) for other in again)
        assert {repr(other) for other in again} == {repr(whole)}
        assert whole != ShutdownTrigger(jitter=99)
        assert whole != object()
