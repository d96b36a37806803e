"""And, or: what they agree on going forward and back, and what a search may cost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

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
    ShutdownTrigger,
    load_trigger,
)

from .strategies import ORDINARY, SLOW, moments
from .work import calls_of

NOW = datetime(2026, 3, 1, 10, 17, 23, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
HOUR = timedelta(hours=1)
WINDOW = timedelta(days=5)

# Each of these has times on the hour only, so that all of them can be told hour by hour.
LEAVES: tuple[dict[str, Any], ...] = (
    {"type": "cron", "hour": "*/3", "timezone": "UTC"},
    {"type": "cron", "hour": "9-17", "timezone": "Europe/Berlin"},
    {"type": "cron", "crontab": "0 6 * * mon,thu", "timezone": "Asia/Tokyo"},
    {"type": "interval", "hours": 5, "start_at": "2005-01-01T00:00:00Z"},
    {"type": "interval", "hours": 7, "timezone": "UTC"},
    {"type": "calendarinterval", "days": 2, "hour": 12, "timezone": "UTC"},
    {"type": "calendarinterval", "days": 3, "hour": 6, "start_at": "2005-01-01T00:00:00Z"},
    {"type": "date", "run_at": "2026-03-02T12:00:00Z"},
    {"type": "shutdown"},
)
records: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.builds(
        lambda kind, triggers: {"type": kind, "triggers": triggers},
        st.sampled_from(("and", "or")),
        st.lists(inner, min_size=1, max_size=2),
    ),
    max_leaves=4,
)


def _happens_at(trigger: BaseTrigger, moment: datetime) -> bool:
    """Tell whether an occurrence falls on the moment, by what `and` and `or` mean."""
    if isinstance(trigger, AndTrigger):
        return all(_happens_at(child, moment) for child in trigger.triggers)
    if isinstance(trigger, OrTrigger):
        return any(_happens_at(child, moment) for child in trigger.triggers)
    return trigger.first_from(moment, UTC, None, moment) == moment


@SLOW
@given(st.sampled_from(("and", "or")), st.lists(records, min_size=1, max_size=3), moments())
def test_combinations_have_the_times_of_looking_at_every_hour(
    kind: str, triggers: list[dict[str, Any]], moment: datetime
) -> None:
    trigger = load_trigger({"type": kind, "triggers": triggers})
    start = moment.replace(minute=0, second=0, microsecond=0)
    hours = [start + n * HOUR for n in range(int(WINDOW / HOUR) + 1)]
    expected = [hour for hour in hours if _happens_at(trigger, hour)]

    found = trigger.get_run_times(start, start + WINDOW, 1_000, UTC)

    assert [t.astimezone(UTC) for t in found] == expected
    # Where searches nest a count may cost too much, but is never wrong.
    counted = trigger.count_between(start - MICROSECOND, start + WINDOW, UTC)
    assert counted in (len(expected), None)
    back = []
    latest = trigger.last_before(start + WINDOW, after=start - MICROSECOND, timezone=UTC)
    while latest is not None:
        back.append(latest.astimezone(UTC))
        before = back[-1] - MICROSECOND
        latest = trigger.last_before(before, after=start - MICROSECOND, timezone=UTC)
    assert back == expected[::-1]


@ORDINARY
@given(records, moments())
def test_nested_records_come_back_as_the_same_trigger(
    record: dict[str, Any], moment: datetime
) -> None:
    trigger = load_trigger(record)

    again = load_trigger(trigger.model_dump(mode="json"))

    assert again == trigger
    assert hash(again) == hash(trigger)
    assert again.get_next_trigger_time(UTC, None, moment) == (
        trigger.get_next_trigger_time(UTC, None, moment)
    )


def _every(seconds: int, phase: int = 0) -> IntervalTrigger:
    return IntervalTrigger(seconds=seconds, start_at=datetime(2024, 1, 1, 0, 0, phase, tzinfo=UTC))


def _costly() -> dict[str, BaseTrigger]:
    zone = "America/New_York"
    rare = AndTrigger([_every(61), _every(59), CronTrigger(second=1, timezone="UTC")])
    leap = CronTrigger(month=2, day=29, timezone=zone)
    lacking = CalendarIntervalTrigger(
        months=1, hour=3, start_at="2024-01-31", timezone="Asia/Tehran"
    )
    odd = [CronTrigger(second="1/2", timezone=zone), CronTrigger(second="*/2", timezone="UTC")]
    side_by_side = [AndTrigger([*odd, _every(n)]) for n in range(1, 99)]
    either = OrTrigger([rare, AndTrigger(odd)])
    return {
        "seconds that never agree": AndTrigger(odd),
        "a search inside a search": AndTrigger([rare, _every(7, 3)]),
        "years that never agree": AndTrigger([leap, lacking]),
        "many searches side by side": OrTrigger(side_by_side),
        "a search in an or in a search": AndTrigger([either, _every(7)]),
        "a thousand triggers": AndTrigger([*odd, *[_every(7)] * 900]),
    }


@pytest.mark.parametrize("name", _costly())
def test_no_question_to_a_combination_holds_the_loop(name: str) -> None:
    trigger = _costly()[name]
    until = NOW + timedelta(days=3_000)

    questions: dict[str, Callable[[], object]] = {
        "next": lambda: trigger.get_next_trigger_time(UTC, None, NOW),
        "last": lambda: trigger.last_before(NOW, after=NOW - timedelta(days=900)),
        "count": lambda: trigger.count_between(NOW, until),
    }
    calls = {question: calls_of(ask) for question, ask in questions.items()}

    # A few milliseconds' worth; each of these made up to hundreds of millions, unbounded.
    assert max(calls.values()) < 50_000, calls


def test_a_search_ends_in_the_same_place_each_time() -> None:
    never = AndTrigger([_every(2), _every(2, 1)])
    late = AndTrigger([_every(401), CronTrigger(hour=0, minute=0, timezone="UTC")])

    assert {never.get_next_trigger_time(UTC, None, NOW) for _ in range(3)} == {None}
    assert {late.get_next_trigger_time(UTC, None, NOW) for _ in range(3)} == {
        datetime(2026, 3, 13, tzinfo=UTC)
    }


def test_an_and_that_never_agrees_keeps_nothing_else_in_an_or_from_firing() -> None:
    never = AndTrigger([_every(2), _every(2, 1)])
    either = OrTrigger([never, OrTrigger([never, CronTrigger(hour=12)])])
    noon = NOW.replace(hour=12, minute=0, second=0)

    for trigger in (either, AndTrigger([either, CronTrigger(hour="12-14")])):
        assert trigger.get_next_trigger_time(UTC, None, NOW) == noon
        assert trigger.last_before(noon + HOUR, after=NOW, timezone=UTC) == noon


def test_counts_that_cost_too_much_are_not_known() -> None:
    crons = [CronTrigger(second="*/2"), CronTrigger(second="*/3")]
    week = NOW + timedelta(days=7)

    assert OrTrigger(crons).count_between(NOW, week, UTC) is None
    assert AndTrigger(crons).count_between(NOW, week, UTC) is None
    assert OrTrigger(crons).count_between(NOW, NOW + timedelta(minutes=1), UTC) == 40
    assert AndTrigger(crons).count_between(NOW, NOW + timedelta(minutes=1), UTC) == 10
    assert OrTrigger([crons[0], ShutdownTrigger()]).count_between(NOW, week, UTC) == 7 * 43_200
    assert AndTrigger([crons[0], ShutdownTrigger()]).count_between(NOW, week, UTC) == 0


@pytest.mark.parametrize("cls", [AndTrigger, OrTrigger])
def test_a_combination_of_nothing_never_fires(cls: type[AndTrigger | OrTrigger]) -> None:
    trigger = cls([])

    assert trigger.get_next_trigger_time(UTC, None, NOW) is None
    assert trigger.first_from(NOW, UTC, None, NOW) is None
    assert trigger.last_before(NOW, after=NOW - HOUR) is None
    assert trigger.count_between(NOW, NOW + HOUR) == 0
    assert trigger.describe() == "never"


def test_combinations_are_told_in_plain_words() -> None:
    both = [CronTrigger(hour=9), CronTrigger(day_of_week="fri")]

    assert AndTrigger(both).describe() == "at 09:00, and at the same time at 00:00, Friday"
    assert OrTrigger(both).describe() == "at 09:00, or at 00:00, Friday"


def test_a_combination_holds_a_thousand_triggers_and_no_more() -> None:
    dates = [DateTrigger(NOW + n * HOUR) for n in range(1_001)]

    assert OrTrigger(dates[:1_000]).get_next_trigger_time(UTC, NOW) == NOW + HOUR
    with pytest.raises(ValueError, match="OrTrigger: triggers are more than 1000"):
        OrTrigger(dates)
    many: BaseTrigger = CronTrigger(hour=9)
    for _ in range(8):
        many = AndTrigger([many, many])
    with pytest.raises(ValueError, match="more than 1000"):
        AndTrigger([many, many])


def test_a_combination_is_sixteen_deep_and_no_more() -> None:
    trigger: BaseTrigger = CronTrigger(hour=12)
    for _ in range(16):
        trigger = OrTrigger([trigger])

    assert load_trigger(trigger.model_dump(mode="json")) == trigger
    assert trigger.get_next_trigger_time(UTC, NOW) == NOW.replace(hour=12, minute=0, second=0)
    with pytest.raises(ValueError, match="nested more than 16 deep"):
        AndTrigger([trigger])


def test_writing_a_deep_combination_costs_as_much_as_its_triggers() -> None:
    trigger: BaseTrigger = CronTrigger(hour=12)
    for _ in range(16):
        trigger = OrTrigger([trigger])

    # 65,536 times as many when each level doubles the work.
    assert calls_of(lambda: trigger.model_dump(mode="json")) < 500
