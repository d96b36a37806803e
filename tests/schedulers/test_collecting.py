"""The garbage collector while a backlog is handed over."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from asyncz.schedulers.collecting import MANY, PagedCollection


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[tuple[int, int, int]]:
    before = gc.get_threshold()
    yield before
    gc.set_threshold(*before)
    gc.enable()


class Loop:
    """Is garbage as soon as nobody has it, for the collector."""

    def __init__(self) -> None:
        self.itself = self


def test_between_pages_the_young_are_collected_and_within_them_nothing_is(
    thresholds: tuple[int, int, int],
) -> None:
    collection = PagedCollection()
    collection.page_is_over()
    assert gc.get_threshold() == (MANY, *thresholds[1:])
    gone = weakref.ref(Loop())
    kept = [[] for _ in range(20 * thresholds[0])]  # type: ignore[var-annotated]
    assert gone() is not None
    collection.page_is_over()
    assert gone() is None
    collection.end()
    assert len(kept) == 20 * thresholds[0]
    assert gc.get_threshold() == thresholds


def test_a_backlog_of_one_page_changes_nothing(thresholds: tuple[int, int, int]) -> None:
    collection = PagedCollection()
    collection.end()
    assert gc.get_threshold() == thresholds


def test_of_several_backlogs_the_last_gives_the_thresholds_back(
    thresholds: tuple[int, int, int],
) -> None:
    one, two = PagedCollection(), PagedCollection()
    one.page_is_over()
    two.page_is_over()
    one.end()
    assert gc.get_threshold()[0] == MANY
    two.end()
    two.end()
    assert gc.get_threshold() == thresholds


@pytest.mark.parametrize("chosen", [(0, 10, 10), (MANY, 10, 10), (2 * MANY, 5, 5)])
def test_an_app_that_has_the_collector_seldom_or_never_keeps_it_so(
    chosen: tuple[int, int, int],
) -> None:
    gc.set_threshold(*chosen)
    collection = PagedCollection()
    collection.page_is_over()
    assert gc.get_threshold() == chosen
    collection.end()
    assert gc.get_threshold() == chosen


def test_a_collector_that_is_off_stays_off(thresholds: tuple[int, int, int]) -> None:
    gc.disable()
    collection = PagedCollection()
    gone = weakref.ref(Loop())
    collection.page_is_over()
    assert gone() is not None
    collection.end()
    assert not gc.isenabled()
    assert gc.get_threshold() == thresholds


def test_thresholds_that_the_app_sets_meanwhile_are_left() -> None:
    collection = PagedCollection()
    collection.page_is_over()
    gc.set_threshold(1_000, 5, 5)
    collection.end()
    assert gc.get_threshold() == (1_000, 5, 5)
