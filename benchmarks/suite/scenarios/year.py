"""The simulated year of the tests: how long it takes, and what is not accounted for in it."""

from __future__ import annotations

import sys
import time

from suite.scenarios import Bench, Numbers
from tests.life.year import Year


async def measure(bench: Bench) -> Numbers:
    """Seconds for a year, the occurrences in it, and those that no record tells of."""
    began = time.perf_counter()
    year = Year(bench.settings["number"])
    await year.pass_by()
    problems = list(year.problems())
    taken = time.perf_counter() - began
    for problem in problems[:20]:
        print(problem, file=sys.stderr)
    occurrences = sum(run.occurrences for run in year.runs)
    return {
        "seconds": taken,
        "unaccounted": len(problems),
        "occurrences": occurrences,
        "records": len(year.runs),
    }
