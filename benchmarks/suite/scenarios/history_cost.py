"""What it costs to remember runs in memory: the burst with a history, and without one.

Without: the scheduler's account of a run, when it begins and when it ends well, is left out. No
setting does that, as it would save a microsecond a run. Both are measured in turn in one process,
so that what else the machine does falls on both.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager

from asyncz.schedulers.local_runs import LocalRuns
from suite.scenarios import Bench, Numbers
from suite.scenarios.burst import fire, warm_up

ATTEMPTS = 4


async def measure(bench: Bench) -> Numbers:
    """Microseconds a task with and without, and their ratio."""
    rounds: int = bench.settings["repeats"]
    lead = 0.5 + 1.3 * await warm_up(bench) * bench.settings["tasks"]
    samples: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(2 * rounds):
        has_history = turn % 2 == 0
        if has_history:
            samples[True].append(await burst(bench, lead))
            continue
        with no_account():
            samples[False].append(await burst(bench, lead))
    having, lacking = statistics.median(samples[True]), statistics.median(samples[False])
    tasks: int = bench.settings["tasks"]
    return {"with_us": having, "without_us": lacking, "times": having / lacking, "tasks": tasks}


async def burst(bench: Bench, lead: float) -> float:
    """Microseconds a task until the loop has nothing left to do."""
    for _ in range(ATTEMPTS):
        scheduler = bench.scheduler()
        await scheduler.start()
        try:
            numbers = await fire(scheduler, bench.selector, bench.settings["tasks"], lead)
        finally:
            await scheduler.stop()
        if numbers is not None:
            return numbers["settled_us_per_task"]
        lead *= 2
    raise RuntimeError("adding the tasks took too long")


@contextmanager
def no_account() -> Iterator[None]:
    """Schedulers keep no account of ordinary runs meanwhile."""
    kept = {name: getattr(LocalRuns, name) for name in ("_begin", "run_succeeded")}
    for name in kept:
        setattr(LocalRuns, name, lambda *_: None)
    try:
        yield
    finally:
        for name, method in kept.items():
            setattr(LocalRuns, name, method)
