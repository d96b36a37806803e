"""Each occurrence of a year has one record that says what became of it. See `year`."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from random import SystemRandom
from typing import Any

import pytest

from asyncz import RunState

from .year import Year

NIGHTLY = os.environ.get("ASYNCZ_NIGHTLY") == "1"
AGAIN = os.environ.get("ASYNCZ_YEAR")
"""A number that a failure has named: to have that year again."""


def _numbers() -> list[int]:
    """Those of the years: one that nobody has seen, and at night two old ones and two more."""
    if AGAIN is not None:
        return [int(AGAIN)]
    new = SystemRandom()
    return [*([1, 2] if NIGHTLY else []), *(new.randrange(2**32) for _ in range(1 + 2 * NIGHTLY))]


# The name of a test is to be the same in all processes that collect it.
@pytest.mark.parametrize("place", range(5 if NIGHTLY and AGAIN is None else 1))
def test_no_occurrence_is_unaccounted_for(place: int) -> None:
    number = _numbers()[place]
    print(f"To have this year again: ASYNCZ_YEAR={number}")  # shown if it fails
    year = Year(number)
    asyncio.run(year.pass_by())
    problems = list(year.problems())
    assert not problems, f"ASYNCZ_YEAR={number}: {len(problems)} problems: {problems[:5]}"
    states = Counter(run.state for run in year.runs)
    wanted: set[Any] = {RunState.SUCCEEDED, RunState.FAILED, RunState.SKIPPED}
    wanted |= {RunState.COALESCED, RunState.MISSED}
    assert states.keys() >= wanted, f"ASYNCZ_YEAR={number}: {states}"
    assert year.restarts > 0, f"ASYNCZ_YEAR={number}"
