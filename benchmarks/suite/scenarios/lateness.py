"""How late one-second interval tasks start.

Task i of n is due i/n of a second after the first one, so due instants are spread evenly and what
is measured is the precision of the wake-up, not a queue. A run's lateness is the time from its due
instant to the first statement of its coroutine.

The yardstick is `loop.call_at` with the same spread on the same loop, half of it before and half of
it after the scheduler ran, so that a machine that gets busier meanwhile shows in both.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from datetime import UTC, datetime, timedelta

from suite.scenarios import Bench, Numbers

LEAD = 0.4
LINGER = 0.2  # for the last runs
EARLY = 0.99  # of a period: not late, but early by the rest of it


class Punctuality:
    """Collects how late runs were, given when numbered tasks are first and last due."""

    def __init__(self) -> None:
        self.expect(0.0, 1, 0.0)

    def expect(self, first: float, tasks: int, seconds: float) -> None:
        """Task i of `tasks` is due every second from `first` + i/`tasks`, for `seconds`."""
        self.first, self.tasks, self.seconds = first, tasks, seconds
        self.late: list[float] = []

    def note(self, number: int) -> None:
        """A run of task `number` starts now."""
        since = time.time() - self.first
        late = (since - number / self.tasks) % 1.0
        if late > EARLY:
            late -= 1.0
        if since - late < self.seconds - 0.5 / self.tasks:
            self.late.append(late)


punctuality = Punctuality()


async def note_run(number: int) -> None:
    """The task. On module level: one library needs that."""
    punctuality.note(number)


async def measure(bench: Bench) -> Numbers:
    """Lateness in ms: median and 99th percentile, for the scheduler and for the bare loop."""
    tasks, seconds = bench.settings["tasks"], bench.settings["seconds"]
    bare = await bare_lateness(tasks, bench.settings["bare_seconds"] / 2)
    scheduled = await scheduled_lateness(bench, tasks, seconds)
    bare += await bare_lateness(tasks, bench.settings["bare_seconds"] / 2)
    return {
        "p50_ms": percentile(scheduled, 50),
        "p99_ms": percentile(scheduled, 99),
        "worst_ms": max(scheduled) * 1e3,
        "bare_p50_ms": percentile(bare, 50),
        "bare_p99_ms": percentile(bare, 99),
        "over_bare_ms": percentile(scheduled, 99) - percentile(bare, 99),
        "missing_runs": tasks * seconds - len(scheduled),
        "tasks": tasks,
    }


def percentile(seconds: list[float], percent: int) -> float:
    """In ms."""
    return statistics.quantiles(seconds, n=100)[percent - 1] * 1e3


async def bare_lateness(tasks: int, seconds: float) -> list[float]:
    """Lateness of callbacks that the loop itself calls at the same spread."""
    loop = asyncio.get_running_loop()
    first = time.time() + 0.1
    offset = loop.time() - time.time()
    punctuality.expect(first, tasks, seconds)
    for n in range(round(tasks * seconds)):
        loop.call_at(first + n / tasks + offset, punctuality.note, n % tasks)
    await asyncio.sleep(first + seconds + LINGER - time.time())
    return punctuality.late


async def scheduled_lateness(bench: Bench, tasks: int, seconds: int) -> list[float]:
    """Lateness of `seconds` runs of each task; the tasks are added before the first is due."""
    scheduler = bench.scheduler()
    await scheduler.start()
    start = datetime.now(UTC) + timedelta(seconds=LEAD)
    first = start.timestamp()
    punctuality.expect(first, tasks, seconds)
    await scheduler.add_every_second(
        note_run, [(f"task-{n:03}", start + timedelta(seconds=n / tasks), n) for n in range(tasks)]
    )
    if time.time() > first:
        raise RuntimeError(f"adding {tasks} tasks took longer than {LEAD} s")
    await asyncio.sleep(first + seconds + LINGER - time.time())
    late = punctuality.late
    await scheduler.stop()
    return late
