"""Tasks that are added with one schedule share its trigger, and no others do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from asyncz import BaseTrigger, NativeAsyncIOScheduler

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
TWICE = datetime(2026, 10, 25, 2, 30)


@pytest.fixture
def unstarted() -> NativeAsyncIOScheduler:
    return NativeAsyncIOScheduler(timezone="Europe/Berlin")


def test_the_same_options_give_the_same_trigger(unstarted: NativeAsyncIOScheduler) -> None:
    one, other = (unstarted.create_trigger("date", {"run_at": NOON}) for _ in range(2))
    assert one is other


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("date", {"run_at": NOON}), ("date", {"run_at": NOON + timedelta(seconds=1)})),
        (("date", {"run_at": NOON}), ("date", {})),
        (("date", {"run_at": TWICE}), ("date", {"run_at": TWICE.replace(fold=1)})),
        (("date", {"run_at": NOON}), ("date", {"run_at": NOON, "timezone": UTC})),
        (("interval", {"hours": 1}), ("interval", {"minutes": 1})),
        (("interval", {"hours": 1}), ("interval", {"hours": 1.5})),
    ],
)
def test_other_options_give_another_trigger(
    unstarted: NativeAsyncIOScheduler,
    before: tuple[str, dict[str, object]],
    after: tuple[str, dict[str, object]],
) -> None:
    first = unstarted.create_trigger(*before)
    second = unstarted.create_trigger(*after)
    assert first is not second
    assert second == NativeAsyncIOScheduler(timezone="Europe/Berlin").create_trigger(*after)


def test_an_option_that_can_change_gives_a_new_trigger(unstarted: NativeAsyncIOScheduler) -> None:
    parts: list[BaseTrigger] = [unstarted.create_trigger("interval", {"hours": 1})]
    first = unstarted.create_trigger("or", {"triggers": parts})
    parts.append(unstarted.create_trigger("interval", {"minutes": 7}))
    assert unstarted.create_trigger("or", {"triggers": parts}) != first
