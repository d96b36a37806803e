"""Memory that a waiting one-off task holds: its id, its due instant and the library's records.

`tracemalloc` counts what the interpreter's allocator handed out while the tasks were added and is
still held; it is exact, and it is what is judged. The growth of the resident set is measured in the
same process before that, without tracing; it includes what the allocator keeps in reserve.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from resource import RUSAGE_SELF, getpagesize, getrusage

from suite.scenarios import Bench, Numbers
from suite.scenarios.add import never_due

WARM_UP_TASKS = 500
BATCH = 500  # the loop runs after each, so that no queue of wake-ups piles up


async def measure(bench: Bench) -> Numbers:
    """Bytes a task, by both ways of counting."""
    tasks: int = bench.settings["tasks"]
    await growth(bench, WARM_UP_TASKS, resident_bytes)
    resident = await growth(bench, tasks, resident_bytes)
    tracemalloc.start()
    traced = await growth(bench, tasks, lambda: tracemalloc.get_traced_memory()[0])
    return {"traced_bytes": traced, "resident_bytes": resident, "tasks": tasks}


async def growth(bench: Bench, tasks: int, reading: Callable[[], int]) -> float:
    """How much `reading` grows for each task while `tasks` are added to a new scheduler."""
    scheduler = bench.scheduler()
    await scheduler.start()
    await bench.selector.idle()
    gc.collect()
    before = reading()
    waiting = generated_tasks(tasks)
    for _ in range(0, tasks, BATCH):
        await scheduler.add_once(never_due, islice(waiting, BATCH))
        await bench.selector.idle()
    gc.collect()
    grown = reading() - before
    await scheduler.stop()
    return grown / tasks


def generated_tasks(tasks: int) -> Iterator[tuple[str, datetime]]:
    """A new id and a new due instant for each, so that both count for as long as they are held."""
    due = datetime.now(UTC) + timedelta(hours=1)
    for n in range(tasks):
        yield f"task-{n:06}", due + timedelta(microseconds=n)


def resident_bytes() -> int:
    """The resident set now, or its peak where the platform tells only that."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * getpagesize()
    except OSError:
        return getrusage(RUSAGE_SELF).ru_maxrss * 1024
