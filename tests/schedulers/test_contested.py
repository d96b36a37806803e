"""Tasks that somebody else is about to move on are tried again later each time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from asyncz.schedulers.contested import FIRST_PAUSE, LONGEST_PAUSE, Contested

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_who_loses_a_claim_looks_again_at_once() -> None:
    contested = Contested()

    assert contested.begin(0.0) == set()
    assert contested.note("a", NOON, 0.0)
    assert not contested
    assert contested.begin(0.0) == set()


def test_a_task_that_nobody_has_moved_on_is_left_alone_longer_each_time() -> None:
    contested, now, pauses = Contested(), 0.0, []
    contested.begin(now)
    contested.note("a", NOON, now)
    for _ in range(10):
        contested.begin(now)
        assert not contested.note("a", NOON, now)
        assert contested.begin(now) == {"a"}
        until = contested.next_try()
        assert until is not None
        pauses.append(round(until - now, 6))
        now = until

    assert pauses[0] == FIRST_PAUSE
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE


def test_one_that_was_moved_on_begins_anew_and_one_that_is_not_lost_again_is_forgotten() -> None:
    contested = Contested()
    for now in (0.0, 0.0):
        contested.begin(now)
        contested.note("a", NOON, now)
    assert contested

    assert contested.begin(1.0) == set()
    assert contested.note("a", NOON + timedelta(seconds=1), 1.0)
    contested.begin(2.0)
    assert not contested
    assert contested.next_try() is None
