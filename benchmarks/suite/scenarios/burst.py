"""One-off no-op coroutines, all due at one instant.

The clock starts at the due instant itself, not when a library notices it, so the delay of its
timer counts; it stops when the last coroutine has run. Adding is over, and all that it left behind
on the loop has been done, before the due instant: the lead is worked out from a warm-up and
doubled if it was too short. What a library still does after the last coroutine (removing tasks,
telling listeners) is told apart as ``settled``.

A heartbeat watches the loop for stalls from just before the due instant until the loop is idle.
Bare ``asyncio.create_task`` of the same coroutine, as often, is timed first in the same process.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from datetime import UTC, datetime, timedelta

from suite.adapters import Adapter
from suite.probes import Heartbeat, WatchedSelector
from suite.scenarios import Bench, Numbers

WARM_UP_TASKS = 500
WATCH_BEFORE = 0.1
ATTEMPTS = 4


class Completions:
    """Counts runs and remembers when the last of those expected ended."""

    def __init__(self) -> None:
        self.expect(0)

    def expect(self, runs: int) -> None:
        self.missing = runs
        self.ended = 0.0
        self.all_done = asyncio.Event()


completions = Completions()


async def no_operation() -> None:
    """The task: as little as tells that it has run. On module level: one library needs that."""
    completions.missing -= 1
    if completions.missing == 0:
        completions.ended = time.time()
        completions.all_done.set()


async def measure(bench: Bench) -> Numbers:
    """Microseconds a task and milliseconds of stall, for `tasks` tasks."""
    tasks: int = bench.settings["tasks"]
    bare = statistics.median([await time_bare_tasks(tasks) for _ in range(5)])
    cost = await warm_up(bench)
    lead = 0.5 + 1.3 * cost * tasks
    for _ in range(ATTEMPTS):
        scheduler = bench.scheduler()
        await scheduler.start()
        try:
            numbers = await fire(scheduler, bench.selector, tasks, lead)
        finally:
            await scheduler.stop()
        if numbers is not None:
            micros = numbers["us_per_task"]
            numbers |= {"bare_us": bare, "times_bare": micros / bare, "tasks": tasks}
            return numbers | {"runs_per_s": 1e6 / micros}
        lead *= 2
    raise RuntimeError(f"adding {tasks} tasks took longer than {lead / 2:.0f} s")


async def time_bare_tasks(tasks: int) -> float:
    """Microseconds a task for the event loop alone."""
    completions.expect(tasks)
    gc.collect()
    began = time.time()
    running = [asyncio.create_task(no_operation()) for _ in range(tasks)]
    await completions.all_done.wait()
    taken = completions.ended - began
    await asyncio.gather(*running)
    return taken / tasks * 1e6


async def warm_up(bench: Bench) -> float:
    """Let the library load what it loads on first use; return what adding a task costs, in s."""
    completions.expect(WARM_UP_TASKS)
    scheduler = bench.scheduler()
    await scheduler.start()
    began = time.perf_counter()
    now = datetime.now(UTC)
    await scheduler.add_once(no_operation, [(f"warm-{n}", now) for n in range(WARM_UP_TASKS)])
    async with asyncio.timeout(30):
        await completions.all_done.wait()
    settled = await bench.selector.idle()
    await scheduler.stop()
    return (settled - began) / WARM_UP_TASKS


async def fire(
    scheduler: Adapter, selector: WatchedSelector, tasks: int, lead: float
) -> Numbers | None:
    """One burst `lead` seconds from now; None if adding was not over in time."""
    completions.expect(tasks)
    due = datetime.now(UTC) + timedelta(seconds=lead)
    await scheduler.add_once(no_operation, [(f"task-{n:06}", due) for n in range(tasks)])
    await selector.idle()
    gc.collect()
    ahead = due.timestamp() - time.time() - WATCH_BEFORE
    if ahead < 0:
        return None
    await asyncio.sleep(ahead)
    with Heartbeat() as heartbeat:
        await completions.all_done.wait()
        await selector.idle()
        settled = time.time()
    began = due.timestamp()
    return {
        "us_per_task": (completions.ended - began) / tasks * 1e6,
        "settled_us_per_task": (settled - began) / tasks * 1e6,
        **heartbeat.figures(),
    }
