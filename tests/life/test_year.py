"""Each occurrence of a year has one record that says what became of it. See `year`."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from typing import Any

from hypothesis import Phase, example, given, note, settings
from hypothesis import strategies as st

from asyncz import RunState

from .year import Year

NIGHTLY = os.environ.get("ASYNCZ_NIGHTLY") == "1"
AGAIN = os.environ.get("ASYNCZ_YEAR")
"""A number that a failure has named: to have that year again."""
# Without the simplest one, with which each series of examples would begin.
NUMBERS = st.integers(0, 2**32 - 1).filter(bool) if AGAIN is None else st.just(int(AGAIN))


def also_those_of_old(test: Any) -> Any:
    """At night."""
    return example(number=1)(example(number=2)(test)) if NIGHTLY and AGAIN is None else test


# A simpler number is not a simpler year, so none is looked for.
@settings(max_examples=3 if NIGHTLY else 1, phases=[Phase.explicit, Phase.generate], database=None)
@also_those_of_old
@given(number=NUMBERS)
def test_no_occurrence_is_unaccounted_for(number: int) -> None:
    note(f"To have this year again: ASYNCZ_YEAR={number}")
    year = Year(number)
    asyncio.run(year.pass_by())
    problems = list(year.problems())
    assert not problems, f"ASYNCZ_YEAR={number}: {len(problems)} problems: {problems[:5]}"
    states = Counter(run.state for run in year.runs)
    wanted: set[Any] = {RunState.SUCCEEDED, RunState.FAILED, RunState.SKIPPED}
    wanted |= {RunState.COALESCED, RunState.MISSED}
    assert states.keys() >= wanted, f"ASYNCZ_YEAR={number}: {states}"
    assert year.restarts > 0, f"ASYNCZ_YEAR={number}"
