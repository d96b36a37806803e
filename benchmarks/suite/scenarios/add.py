"""Adding one-off tasks, due in an hour, to a running scheduler.

All are due at the same instant and their ids ascend. A store that keeps a sorted list then appends
to it, which is its best case. Tasks are added by ten calls of the adapter; after each the loop runs
until it is idle, so that what a library puts off (a wake-up for every task, say) is counted too.
"""

from __future__ import annotations

import gc
import statistics
import time
from datetime import UTC, datetime, timedelta

from suite.scenarios import Bench, Numbers

TENTHS = 10
WARM_UP_TASKS = 300


async def never_due() -> None:
    """The task; the benchmark ends long before its due instant."""


def tasks_due_in_an_hour(tasks: int) -> list[tuple[str, datetime]]:
    """Ids and due instants for `tasks` tasks."""
    due = datetime.now(UTC) + timedelta(hours=1)
    return [(f"task-{n:06}", due) for n in range(tasks)]


async def measure(bench: Bench) -> Numbers:
    """Microseconds a task: in the calls, with what they put off, and how that grows."""
    tasks: int = bench.settings["tasks"]
    await add_in_tenths(bench, WARM_UP_TASKS)
    samples = []
    for _ in range(bench.settings["repeats"]):
        calls, settled = await add_in_tenths(bench, tasks)
        samples.append(
            {
                "call_us": sum(calls) / tasks * 1e6,
                "settled_us": sum(settled) / tasks * 1e6,
                "growth": settled[-1] / settled[0],
            }
        )
    medians = {name: statistics.median(sample[name] for sample in samples) for name in samples[0]}
    return medians | {"tasks": tasks}


async def add_in_tenths(bench: Bench, tasks: int) -> tuple[list[float], list[float]]:
    """Seconds for each tenth of `tasks` tasks: in the calls alone, and until the loop is idle."""
    pairs = tasks_due_in_an_hour(tasks)
    size = tasks // TENTHS
    scheduler = bench.scheduler()
    await scheduler.start()
    await bench.selector.idle()
    gc.collect()
    calls, settled = [], []
    for start in range(0, tasks, size):
        tenth = pairs[start : start + size]
        began = time.perf_counter()
        await scheduler.add_once(never_due, tenth)
        calls.append(time.perf_counter() - began)
        settled.append(await bench.selector.idle() - began)
    await scheduler.stop()
    return calls, settled
