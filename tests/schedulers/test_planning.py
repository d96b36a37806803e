"""Planning: what a due task comes to. Pure, and held against plain enumeration."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncz import BaseTrigger, CronTrigger, DateTrigger, IntervalTrigger, OrTrigger, Task
from asyncz.schedulers.holds import HoldBook
from asyncz.schedulers.planning import Missed, Plan, PlanningError, plan_task

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
TEN = IntervalTrigger(seconds=10, timezone="UTC")


def task_of(trigger: BaseTrigger | None, due: datetime | None, **options: Any) -> Task:
    return Task(print, id="a", trigger=trigger, next_run_time=due, pending=False, **options)


def plan(task: Task, now: datetime, max_catchup: int = 100) -> Plan:
    return plan_task(task, now, UTC, max_catchup)


def test_a_task_due_now_is_run_once_and_due_again_later() -> None:
    found = plan(task_of(TEN, NOON), NOON)
    assert found == Plan([NOON], 0, None, NOON + 10 * SECOND)


def test_a_one_off_task_has_no_next_run_time() -> None:
    trigger = DateTrigger(run_at=NOON, timezone="UTC")
    assert plan(task_of(trigger, NOON), NOON + SECOND) == Plan([NOON], 0, None, None)


@pytest.mark.parametrize(("late", "is_run"), [(60, True), (60.000001, False)])
def test_the_grace_time_is_the_last_instant_at_which_a_run_may_begin(
    late: float, is_run: bool
) -> None:
    hourly = IntervalTrigger(hours=1, timezone="UTC")
    found = plan(task_of(hourly, NOON), NOON + late * SECOND)
    following = NOON + timedelta(hours=1)
    expected = Plan([NOON], 0, None, following)
    missed = Plan([], 0, Missed(1, NOON, NOON), following)
    assert found == (expected if is_run else missed)


def test_without_a_grace_time_no_run_is_too_late() -> None:
    hourly = IntervalTrigger(hours=1, timezone="UTC")
    task = task_of(hourly, NOON, mistrigger_grace_time=None)
    now = NOON + timedelta(hours=2, minutes=30)
    one, two, three = (NOON + timedelta(hours=hours) for hours in (1, 2, 3))
    assert plan(task, now) == Plan([two], 2, None, three, one)


def test_coalescing_keeps_the_last_run_time() -> None:
    found = plan(task_of(TEN, NOON), NOON + 35 * SECOND)
    assert found == Plan([NOON + 30 * SECOND], 3, None, NOON + 40 * SECOND, NOON + 20 * SECOND)


def test_without_coalescing_every_run_time_is_run() -> None:
    found = plan(task_of(TEN, NOON, coalesce=False), NOON + 20 * SECOND)
    times = [NOON + seconds * SECOND for seconds in (0, 10, 20)]
    assert found == Plan(times, 0, None, NOON + 30 * SECOND)


def test_run_times_beyond_the_limit_are_missed_not_forgotten() -> None:
    task = task_of(TEN, NOON, coalesce=False, mistrigger_grace_time=None)
    found = plan(task, NOON + 90 * SECOND, max_catchup=3)
    assert found.run_times == [NOON + seconds * SECOND for seconds in (70, 80, 90)]
    assert found.missed == Missed(7, NOON, NOON + 60 * SECOND)


def test_a_backlog_that_is_too_late_altogether_is_missed() -> None:
    hourly = IntervalTrigger(hours=1, timezone="UTC")
    now = NOON + timedelta(hours=3, minutes=30)
    found = plan(task_of(hourly, NOON), now)
    last = NOON + timedelta(hours=3)
    assert found == Plan([], 0, Missed(4, NOON, last), last + timedelta(hours=1))


def test_a_second_task_due_a_year_ago_costs_no_more_than_one_due_just_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trigger = IntervalTrigger(seconds=1, timezone="UTC")
    calls = []
    ask = IntervalTrigger.get_next_trigger_time

    def count(self: IntervalTrigger, *args: Any) -> datetime | None:
        calls.append(args)
        return ask(self, *args)

    monkeypatch.setattr(IntervalTrigger, "get_next_trigger_time", count)
    found = plan(task_of(trigger, NOON), NOON + timedelta(days=365))
    assert found.coalesced == 365 * 86_400
    assert len(calls) < 10


class Stuck(BaseTrigger):
    """Gives the same run time again and again, or one before."""

    alias = "stuck"
    step: float = 0

    def get_next_trigger_time(
        self, timezone: tzinfo | None, previous_time: datetime | None, now: datetime | None = None
    ) -> datetime | None:
        return (previous_time or NOON) + self.step * SECOND


@pytest.mark.parametrize("step", [0, -1])
def test_a_trigger_that_does_not_go_on_is_an_error(step: float) -> None:
    with pytest.raises(PlanningError, match=r"of the task 'a' gave .* it must be later"):
        plan(task_of(Stuck(step=step), NOON), NOON)


class ShortSighted(BaseTrigger):
    """Goes on by ten seconds, but says that its last run time was long ago."""

    alias = "short-sighted"

    def get_next_trigger_time(
        self, timezone: tzinfo | None, previous_time: datetime | None, now: datetime | None = None
    ) -> datetime | None:
        return NOON if previous_time is None else previous_time + 10 * SECOND

    def last_before(self, moment: datetime, **options: Any) -> datetime | None:
        return NOON + 10 * SECOND


def test_a_trigger_that_contradicts_itself_is_an_error() -> None:
    with pytest.raises(PlanningError, match="as its last run time before"):
        plan(task_of(ShortSighted(), NOON), NOON + 60 * SECOND)


class Blind(BaseTrigger):
    """Goes on by a second, and cannot look back or count."""

    alias = "blind"

    def get_next_trigger_time(
        self, timezone: tzinfo | None, previous_time: datetime | None, now: datetime | None = None
    ) -> datetime | None:
        return NOON if previous_time is None else previous_time + SECOND

    def last_before(self, moment: datetime, **options: Any) -> datetime | None:
        return None

    def count_between(self, *args: Any) -> int | None:
        return None


def test_a_trigger_that_cannot_look_back_runs_what_is_due_and_goes_on_from_now() -> None:
    now = NOON + 30 * SECOND
    assert plan(task_of(Blind(), NOON), now) == Plan([NOON], 0, None, now + SECOND)


def test_a_trigger_that_cannot_look_back_misses_what_is_too_late() -> None:
    now = NOON + timedelta(hours=1)
    found = plan(task_of(Blind(), NOON), now)
    assert found == Plan([], 0, Missed(1, NOON, NOON), now + SECOND)


@pytest.mark.parametrize(("trigger", "due"), [(None, NOON), (TEN, None)])
def test_a_task_that_cannot_be_due_is_an_error(
    trigger: BaseTrigger | None, due: datetime | None
) -> None:
    with pytest.raises(PlanningError, match="'a' has no next run time or no trigger"):
        plan(task_of(trigger, due), NOON)


TRIGGERS = st.one_of(
    st.builds(IntervalTrigger, seconds=st.integers(1, 5000), timezone=st.just("UTC")),
    st.builds(CronTrigger, minute=st.sampled_from(["*/7", "5", "3,50"]), timezone=st.just("UTC")),
    st.just(CronTrigger(hour="*/2", minute=30, timezone="Europe/Berlin")),
    st.just(
        OrTrigger(
            triggers=[
                IntervalTrigger(minutes=7, start_at=NOON),
                IntervalTrigger(minutes=11, start_at=NOON),
            ]
        )
    ),
)


@given(
    trigger=TRIGGERS,
    late=st.timedeltas(timedelta(0), timedelta(hours=8)),
    coalesce=st.booleans(),
    grace=st.none() | st.floats(0.5, 10_000),
    max_catchup=st.integers(1, 20),
)
def test_every_run_time_is_run_coalesced_or_missed_exactly_once(
    trigger: BaseTrigger,
    late: timedelta,
    coalesce: bool,
    grace: float | None,
    max_catchup: int,
) -> None:
    first = trigger.get_next_trigger_time(UTC, None, NOON)
    assert first is not None
    task = task_of(trigger, first, coalesce=coalesce, mistrigger_grace_time=grace)
    now = first + late
    due = enumerate_run_times(trigger, first, now)
    found = plan(task, now, max_catchup)
    assert len(found.run_times) + found.coalesced + total(found.missed) == len(due)
    in_time = [t for t in due if grace is None or t >= now - timedelta(seconds=grace)]
    assert found.run_times == (in_time[-1:] if coalesce else in_time[-max_catchup:])
    if found.missed is not None:
        left = due[: found.missed.total]
        assert (found.missed.first, found.missed.last) == (left[0], left[-1])
    assert found.next_run_time == trigger.get_next_trigger_time(UTC, due[-1], now)


def enumerate_run_times(trigger: BaseTrigger, first: datetime, now: datetime) -> list[datetime]:
    found = [first]
    while (moment := trigger.get_next_trigger_time(UTC, found[-1], now)) and moment <= now:
        found.append(moment)
    return found


def total(missed: Missed | None) -> int:
    return missed.total if missed is not None else 0


def test_a_held_back_task_waits_longer_each_time_up_to_a_minute() -> None:
    book = HoldBook()
    waits = []
    for _ in range(9):
        book.hold("a", "error", now=100.0)
        hold = book.get("a")
        assert hold is not None
        waits.append(hold.until - 100)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_only_a_new_error_is_news() -> None:
    book = HoldBook()
    news = [book.hold("a", error, now=0) for error in ("one", "one", "two", "two", "one")]
    assert news == [True, False, True, False, True]


def test_a_task_is_held_until_its_time_has_come() -> None:
    book = HoldBook()
    book.hold("a", "error", now=0)
    book.hold("b", "error", now=5)
    assert (book.held_at(0.5), book.held_at(1), book.held_at(6)) == ({"a", "b"}, {"b"}, set())
    assert book.next_try() == 1


def test_a_released_task_starts_over() -> None:
    book = HoldBook()
    book.hold("a", "error", now=0)
    book.release("a")
    book.release("never held")
    assert not book
    assert (book.next_try(), dict(book)) == (None, {})
    assert book.hold("a", "error", now=0)
