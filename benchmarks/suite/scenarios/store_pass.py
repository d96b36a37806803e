"""One pass over a store of few tasks and over one of many, a few of which are due in both.

The scheduler is resumed with the due tasks in its store; the time goes on until the last of them
has run. All other tasks are due in a year.
"""

from __future__ import annotations

import gc
import statistics
import time
from datetime import UTC, datetime, timedelta

from suite.adapters import Adapter
from suite.scenarios import Bench, Numbers
from suite.scenarios.burst import completions, no_operation
from suite.scenarios.memory import resident_bytes

CHUNK = 10_000
PASSES = 21


async def measure(bench: Bench) -> Numbers:
    """Milliseconds for a pass at both sizes, and their ratio."""
    due: int = bench.settings["due"]
    small, large = bench.settings["small"], bench.settings["large"]
    scheduler = bench.scheduler()
    await scheduler.start()
    await fill(scheduler, 0, small)
    little = await time_passes(scheduler, due)
    held_little = await held_after_passes(scheduler, due)
    began = time.perf_counter()
    await fill(scheduler, small, large)
    filling = time.perf_counter() - began
    much = await time_passes(scheduler, due)
    grown = await held_after_passes(scheduler, due) - held_little
    await scheduler.stop()
    return {
        "small_ms": little,
        "large_ms": much,
        "times": much / little,
        "large": large,
        "filling_s": filling,
        "grown_kib": grown / 1024,
    }


async def held_after_passes(scheduler: Adapter, due: int) -> int:
    """What the process holds after a pass, with all that is garbage gone.

    Among few and among many, so that what differs is what the scheduler keeps of the others. The
    filling has left something in the allocator's reserve, for which the target has room.
    """
    await time_passes(scheduler, due, passes=3)
    gc.collect()
    return resident_bytes()


async def fill(scheduler: Adapter, first: int, last: int) -> None:
    """Add tasks that are not due, numbered from `first` up to `last`."""
    due = datetime.now(UTC) + timedelta(days=365)
    for start in range(first, last, CHUNK):
        numbers = range(start, min(start + CHUNK, last))
        pairs = [(f"idle-{number:07}", due) for number in numbers]
        await scheduler.add_at_once(no_operation, pairs)  # type: ignore[attr-defined]


async def time_passes(scheduler: Adapter, due: int, passes: int = PASSES) -> float:
    """The median over some passes, in ms, each with `due` new tasks that are due."""
    samples = []
    for turn in range(passes):
        await scheduler.scheduler.apause()  # type: ignore[attr-defined]
        now = datetime.now(UTC)
        pairs = [(f"due-{turn}-{number}", now) for number in range(due)]
        await scheduler.add_at_once(no_operation, pairs)  # type: ignore[attr-defined]
        completions.expect(due)
        began = time.perf_counter()
        await scheduler.scheduler.aresume()  # type: ignore[attr-defined]
        await completions.all_done.wait()
        samples.append(time.perf_counter() - began)
    return statistics.median(samples) * 1e3
